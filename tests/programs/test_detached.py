"""A job outlives who started it, any number can watch it, and it can be asked to stop."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from helpers.ground import paths
from helpers.ground.errors import TutorialError
from helpers.programs import detached
from helpers.programs.detached import Job

# Says what it was given, then works until it is asked to stop; interrupted, it says so.
MODULE = """
import sys, time
from helpers.ground import paths
from helpers.programs.detached import Job, Result
job = Job(paths.RunFolder("test"), "work")
given = sys.stdin.read()
print("given", given, flush=True)
status = job.status()
outcome = "done"
try:
    while not job.is_to_stop() or "stubborn" in given:
        time.sleep(0.02)
except KeyboardInterrupt:
    outcome = "stopped"
job.write(status.model_copy(update={"result": Result(outcome=outcome)}))
"""
STARTER = """
from helpers.ground import paths
from helpers.programs import detached
detached.started(detached.Job(paths.RunFolder("test"), "work"), "made_up", "inputs", b"work")
"""


def wait_for(what: Callable[[], bool], seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while not what() and time.monotonic() < end:
        time.sleep(0.02)
    return what()


@pytest.fixture
def job(runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Job]:
    """A job of a run that can run the module; ended with the test."""
    (tmp_path / "made_up.py").write_text(MODULE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("TUTORIAL_RUNS", str(runs))
    made = Job(paths.RunFolder("test"), "work")
    yield made
    made.interrupt()
    assert wait_for(lambda: made.running() is None)


def start(job: Job, inputs: str = "inputs", payload: bytes = b"work") -> detached.Status:
    return detached.started(job, "made_up", inputs, payload)


def test_a_job_is_nobodys_child_and_is_told_what_to_do(job: Job) -> None:
    status = start(job)
    process = psutil.Process(status.pid)
    assert wait_for(lambda: "given work" in job.log.read_text())
    assert process not in psutil.Process().children(recursive=True)
    assert os.getsid(status.pid) != os.getsid(0)
    assert [found.name for found, _ in detached.jobs(job.run)] == ["work"]


def test_a_job_outlives_who_started_it(job: Job, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", STARTER], cwd=paths.ROOT, check=True)
    assert wait_for(lambda: job.log.is_file() and "given" in job.log.read_text())
    status = job.running()
    assert status
    job.ask_to_stop()
    assert wait_for(lambda: job.running() is None)
    ended = job.status()
    assert ended
    assert ended.result
    assert (ended.result.outcome, ended.pid) == ("done", status.pid)


def test_the_second_who_starts_it_joins_the_first(job: Job) -> None:
    first = start(job)
    assert start(job, "other inputs") == first


def test_one_that_was_asked_to_stop_can_be_started_again(job: Job) -> None:
    first = start(job)
    job.ask_to_stop()
    assert wait_for(lambda: job.running() is None)
    second = start(job)
    assert second.pid != first.pid
    assert not job.is_to_stop()


def test_an_interrupt_ends_at_once_what_does_not_stop(job: Job) -> None:
    start(job, payload=b"stubborn work")
    assert wait_for(lambda: "given" in job.log.read_text())
    job.interrupt()
    assert wait_for(lambda: job.running() is None)
    status = job.status()
    assert status
    assert status.result == detached.Result(outcome="stopped")


def test_a_process_that_has_its_number_by_chance_is_not_it(job: Job) -> None:
    job.run.running.mkdir(parents=True)
    job.write(detached.Status(pid=os.getpid(), created=1.0, inputs="", began=1.0))
    assert job.running() is None
    job.interrupt()  # ... and is let alone


def test_what_was_killed_runs_no_more(job: Job) -> None:
    psutil.Process(start(job).pid).kill()
    assert wait_for(lambda: job.running() is None)
    status = job.status()
    assert status
    assert status.result is None


def test_a_job_that_cannot_start_says_why(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(TutorialError, match="could not be started"):
        start(job)


def test_a_half_written_status_counts_as_none(job: Job) -> None:
    job.run.running.mkdir(parents=True)
    (job.run.running / "work.json").write_text('{"pid": 1')
    assert job.status() is None
