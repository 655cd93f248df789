"""Whole files: nothing half-written, and refusals of the disk in one sentence."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

from helpers.ground import files
from helpers.ground.errors import TutorialError


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
    ("code", "words", "fault"),
    [
        (errno.ENOSPC, "The disk is full", "disk full"),
        (errno.EDQUOT, "The disk is full", "disk full"),
        (errno.EROFS, "read-only", "read-only"),
        (errno.EACCES, "read-only", "read-only"),
        (errno.ENOTDIR, "something else already has that name", ""),
    ],
)
def test_refusals_are_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, words: str, fault: str
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise OSError(code, "refused")

    monkeypatch.setattr("tempfile.mkstemp", refuse)
    with pytest.raises(TutorialError, match=words) as caught:
        files.write_bytes(tmp_path / "file", b"x")
    assert "\n" not in caught.value.message
    assert caught.value.fault == fault


def test_another_error_is_not_explained_away(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="odd"), files.refusals_explained(tmp_path):
        raise OSError(errno.EIO, "odd")
