"""Whole files: nothing half-written, and refusals of the disk in one sentence."""

from __future__ import annotations

import errno
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.ground import files, paths
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


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENAMETOOLONG, "too long for this file system.*shorter RUN=name"),
        (errno.ELOOP, "symbolic link that leads back to itself"),
        (errno.ENOENT, "not there and cannot be made"),
        (errno.EMFILE, "ulimit -n 4096"),
        (errno.EISDIR, "something else already has that name"),
    ],
)
def test_what_a_file_system_refuses_is_told_with_its_remedy(
    tmp_path: Path, code: int, words: str
) -> None:
    told = files.refusal(OSError(code, "no", str(tmp_path / "file")), tmp_path)
    assert told is not None
    assert re.search(words, told.message)
    assert "\n" not in told.message


def test_a_lock_is_held_told_of_and_let_go(tmp_path: Path) -> None:
    lock = tmp_path / "run" / ".lock"
    code = f"""
from pathlib import Path
from helpers.ground import files, paths
from helpers.ground.errors import TutorialError
try:
    with files.locked(Path({str(lock)!r}), "Busy: wait.", seconds=0):
        print("held")
except TutorialError as error:
    print(error)
"""
    command = [sys.executable, "-c", code]

    def other() -> str:
        done = subprocess.run(command, cwd=paths.ROOT, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    with files.locked(lock, seconds=0):
        assert other() == "Busy: wait."
    assert other() == "held"
    lock.unlink()
    lock.mkdir()
    with pytest.raises(TutorialError, match="something else"), files.locked(lock, seconds=0):
        pass


def test_a_place_is_the_same_from_wherever_one_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A notebook starts in notebooks/, and `make` in the repository."""
    monkeypatch.setenv("TUTORIAL_RUNS", "other/runs")
    for folder in (tmp_path, paths.ROOT):
        monkeypatch.chdir(folder)
        assert paths._place("TUTORIAL_RUNS", "runs") == paths.ROOT / "other" / "runs"
    monkeypatch.setenv("TUTORIAL_RUNS", "~/runs")
    assert paths._place("TUTORIAL_RUNS", "runs") == Path("~/runs").expanduser()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    monkeypatch.setenv("TUTORIAL_RUNS", str(tmp_path / "loop"))
    assert paths._place("TUTORIAL_RUNS", "runs") == tmp_path / "loop"
