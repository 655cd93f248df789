"""A notebook's training: it runs in a process of its own, and the cell only watches it.

So it goes on when the page is closed or reloaded, when the tunnel breaks, and when the kernel or
the JupyterLab server is started anew. The same cell attaches again: the whole curve so far, then
live; any number of them can. The stop button asks the training to leave a checkpoint and end.

Trainings of `make run`, and of all else that nobody watches, stay children of who started them and
end with it.
"""

from __future__ import annotations

import os
import pickle
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from helpers.calls import progress
from helpers.ground import escaping, paths, words
from helpers.ground.errors import TutorialError
from helpers.ground.files import sha256_json
from helpers.ground.words import tr
from helpers.inputs.settings import Settings
from helpers.programs import detached, process
from helpers.programs.detached import Job, Pulse, Result, Status
from helpers.records import schema
from helpers.worker import events, stopping

# Whoever starts a kernel anew, or ends it, interrupts what it does first (jupyter_client), as the
# stop button does. Then the kernel is gone within half of jupyter_client's shutdown_wait_time, 5 s.
GRACE_SECONDS = 3.5
PAUSE_SECONDS = 0.5


def wanted() -> bool:
    """Return whether trainings are to outlive this process: somebody watches them in a notebook."""
    return not progress.is_headless()


def train(
    method: str, settings: Settings, inputs: Mapping[str, Any], say: Callable[[str], None] = print
) -> None:
    """Have a process of its own train, or join the one that does, and watch until it has ended.

    Args:
        method: one of the run's.
        settings: the run's settings; the model and the data must be there.
        inputs: everything that decides the training, as for steps.done_once.
        say: takes the lines that tell what happens.

    Raises:
        TutorialError: it failed, it was stopped, or one with other settings is running.
    """
    job = Job(settings.run, method)
    wished = sha256_json(inputs)
    env = {
        "TUTORIAL_RUNS": str(paths.RUNS),
        "TUTORIAL_MODELS": str(paths.MODELS),
        "TUTORIAL_HEADLESS": "1",
        words.LANGUAGE: words.language(),  # what it says is read here
    }
    status = detached.started(job, __name__, wished, pickle.dumps((method, settings)), env)
    if status.inputs != wished:
        raise TutorialError(
            tr(
                "Run {run!r} is training {method} with other settings already: wait for it to end, "
                "stop it with 'make stop RUN={run}', or choose another run.",
                run=settings.run.name,
                method=settings.subject(method).label,
            )
        )
    _Watch(job, settings.run.adapter(method) / events.FILE, say).until_it_ends()


class _Watch:
    """One cell that watches a training.

    Args:
        job: the training.
        final: where its events lie once it is done.
        say: takes the lines that the training says, from the first on.
    """

    def __init__(self, job: Job, final: Path, say: Callable[[str], None]) -> None:
        self._job, self._final, self._say = job, final, say
        self._said = 0  # bytes of its log
        self._screen = progress.Screen(schema.origin(job.run.name).note())
        self._follower: progress.Follower | None = None
        self._told: Path | None = None
        self._interrupted: float | None = None  # when; a monotonic time

    def until_it_ends(self) -> None:
        """Show the training until it has ended.

        Raises:
            TutorialError: it failed, it was stopped, or another page shows it from here on.
        """
        while True:
            try:
                if _is_wanted_elsewhere():
                    raise TutorialError(
                        tr(
                            "The training goes on: another page of this notebook was opened and "
                            "has run its cells, and this one shows no more of it."
                        )
                    )
                if self._look():
                    return
                time.sleep(PAUSE_SECONDS)
            except KeyboardInterrupt:
                self._on_interrupt()

    def _look(self) -> bool:
        """Show what is new; return whether the training is done."""
        running = self._job.running() is not None  # asked first: what it left last is read after
        status = self._job.status()
        self._say_more()
        if status and status.pulse:
            self._show(status, status.pulse)
        if status and status.result:
            return _ended(status.result)
        if not running:
            raise TutorialError(
                tr(
                    "The training's process was ended from outside: run this cell again, and it "
                    "goes on from the last checkpoint."
                ),
                log=self._job.log,
            )
        if self._interrupted and time.monotonic() - self._interrupted >= GRACE_SECONDS:
            self._job.ask_to_stop()
        return False

    def _on_interrupt(self) -> None:
        if self._interrupted:
            self._job.interrupt()
            return
        self._interrupted = time.monotonic()
        self._say(
            tr(
                "Stopping: the training leaves a checkpoint at the end of this step or evaluation. "
                "Interrupt again to end it at once."
            )
        )

    def _say_more(self) -> None:
        with self._job.log.open("rb") as log:
            log.seek(self._said)
            new = log.read()
        whole = new[: new.rfind(b"\n") + 1]
        self._said += len(whole)
        for line in whole.decode("utf-8", "replace").splitlines():
            self._say(line)

    def _show(self, status: Status, pulse: Pulse) -> None:
        done = status.result is not None and status.result.outcome == "done"
        told = self._final if done else pulse.told  # what is done has moved to its place
        if self._follower is None or told != self._told:
            self._follower, self._told = progress.Follower(told, status.began), told
        state = self._follower.look()
        elapsed = time.time() - status.began
        self._screen.show(state.line(elapsed, pulse.samples_a_step, pulse.memory_bytes), state)


def _is_wanted_elsewhere() -> bool:
    """Return whether another page waits for this cell to end (helpers/programs/pages.py)."""
    ipython = sys.modules.get("IPython")
    kernel = getattr(ipython and ipython.get_ipython(), "kernel", None)
    return getattr(kernel, "is_wanted_elsewhere", False)


def _ended(result: Result) -> bool:
    if result.outcome == "failed":
        raise result.error()
    if result.outcome == "stopped":
        raise TutorialError(
            tr(
                "The training was stopped: run this cell again, and it goes on from its last "
                "checkpoint, or begins where it has none yet."
            )
        )
    return True


# ---- in the process of its own -------------------------------------------------------------------


def _result(job: Job, method: str, settings: Settings, report: Callable[[Pulse], None]) -> Result:
    """Train, and return how it ended."""
    from helpers.calls import training

    try:
        with progress.reported(report):
            training.train(method, settings, lambda line: print(line, flush=True))
    except KeyboardInterrupt:
        return Result(outcome="stopped")
    except TutorialError as error:
        if job.is_to_stop():  # that is how it looks from here
            return Result(outcome="stopped")
        return Result(
            outcome="failed", message=error.message, log=error.log, tail=error.tail,
            fault=error.fault,
        )  # fmt: skip
    except Exception as error:
        log = job.run.logs / f"{job.name}_process.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        text = "".join(traceback.format_exception(error))
        log.write_text(process.redacted(text), "utf-8", "backslashreplace")
        said = process.redacted(escaping.line(repr(error)))
        said = tr("The training's process failed ({error}): look into its log.", error=said)
        return Result(outcome="failed", message=said, log=log)
    return Result(outcome="done")


def main() -> None:
    """Train what standard input says, in the process that helpers/programs/detached.py started."""
    method, settings = pickle.load(sys.stdin.buffer)
    job = Job(settings.run, method)
    status = job.status()
    assert status
    assert status.pid == os.getpid()
    os.environ[stopping.VARIABLE] = str(job.stop_request)

    def report(pulse: Pulse) -> None:
        status.pulse = pulse
        with suppress(OSError):  # on a full disk nobody sees it, and it trains on
            job.write(status)
        if job.is_to_stop() and not pulse.looping:  # there is no step to wait for
            raise KeyboardInterrupt

    result = _result(job, method, settings, report)
    job.write(status.model_copy(update={"result": result}))


if __name__ == "__main__":
    main()
