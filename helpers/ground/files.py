"""Whole files: written aside, then renamed, so that a half one is never read."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import pwd
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, TypeVar

import yaml
from filelock import FileLock, Timeout
from pydantic import BaseModel, ValidationError

from helpers.ground import escaping
from helpers.ground.errors import TutorialError
from helpers.ground.paths import in_recipe, shown
from helpers.ground.words import tr

_ASIDE = ".aside"  # how a folder's name ends while it is being filled


def _nearest(path: Path) -> Path:
    """Return what is there of a path: itself, or the nearest folder above it."""
    for place in (path, *path.parents):
        with suppress(OSError):
            place.lstat()
            return place
    return path


def _owner(place: Path) -> str:
    """Return who owns a file or folder, if that is somebody else; "" if not."""
    number = place.lstat().st_uid
    if number == os.geteuid():
        return ""
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def refusal(error: OSError, path: Path) -> TutorialError | None:
    """Return what readers are told where the file system refused something.

    Args:
        error: what it said.
        path: what was being read or written; where `error` names a file, that one counts.

    Returns:
        One sentence; None where nothing better is known than what the system says.
    """
    code = error.errno
    if code in (errno.ENOSPC, errno.EDQUOT):
        return TutorialError(
            tr(
                "The disk is full: {path} could not be written. Make room (old runs lie in "
                "runs/, models in models/) and run this again; finished steps are kept.",
                path=shown(path),
            ),
            fault="disk full",
        )
    if code == errno.EFBIG:
        return TutorialError(
            tr(
                "{path} is larger than a file may be here: run 'ulimit -f unlimited' in this "
                "shell, or choose another place with TUTORIAL_RUNS=/folder.",
                path=shown(path),
            )
        )
    if code in (errno.EMFILE, errno.ENFILE):
        return TutorialError(
            tr("No more files can be opened: run 'ulimit -n 4096' in this shell, then this again.")
        )
    named = error.filename if isinstance(error.filename, str | bytes) else ""
    file = Path(os.fsdecode(named) or path)
    name = in_recipe(file)  # where it really lies, for that is what is wrong with it
    if code in (errno.EACCES, errno.EROFS, errno.EPERM):
        there = _nearest(file)
        name = in_recipe(there)
        if code != errno.EROFS and (owner := _owner(there)):
            sentence = tr(
                "{path} belongs to {owner}, and may not be used by this user: let that user give "
                "it back (after 'sudo make run', say, with 'sudo chown -R'), or choose another "
                "RUN=name.",
                path=name,
                owner=owner,
            )
        else:
            sentence = tr(
                "{path} cannot be written or read: it is read-only, or not for this user. Choose "
                "another place with TUTORIAL_RUNS=/folder or TUTORIAL_MODELS=/folder, or change "
                "its permissions.",
                path=name,
            )
        return TutorialError(sentence, fault="read-only")
    if code in (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENOTEMPTY):
        return TutorialError(
            tr(
                "{path} cannot be written: something else already has that name. Move it away, "
                "or choose another RUN=name.",
                path=name,
            )
        )
    if code == errno.ENAMETOOLONG:
        return TutorialError(
            tr(
                "A path is too long for this file system ({path}): choose a shorter RUN=name, or a "
                "shorter place with TUTORIAL_RUNS=/folder or TUTORIAL_MODELS=/folder.",
                path=f"{name[:60]}...",
            )
        )
    if code == errno.ELOOP:
        return TutorialError(
            tr("{path} is a symbolic link that leads back to itself: mend the link.", path=name)
        )
    if code == errno.ENOENT:
        return TutorialError(
            tr(
                "{path} is not there and cannot be made: something removed it meanwhile, or its "
                "file system takes no new folders. Run this again, or choose another place with "
                "TUTORIAL_RUNS=/folder or TUTORIAL_MODELS=/folder.",
                path=name,
            )
        )
    return None


@contextmanager
def refusals_explained(path: Path) -> Iterator[None]:
    """Turn what a file system refuses (see `refusal`) into one sentence."""
    try:
        yield
    except RecursionError as error:  # pathlib makes the folders above by calling itself
        told = refusal(OSError(errno.ENAMETOOLONG, "", str(path)), path)
        raise told or error from error
    except OSError as error:
        if told := refusal(error, path):
            raise told from error
        raise


@contextmanager
def locked(file: Path, busy: str = "", seconds: float = -1) -> Iterator[None]:
    """Hold a lock for as long as the block runs; its folder is made.

    Args:
        file: the lock's file.
        busy: the sentence where another process holds it, with what to do.
        seconds: how long to wait for that one; -1 waits until it is done.

    Raises:
        TutorialError: another process holds it, or the file cannot be locked.
    """
    with refusals_explained(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(file)
        try:
            lock.acquire(timeout=seconds)
        except Timeout as error:
            raise TutorialError(busy) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """Give a file to write, which becomes `path` when the block ends well, and vanishes if not.

    Readers see the old file or the new one.

    Raises:
        TutorialError: the disk is full or the folder cannot be written.
    """
    with refusals_explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, aside = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            Path(aside).chmod(0o644)
            Path(aside).replace(path)
        finally:
            Path(aside).unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path` as a whole (see `whole_file`)."""
    with whole_file(path) as file:
        file.write(content)


def write_json(path: Path, value: Any) -> None:
    """Write `value` as UTF-8 JSON, not escaped."""
    write_bytes(path, (json.dumps(value, ensure_ascii=False, indent=2) + "\n").encode())


def write_yaml(path: Path, value: dict[str, Any], header: str = "") -> None:
    """Write `value` as YAML in its own order, under the comment lines of `header`."""
    comment = "".join(f"# {line}\n" for line in escaping.lines(header).split("\n") if header)
    text = yaml.safe_dump(value, sort_keys=False, allow_unicode=True)
    write_bytes(path, (comment + text).encode())


Kept = TypeVar("Kept", bound=BaseModel)


def read_json(path: Path, kind: type[Kept], again: str) -> Kept:
    """Read what a finished step left.

    Args:
        path: the JSON file.
        kind: what it holds.
        again: what makes it anew, as readers are told: "run the notebook 02_data again".

    Raises:
        TutorialError: the file cannot be read as that.
    """
    try:
        return kind.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise TutorialError(
            tr(
                "{path} is missing, damaged, or was written by another version of this tutorial: "
                "{again}.",
                path=shown(path),
                again=again,
            )
        ) from error


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds a mapping.

    Raises:
        TutorialError: the file is missing, is not YAML, or holds something else.
    """
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise TutorialError(
            tr("{path} is missing: restore it with git.", path=shown(path))
        ) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise TutorialError(
            tr("{path} is not valid YAML: {reason}.", path=shown(path), reason=reason)
        ) from error
    if not isinstance(value, dict):
        raise TutorialError(
            tr("{path} must hold 'key: value' lines, and holds none.", path=shown(path))
        )
    return value


@contextmanager
def folder_aside(path: Path) -> Iterator[Path]:
    """Give a temporary folder that becomes `path` when the block ends well, and vanishes if not.

    Only one process at a time may do so for one `path`; the callers hold a lock.
    """
    with refusals_explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in path.parent.glob(f".{path.name}.*{_ASIDE}"):  # by one that was killed
            shutil.rmtree(left)
        aside = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=_ASIDE, dir=path.parent))
        try:
            yield aside
            aside.chmod(0o755)
            if path.exists():
                shutil.rmtree(path)
            aside.replace(path)
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's content as 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_json(value: Any) -> str:
    """Return the SHA-256 of `value` as canonical JSON (sorted keys), as 64 hex digits."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
