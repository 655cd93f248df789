"""Taking over a run's executed notebooks, in all languages, to commit their outputs.

Text and code are the editions' own (editions.py); what is taken over is what their cells showed.
"""

from __future__ import annotations

import os
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path

import nbformat

from helpers.calls import editions, notebooks
from helpers.ground import paths, words
from helpers.ground.errors import TutorialError
from helpers.ground.files import write_bytes
from helpers.ground.words import tr
from helpers.inputs.settings import Settings


def publish(settings: Settings, say: Callable[[str], None] = print) -> list[Path]:
    """Take over a run's executed notebooks into notebooks/, and return the files; of the cpu
    profile the READMEs' pictures, too.

    The run has executed one edition at least. Another that it has not executed since its last step
    is executed now: nothing is trained, for all steps are done. Of papermill's own metadata (times
    and absolute paths) nothing is kept.

    Raises:
        TutorialError: no edition was executed, one is not up to date with its source, or it ran
            with parameters of its own: what is committed must be what a plain `make run` gives.
    """
    run = settings.run
    whole = [language for language in words.languages() if _is_whole(run, language)]
    if not whole:
        first = run.notebooks / f"{paths.NOTEBOOK_NAMES[0]}.ipynb"
        raise TutorialError(tr("{file} is missing: run 'make run' first.", file=paths.shown(first)))
    done = [language for language in whole if _is_newest(run, language)] or whole
    for language in done:  # before another is executed for nothing
        taken(run, language)
    for language in words.languages():
        if language not in done:
            # Not as parameters of the notebooks, which would show them.
            os.environ["TUTORIAL_PROFILE"] = settings.profile.name
            os.environ["TUTORIAL_RUN"] = run.name
            with words.spoken(language):
                notebooks.run_notebooks(settings, {}, say)
    published = []
    for language in words.languages():
        notebooks_of = taken(run, language)
        if settings.profile.name == "cpu":
            published.append(_picture(notebooks_of[paths.NOTEBOOK_NAMES[-1]], language))
        for name, notebook in notebooks_of.items():
            target = paths.edition(paths.NOTEBOOKS, language) / f"{name}.ipynb"
            target.parent.mkdir(exist_ok=True)
            write_bytes(target, editions.bytes_of(notebook))
            published.append(target)
    return published


def _picture(comparison: nbformat.NotebookNode, language: str) -> Path:
    """Write the curves that a language's README shows, as its last notebook does."""
    drawn = [
        output.data["image/png"]
        for cell in comparison.cells
        for output in cell.get("outputs", [])
        if "curves" in cell.source and "image/png" in output.get("data", {})
    ]
    suffix = "" if language == words.SOURCE else f"_{language}"
    file = paths.BENCHMARKS / f"cpu_curves{suffix}.png"
    write_bytes(file, b64decode(drawn[0]))
    return file


def _is_whole(run: paths.RunFolder, language: str) -> bool:
    folder = paths.edition(run.notebooks, language)
    return all((folder / f"{name}.ipynb").is_file() for name in paths.NOTEBOOK_NAMES)


def _is_newest(run: paths.RunFolder, language: str) -> bool:
    """Return whether a run has executed an edition since the last of its steps was done."""
    last = paths.edition(run.notebooks, language) / f"{paths.NOTEBOOK_NAMES[-1]}.ipynb"
    done = max((step.stat().st_mtime for step in run.steps.glob("*.json")), default=0.0)
    return last.stat().st_mtime >= done


def taken(run: paths.RunFolder, language: str) -> dict[str, nbformat.NotebookNode]:
    """Return an edition's notebooks with what their cells showed in a run.

    Raises:
        TutorialError: a notebook was not executed to its end, with parameters of its own, or as it
            was before its code changed.
    """
    folder = paths.edition(run.notebooks, language)
    return {
        name: _taken(folder / f"{name}.ipynb", editions.build(name, language))
        for name in paths.NOTEBOOK_NAMES
    }


def _taken(executed: Path, notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    shown = paths.shown(executed)
    try:
        ran = nbformat.read(executed, as_version=4)
    except nbformat.reader.NotJSONError as error:
        raise TutorialError(
            tr("{file} was not written to its end: run 'make run' again.", file=shown)
        ) from error
    code = [cell for cell in ran.cells if cell.cell_type == "code"]
    if ran.metadata.get("papermill", {}).get("exception") or any(
        cell.metadata.get("papermill", {}).get("status", "completed") != "completed"
        or not cell.execution_count
        for cell in code
    ):
        raise TutorialError(
            tr("{file} was not executed to its end: run 'make run' again.", file=shown)
        )
    if any("injected-parameters" in cell.metadata.get("tags", []) for cell in code):
        raise TutorialError(
            tr(
                "{file} ran with parameters of its own: run a plain 'make run' and take over that.",
                file=shown,
            )
        )
    own = [cell for cell in notebook.cells if cell.cell_type == "code"]
    if [(cell.id, cell.source) for cell in own] != [(cell.id, cell.source) for cell in code]:
        raise TutorialError(
            tr("{file} ran before its notebook was changed: run 'make run' again.", file=shown)
        )
    for cell, other in zip(own, code, strict=True):
        cell.outputs, cell.execution_count = other.outputs, other.execution_count
    return notebook
