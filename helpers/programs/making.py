"""Where a step's outputs are made, how they change places with the ones before, and what may go.

`runs/NAME/making/STEP/` mirrors the run folder: what will be `runs/NAME/lora` is made as
`runs/NAME/making/lora/lora`. A run removes nothing that does not lie in `making/`.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
from pathlib import Path

from helpers.ground import paths
from helpers.ground.files import refusals_explained

_AT_FDCWD = -100  # Linux: paths as they are
_RENAME_EXCHANGE = 2
_CANNOT = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)  # the kernel or the file system


def discard(run: paths.RunFolder, path: Path) -> None:
    """Remove a file or folder of a run: the only function that does, and only in `making/`.

    Args:
        run: whose it is.
        path: what is no longer wanted; a link goes, what it leads to stays.

    Raises:
        ValueError: it does not lie in the run's `making/`.
    """
    held = run.root.resolve() / run.making.name
    path = Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow a link
    if held not in (path.parent.resolve() / path.name).parents:
        raise ValueError(f"{path} does not lie in {held}")
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def exchange(first: Path, second: Path) -> bool:
    """Let two paths change places in one rename; return whether the file system can."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:  # glibc before 2.28, or no Linux
        return False
    names = os.fsencode(first), os.fsencode(second)
    if rename(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in _CANNOT:
        return False
    raise OSError(code, os.strerror(code), str(second))


def _replaceable(made: Path, final: Path) -> bool:
    """Return whether a plain rename puts one in the other's place: nothing is there, or a file."""
    return not os.path.lexists(final) or not (made.is_dir() or final.is_dir())


def sync(folder: Path) -> None:
    """Wait until the disk has a folder's names: a rename must not outlast what it renamed.

    A file system that cannot (some networks') is taken as it is.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
    finally:
        os.close(handle)


class Making:
    """The place in which one step of a run makes what it leaves.

    Args:
        run: the run's folder.
        step: the step's name.
    """

    def __init__(self, run: paths.RunFolder, step: str) -> None:
        self.run, self.step = run, step
        self.folder = run.making / step
        self.finals: list[Path] = []  # what `place` was asked for

    def place(self, final: Path) -> Path:
        """Return where a file or folder of the run is made until the step is done.

        Its folder is there, itself it is not. It changes places with `final` once all is whole.

        Raises:
            TutorialError: the run folder cannot be written.
        """
        found = self.at(final)
        with refusals_explained(found):
            found.parent.mkdir(parents=True, exist_ok=True)
        if final not in self.finals:
            self.finals.append(final)
        return found

    def at(self, final: Path) -> Path:
        """Return the same place, without preparing it."""
        return self.folder / final.relative_to(self.run.root)

    def discard(self, path: Path) -> None:
        """Remove what lies in `making/` and is no longer wanted (see the function `discard`)."""
        discard(self.run, path)

    def change_places(self, final: Path) -> None:
        """Put what was made into its final place; what was there comes here.

        In one rename, where the file system can exchange two folders. Where it cannot, in two, and
        whoever is killed between them leaves both whole: `move` goes on from there.
        """
        made = self.at(final)
        if _replaceable(made, final) or not exchange(made, final):
            self.move(final)
        sync(final.parent)

    def move(self, final: Path) -> None:
        """Put what was made into its final place, if it is not there yet; as often as wanted."""
        made, before = self.at(final), self.folder / ".before" / final.name
        if not os.path.lexists(made):
            return
        final.parent.mkdir(parents=True, exist_ok=True)
        if not _replaceable(made, final):
            before.parent.mkdir(parents=True, exist_ok=True)
            if os.path.lexists(before):
                self.discard(before)
            final.rename(before)
        made.replace(final)
