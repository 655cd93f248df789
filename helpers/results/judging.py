"""What the figures decide: differences that are claimed, what is "about as much", and advice.

Codes and figures alone; verdict.py says them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from pydantic import BaseModel, ValidationError

from helpers.ground import paths
from helpers.ground.errors import TutorialError
from helpers.ground.files import read_yaml
from helpers.ground.words import tr
from helpers.planning import planner
from helpers.planning.plan import ArticlePlans
from helpers.records.schema import SeedResult, Training
from helpers.results import chance, peaks, study
from helpers.results.schema import (
    Advice,
    Allowance,
    Amount,
    Effect,
    Judgement,
    PeakMeasure,
    Planned,
    Verdict,
)
from helpers.results.study import Estimate

SIGNIFICANCE = 0.05
Better = Literal["first", "other"]


# ---- what is claimed ----------------------------------------------------------------------------


class Found(BaseModel):
    """An estimate in the making: its p-value is corrected once all of the verdict are known."""

    model_config = {"arbitrary_types_allowed": True}

    first: float
    other: float
    estimate: Estimate
    p: float
    more_is_better: bool

    def effect(self, p_adjusted: float, tests: int) -> Effect:
        """Return it, once its p-value is corrected for so many tests."""
        low, high = self.estimate.interval()
        difference = float(self.estimate.difference)
        better: Better | None = None
        if p_adjusted < SIGNIFICANCE:
            better = "other" if (difference > 0) == self.more_is_better else "first"
        return Effect(
            first=self.first,
            other=self.other,
            difference=difference,
            low=float(low),
            high=float(high),
            p=self.p,
            p_adjusted=p_adjusted,
            missed=float(self.estimate.missed(SIGNIFICANCE / tests)),
            n=self.estimate.problems,
            better=better,
        )


def _answers(first: Sequence[SeedResult], other: Sequence[SeedResult]) -> Found | None:
    right = [np.array([each.right for each in results], float) for results in (first, other)]
    if right[0].shape != right[1].shape or right[0].shape[-1] < 2:
        return None
    estimate = study.between(*right)
    p = float(estimate.p())
    # Also where the trainings of a method all answered alike: no spread is to be had of them.
    if len(first) == 1 or estimate.error == 0:
        only_first = int(((right[0][0] == 1) & (right[1][0] == 0)).sum())
        only_other = int(((right[0][0] == 0) & (right[1][0] == 1)).sum())
        estimate = study.paired_shares(only_first, only_other, right[0].shape[-1])
        p = chance.sign_test(only_first, only_other)
    means = [float(each.mean()) for each in right]
    return Found(first=means[0], other=means[1], estimate=estimate, p=p, more_is_better=True)


def _loss(first: Sequence[SeedResult], other: Sequence[SeedResult]) -> Found | None:
    everything = [*first, *other]
    tokens = [[loss.tokens for loss in each.losses] for each in everything]
    if len(tokens[0]) < 2 or any(each != tokens[0] for each in tokens):
        return None
    nats = [
        np.array([[loss.nats for loss in each.losses] for each in results], float)
        for results in (first, other)
    ]
    estimate = study.between(*(study.contributions(each, np.array(tokens[0])) for each in nats))
    means = [float(each.sum(axis=-1).mean() / sum(tokens[0])) for each in nats]
    return Found(
        first=means[0], other=means[1], estimate=estimate, p=float(estimate.p()),
        more_is_better=False,
    )  # fmt: skip


def effects(
    results: Mapping[str, Sequence[SeedResult]], scored: bool
) -> tuple[dict[str, dict[str, Effect]], int]:
    """Return how far each further method lies from the first, and of how many tests that is.

    Args:
        results: of each method all trainings, the first method's first.
        scored: whether the data say what is right.

    Returns:
        By method, what there is of "answers" and "loss"; all p-values corrected together.
    """
    first, *others = results
    found: dict[tuple[str, str], Found] = {}
    for name in others:
        for what, each in (
            ("answers", _answers(results[first], results[name]) if scored else None),
            ("loss", _loss(results[first], results[name])),
        ):
            if each is not None:
                found[name, what] = each
    adjusted = chance.holm([each.p for each in found.values()])
    by_method: dict[str, dict[str, Effect]] = {name: {} for name in others}
    for ((name, what), each), p in zip(found.items(), adjusted, strict=True):
        by_method[name][what] = each.effect(p, len(found))
    return by_method, len(found)


def _better(found: Mapping[str, Effect]) -> Better | None:
    claimed = {effect.better for effect in found.values() if effect.better}
    return claimed.pop() if len(claimed) == 1 else None


# ---- what is about as much ----------------------------------------------------------------------


def spread(values: Sequence[float]) -> float:
    """Return how far calls of one recipe lie apart: the largest over the smallest, less one."""
    return max(values) / min(values) - 1


def kept_allowances() -> dict[str, float]:
    """Return how far calls of one recipe lay apart where it was measured: configs/tutorial.yaml.

    Raises:
        TutorialError: the file does not say it.
    """
    file = paths.CONFIGS / "tutorial.yaml"
    found = read_yaml(file).get("repeats")
    if not isinstance(found, dict) or not all(
        isinstance(found.get(what), float) and found[what] > 0 for what in ("time", "memory")
    ):
        raise TutorialError(
            tr(
                "{file} must hold 'repeats: {{time: 0.1, memory: 0.01}}', how far calls of one "
                "recipe lie apart.",
                file=paths.shown(file),
            )
        )
    return found


def _allowance(repeats: Sequence[Sequence[float]], kept: float) -> Allowance:
    """Return the allowance from a run's own repeats, one sequence a method, or the kept one."""
    if all(len(values) > 1 and min(values) > 0 for values in repeats):
        share = max(map(spread, repeats))
        return Allowance(share=round(share, 4), measured="here")
    return Allowance(share=kept, measured="before")


def _amount(ratio: float, allowance: Allowance) -> Amount:
    if abs(ratio - 1) <= allowance.share:
        return "about"
    return "more" if ratio > 1 else "less"


# ---- advice -------------------------------------------------------------------------------------


def _advice(better: Better | None, time: Amount, memory: Amount | None) -> Advice:
    """Return what follows for the other against the first; `memory` None says nothing."""
    if better == "first":
        return "first_unless_memory" if memory == "less" else "first"
    if better == "other":
        return "other_unless_memory" if memory == "more" else "other"
    if memory == "less":
        return "other_if_short" if time == "more" else "other_if_short_else_either"
    if time == "more":
        return "first_saves_time"
    if memory == "more":
        return "first_if_short" if time == "less" else "first_saves_memory"
    return "either"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _tensors(results: Sequence[SeedResult]) -> list[float]:
    """Return the peaks of tensors of all trainings of a method; none where one lacks it."""
    peaks_of = [float(each.tensors) for each in results if each.tensors]
    return peaks_of if len(peaks_of) == len(results) else []


def _memory(results: Sequence[SeedResult], training: Training, measure: PeakMeasure) -> list[float]:
    """Return the peaks of a method: of all its trainings, or of the first where one lacks it."""
    tensors = _tensors(results) if measure == "allocator" else []
    return tensors or [float(peaks.of(training, measure))]


def planned(model: str, methods: Sequence[str]) -> list[Planned]:
    """Return what is planned for the largest model that benchmarks/results/plans.json knows.

    Args:
        model: the run's: nothing is returned for itself.
        methods: those to return plans of, where there are any.
    """
    largest = planner.ARTICLE_MODELS[-1]
    try:
        kept = ArticlePlans.model_validate_json(planner.ARTICLE_PLANS.read_text("utf-8"))
    except (OSError, ValidationError):
        return []
    found = []
    for length in planner.ARTICLE_LENGTHS:
        plans = {name: kept.plans.get(f"{largest} {name} {length}") for name in methods}
        known = {name: plan.peak for name, plan in plans.items() if plan}
        if len(known) > 1 and model != largest:
            rows = {phase.rows for phase in known.values()}
            sizes = {name: phase.peak_bytes for name, phase in known.items()}
            found.append(Planned(model=largest, length=length, rows=max(rows), peak_bytes=sizes))
    return found


def decide(
    results: Mapping[str, Sequence[SeedResult]],
    trainings: Mapping[str, Training],
    *,
    model: str,
    scored: bool = True,
) -> Verdict:
    """Return what the figures say of each further method against the first.

    Args:
        results: of each method all trainings, the first method's first.
        trainings: the run's own, by method, in the same order.
        model: the run's.
        scored: whether the data say what is right.

    Raises:
        TutorialError: configs/tutorial.yaml does not say how far calls lie apart.
    """
    first, *others = results
    found, tests = effects(results, scored)
    measure = peaks.common(trainings.values())
    kept = kept_allowances()
    calls = {name: [each.call_seconds for each in of_method] for name, of_method in results.items()}
    taken = {name: _memory(results[name], trainings[name], measure) for name in results}
    times = _allowance(list(calls.values()), kept["time"])
    memories = _allowance(list(taken.values()), kept["memory"])
    judgements = {}
    for name in others:
        better = _better(found[name])
        time = _mean(calls[name]) / _mean(calls[first])
        memory = None
        if measure != "mixed" and _mean(taken[first]):
            memory = _mean(taken[name]) / _mean(taken[first])
        amounts = _amount(time, times), None if memory is None else _amount(memory, memories)
        judgements[name] = Judgement(
            answers=found[name].get("answers"),
            loss=found[name].get("loss"),
            better=better,
            time_ratio=round(time, 4),
            time=amounts[0],
            memory_ratio=None if memory is None else round(memory, 4),
            memory=amounts[1],
            advice=_advice(better, *amounts),
        )
    return Verdict(
        seeds=len(results[first]),
        tests=tests,
        seconds={name: round(_mean(values), 2) for name, values in calls.items()},
        measure=measure,
        memory_bytes={name: round(_mean(values)) for name, values in taken.items()},
        time_allowance=times,
        memory_allowance=memories,
        judgements=judgements,
        planned=planned(model, list(results)),
    )
