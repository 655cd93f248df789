"""Running the six notebooks headless, in order, with papermill."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import papermill
from filelock import FileLock, Timeout
from papermill.exceptions import PapermillExecutionError

from helpers import paths
from helpers.errors import TutorialError
from helpers.files import refusals_explained
from helpers.settings import Settings


def _stream_cell_output() -> None:
    """Let what the cells print appear here too, so that a log shows how a long run goes on."""
    logger = logging.getLogger("papermill")
    logger.handlers = [logging.StreamHandler(sys.stdout)]
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addFilter(lambda record: not record.getMessage().startswith(("Executing", "Ending")))
    for quiet in ("papermill.translators", "papermill.utils"):
        logging.getLogger(quiet).setLevel(logging.WARNING)


def run_notebooks(
    settings: Settings, parameters: dict[str, Any], say: Callable[[str], None] = print
) -> None:
    """Execute the six notebooks into the run folder; finished steps are re-used.

    Args:
        settings: the run's settings, resolved from the same parameters.
        parameters: what goes into each notebook's `parameters` cell.
        say: takes one line a notebook.

    Raises:
        TutorialError: a notebook failed, or the folder is in use by another run.
    """
    run = settings.run
    with refusals_explained(run.root):
        run.notebooks.mkdir(parents=True, exist_ok=True)
        lock = FileLock(run.root / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise TutorialError(
            f"Another run is working in {paths.shown(run.root)}: wait for it to end, or choose "
            "another RUN=name."
        ) from error
    _stream_cell_output()
    os.environ["TUTORIAL_HEADLESS"] = "1"
    with lock:
        for name in paths.NOTEBOOK_NAMES:
            start = time.monotonic()
            say(f"== {name}")
            _execute(name, run, parameters)
            say(f"== {name} done in {time.monotonic() - start:.0f} s")


def _execute(name: str, run: paths.RunFolder, parameters: dict[str, Any]) -> None:
    executed = run.notebooks / f"{name}.ipynb"
    try:
        with refusals_explained(executed):
            papermill.execute_notebook(
                paths.NOTEBOOKS / f"{name}.ipynb",
                executed,
                parameters=parameters,
                kernel_name="python3",
                cwd=paths.NOTEBOOKS,
                progress_bar=False,
                log_output=True,
            )
    except PapermillExecutionError as error:
        if error.ename == "TutorialError":
            raise TutorialError(f"{name}: {error.evalue}") from error
        raise TutorialError(
            f"The notebook {name} stopped with {error.ename} ({error.evalue.splitlines()[0]}): its "
            f"executed copy {paths.shown(executed)} shows where."
        ) from error
