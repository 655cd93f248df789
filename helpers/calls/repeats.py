"""Repeating a training with other seeds: how far do its figures move by chance alone?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from helpers.calls import prediction, training
from helpers.ground import paths
from helpers.ground.errors import TutorialError
from helpers.ground.words import tr
from helpers.inputs import data
from helpers.inputs.settings import Settings
from helpers.records import store
from helpers.records.schema import Record, SeedResult

DEFAULT_SEED = 42  # transformers' own


def others(settings: Settings) -> list[Settings]:
    """Return the settings of the further seeds: each has a run folder of its own, RUN-seedN.

    Raises:
        TutorialError: the seed is no whole number.
    """
    first = settings.overrides.get("seed", settings.methods[0].recipe.get("seed", DEFAULT_SEED))
    if isinstance(first, bool) or not isinstance(first, int):
        raise TutorialError(tr("seed={value!r} must be a whole number: correct it.", value=first))
    return [
        replace(
            settings,
            run=paths.RunFolder(f"{settings.run.name}-seed{seed}"),
            overrides=settings.overrides | {"seed": seed},
            seeds=1,
        )
        for seed in range(first + 1, first + settings.seeds)
    ]


def result(method: str, record: Record) -> SeedResult:
    """Return what one training came to, from its record."""
    trained = record.training
    assert trained is not None
    peaks = [peak for peak in (trained.peaks.training, trained.peaks.evaluation) if peak]
    return SeedResult(
        method=method,
        seed=record.recipes["train"].get("seed", DEFAULT_SEED),
        held_out_loss=trained.final_eval_loss,
        correct=record.answers.correct,
        n=record.answers.n,
        scored=record.data.scored,
        right=[item.correct for item in record.answers.items],
        losses=trained.problem_losses,
        call_seconds=trained.call_seconds,
        tensors=max(peaks) if trained.peaks.training else None,
    )


def records(method: str, settings: Settings) -> list[Record]:
    """Return the records of all trainings of a method, the run's own first.

    Raises:
        TutorialError: one is missing, with the notebook that makes it.
    """
    subject = settings.subject(method)
    return [store.read(each.run, subject) for each in (settings, *others(settings))]


def repeat(method: str, settings: Settings, say: Callable[[str], None] = print) -> list[SeedResult]:
    """Train and ask a method once more for each further seed that the settings want.

    The data stay the same: what is sampled from the source does not depend on the recipe's seed.

    Args:
        method: one of the run's; the run's own training and answers must be there.
        settings: the run's settings; `seeds` is how many trainings there are in all.
        say: takes the lines that tell what happens.

    Returns:
        One result a seed, the run's own first.

    Raises:
        TutorialError: an input is missing (with the notebook that makes it), or a call failed.
    """
    for other in others(settings):
        folder = paths.shown(other.run.root)
        say(tr("Seed {seed}, in {folder}:", seed=other.overrides["seed"], folder=folder))
        data.prepare(other, say)
        training.train(method, other, say)
        prediction.answered(method, other, say)
    return [result(method, record) for record in records(method, settings)]
