"""Taking over a run's executed notebooks: without a trace of the machine, and none that is odd."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from helpers.calls import notebooks as runner
from helpers.ground import paths
from helpers.ground.errors import TutorialError


def executed(run: paths.RunFolder, tags: list[str]) -> None:
    run.notebooks.mkdir(parents=True)
    for name in paths.NOTEBOOK_NAMES:
        cell = new_code_cell("1 + 1", execution_count=1, metadata={"tags": tags, "papermill": {}})
        notebook = new_notebook(cells=[cell], metadata={"papermill": {"input_path": "/home/me"}})
        nbformat.write(notebook, run.notebooks / f"{name}.ipynb")


def test_published_notebooks_hold_no_trace_of_the_machine(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "NOTEBOOKS", tmp_path / "notebooks")
    executed(paths.RunFolder("plain"), [])
    published = runner.publish(paths.RunFolder("plain"))
    assert [file.stem for file in published] == list(paths.NOTEBOOK_NAMES)
    assert all("papermill" not in file.read_text() for file in published)


def test_a_run_with_parameters_of_its_own_is_not_published(runs: Path) -> None:
    executed(paths.RunFolder("special"), ["injected-parameters"])
    with pytest.raises(TutorialError, match="parameters of its own"):
        runner.publish(paths.RunFolder("special"))
    with pytest.raises(TutorialError, match="run 'make run' first"):
        runner.publish(paths.RunFolder("absent"))
