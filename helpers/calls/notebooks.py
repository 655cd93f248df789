"""Running the six notebooks headless, in order, with papermill."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import nbformat
import papermill
from jupyter_client.manager import AsyncKernelManager
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError
from traitlets import Unicode

from helpers.ground import paths, words
from helpers.ground.errors import TutorialError
from helpers.ground.files import locked, refusals_explained, write_bytes
from helpers.ground.words import series, tr
from helpers.inputs import methods, recipes
from helpers.inputs.settings import Settings
from helpers.programs import process

# papermill's own lines, and what a table is in plain text: neither tells a reader anything.
_NOISE = re.compile(
    r"(Executing|Ending|Input Notebook|Output Notebook|Working directory|<IPython|<Figure)"
)


class _CellOutput(logging.Handler):
    """Prints what the cells print, so that a log shows how a long run goes on."""

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage().strip("\n")
        if text and not _NOISE.match(text):
            print(text, flush=True)


def _stream_cell_output() -> None:
    logger = logging.getLogger("papermill")
    logger.handlers = [_CellOutput()]
    logger.setLevel(logging.INFO)
    logger.propagate = False
    for quiet in ("papermill.translators", "papermill.utils"):
        logging.getLogger(quiet).setLevel(logging.WARNING)


def _local_kernels(folder: Path, log: BinaryIO) -> type[AsyncKernelManager]:
    """Return a kernel manager that talks through files in `folder`: nothing listens on a port.

    What a kernel writes to its standard error goes into `log`: being interrupted, as at each shut
    down, it now and then says so there.
    """

    class LocalKernelManager(AsyncKernelManager):
        transport = Unicode("ipc")
        ip = Unicode(str(folder / "kernel"))

        async def _async_pre_start_kernel(self, **options: Any) -> tuple[list[str], dict[str, Any]]:
            return await super()._async_pre_start_kernel(**options, stderr=log)

    return LocalKernelManager


def _check_methods(settings: Settings) -> None:
    told = methods.default()
    asked = [method.name for method in settings.methods]
    if not set(told) <= set(asked):
        raise TutorialError(
            tr(
                "The notebooks tell of {told}, and METHODS={asked!r} leaves out {missing}: add it, "
                "or call the steps from a script of your own.",
                told=series(told),
                asked=" ".join(asked),
                missing=series(name for name in told if name not in asked),
            )
        )
    first, *others = settings.methods
    for other in others:
        used = [recipes.without_places(each.recipe | settings.changes) for each in (first, other)]
        differing = [row[0] for row in recipes.differences(*used)]
        if unfair := methods.beyond_the_method(first, other, differing):
            raise TutorialError(
                tr(
                    "{other} differs from {first} in {keys}, which makes no method, so comparing "
                    "the two would not be fair: have the same in {first_file} and {other_file}.",
                    first=first.label,
                    other=other.label,
                    keys=series(unfair),
                    first_file=paths.shown(first.file),
                    other_file=paths.shown(other.file),
                )
            )


def run_notebooks(
    settings: Settings, parameters: dict[str, Any], say: Callable[[str], None] = print
) -> None:
    """Execute the six notebooks of the reader's edition into the run folder.

    Finished steps are re-used, in whichever language they were done.

    Args:
        settings: the run's settings, resolved from the same parameters.
        parameters: what goes into each notebook's `parameters` cell.
        say: takes one line a notebook.

    Raises:
        TutorialError: METHODS leaves out one that notebooks 3 and 4 tell of, or names one whose
            recipe differs in more than its method; a notebook failed, or the folder is in use by
            another run.
    """
    _check_methods(settings)
    run = settings.run
    busy = tr(
        "Another run is working in {folder}: wait for it to end, or choose another RUN=name.",
        folder=paths.shown(run.root),
    )
    _stream_cell_output()
    os.environ["TUTORIAL_HEADLESS"] = "1"
    os.environ["PYTHONPATH"] = process.python_path(os.environ)  # the kernels'
    language = words.language()
    folder = paths.edition(run.notebooks, language)
    with (
        contextlib.ExitStack() as held,
        locked(run.root / ".lock", busy, seconds=0),
        process.socket_folder() as sockets,
        words.spoken(language),
    ):
        with refusals_explained(folder):
            folder.mkdir(parents=True, exist_ok=True)
            log = held.enter_context((folder / "kernels.log").open("wb"))
        kernels = _local_kernels(sockets, log)
        for name in paths.NOTEBOOK_NAMES:
            start = time.monotonic()
            say(f"== {name}")
            source = paths.edition(paths.NOTEBOOKS, language) / f"{name}.ipynb"
            _execute(source, folder / source.name, parameters, kernels)
            seconds = f"{time.monotonic() - start:.0f}"
            say(tr("== {notebook} done in {seconds} s", notebook=name, seconds=seconds))


def _execute(
    source: Path,
    executed: Path,
    parameters: dict[str, Any],
    kernels: type[AsyncKernelManager],
) -> None:
    name = source.stem
    try:
        with refusals_explained(executed):
            papermill.execute_notebook(
                source,
                executed,
                parameters=parameters,
                kernel_name="python3",
                cwd=source.parent,
                progress_bar=False,
                log_output=True,
                kernel_manager_class=kernels,
            )
    except PapermillExecutionError as error:
        if error.ename == "TutorialError":
            raise TutorialError(f"{name}: {error.evalue}") from error
        raise TutorialError(
            tr(
                "The notebook {notebook} stopped with {error} ({reason}): its executed copy {file} "
                "shows where.",
                notebook=name,
                error=error.ename,
                reason=error.evalue.partition("\n")[0],
                file=paths.shown(executed),
            )
        ) from error
    except DeadKernelError as error:
        # papermill calls the cell in which the kernel died completed.
        notebook = nbformat.read(executed, as_version=4)
        notebook.metadata.setdefault("papermill", {})["exception"] = True
        write_bytes(executed, nbformat.writes(notebook).encode())
        raise TutorialError(
            tr(
                "The kernel of the notebook {notebook} was killed, most often because the machine "
                "ran out of memory: close other programs, and run this again; it goes on where it "
                "was.",
                notebook=name,
            )
        ) from error
