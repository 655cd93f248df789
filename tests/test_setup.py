"""The set-up: one lock for every Python, one for each generation of CANN, and whose turn it is."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from helpers.ground import paths
from helpers.machine import generations
from helpers.machine.generations import MAIN_LOCK, Generation

UV = str(Path(sys.executable).with_name("uv"))
LOCKS = [MAIN_LOCK, *(one.lock for one in generations.generations())]
PROJECT = tomllib.loads((paths.ROOT / "pyproject.toml").read_text())
# What a torch does not go with, beside its own family: 2.6.0 itself pins sympy.
GIVEN_UP = {"8.2": {"sympy": "1.13.1"}}


# An Ascend's host, and the Python that uv means by "3.11".
HOST = {"sys_platform": "linux", "platform_machine": "aarch64", "platform_system": "Linux",
        "python_version": "3.11", "python_full_version": "3.11.0",
        "platform_python_implementation": "CPython"}  # fmt: skip


def pins(file: Path) -> dict[str, str]:
    """Return what a lock pins for such a host."""
    found = [Requirement(line) for line in re.findall(r"^[a-z0-9][^\\\n]*", file.read_text(), re.M)]
    return {
        one.name: str(one.specifier).removeprefix("==")
        for one in found
        if one.marker is None or one.marker.evaluate(HOST)
    }


def declared() -> dict[str, str]:
    lines = PROJECT["project"]["dependencies"]
    return dict(re.fullmatch(r"([\w-]+)==(.+)", line).groups() for line in lines if "==" in line)  # type: ignore[union-attr]


def test_the_lock_holds_what_the_project_pins() -> None:
    wanted = {
        "torch": "2.10.0", "torchvision": "0.25.0", "torchaudio": "2.10.0",
        "llamafactory": "0.9.5", "bitsandbytes": "0.48.2",
    }  # fmt: skip
    assert wanted.items() <= declared().items()
    assert declared().items() <= pins(MAIN_LOCK).items()
    assert "torch-npu" not in pins(MAIN_LOCK)


@pytest.mark.parametrize("generation", generations.generations(), ids=lambda one: one.cann)
def test_a_generations_lock_is_the_main_one_but_for_its_torch(generation: Generation) -> None:
    """Whatever was tried on other machines holds there, too."""
    main, ours = pins(MAIN_LOCK), pins(generation.lock)
    assert generation.pins.items() <= ours.items()
    assert "decorator" in ours
    differ = {name: version for name, version in ours.items() if main.get(name, version) != version}
    expected = {name: pin for name, pin in generation.pins.items() if main.get(name, pin) != pin}
    assert differ == expected | GIVEN_UP.get(generation.cann, {})
    assert main.keys() <= ours.keys()


def test_the_locks_name_no_host_nor_folder_and_hash_every_file() -> None:
    for file in LOCKS:
        text = file.read_text()
        assert "://" not in text
        assert not re.search(r"[\s(]/(tmp|dev|root|work)/", text)
        assert len(re.findall(r"^[a-z0-9._-]+==", text, re.MULTILINE)) == len(
            re.findall(r"^[a-z0-9._-]+==[^\n]*\\\n    --hash", text, re.MULTILINE)
        )


def resolved(lock: Path, platform: str, python: str) -> str:
    """Return what a lock resolves to for a machine like that, without installing anything."""
    command = [UV, "pip", "compile", "-q", "--no-header", "--python-version", python]
    command += ["--python-platform", platform, "--only-binary", "torch,torch-npu,bitsandbytes"]
    done = subprocess.run([*command, str(lock)], capture_output=True, text=True, timeout=300)
    if "Failed to fetch" in done.stderr or "error sending request" in done.stderr:
        pytest.skip("no package index can be reached")
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("platform", "python"),
    [
        ("x86_64-manylinux_2_28", "3.11"),
        ("x86_64-manylinux_2_28", "3.12"),
        ("x86_64-manylinux_2_28", "3.13"),
        ("aarch64-manylinux_2_28", "3.11"),
        ("aarch64-manylinux_2_28", "3.13"),
    ],
)
def test_the_lock_resolves_for_every_python(platform: str, python: str) -> None:
    assert "torch==2.10.0" in resolved(MAIN_LOCK, platform, python)


@pytest.mark.parametrize("generation", generations.generations(), ids=lambda one: one.cann)
def test_a_generations_lock_resolves_for_its_hosts(generation: Generation) -> None:
    (python,) = generations.pythons(ascend=True)
    found = resolved(generation.lock, "aarch64-manylinux_2_28", python)
    for name, version in generation.pins.items():
        assert f"{name}=={version}\n" in found


def test_what_cannot_be_resolved_is_noticed(tmp_path: Path) -> None:
    lock = tmp_path / "planted.lock"
    lock.write_text("torch==2.7.1\ntorch-npu==2.10.0.post4\n")
    with pytest.raises(AssertionError, match="torch"):
        resolved(lock, "aarch64-manylinux_2_28", "3.11")


def test_all_places_tell_of_the_same_pythons() -> None:
    others, ascend = generations.pythons(ascend=False), generations.pythons(ascend=True)
    assert PROJECT["project"]["requires-python"] == ">=3.11,<3.14"
    assert others == ("3.11", "3.12", "3.13")
    makefile = (paths.ROOT / "Makefile").read_text()
    assert f"VERSIONS := $(if $(ASCEND),{' '.join(ascend)},{' '.join(others)})" in makefile


def test_conda_takes_the_same_pins() -> None:
    environment = yaml.safe_load((paths.ROOT / "environment.yml").read_text())
    assert f"python{PROJECT['project']['requires-python']}" in environment["dependencies"]
    (pip,) = (entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    assert pip == ["--requirement requirements.lock"]


def test_bitsandbytes_is_the_version_that_keeps_the_weights_whole() -> None:
    text = (paths.ROOT / "pyproject.toml").read_text()
    assert "damage 4-bit weights" in text  # the pin says why


# ---- whose Python, whose lock --------------------------------------------------------------------


def planned(folder: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """What `make setup` in a fresh clone would do, or with `ready` in one that is set up."""
    for name in ("Makefile", "helpers", "pyproject.toml", *(lock.name for lock in LOCKS)):
        if not (folder / name).exists():
            (folder / name).symlink_to(paths.ROOT / name)
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS", "ASCEND_"))}
    return subprocess.run(
        ["make", "--dry-run", ".venv/.ready", *arguments],
        cwd=folder, env=kept | {"PATH": "/usr/bin:/bin"} | env, capture_output=True, text=True,
    )  # fmt: skip


def program(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)
    return file


def says(version: str) -> str:
    """A Python of some version, as far as the Makefile asks."""
    return f'case "$2" in *{version}*) exit 0 ;; esac; exit 1'


@pytest.fixture
def bin_alone(tmp_path: Path) -> Path:
    """A folder for PATH, with what `make` itself needs and no Python."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("sh", "bash", "ls", "cat", "sed", "env", "make"):
        found = next(p for p in (Path("/usr/bin") / name, Path("/bin") / name) if p.exists())
        (folder / name).symlink_to(found)
    return folder


@pytest.mark.parametrize(
    ("there", "ascend", "taken"),
    [
        ({"python3.11": "3.11", "python3.12": "3.12"}, "", "python3.11"),
        ({"python3.12": "3.12", "python3": "3.12"}, "", "python3.12"),
        ({"python3.11": "none", "python3.13": "3.13"}, "", "python3.13"),  # a shim of pyenv's
        ({"python3": "3.13"}, "", "python3"),
        ({"python3": "3.14", "conda": ""}, "", ".venv-python"),
        ({"python3.12": "3.12", "conda": ""}, "yes", ".venv-python"),
        ({"python3.12": "3.12", "python3": "3.11"}, "yes", "python3"),
    ],
)
def test_whichever_python_fits_is_taken_or_made(
    tmp_path: Path, bin_alone: Path, there: dict[str, str], ascend: str, taken: str
) -> None:
    for name, version in there.items():
        program(bin_alone / name, says(version))
    done = planned(tmp_path, f"ASCEND={ascend}", PATH=str(bin_alone), HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    making = f"{tmp_path}/bin/conda create -q -y -p .venv-python python=3.11"
    assert (making in done.stdout) == (taken == ".venv-python")
    venv = "-m venv .venv"
    assert f"{taken}/bin/python {venv}" in done.stdout or f"bin/{taken} {venv}" in done.stdout


def cann(folder: Path, version: str) -> Path:
    """A CANN, somewhere."""
    info = folder / "aarch64-linux/ascend_toolkit_install.info"
    info.parent.mkdir(parents=True)
    info.write_text(f"version={version}\npath=/x\n")
    return folder


@pytest.mark.parametrize(
    ("version", "lock"),
    [("8.2.RC1", "8.2"), ("8.4.0", "8.3"), ("8.5.2", "8.5"), ("9.0.0", "9.0"), ("9.2.0", "9.1")],
)
def test_the_set_up_takes_the_lock_of_this_machines_cann(
    tmp_path: Path, version: str, lock: str
) -> None:
    home = str(cann(tmp_path / "cann", version))
    python = f"PYTHON={sys.executable}"
    done = planned(tmp_path, python, "ASCEND=yes", ASCEND_HOME_PATH=home)
    assert f"--compile-bytecode requirements-npu-{lock}.lock " in done.stdout, done.stderr
    assert f"{sys.executable} -m helpers.programs.locks check" in done.stdout
    assert "requirements-npu" not in planned(tmp_path, python, "ASCEND=").stdout


def test_another_cann_brings_its_own_torch(tmp_path: Path) -> None:
    """What was installed for the CANN before is no longer up to date."""
    ready = tmp_path / ".venv/.ready"
    ready.parent.mkdir()
    ready.write_text("requirements-npu-8.3.lock\n")
    arguments = [f"PYTHON={sys.executable}", "ASCEND=yes"]
    old = {"ASCEND_HOME_PATH": str(cann(tmp_path / "old", "8.3.RC1"))}
    new = {"ASCEND_HOME_PATH": str(cann(tmp_path / "new", "8.5.0"))}
    assert "pip sync" not in planned(tmp_path, *arguments, **old).stdout
    assert "requirements-npu-8.5.lock" in planned(tmp_path, *arguments, **new).stdout


def test_a_host_without_cann_ends_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "Makefile").symlink_to(paths.ROOT / "Makefile")
    (tmp_path / "helpers").symlink_to(paths.ROOT / "helpers")
    (tmp_path / "pyproject.toml").symlink_to(paths.ROOT / "pyproject.toml")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS", "ASCEND_"))}
    done = subprocess.run(
        ["make", "-s", ".venv/.ready", f"PYTHON={sys.executable}", "ASCEND=yes"],
        cwd=tmp_path, env=kept | {"PATH": "/usr/bin:/bin"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    sentence, *rest = done.stderr.splitlines()
    assert sentence.startswith(("No CANN was found", "On an x86_64 host"))
    assert all(line.startswith("make") for line in rest)
    assert not (tmp_path / ".venv").exists()
