"""Whole files: nothing half-written, and refusals of the disk in one sentence."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from helpers import files, paths, runner
from helpers.errors import TutorialError


def test_a_file_that_cannot_be_finished_leaves_the_old_one(tmp_path: Path) -> None:
    file = tmp_path / "facts.json"
    files.write_json(file, {"价格": 5})
    assert "价格" in file.read_text("utf-8")
    with pytest.raises(TypeError):
        files.write_json(file, {"a": object()})
    assert json.loads(file.read_text("utf-8")) == {"价格": 5}
    assert list(tmp_path.iterdir()) == [file]


def test_a_folder_appears_when_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "model"

    def interrupted() -> None:
        with files.folder_aside(target) as aside:
            (aside / "half").write_text("x")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []
    with files.folder_aside(target) as aside:
        (aside / "whole").write_text("x")
        assert not target.exists()
    assert (target / "whole").read_text() == "x"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, "The disk is full"),
        (errno.EDQUOT, "The disk is full"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "read-only"),
    ],
)
def test_refusals_are_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, words: str
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise OSError(code, "refused")

    monkeypatch.setattr("tempfile.mkstemp", refuse)
    with pytest.raises(TutorialError, match=words) as caught:
        files.write_bytes(tmp_path / "file", b"x")
    assert "\n" not in caught.value.message


def test_another_error_is_not_explained_away(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="odd"), files.refusals_explained(tmp_path):
        raise OSError(errno.EIO, "odd")


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
