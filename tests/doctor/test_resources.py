"""Memory, disks and the way to ModelScope."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import made_up
import psutil
import pytest
from made_up import write

from helpers.doctor import resources
from helpers.doctor.host import Status
from helpers.inputs.settings import Settings, resolve
from helpers.machine import hardware

bare_machine, root = made_up.bare_machine, made_up.root


def settings(model: str = "Qwen2-7B", profile: str = "npu") -> Settings:
    return resolve(profile, model)


def free_disk(monkeypatch: pytest.MonkeyPatch, free: float) -> None:
    monkeypatch.setattr(resources.shutil, "disk_usage", lambda path: SimpleNamespace(free=free))


@pytest.mark.parametrize(("free", "status"), [(50e9, Status.FAIL), (65e9, Status.OK)])
def test_room_for_a_7b_model(monkeypatch: pytest.MonkeyPatch, free: float, status: Status) -> None:
    free_disk(monkeypatch, free)
    (check,) = resources.check_disks(settings())
    assert check.status is status
    assert "62.7 GB needed" in check.finding  # 4 x 15.23 + 1.5 + 0.3


def test_what_is_there_needs_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    free_disk(monkeypatch, 3e9)
    wanted = settings()
    assert resources.check_disks(wanted)[0].status is Status.FAIL
    write(wanted.model.path / "model.safetensors", "weights")
    merged = [one.name for one in wanted.subjects.values() if one.kind == "merged"]
    for subject in merged:
        write(wanted.run.merged(subject) / "model.safetensors", "weights")
    assert resources.check_disks(wanted)[0].status is Status.OK


def test_a_model_of_unknown_size(tmp_path: Path) -> None:
    wanted = settings("Qwen/Qwen2.5-1.5B")
    assert resources.check_disks(wanted)[0].status is Status.WARN
    write(wanted.model.path / "model.safetensors", "x" * 1000)
    assert resources.weights_bytes(wanted) == 1000
    assert resources.check_disks(wanted)[0].status is Status.OK


def test_two_disks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    places = {tmp_path / "models": 1, tmp_path / "runs": 2}
    for place in places:
        place.mkdir()
    monkeypatch.setattr(
        resources, "_existing",
        lambda path: SimpleNamespace(stat=lambda: SimpleNamespace(st_dev=places[path])),
    )  # fmt: skip
    monkeypatch.setattr(resources.os, "access", lambda path, mode: True)
    free_disk(monkeypatch, 20e9)
    models_disk, runs_disk = resources.check_disks(settings())
    assert (models_disk.status, runs_disk.status) == (Status.OK, Status.FAIL)


def test_a_folder_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources.os, "access", lambda path, mode: False)
    (check,) = resources.check_disks(settings())
    assert check.status is Status.FAIL
    assert "cannot be written" in check.finding


def test_little_memory(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    for available, status in ((40e9, Status.OK), (20e9, Status.WARN)):
        monkeypatch.setattr(
            psutil, "virtual_memory", lambda size=available: SimpleNamespace(available=size)
        )
        assert resources.check_memory(settings(), root).status is status


def test_float32_takes_twice_the_memory(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=60e9))
    monkeypatch.setattr(hardware, "has_bf16", lambda: True)
    assert resources.check_memory(settings("Qwen2-7B", "cpu"), root).status is Status.OK
    monkeypatch.setattr(hardware, "has_bf16", lambda: False)
    check = resources.check_memory(settings("Qwen2-7B", "cpu"), root)
    assert check.status is Status.WARN
    assert "92.9 GB" in check.finding  # 6 x 15.23 + 1.5


@pytest.mark.parametrize("version", [1, 2])
def test_a_containers_limit_counts(
    monkeypatch: pytest.MonkeyPatch, root: Path, version: int
) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=90 * 10**9))
    group = root / "sys/fs/cgroup"
    if version == 1:
        group = group / "memory"
        limit, used, cached = (
            "memory.limit_in_bytes",
            "memory.usage_in_bytes",
            "total_inactive_file",
        )
    else:
        limit, used, cached = "memory.max", "memory.current", "inactive_file"
    write(group / limit, "20000000000\n")
    write(group / used, "9000000000\n")
    write(group / "memory.stat", f"anon 7\n{cached} 4000000000\nactive_file 1\n")
    assert resources.available_memory(root) == 15_000_000_000
    write(group / limit, "max\n")
    assert resources.available_memory(root) == 90_000_000_000


def test_a_proxy_that_network_turbo_left(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resources.check_proxy(settings()) is None
    monkeypatch.setenv("http_proxy", "http://name:password@proxy:1")
    monkeypatch.setenv("https_proxy", "http://name:password@proxy:1")
    check = resources.check_proxy(settings())
    assert check
    assert check.status is Status.WARN
    assert "unset http_proxy https_proxy" in check.remedy
    assert "password" not in check.finding + check.remedy
    assert resources.check_proxy(settings("tiny-random-qwen2", "smoke")) is None
