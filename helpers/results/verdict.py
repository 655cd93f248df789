"""The verdict: decided from the figures as codes, and said in sentences."""

from __future__ import annotations

from collections.abc import Mapping

from helpers.ground.words import tr, trn
from helpers.records.schema import Training
from helpers.results import peaks
from helpers.results.schema import Advice, Amount, Comparison, Judgement, Paired, Verdict

SIGNIFICANCE = 0.05
# A saving or a slowdown below this share is within what two runs of one recipe differ.
NOTEWORTHY = 0.05


def _amount(ratio: float) -> Amount:
    if abs(ratio - 1) <= NOTEWORTHY:
        return "about"
    return "more" if ratio > 1 else "less"


def _advice(better: str | None, time: Amount, memory: Amount | None) -> Advice:
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


def decide(pairs: Mapping[str, Paired], trainings: Mapping[str, Training]) -> Verdict:
    """Return what the figures say of each further method against the first.

    Args:
        pairs: how each further method did on the same problems as the first.
        trainings: by method, the first one's first.
    """
    first, *_ = trainings.values()
    measure = peaks.common(trainings.values())
    found = {}
    for name, pair in pairs.items():
        better = None
        if pair.p_adjusted < SIGNIFICANCE:
            better = "first" if pair.only_first > pair.only_other else "other"
        time = trainings[name].call_seconds / first.call_seconds
        memory = None
        if measure != "mixed" and peaks.of(first, measure):
            memory = peaks.of(trainings[name], measure) / peaks.of(first, measure)
        amounts = _amount(time), None if memory is None else _amount(memory)
        found[name] = Judgement.model_validate(
            {
                "better": better,
                "time_ratio": round(time, 4),
                "time": amounts[0],
                "memory_ratio": None if memory is None else round(memory, 4),
                "memory": amounts[1],
                "advice": _advice(better, *amounts),
            }
        )
    return Verdict(measure=measure, judgements=found)


def sentence(comparison: Comparison) -> str:
    """Return the verdict in words: for each further method, what it answered and cost, and advice.

    Args:
        comparison: its figures are the only source.
    """
    labels = {method.name: method.label for method in comparison.methods}
    first = comparison.methods[0].label
    verdict, pairs = comparison.verdict, comparison.pairs
    if not pairs:
        return tr("Only {method} was trained: there is nothing to compare it with.", method=first)
    said = []
    for name, judgement in verdict.judgements.items():
        names = {"first": first, "other": labels[name]}
        said += [
            _of_answers(pairs[name], judgement, names),
            _of_time(judgement, names),
            _of_memory(judgement, names, peaks.named(verdict.measure)),
            _of_advice(judgement, names),
        ]
    if len(pairs) > 1:
        said.append(
            trn(
                "The p-value is corrected for {n} comparison (Holm).",
                "The p-values are corrected for {n} comparisons (Holm).",
                len(pairs),
            )
        )
    return " ".join(said)


def _of_answers(pair: Paired, judgement: Judgement, names: Mapping[str, str]) -> str:
    figures = {"a": pair.first_right, "b": pair.other_right, "total": pair.n}
    if judgement.better:
        return tr(
            "{first} answered {a} and {other} {b} of {total} held-out problems, a real difference "
            "(p = {p}).",
            **names,
            **figures,
            p=f"{pair.p_adjusted:.3f}",
        )
    return tr(
        "{first} answered {a} and {other} {b} of {total} held-out problems: no difference at this "
        "n (p = {p}).",
        **names,
        **figures,
        p=f"{pair.p_adjusted:.2f}",
    )


def _percent(ratio: float) -> str:
    return f"{abs(ratio - 1) * 100:.0f}"


def _of_time(judgement: Judgement, names: Mapping[str, str]) -> str:
    percent = _percent(judgement.time_ratio)
    if judgement.time == "more":
        return tr("{other} took {percent} % more time than {first}.", percent=percent, **names)
    if judgement.time == "less":
        return tr("{other} took {percent} % less time than {first}.", percent=percent, **names)
    return tr("{other} took about as much time as {first}.", **names)


def _of_memory(judgement: Judgement, names: Mapping[str, str], what: str) -> str:
    if judgement.memory_ratio is None:
        return tr("Their memory was not measured alike, and is not compared.")
    percent = _percent(judgement.memory_ratio)
    if judgement.memory == "more":
        return tr(
            "At its peak {other} took {percent} % more memory than {first} ({what}).",
            percent=percent,
            what=what,
            **names,
        )
    if judgement.memory == "less":
        return tr(
            "At its peak {other} took {percent} % less memory than {first} ({what}).",
            percent=percent,
            what=what,
            **names,
        )
    return tr(
        "At its peak {other} took about as much memory as {first} ({what}).", what=what, **names
    )


def _of_advice(judgement: Judgement, names: Mapping[str, str]) -> str:
    match judgement.advice:
        case "first":
            return tr("Use {first} here.", **names)
        case "first_unless_memory":
            return tr("Use {first} here unless only {other} fits in memory.", **names)
        case "other":
            return tr("Use {other} here.", **names)
        case "other_unless_memory":
            return tr("Use {other} here unless only {first} fits in memory.", **names)
        case "other_if_short":
            return tr("Use {other} where memory is short, and {first} where it is not.", **names)
        case "other_if_short_else_either":
            return tr("Use {other} where memory is short, and either where it is not.", **names)
        case "first_if_short":
            return tr("Use {first} where memory is short, and {other} where it is not.", **names)
        case "first_saves_time":
            return tr(
                "Use {first} here: {other} costs time and saves no memory worth having.", **names
            )
        case "first_saves_memory":
            return tr(
                "Use {first} here: {other} costs memory and saves no time worth having.", **names
            )
        case "either":
            return tr("Use either here.")
