"""What is said of a machine with nothing but Python, and where packages are missing."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import made_up
import pytest
from made_up import complaints, write

import helpers.__main__
from helpers.doctor import host
from helpers.doctor.host import Status
from helpers.ground import paths
from helpers.machine import cards

bare_machine, root, ascend = made_up.bare_machine, made_up.root, made_up.ascend


def test_another_python(monkeypatch: pytest.MonkeyPatch) -> None:
    assert host.check_python().status is Status.OK
    monkeypatch.setattr(sys, "version_info", (3, 13, 1))
    assert host.check_python().status is Status.OK
    monkeypatch.setattr(cards, "npu_device_files", lambda: [Path("/dev/davinci0")])
    check = host.check_python()
    assert check.status is Status.FAIL  # torch_npu of CANN 8.2 and 8.3 has no wheel for it
    assert check.finding == "3.13.1, and the lock is for 3.11"
    monkeypatch.setattr(cards, "npu_device_files", list)
    monkeypatch.setattr(sys, "version_info", (3, 14, 0))
    assert host.check_python().status is Status.FAIL


@pytest.mark.parametrize("value", [None, "0", "0,1", "2,5,7"])
def test_visible_devices_in_order(value: str | None) -> None:
    assert host.check_visible_devices(value).status is Status.OK


@pytest.mark.parametrize("value", ["", "1,0", "0,0", "0,", "a", "-1", "0 1", "\u00b2"])
def test_visible_devices_out_of_order(value: str) -> None:
    assert host.check_visible_devices(value).status is Status.FAIL


def test_a_hung_driver(root: Path) -> None:
    check = host.check_driver(root, subprocess.TimeoutExpired(["npu-smi"], 10))
    assert check.status is Status.FAIL
    assert "within 10 s" in check.finding


def test_cann_is_found_named_and_sourced(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = root / "usr/local/Ascend"
    write(base / "cann-8.5.0/set_env.sh", "")
    (base / "cann").symlink_to("cann-8.5.0")
    check = host.check_cann(root)
    assert check.status is Status.OK
    assert "8.5.0" in check.finding
    assert f"source {base}/cann/set_env.sh" in host.check_set_env(root).remedy


def test_cann_that_may_not_be_read(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = root / "usr/local/Ascend/ascend-toolkit/latest/x86_64-linux/ascend_toolkit_install.info"
    write(info, "version=8.5.0\npath=/x\n")
    assert host.check_cann(root).status is Status.OK

    def refuse(*arguments: object) -> str:
        raise PermissionError("not yours")

    monkeypatch.setattr(Path, "read_text", refuse)
    assert "not readable" in host.check_cann(root).finding


def test_set_env_not_sourced_or_gone(ascend: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert host.check_set_env(ascend).status is Status.OK
    monkeypatch.setenv("ASCEND_HOME_PATH", str(ascend / "gone"))
    assert host.check_set_env(ascend).status is Status.FAIL
    monkeypatch.delenv("ASCEND_HOME_PATH")
    check = host.check_set_env(ascend)
    assert check.status is Status.FAIL
    assert "ascend-toolkit/set_env.sh" in check.remedy


def on_autodl(monkeypatch: pytest.MonkeyPatch, root: Path, mounted: bool) -> Path:
    disk = root / "root/autodl-tmp"
    disk.mkdir(parents=True)
    monkeypatch.setattr(os.path, "ismount", lambda path: mounted)
    return disk


def test_no_autodl(root: Path) -> None:
    assert host.check_data_disk(root) is None


def test_the_system_disk_of_autodl(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    disk = on_autodl(monkeypatch, root, mounted=True)
    check = host.check_data_disk(root)
    assert check
    assert check.status is Status.WARN
    assert "TUTORIAL_MODELS=/root/autodl-tmp/models" in check.remedy
    monkeypatch.setattr(paths, "MODELS", disk / "models")
    monkeypatch.setattr(paths, "RUNS", disk / "runs")
    check = host.check_data_disk(root)
    assert check
    assert check.status is Status.OK


def test_no_data_disk_on_autodl(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    on_autodl(monkeypatch, root, mounted=False)
    check = host.check_data_disk(root)
    assert check
    assert "not mounted" in check.finding


def bare(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m helpers` in a Python that has no packages: -S keeps them away."""
    return subprocess.run(
        [sys.executable, "-S", "-m", "helpers", *arguments],
        cwd=paths.ROOT, env=os.environ | env, capture_output=True, text=True,
    )  # fmt: skip


def test_without_packages_each_command_says_so() -> None:
    done = bare("run", "--profile", "smoke")
    assert done.returncode == 1
    assert done.stdout == ""
    (said,) = done.stderr.splitlines()
    assert "No module named 'typer'" in said
    assert "run 'make setup'" in said


@pytest.mark.parametrize("asked", [["--profile", "npu"], ["--profile=npu"], []])
def test_without_packages_the_doctor_checks_the_rest(asked: list[str]) -> None:
    done = bare("doctor", *asked, TUTORIAL_PROFILE="" if asked else "npu")
    assert (done.returncode, done.stderr) == (1, "")
    found = {line[5:].split(":")[0]: line[:5].strip() for line in done.stdout.splitlines()}
    assert found["Python"] == "OK"
    assert {found[name] for name in ("packages", "Ascend driver", "CANN", "set_env.sh")} == {"FAIL"}
    assert "make setup" in done.stdout


def test_without_packages_an_ascend_host_in_good_order(ascend: Path) -> None:
    found = host.examine(ImportError("No module named 'typer'"), "", root=ascend)
    assert complaints({check.name: check for check in found}) == {"packages": Status.FAIL}
    assert "25.5.1" in {check.name: check for check in found}["Ascend driver"].finding
    found = host.examine(ImportError("No module named 'typer'"), "cpu", root=ascend)
    assert [check.name for check in found] == ["Python", "packages"]


def test_a_package_missing_later_is_a_sentence_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def app(**_: object) -> None:
        raise ModuleNotFoundError("No module named 'scipy'", name="scipy")

    monkeypatch.setattr(helpers.__main__, "app", app)
    monkeypatch.setattr(sys, "argv", ["helpers", "run"])
    assert helpers.__main__.main() == 1
    assert "No module named 'scipy'" in capsys.readouterr().err


@pytest.mark.parametrize("flags", [["-S"], ["-S", "-I"]])
def test_what_the_doctor_says_first_needs_no_package(flags: list[str]) -> None:
    """With no site-packages at all: only the standard library and this repository."""
    code = (
        f"import sys; sys.path.insert(0, {str(paths.ROOT)!r}); "
        "import helpers.ground.words, helpers.doctor.host, helpers.programs.faults as faults; "
        "assert faults.sentence('disk full') and helpers.doctor.host.check_python().finding; "
        "assert not [path for path in sys.path if 'site-packages' in path]"
    )
    done = subprocess.run([sys.executable, *flags, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
