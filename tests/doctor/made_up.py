"""Made-up machines for the doctor's tests, and what it finds there.

Test modules take the fixtures by name, as their own: `root = made_up.root`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.doctor.examination import examine
from helpers.doctor.host import Check, Status
from helpers.doctor.probe import Probe
from helpers.ground import paths
from helpers.inputs.settings import resolve
from helpers.machine import cards, hardware

FIXTURES = Path(__file__).parents[1] / "fixtures" / "npu_smi"
GIB = 2**30
NPU = Probe(
    torch="2.10.0+cpu", torch_npu="2.10.0.post2", cann="9.1.0", cards=1, name="Ascend910B2",
    bf16=True, free=58 * GIB, total=61 * GIB, nf4_error=0.092,
)  # fmt: skip
CPU = Probe(torch="2.10.0", nf4_error=0.092)
CANN_MISSING = """\
Traceback (most recent call last):
ImportError: libhccl.so: cannot open shared object file: No such file or directory. Please check \
that the cann package is installed. Please run 'source set_env.sh' in the CANN installation path.
RuntimeError: Failed to load the backend extension: torch_npu. You can disable extension \
auto-loading with TORCH_DEVICE_BACKEND_AUTOLOAD=0.
"""


@pytest.fixture(autouse=True)
def bare_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without cards, keys or proxies, whose models and runs lie in tmp_path."""
    for name in ("ASCEND_HOME_PATH", "ASCEND_TOOLKIT_HOME", "ASCEND_RT_VISIBLE_DEVICES",
                 "SWANLAB_API_KEY", "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY",
                 "TUTORIAL_MODEL", "TUTORIAL_PROFILE", "TUTORIAL_RUN"):  # fmt: skip
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(cards, "npu_device_files", list)
    monkeypatch.setattr(hardware, "cuda_cards", tuple)
    monkeypatch.setattr(paths, "MODELS", tmp_path / "models")
    monkeypatch.setattr(paths, "RUNS", tmp_path / "runs")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The root of a file system with nothing in it."""
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.fixture
def ascend(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An Ascend host in good order: driver, CANN 9.1.0 sourced, npu-smi that shows one card."""
    write(root / "usr/local/Ascend/driver/version.info", "Version=25.5.1\nascendhal_version=7\n")
    latest = root / "usr/local/Ascend/ascend-toolkit/latest"
    write(
        latest / "aarch64-linux/ascend_toolkit_install.info",
        "package_name=Ascend-cann-toolkit\nversion=9.1.0\ninnerversion=V100R001\npath=/x\n",
    )
    write(latest.parent / "set_env.sh", "")
    monkeypatch.setenv("ASCEND_HOME_PATH", str(latest))
    npu_smi_says(tmp_path, monkeypatch, f"cat {FIXTURES}/910b2_23.0.7.txt")
    return root


def npu_smi_says(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    write(folder / "bin/npu-smi", f"#!/bin/sh\n{script}\n").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}/bin:/usr/bin:/bin")


def seen_by(profile: str, seen: Probe, root: Path, model: str = "Qwen2-0.5B") -> dict[str, Check]:
    """Return what the doctor finds, by the checks' names."""
    found = examine(resolve(profile, model), root=root, ask=lambda device: seen)
    assert len({check.name for check in found}) == len(found)
    for check in found:
        assert check.finding
        assert (check.remedy == "") == (check.status is Status.OK), check
        assert not check.remedy or check.remedy.endswith(".")
    return {check.name: check for check in found}


def complaints(found: dict[str, Check]) -> dict[str, Status]:
    return {name: check.status for name, check in found.items() if check.status is not Status.OK}
