"""Repeating a training with other seeds: how far do its figures move by chance alone?"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace

from pydantic import BaseModel

from helpers import data, paths, prediction, recipe, records, training
from helpers.settings import Settings


class SeedResult(BaseModel):
    """What one training came to: the seed decides the adapter's first values and the order."""

    method: str
    seed: int
    held_out_loss: float
    correct: int
    n: int


def others(settings: Settings) -> list[Settings]:
    """Return the settings of the further seeds: each has a run folder of its own, RUN-seedN."""
    first: int = settings.overrides.get("seed") or recipe.article("lora")["seed"]
    return [
        replace(
            settings,
            run=paths.RunFolder(f"{settings.run.name}-seed{seed}"),
            overrides=settings.overrides | {"seed": seed},
            seeds=1,
        )
        for seed in range(first + 1, first + settings.seeds)
    ]


def _result(method: str, settings: Settings) -> SeedResult:
    record = records.read(settings.run, method)
    assert record.training is not None
    return SeedResult(
        method=method,
        seed=record.recipes["train"]["seed"],
        held_out_loss=record.training.final_eval_loss,
        correct=record.answers.correct,
        n=record.answers.n,
    )


def repeat(method: str, settings: Settings, say: Callable[[str], None] = print) -> list[SeedResult]:
    """Train and ask a method once more for each further seed that the settings want.

    The data stay the same: what is sampled from the source does not depend on the recipe's seed.

    Args:
        method: lora or qlora; the run's own training and answers must be there.
        settings: the run's settings; `seeds` is how many trainings there are in all.
        say: takes the lines that tell what happens.

    Returns:
        One result a seed, the run's own first.

    Raises:
        TutorialError: an input is missing (with the notebook that makes it), or a call failed.
    """
    for other in others(settings):
        say(f"Seed {other.overrides['seed']}, in {paths.shown(other.run.root)}:")
        data.prepare(other, say)
        training.train(method, other, say)
        prediction.record(method, other, prediction.answer(method, other, say))
    return [_result(method, each) for each in (settings, *others(settings))]


def read(settings: Settings) -> list[SeedResult]:
    """Return the results of all seeds of both methods.

    Raises:
        TutorialError: one is missing, with the notebook that makes it.
    """
    return [_result(method, each) for method in recipe.METHODS
            for each in (settings, *others(settings))]  # fmt: skip


def spread(values: Sequence[float], digits: int) -> str:
    """Return mean and standard deviation (of a sample: n - 1) of values, as text."""
    mean = f"{statistics.mean(values):.{digits}f}"
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean


def table(
    results: Sequence[SeedResult], labels: dict[str, str]
) -> tuple[list[str], list[list[str]]]:
    """Return results as a table: its header, one row a seed, and one with mean ± deviation.

    Args:
        results: of one method or both.
        labels: the methods' names, as readers know them.
    """
    header = ["method", "seed", "held-out loss", "exact match"]
    rows = [
        [labels[r.method], str(r.seed), f"{r.held_out_loss:.4f}", f"{r.correct}/{r.n}"]
        for r in results
    ]
    for method in dict.fromkeys(result.method for result in results):
        own = [result for result in results if result.method == method]
        if len(own) > 1:
            loss = spread([result.held_out_loss for result in own], 4)
            right = spread([result.correct for result in own], 1)
            rows.append([labels[method], f"{len(own)} seeds", loss, f"{right} of {own[0].n}"])
    return header, rows
