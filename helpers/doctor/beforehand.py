"""What is looked at before anything starts, so that hours of work do not end at its last file."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from helpers.ground import paths
from helpers.ground.errors import TutorialError
from helpers.ground.files import refusals_explained
from helpers.ground.words import series, tr, trn
from helpers.inputs import arguments, sharing
from helpers.inputs.settings import Settings
from helpers.machine import hardware


def _written_into(settings: Settings) -> Iterator[Path]:
    """Yield the folders that a run writes into, and those in its folder that it has already."""
    if not settings.model.is_here:
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


def check_cards(settings: Settings) -> None:
    """Check that a training can have the cards that it is to run on.

    Raises:
        TutorialError: there are fewer, they are of two kinds, or they cannot share the batch, or
            one alone the model.
    """
    for method in settings.methods:
        sharing.shared(method.recipe | settings.changes, settings.cards, settings.sharded)
    if settings.cards == 1:
        return
    found = hardware.visible_cards(settings.profile.device)
    if len(found) < settings.cards:
        raise TutorialError(
            trn(
                "CARDS={asked} asks for more than there is: {n} can be used here (on a CPU, so "
                "many cores); ask for fewer, or show more in ASCEND_RT_VISIBLE_DEVICES or "
                "CUDA_VISIBLE_DEVICES.",
                "CARDS={asked} asks for more than there are: {n} can be used here (on a CPU, so "
                "many cores); ask for fewer, or show more in ASCEND_RT_VISIBLE_DEVICES or "
                "CUDA_VISIBLE_DEVICES.",
                len(found),
                asked=settings.cards,
            )
        )
    kinds = sorted({name for name in found[: settings.cards] if name})
    if len(kinds) > 1:
        raise TutorialError(
            tr(
                "CARDS={asked} would take cards of two kinds ({kinds}), and the faster would wait "
                "for the slower: show cards of one kind in ASCEND_RT_VISIBLE_DEVICES or "
                "CUDA_VISIBLE_DEVICES.",
                asked=settings.cards,
                kinds=series(kinds),
            )
        )


def check(settings: Settings) -> None:
    """Check cards, places and overrides of a run.

    Raises:
        TutorialError: see `check_cards`, `check_places` and `helpers.inputs.arguments.check`.
    """
    check_cards(settings)
    arguments.check(settings)
    check_places(settings)
