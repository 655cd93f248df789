"""Installed packages beside the lock."""

from __future__ import annotations

from pathlib import Path

import made_up
import pytest
from made_up import write

from helpers.doctor import device, packages
from helpers.doctor.host import Status
from helpers.doctor.probe import Probe
from helpers.ground.errors import TutorialError
from helpers.machine import cards, generations

bare_machine, root, ascend = made_up.bare_machine, made_up.root, made_up.ascend


def test_the_lock_is_read(tmp_path: Path) -> None:
    pinned = packages.pins(generations.MAIN_LOCK)
    assert pinned["bitsandbytes"] == "0.48.2"
    assert set(packages.PACKAGES) <= set(pinned)
    with pytest.raises(TutorialError, match="restore it with git"):
        packages.pins(tmp_path / "absent.lock")


def test_an_ascend_host_is_held_to_the_lock_of_its_cann(
    ascend: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert packages.lock_of(ascend) == generations.MAIN_LOCK
    monkeypatch.setattr(cards, "npu_device_files", lambda: [Path("/dev/davinci0")])
    assert packages.pins(packages.lock_of(ascend))["torch-npu"] == "2.10.0.post4"
    monkeypatch.delenv("ASCEND_HOME_PATH")
    assert packages.lock_of(ascend / "nowhere") == generations.MAIN_LOCK  # no CANN: said elsewhere


@pytest.mark.parametrize(
    ("package", "version", "status"),
    [
        ("torch", "2.10.0", Status.OK),
        ("torch", "2.10.0+cpu", Status.OK),
        ("torch", "2.9.1", Status.WARN),
        ("peft", None, Status.FAIL),
        ("bitsandbytes", "0.49.1", Status.FAIL),
        ("bitsandbytes", "0.50.2", Status.FAIL),
        ("bitsandbytes", "0.47.0", Status.WARN),
    ],
)
def test_versions_beside_the_lock(package: str, version: str | None, status: Status) -> None:
    pinned = {"torch": "2.10.0", "peft": "0.18.1", "bitsandbytes": "0.48.2"}
    (check,) = packages.check_packages(pinned, {package: version})
    assert check.status is status


@pytest.mark.parametrize(
    ("found", "status", "words"),
    [
        ({}, Status.OK, "3 packages"),
        ({"scipy": None}, Status.FAIL, "not installed: scipy"),
        ({"scipy": "1.0.0"}, Status.WARN, "scipy 1.0.0"),
        ({"nvidia-nccl-cu12": None}, Status.FAIL, "nvidia-nccl-cu12"),
        ({"nvidia-nccl-cu12": None, "torch": "2.10.0+cpu"}, Status.OK, "2 packages"),
    ],
)
def test_the_rest_of_the_lock(found: dict[str, str | None], status: Status, words: str) -> None:
    pinned = {"torch": "2.10.0", "scipy": "1.17.0", "nvidia-nccl-cu12": "2.27.5", "rich": "14.2.0"}
    there = {name: version for name, version in (pinned | found).items() if version}
    check = packages.check_lock(pinned, there)
    assert check.status is status
    assert words in check.finding


def test_only_pins_of_this_machine_count(tmp_path: Path) -> None:
    lock = write(
        tmp_path / "lock",
        "winsome==1.0 ; sys_platform == 'win32' \\\n    --hash=sha256:0\n"
        "here==2.0 ; python_full_version < '3.12' \\\n    --hash=sha256:1\n    # via x\n",
    )
    assert packages.pins(lock) == {"here": "2.0"}


def test_deepspeed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert packages.check_deepspeed().status is Status.OK
    monkeypatch.setattr(packages, "installed", lambda package: "0.16.9")
    assert packages.check_deepspeed().status is Status.WARN


def test_a_key_in_an_error_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWANLAB_API_KEY", "very-secret-key")
    check = device.check_torch(Probe(output="ImportError: broken by very-secret-key"))
    assert "very-secret-key" not in check.finding
    cloud = packages.check_swanlab()
    assert "cloud" in cloud.finding
    assert "very-secret-key" not in cloud.finding
    monkeypatch.delenv("SWANLAB_API_KEY")
    assert "local" in packages.check_swanlab().finding


def test_another_package_called_helpers_is_named(tmp_path: Path) -> None:
    """On PYTHONPATH it would be imported by notebooks in this one's place."""
    assert packages.check_namesakes("") is None
    assert packages.check_namesakes(f"{tmp_path}:{packages.paths.ROOT}") is None
    (tmp_path / "helpers").mkdir()
    assert packages.check_namesakes(f"{packages.paths.ROOT}:{tmp_path}") is None
    check = packages.check_namesakes(f":{tmp_path}")
    assert check is not None
    assert check.status is Status.WARN
    assert str(tmp_path) in check.finding
    assert "unset PYTHONPATH" in check.remedy
