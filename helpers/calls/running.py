"""What runs on this machine, what is finished, and how to end what runs on its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from helpers.calls import progress
from helpers.ground import paths
from helpers.ground.errors import TutorialError
from helpers.ground.shown import Table
from helpers.ground.words import clauses, series, tr
from helpers.programs import detached

PAUSE_SECONDS = 0.5


def stop(run: paths.RunFolder, say: Callable[[str], None] = print) -> list[str]:
    """Ask the trainings of a run that run on their own to leave a checkpoint and end; wait for it.

    Args:
        run: the run's folder.
        say: takes one line a training.

    Returns:
        The names of the trainings that have ended.

    Raises:
        TutorialError: nothing of this run runs on its own.
    """
    found = list(detached.jobs(run))
    if not found:
        raise TutorialError(
            tr(
                "Nothing of run {run!r} runs on its own: 'make runs' lists what does, and what "
                "'make run' does in a terminal ends with Ctrl-C there.",
                run=run.name,
            )
        )
    for job, _ in found:
        say(
            tr(
                "Stopping the training {name} of run {run}: it leaves a checkpoint at the end of "
                "this step or evaluation.",
                name=job.name,
                run=run.name,
            )
        )
        job.ask_to_stop()
    while any(job.running() for job, _ in found):
        time.sleep(PAUSE_SECONDS)
    return [job.name for job, _ in found]


def _runs() -> Iterator[paths.RunFolder]:
    """Yield the runs that have begun, the newest last."""
    folders = [folder for folder in paths.RUNS.glob("*") if (folder / "steps").is_dir()]
    for folder in sorted(folders, key=lambda folder: (folder / "steps").stat().st_mtime):
        try:
            yield paths.RunFolder(folder.name)
        except TutorialError:  # no run has that name
            continue


def _is_held(lock: Path) -> bool:
    try:
        with FileLock(lock, timeout=0):
            return False
    except (Timeout, OSError):
        return lock.is_file()


def _at_work(run: paths.RunFolder) -> str:
    """Return what works in a run's folder, in words; "" for nothing."""
    found = []
    for job, status in detached.jobs(run):
        told = status.pulse.told if status.pulse else None
        state = progress.Follower(told, status.began).state
        line = state.line(time.time() - status.began).strip()
        found.append(tr("training {name}: {line}", name=job.name, line=line))
    if not found and _is_held(run.root / ".lock"):
        found.append(tr("make run"))
    if not found and _is_held(run.root / ".step.lock"):
        found.append(tr("a notebook or a script"))
    return clauses(found)


def overview() -> Table:
    """Return all runs: what works in each, and what is finished."""
    rows = []
    for run in _runs():
        trained = sorted(file.parent.name for file in run.root.glob("*/training.json"))
        compared = ""
        if run.comparison.is_file():
            at = datetime.fromtimestamp(run.comparison.stat().st_mtime)
            compared = at.strftime("%Y-%m-%d %H:%M")
        rows.append((run.name, _at_work(run), series(trained), compared))
    header = [tr("run"), tr("at work now"), tr("trained"), tr("compared")]
    return Table(header, rows, tr("Runs in {folder}", folder=paths.shown(paths.RUNS)))
