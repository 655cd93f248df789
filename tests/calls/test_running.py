"""What runs, what is finished, and stopping it from a terminal."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path

import psutil
import pytest
from filelock import FileLock

from helpers.calls import running
from helpers.ground import paths
from helpers.ground.errors import TutorialError
from helpers.programs.detached import Job, Pulse, Result, Status


@pytest.fixture
def run(runs: Path) -> paths.RunFolder:
    """A run that has begun."""
    found = paths.RunFolder("test")
    found.steps.mkdir(parents=True)
    return found


def at_work(run: paths.RunFolder, told: Path | None = None) -> Job:
    """Let this very process pass for a training of the run."""
    job = Job(run, "lora")
    run.running.mkdir()
    job.write(
        Status(
            pid=os.getpid(), created=psutil.Process().create_time(), inputs="",
            began=time.time() - 60, pulse=Pulse(told=told),
        )
    )  # fmt: skip
    return job


def row() -> tuple[object, ...]:
    [found] = running.overview().rows
    return tuple(found)


def test_a_run_that_rests_shows_what_is_finished(run: paths.RunFolder) -> None:
    assert row() == ("test", "", "", "")
    for method in ("qlora", "lora"):
        (run.root / method).mkdir()
        (run.root / method / "training.json").touch()
    run.comparison.touch()
    assert row()[:3] == ("test", "", "lora, qlora")
    assert str(row()[3]).startswith("20")


def test_a_training_on_its_own_shows_where_it_is(run: paths.RunFolder, tmp_path: Path) -> None:
    told = tmp_path / "events"
    event = {"event": "train_begin", "at": time.time(), "step": 3, "total": 12}
    told.write_text(json.dumps(event) + "\n")
    at_work(run, told)
    assert "training lora: 60 s  training, step 3/12" in str(row()[1])


@pytest.mark.parametrize(
    ("lock", "words"), [(".lock", "make run"), (".step.lock", "a notebook or a script")]
)
def test_other_work_in_the_folder_is_seen(run: paths.RunFolder, lock: str, words: str) -> None:
    with FileLock(run.root / lock):
        assert row()[1] == words
    assert row()[1] == ""


def test_what_is_no_run_is_left_out(run: paths.RunFolder) -> None:
    (paths.RUNS / "error.log").touch()
    (paths.RUNS / "not a run" / "steps").mkdir(parents=True)
    (paths.RUNS / "empty").mkdir()
    assert len(running.overview().rows) == 1


def test_stopping_waits_until_it_has_ended(
    run: paths.RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "PAUSE_SECONDS", 0.01)
    job = at_work(run)

    def end() -> None:
        while not job.is_to_stop():
            time.sleep(0.01)
        status = job.status()
        assert status
        job.write(status.model_copy(update={"result": Result(outcome="stopped")}))

    threading.Thread(target=end, daemon=True).start()
    said: list[str] = []
    assert running.stop(run, said.append) == ["lora"]
    assert "leaves a checkpoint" in said[0]


def test_where_nothing_runs_there_is_nothing_to_stop(run: paths.RunFolder) -> None:
    with pytest.raises(TutorialError, match="'make runs' lists"):
        running.stop(run)
