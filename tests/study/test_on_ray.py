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
from helpers.study import scheduling

pytestmark = pytest.mark.skipif(
    not scheduling.PYTHON.is_file(), reason="Ray is not here: 'make .venv-study/.ready' brings it"
)
STAND_IN = Path(__file__).with_name("stand_in.py")
SECONDS = 240  # that a loaded machine may take


@contextmanager
def begun(folder: Path, words: dict[str, str], **more: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Have on_ray.py do stand-ins, each of which does what its words say."""
    for name, text in words.items():
        (folder / name).write_text(text)
    with process.socket_folder() as sockets:
        plan = {
            "trials": [
                {"name": name, "command": [sys.executable, str(STAND_IN), str(folder), name],
                 "env": {}, "log": str(folder / f"{name}.log")}
                for name in words
            ],
            "kind": "cpu", "cards": 0, "workers": 2, "cores": 2, "retries": 2,
            "guard": str(paths.ROOT / "helpers/programs/guard.py"), "root": str(paths.ROOT),
            "told": str(folder / "told"), "folder": str(sockets),
        } | more  # fmt: skip
        file = folder / "plan.json"
        file.write_text(json.dumps(plan))
        command = [str(scheduling.PYTHON), str(paths.ROOT / "helpers/study/on_ray.py"), str(file)]
        with process.running(command, folder / "ray.log") as running:
            yield running.guard


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


def test_each_trial_sees_one_card_of_its_own(tmp_path: Path) -> None:
    with begun(tmp_path, {"a": "hang", "b": "hang", "c": "ok"}, kind="npu", cards=2):
        wait_for(lambda: starts(tmp_path, "a") and starts(tmp_path, "b"))
        assert sorted(starts(tmp_path, name)[0][2] for name in "ab") == ["0", "1"]
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
