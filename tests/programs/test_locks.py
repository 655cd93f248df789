"""What the Makefile is answered: the lock's name, a warning, or why there is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from helpers.machine import generations
from helpers.programs import kernel, locks


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An Ascend host of AutoDL's kind with CANN 8.2, and no set-up yet."""
    for name in ("ASCEND_HOME_PATH", "ASCEND_TOOLKIT_HOME"):
        monkeypatch.setenv(name, "")  # so that it is taken back afterwards
    monkeypatch.setattr(generations.platform, "machine", lambda: "aarch64")
    monkeypatch.setattr(kernel, "cann_changes", dict)
    cann(tmp_path / "usr/local/Ascend/ascend-toolkit/latest", "8.2.RC1")
    return tmp_path


def cann(folder: Path, version: str) -> Path:
    info = folder / "aarch64-linux/ascend_toolkit_install.info"
    info.parent.mkdir(parents=True)
    info.write_text(f"version={version}\npath=/x\n")
    return folder


def test_the_locks_name(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert locks.main([], root) == 0
    assert locks.main([], root / "nowhere") == 0
    assert capsys.readouterr().out.split("\n") == ["requirements-npu-8.2.lock", "", ""]


def test_the_cann_of_the_set_up_goes_before_the_images(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One on the data disk was sourced once, for `make setup`; later shells need not know of it."""
    own = cann(root / "data/cann", "8.5.0")
    (own / "set_env.sh").write_text(f"export ASCEND_HOME_PATH={own}\n")
    venv = root / "venv"
    venv.mkdir()
    settings = {"ASCEND_HOME_PATH": {"value": str(own), "adds": False}}
    kept = {"script": str(own / "set_env.sh"), "settings": settings}
    (venv / "cann.json").write_text(json.dumps(kept))
    monkeypatch.undo()
    for name in ("ASCEND_HOME_PATH", "ASCEND_TOOLKIT_HOME"):
        monkeypatch.setenv(name, "")
    changed = kernel.cann_changes(venv)
    assert changed == {"ASCEND_HOME_PATH": str(own)}
    monkeypatch.setattr(kernel, "cann_changes", lambda: changed)
    assert locks.main([], root) == 0
    assert capsys.readouterr().out == "requirements-npu-8.5.lock\n"


def test_a_doubt_is_a_warning(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert locks.main(["check"], root) == 0
    assert capsys.readouterr().err == ""
    (root / "usr/local/Ascend/cann-8.4.0").mkdir()
    assert locks.main(["check"], root) == 0
    assert capsys.readouterr().err.startswith("WARN: CANN 8.4.0 has no lock of its own")


def test_no_set_up_is_a_sentence(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert locks.main(["check"], root / "nowhere") == 1
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("No CANN was found")
