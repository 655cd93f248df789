"""Programs that outlive who started them: a notebook's kernel, its server, a closed page.

A job is a Python module that runs in a process of its own, in no one's process group and no one's
child. What it is and where it is lies in `runs/NAME/running/`, so that any number can watch it, and
ask it to stop. What it starts itself is guarded as ever (helpers/programs/guard.py), and ends with
it.
"""

from __future__ import annotations

import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Literal

import psutil
from filelock import FileLock
from pydantic import BaseModel, ValidationError

from helpers.ground import paths
from helpers.ground.errors import TutorialError
from helpers.ground.files import refusals_explained
from helpers.ground.words import tr

STARTING_SECONDS = 60.0  # that somebody else may take to start the same job


class Result(BaseModel):
    """How a job ended; a failure as the TutorialError that it ended with."""

    outcome: Literal["done", "stopped", "failed"]
    message: str = ""
    log: Path | None = None
    tail: str = ""
    fault: str = ""

    def error(self) -> TutorialError:
        """Return the failure as the error that it was."""
        return TutorialError(self.message, self.log, self.tail, self.fault)


class Pulse(BaseModel):
    """Where a job's present call is, beside what its events tell."""

    told: Path | None = None  # the file of its events
    samples_a_step: int = 0
    memory_bytes: int | None = None
    looping: bool = False  # it is among its optimizer steps, where it can leave a checkpoint


class Status(BaseModel):
    """What there is to know of a job."""

    pid: int
    created: float  # the process, in seconds since 1970: a pid is used again
    inputs: str  # the SHA-256 of all that decides what the job makes
    began: float  # in seconds since 1970
    pulse: Pulse | None = None
    result: Result | None = None


class Job:
    """One job of a run, running or not.

    Args:
        run: the run's folder.
        name: the job's name: that of its step.
    """

    def __init__(self, run: paths.RunFolder, name: str) -> None:
        self.run, self.name = run, name
        self.log = run.running / f"{name}.log"  # what the job says, and nothing else
        self.stop_request = run.running / f"{name}.stop"
        self._file = run.running / f"{name}.json"

    def status(self) -> Status | None:
        """Return what is known of the job; None where it was never started."""
        try:
            return Status.model_validate_json(self._file.read_bytes())
        except (OSError, ValidationError):
            return None

    def write(self, status: Status) -> None:
        """Replace what is known of the job; not synced, for it is worth nothing after a crash."""
        aside = self._file.with_suffix(".aside")
        aside.write_text(status.model_dump_json(), encoding="utf-8")
        aside.replace(self._file)

    def running(self) -> Status | None:
        """Return the status of the job if its process is there, and None if not."""
        status = self.status()
        return status if status and status.result is None and _process(status) else None

    def ask_to_stop(self) -> None:
        """Ask the job to stop as soon as it loses nothing by it."""
        self.stop_request.touch()

    def is_to_stop(self) -> bool:
        """Return whether somebody has asked the job to stop."""
        return self.stop_request.exists()

    def interrupt(self) -> None:
        """End the job now, as Ctrl-C would."""
        self.ask_to_stop()
        status = self.running()
        process = _process(status) if status else None
        if process:
            process.send_signal(signal.SIGINT)


def _process(status: Status) -> psutil.Process | None:
    """Return the process of a job, unless it has ended."""
    try:
        process = psutil.Process(status.pid)
        alive = process.status() != psutil.STATUS_ZOMBIE
        same = abs(process.create_time() - status.created) < 1
    except psutil.NoSuchProcess:
        return None
    return process if alive and same else None


def jobs(run: paths.RunFolder) -> Iterator[tuple[Job, Status]]:
    """Yield the jobs of a run that are running."""
    for file in sorted(run.running.glob("*.json")):
        job = Job(run, file.stem)
        if status := job.running():
            yield job, status


def started(
    job: Job, module: str, inputs: str, payload: bytes, extra: Mapping[str, str] | None = None
) -> Status:
    """Start a job, unless it is running, and return its status.

    Args:
        job: which.
        module: what it runs: `python -m MODULE`.
        inputs: the SHA-256 of all that decides what it makes.
        payload: what the module reads on its standard input.
        extra: variables of its environment, beside this process's own.

    Raises:
        TutorialError: it could not be started, or the run folder cannot be written.
    """
    with refusals_explained(job.log):
        job.run.running.mkdir(parents=True, exist_ok=True)
        with FileLock(job.log.with_suffix(".lock"), timeout=STARTING_SECONDS):
            if status := job.running():
                return status
            job.stop_request.unlink(missing_ok=True)
            return _start(job, module, inputs, payload, os.environ | dict(extra or {}))


def _start(job: Job, module: str, inputs: str, payload: bytes, env: Mapping[str, str]) -> Status:
    told, tell = os.pipe()
    with job.log.open("wb") as log, os.fdopen(told, "rb") as pid_told:
        try:
            first = subprocess.Popen(
                [sys.executable, "-m", "helpers.programs.detached", str(tell), module],
                stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, cwd=paths.ROOT,
                env=dict(env), pass_fds=(tell,), start_new_session=True,
            )  # fmt: skip
        finally:
            os.close(tell)
        assert first.stdin
        with first.stdin:
            pid = int(pid_told.read() or 0)
            first.wait()
            if not pid:
                raise TutorialError(
                    tr("{name} could not be started: look into the log.", name=job.name),
                    log=job.log,
                )
            created = psutil.Process(pid).create_time()
            status = Status(pid=pid, created=created, inputs=inputs, began=time.time())
            job.write(status)  # before the job knows what to do, and writes its own
            with suppress(BrokenPipeError):  # it has ended: its log says why
                first.stdin.write(payload)
                first.stdin.flush()
    return status


def main(tell: int, module: str) -> None:
    """Leave whoever started this, and run a module.

    Args:
        tell: a file descriptor that takes the process id of what stays.
        module: the module's name.
    """
    if pid := os.fork():
        os.write(tell, b"%d" % pid)
        os._exit(0)
    os.close(tell)
    # A kernel that is between two cells ignores interrupts, and its children inherit that.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
