"""The set-up: one set of pins, for x86_64 and aarch64, the same for pip, uv and conda."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from helpers.ground import paths

LOCK = paths.ROOT / "requirements.lock"
NPU_LOCK = paths.ROOT / "requirements-npu.lock"
UV = str(Path(sys.executable).with_name("uv"))


def pins(file: Path) -> dict[str, str]:
    """Return the pins for Python 3.11: a universal lock has some more for later versions."""
    lines = [line for line in file.read_text().splitlines() if ">= '3.12'" not in line]
    found = (re.match(r"([a-z0-9._-]+)==([^ \\;]+)", line) for line in lines)
    return dict(match.groups() for match in found if match)  # type: ignore[misc]


def declared() -> dict[str, str]:
    project = tomllib.loads((paths.ROOT / "pyproject.toml").read_text())
    lines = project["project"]["dependencies"] + project["dependency-groups"]["npu"]
    return dict(re.fullmatch(r"([\w-]+)==(.+)", line).groups() for line in lines if "==" in line)  # type: ignore[union-attr]


def test_the_locks_hold_what_the_project_pins() -> None:
    wanted = {
        "torch": "2.10.0", "torchvision": "0.25.0", "torchaudio": "2.10.0",
        "llamafactory": "0.9.5", "bitsandbytes": "0.48.2", "torch-npu": "2.10.0.post2",
    }  # fmt: skip
    assert wanted.items() <= declared().items()
    assert declared().items() <= (pins(LOCK) | pins(NPU_LOCK)).items()
    assert "torch-npu" not in pins(LOCK)


def test_the_two_locks_agree() -> None:
    both = pins(LOCK).keys() & pins(NPU_LOCK).keys()
    assert "torch" in both
    assert {name: pins(LOCK)[name] for name in both} == {
        name: pins(NPU_LOCK)[name] for name in both
    }


def test_the_locks_name_no_host_and_hash_every_file() -> None:
    for file in (LOCK, NPU_LOCK):
        text = file.read_text()
        assert "://" not in text
        assert len(re.findall(r"^[a-z0-9._-]+==", text, re.MULTILINE)) == len(
            re.findall(r"^[a-z0-9._-]+==[^\n]*\\\n    --hash", text, re.MULTILINE)
        )


@pytest.mark.parametrize(
    ("platform", "locks"),
    [
        ("x86_64-manylinux_2_28", [LOCK]),
        ("aarch64-manylinux_2_28", [LOCK]),
        ("aarch64-manylinux_2_28", [LOCK, NPU_LOCK]),
    ],
)
def test_the_locks_resolve_without_installing(
    platform: str, locks: list[Path], tmp_path: Path
) -> None:
    command = [UV, "pip", "compile", "-q", "--python-version", "3.11", "--no-header"]
    command += ["--python-platform", platform, "--only-binary", "torch,torch-npu,bitsandbytes"]
    done = subprocess.run([*command, *map(str, locks)], capture_output=True, text=True, timeout=300)
    if "Failed to fetch" in done.stderr or "error sending request" in done.stderr:
        pytest.skip("no package index can be reached")
    assert done.returncode == 0, done.stderr
    assert "torch==2.10.0" in done.stdout
    assert ("torch-npu==2.10.0.post2" in done.stdout) == (NPU_LOCK in locks)


def test_conda_takes_the_same_pins() -> None:
    environment = yaml.safe_load((paths.ROOT / "environment.yml").read_text())
    assert "python=3.11" in environment["dependencies"]
    (pip,) = (entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    assert pip == ["--requirement requirements.lock"]


def test_bitsandbytes_is_the_version_that_keeps_the_weights_whole() -> None:
    text = (paths.ROOT / "pyproject.toml").read_text()
    assert "damage 4-bit weights" in text  # the pin says why
