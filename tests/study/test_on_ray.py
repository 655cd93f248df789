"""Trials side by side: each on its own card, tried again, and none left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from helpers.ground import paths
from helpers.programs import process
from helpers.study import clusters, on_ray, scheduling

pytestmark = pytest.mark.skipif(
    not scheduling.PYTHON.is_file(), reason="Ray is not here: 'make .venv-study/.ready' brings it"
)
STAND_IN = Path(__file__).with_name("stand_in.py")
SECONDS = 600  # that a loaded machine may take


def plan_of(folder: Path, sockets: Path, words: dict[str, str]) -> dict[str, Any]:
    """Return a plan of stand-ins, each of which does what its words say."""
    for name, text in words.items():
        (folder / name).write_text(text)
    return {
        "trials": [
            {"name": name, "command": [sys.executable, str(STAND_IN), str(folder), name],
             "env": {}, "log": str(folder / f"{name}.log")}
            for name in words
        ],
        "kind": "cpu", "cards": 0, "workers": 2, "cores": 2, "retries": 2,
        "guard": str(paths.ROOT / "helpers/programs/guard.py"), "root": str(paths.ROOT),
        "told": str(folder / "told"), "folder": str(sockets), "address": "",
    }  # fmt: skip


@contextmanager
def begun(
    folder: Path, words: dict[str, str], token: str = "", **more: Any
) -> Iterator[subprocess.Popen[bytes]]:
    """Have on_ray.py do stand-ins; nothing of Ray is left afterwards."""
    with process.socket_folder() as sockets:
        file = folder / "plan.json"
        file.write_text(json.dumps(plan_of(folder, sockets, words) | more))
        command = [str(scheduling.PYTHON), str(paths.ROOT / "helpers/study/on_ray.py"), str(file)]
        env = {**os.environ, "RAY_AUTH_TOKEN": token}
        with process.running(command, folder / "ray.log", env=env) as running:
            yield running.guard
        wait_for(lambda: not using(sockets))


def using(sockets: Path) -> list[psutil.Process]:
    """Return the programs of Ray whose sockets lie in a folder."""
    seen = psutil.process_iter(["cmdline"])
    return [each for each in seen if str(sockets) in " ".join(each.info["cmdline"] or ())]


@contextmanager
def machine(folder: Path, host: str, token: str, first: str = "") -> Iterator[tuple[str, Path]]:
    """Start Ray as on a machine of its own, with one core; give its address and its sockets."""
    env = {**os.environ, **on_ray.QUIET, "RAY_AUTH_TOKEN": token}
    log = folder / f"{host}.log"
    for _ in range(8):  # on a busy machine Ray may end before it has started
        with process.socket_folder() as sockets:
            port, *others = on_ray.free_ports(1 + len(on_ray.PORTS))
            plan = plan_of(folder, sockets, {}) | {"workers": 1}
            own = {f"--node-ip-address={on_ray.HOST}": f"--node-ip-address={host}"}
            if first:
                own |= {"--head": f"--address={first}", f"--port={port}": "--disable-usage-stats"}
                own["--include-dashboard=false"] = "--disable-usage-stats"
            command = [str(scheduling.PYTHON)] + [
                own.get(part, part) for part in on_ray.head_command(plan, port, others)[1:]
            ]
            with process.running(command, log, env=env) as ray:
                wait_for(lambda ray=ray: "--block" in log.read_text() or ray.guard.poll())
                if ray.guard.poll() is None:
                    yield f"{host}:{port}", sockets
                    return


def starts(folder: Path, name: str) -> list[list[str]]:
    file = folder / f"{name}.starts"
    return [line.split() for line in file.read_text().splitlines()] if file.is_file() else []


def wait_for(found: Any) -> Any:
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        if value := found():
            return value
        time.sleep(0.2)
    raise AssertionError("it did not happen")


def told(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "told").read_text().splitlines()]


def test_all_are_done_what_fails_is_tried_again_and_given_up(tmp_path: Path) -> None:
    words = {"a": "ok", "b": "fail ok", "c": "fail"}
    with begun(tmp_path, words) as guard:
        assert guard.wait(SECONDS) == 0, (tmp_path / "ray.log").read_text()
    assert {name: len(starts(tmp_path, name)) for name in words} == {"a": 1, "b": 2, "c": 3}
    ended = [(e["trial"], e["code"] == 0, e["again"]) for e in told(tmp_path) if "code" in e]
    assert sorted(ended) == [
        ("a", True, False),
        ("b", False, True),
        ("b", True, False),
        ("c", False, False),
        ("c", False, True),
        ("c", False, True),
    ]
    assert "cannot go on: this was asked for." in (tmp_path / "c.log").read_text()
    assert starts(tmp_path, "a")[0][1] == "1"  # its share of two cores


def test_each_trial_sees_one_card_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASCEND_RT_VISIBLE_DEVICES", "4,6")  # of eight
    with begun(tmp_path, {"a": "hang", "b": "hang", "c": "ok"}, kind="npu", cards=2):
        wait_for(lambda: starts(tmp_path, "a") and starts(tmp_path, "b"))
        assert sorted(starts(tmp_path, name)[0][2] for name in "ab") == ["4", "6"]
        assert starts(tmp_path, "c") == []  # no card is left for it


def test_a_killed_trial_goes_on_and_a_killed_scheduler_leaves_no_orphan(tmp_path: Path) -> None:
    with begun(tmp_path, {"a": "hang"}) as guard:
        [first, *_] = wait_for(lambda: starts(tmp_path, "a"))
        os.kill(int(first[0]), signal.SIGKILL)
        second = wait_for(lambda: starts(tmp_path, "a")[1:])[0]
        parents = psutil.Process(int(second[0])).parents()
        scheduler = next(p for p in parents if any("on_ray.py" in part for part in p.cmdline()))
        assert scheduler.is_running()
        guard.kill()
    wait_for(lambda: not psutil.pid_exists(int(second[0])))


def refused(folder: Path, token: str = "one", **more: Any) -> dict[str, Any]:
    """Return what is told of a cluster that takes no trials."""
    (folder / "told").unlink(missing_ok=True)
    with begun(folder, {"a": "ok"}, token, **more) as guard:
        assert guard.wait(SECONDS) == 0, (folder / "ray.log").read_text()
    assert starts(folder, "a") == []
    [event] = told(folder)
    return {key: value for key, value in event.items() if key not in ("at", "event")}


def test_a_cluster_that_does_not_answer_is_told_before_anything_starts(tmp_path: Path) -> None:
    [port] = on_ray.free_ports(1)
    assert refused(tmp_path, address=f"{on_ray.HOST}:{port}") == {"why": "silent"}


def test_a_cluster_refuses_what_cannot_be_done_there_and_goes_on_when_a_machine_is_lost(
    tmp_path: Path,
) -> None:
    one, other = on_ray.HOST, "127.0.0.3"
    with machine(tmp_path, one, "one") as (first, _):
        told_of = refused(tmp_path, "another", address=first)
        told_by_log = str(clusters.refusal(told_of, first, tmp_path / "ray.log"))
        assert "refuses this machine's token" in told_by_log
        assert refused(tmp_path, address=first, kind="npu") == {"why": "cards"}
        nowhere = str(tmp_path / "nowhere")
        assert refused(tmp_path, address=first, guard=nowhere) == {
            "why": "folder", "node": one, "file": nowhere,
        }  # fmt: skip
        (tmp_path / "told").unlink()
        with (
            machine(tmp_path, other, "one", first) as (_, sockets),
            begun(tmp_path, {"a": "hang ok", "b": "hang ok"}, "one", address=first) as guard,
        ):
            wait_for(lambda: starts(tmp_path, "a") and starts(tmp_path, "b"))
            at = {each["trial"]: each["where"].split(",")[0] for each in told(tmp_path)}
            assert sorted(at.values()) == [one, other]
            lost, kept = sorted(at, key=lambda name: at[name] == one)
            [raylet] = [each for each in using(sockets) if each.name() == "raylet"]
            raylet.kill()
            orphan = int(starts(tmp_path, lost)[0][0])
            wait_for(lambda: not psutil.pid_exists(orphan))
            wait_for(lambda: [e for e in told(tmp_path) if e.get("again")])
            os.kill(int(starts(tmp_path, kept)[0][0]), signal.SIGKILL)
            assert guard.wait(SECONDS) == 0, (tmp_path / "ray.log").read_text()
    again = [each for each in told(tmp_path) if each.get("attempt") == 2]
    assert [each["where"].split(",")[0] for each in again] == [one, one]
    assert all(len(starts(tmp_path, name)) == 2 for name in "ab")
