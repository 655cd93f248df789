"""Taking over a run's executed notebooks: both editions, nothing twice, no trace of the machine."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import nbformat
import pytest

from helpers.calls import editions, notebooks, publishing
from helpers.ground import paths, words
from helpers.ground.errors import TutorialError
from helpers.inputs import settings
from helpers.inputs.settings import Settings

LANGUAGES = ("en", "zh")


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The notebooks, to be published over."""
    folder = tmp_path / "notebooks"
    shutil.copytree(paths.NOTEBOOKS, folder)
    monkeypatch.setattr(paths, "NOTEBOOKS", folder)
    return folder


def execute(
    run: paths.RunFolder,
    language: str,
    change: Callable[[nbformat.NotebookNode], object] = lambda notebook: None,
) -> None:
    """Make what papermill leaves of an edition."""
    folder = paths.edition(run.notebooks, language)
    folder.mkdir(parents=True, exist_ok=True)
    for name in paths.NOTEBOOK_NAMES:
        notebook = editions.build(name, language)
        notebook.metadata["papermill"] = {"input_path": "/home/me"}
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        for number, cell in enumerate(code, 1):
            cell.metadata["papermill"] = {"status": "completed"}
            cell.execution_count = number
            cell.outputs = [nbformat.v4.new_output("stream", text=f"said in {language}")]
        notebook.cells[0].source = "as it was when it ran"
        change(notebook)
        nbformat.write(notebook, folder / f"{name}.ipynb")


@pytest.fixture
def run(smoke: Settings, published: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """A run, and what says that it was executed: only the record of it is kept."""
    monkeypatch.setenv("TUTORIAL_HEADLESS", "1")
    monkeypatch.setenv("TUTORIAL_PROFILE", "smoke")
    monkeypatch.setenv("TUTORIAL_RUN", "")
    return smoke


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch) -> Mock:
    """What is executed by publishing: the edition in whose language it is spoken just then."""
    stand_in = Mock(side_effect=lambda of, parameters, say: execute(of.run, words.language()))
    monkeypatch.setattr(notebooks, "run_notebooks", stand_in)
    return stand_in


@pytest.mark.parametrize("first", LANGUAGES)
def test_both_editions_are_taken_over_and_only_the_other_is_executed(
    run: Settings, executed: Mock, first: str, published: Path
) -> None:
    execute(run.run, first)
    files = publishing.publish(run, lambda line: None)
    assert executed.call_count == 1
    assert executed.call_args.args[1] == {}  # parameters would show in the notebooks
    assert os.environ["TUTORIAL_RUN"] == run.run.name
    assert [file.stem for file in files] == [*paths.NOTEBOOK_NAMES] * 2
    for language in LANGUAGES:
        for name in paths.NOTEBOOK_NAMES:
            text = (paths.edition(published, language) / f"{name}.ipynb").read_text("utf-8")
            assert f"said in {language}" in text
            assert "papermill" not in text
            assert "as it was when it ran" not in text  # text is the edition's own
    publishing.publish(run, lambda line: None)
    assert executed.call_count == 1


def test_an_edition_that_a_later_step_has_overtaken_is_executed_again(
    run: Settings, executed: Mock
) -> None:
    for language in LANGUAGES:
        execute(run.run, language)
    run.run.steps.mkdir(parents=True)
    step = run.run.steps / "lora.json"
    step.write_text("{}")
    later = (run.run.notebooks / "06_compare.ipynb").stat().st_mtime + 10
    os.utime(step, (later, later))
    os.utime(run.run.notebooks / "06_compare.ipynb", (later + 1, later + 1))
    publishing.publish(run, lambda line: None)
    assert executed.call_count == 1


def with_parameters(notebook: nbformat.NotebookNode) -> None:
    notebook.cells[2].metadata["tags"] = ["injected-parameters"]


def not_finished(notebook: nbformat.NotebookNode) -> None:
    notebook.cells[2].execution_count = None


def other_code(notebook: nbformat.NotebookNode) -> None:
    notebook.cells[2].source += "\n1 + 1"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (with_parameters, "parameters of its own"),
        (not_finished, "not executed to its end"),
        (other_code, "ran before its notebook was changed"),
    ],
)
def test_what_a_plain_run_does_not_give_is_not_published(
    run: Settings, executed: Mock, published: Path, change: Callable[..., None], told: str
) -> None:
    execute(run.run, "en", change)
    before = (published / "01_env.ipynb").read_bytes()
    with pytest.raises(TutorialError, match=f"01_env.ipynb .*{told}"):
        publishing.publish(run, lambda line: None)
    executed.assert_not_called()
    assert (published / "01_env.ipynb").read_bytes() == before


def test_a_run_that_was_never_executed_says_so(run: Settings) -> None:
    with pytest.raises(TutorialError, match="run 'make run' first"):
        publishing.publish(run)


def test_a_notebook_that_was_not_written_to_its_end_says_so(run: Settings) -> None:
    execute(run.run, "en")
    (run.run.notebooks / "02_data.ipynb").write_text('{"cells": [')
    with pytest.raises(TutorialError, match=r"02_data\.ipynb was not written to its end"):
        publishing.publish(run)


def test_the_notebooks_of_a_language_are_executed_in_its_folder(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in = Mock()
    monkeypatch.setattr(notebooks.papermill, "execute_notebook", stand_in)
    monkeypatch.setenv("TUTORIAL_HEADLESS", "1")
    chosen = settings.resolve("smoke", run="test")
    spoken: list[str] = []
    stand_in.side_effect = lambda *_, **__: spoken.append(os.environ[words.LANGUAGE])
    with words.spoken("zh"):
        notebooks.run_notebooks(chosen, {}, lambda line: None)
    source, target = stand_in.call_args.args
    assert source == paths.NOTEBOOKS / "zh/06_compare.ipynb"
    assert target == chosen.run.notebooks / "zh/06_compare.ipynb"
    assert stand_in.call_args.kwargs["cwd"] == paths.NOTEBOOKS / "zh"
    assert spoken == ["zh"] * 6
    assert json.loads(source.read_text("utf-8"))["cells"]


@pytest.mark.parametrize(("language", "name"), [("en", "cpu_curves"), ("zh", "cpu_curves_zh")])
def test_the_readmes_pictures_are_those_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, language: str, name: str
) -> None:
    monkeypatch.setattr(paths, "BENCHMARKS", tmp_path)
    drawn = [
        nbformat.v4.new_code_cell(
            source, outputs=[nbformat.v4.new_output("display_data", {"image/png": held})]
        )
        for source, held in (("t.cost()", "AAAA"), ("t.comparison.curves()", "AQID"))
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("curves"), *drawn])
    file = publishing._picture(notebook, language)
    assert (file, file.read_bytes()) == (tmp_path / f"{name}.png", b"\1\2\3")
