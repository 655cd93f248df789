"""What is looked at before anything starts, so that hours of work do not end at its last file."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from helpers.ground import paths
from helpers.ground.files import refusals_explained
from helpers.inputs import arguments
from helpers.inputs.settings import Settings


def _written_into(settings: Settings) -> Iterator[Path]:
    """Yield the folders that a run writes into, and those in its folder that it has already."""
    if not (settings.model.path / "config.json").is_file():
        yield paths.MODELS
    root = settings.run.root
    yield root
    yield from (folder for folder in sorted(root.iterdir()) if folder.is_dir())


def check_places(settings: Settings) -> None:
    """Check that a run can write into all its folders and hold its locks.

    Raises:
        TutorialError: a folder cannot be made or written, or a lock is somebody else's.
    """
    for folder in _written_into(settings):
        with refusals_explained(folder):
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
    for lock in settings.run.root.glob(".*lock"):
        with refusals_explained(lock):
            os.close(os.open(lock, os.O_RDWR | os.O_NONBLOCK))


def check(settings: Settings) -> None:
    """Check places and overrides of a run.

    Raises:
        TutorialError: see `check_places` and `helpers.inputs.arguments.check`.
    """
    arguments.check(settings)
    check_places(settings)
