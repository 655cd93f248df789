"""The verdict in words, from the figures of comparison.json alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from helpers.ground.words import clauses, sentences, series, tr, trn
from helpers.results import peaks
from helpers.results.schema import Comparison, Effect, Judgement, Verdict


def sentence(comparison: Comparison) -> str:
    """Return the verdict: for each further method what it learned and cost, and what to do.

    Args:
        comparison: its figures are the only source.
    """
    labels = {method.name: method.label for method in comparison.methods}
    first = comparison.methods[0].label
    verdict = comparison.verdict
    if not verdict.judgements:
        return tr("Only {method} was trained: there is nothing to compare it with.", method=first)
    said = []
    for name, judgement in verdict.judgements.items():
        names = {"first": first, "other": labels[name]}
        said += [
            _of_answers(judgement.answers, verdict.seeds, names),
            _of_loss(judgement.loss, verdict.seeds, names),
            _of_time(judgement, verdict, names),
            _of_memory(judgement, verdict, names),
            _of_advice(judgement, verdict.seeds, names),
        ]
    said += [
        _of_tests(verdict),
        _of_seeds(verdict.seeds),
        size(comparison),
    ]
    return sentences(said)


def probability(p: float) -> str:
    """Return "p = 0.012", or "p < 0.001"."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def points(share: float) -> str:
    """Return a share's difference as percentage points, with its sign."""
    return f"{100 * share:+.1f}"


# ---- what was learned ---------------------------------------------------------------------------


def _claimed(effect: Effect, seeds: int, names: Mapping[str, str]) -> str:
    """Return what is claimed: of two adapters, or of two methods."""
    if effect.better is None:
        return tr("no difference can be told from chance")
    better = names[effect.better]
    if seeds == 1:
        return tr("of these two adapters {better}'s is better", better=better)
    return tr("{better} is the better method", better=better)


def _of_answers(effect: Effect | None, seeds: int, names: Mapping[str, str]) -> str:
    if effect is None:
        return tr("There are no scored answers to compare.")
    figures = {
        **names,
        "n": effect.n,
        "difference": points(effect.difference),
        "low": points(effect.low),
        "high": points(effect.high),
        "p": probability(effect.p_adjusted),
        "claim": _claimed(effect, seeds, names),
    }
    if seeds == 1:
        text = tr(
            "{first} answered {a} and {other} {b} of {n} held-out problems: {claim} ({other} "
            "against {first} {difference} points, 95 % interval {low} to {high}, {p}).",
            a=round(effect.first * effect.n),
            b=round(effect.other * effect.n),
            **figures,
        )
    else:
        text = tr(
            "{first} answered {a} % and {other} {b} % of {n} held-out problems, means of {seeds} "
            "trainings each: {claim} ({other} against {first} {difference} points, 95 % interval "
            "{low} to {high}, {p}).",
            a=f"{100 * effect.first:.1f}",
            b=f"{100 * effect.other:.1f}",
            seeds=seeds,
            **figures,
        )
    missed = ""
    if effect.better is None:
        missed = tr(
            "A true difference of {missed} points would have been missed in one of five such "
            "comparisons, a smaller one more often.",
            missed=f"{100 * effect.missed:.0f}",
        )
    return sentences([text, missed])


def _of_loss(effect: Effect | None, seeds: int, names: Mapping[str, str]) -> str:
    if effect is None:
        return tr("Their held-out loss was not recorded problem by problem, and is not judged.")
    text = tr(
        "Held-out loss, {first} {a} and {other} {b} nats per token on {n} problems: {claim} "
        "({difference}, 95 % interval {low} to {high}, {p}).",
        a=f"{effect.first:.3f}",
        b=f"{effect.other:.3f}",
        n=effect.n,
        claim=_claimed(effect, seeds, names),
        difference=f"{effect.difference:+.4f}",
        low=f"{effect.low:+.4f}",
        high=f"{effect.high:+.4f}",
        p=probability(effect.p_adjusted),
        **names,
    )
    missed = ""
    if effect.better is None and effect.missed > 0:
        missed = tr(
            "One of {missed} would have been missed in one of five.",
            missed=f"{effect.missed:.3f}",
        )
    return sentences([text, missed])


def _of_tests(verdict: Verdict) -> str:
    if verdict.tests < 2:
        return ""
    return trn(
        "The p-value is corrected for {n} test (Holm); each interval stands for itself.",
        "The p-values are corrected for {n} tests (Holm); each interval stands for itself.",
        verdict.tests,
    )


def _of_seeds(seeds: int) -> str:
    if seeds == 1:
        return tr(
            "With one training a method, all of this is about these adapters: other seeds give "
            "other ones, and about the methods SEEDS=3 or more can tell."
        )
    return tr(
        "Seeds and problems are both taken for drawn by chance, so this is about the methods with "
        "this model and these data, from {seeds} trainings of each.",
        seeds=seeds,
    )


# ---- what it cost -------------------------------------------------------------------------------


def percent(ratio: float) -> str:
    """Return how far a ratio lies from 1, in whole per cent, or tenths below 10."""
    off = abs(ratio - 1) * 100
    return f"{off:.0f}" if off >= 9.95 else f"{off:.1f}"


def _of_time(judgement: Judgement, verdict: Verdict, names: Mapping[str, str]) -> str:
    off = percent(judgement.time_ratio)
    if judgement.time == "more":
        return tr("{other}'s training took {percent} % more time than {first}'s.",
                  percent=off, **names)  # fmt: skip
    if judgement.time == "less":
        return tr("{other}'s training took {percent} % less time than {first}'s.",
                  percent=off, **names)  # fmt: skip
    return tr(
        "{other}'s training took about as much time as {first}'s: calls of one recipe lie up to "
        "{percent} % apart.",
        percent=percent(1 + verdict.time_allowance.share),
        **names,
    )


def _of_memory(judgement: Judgement, verdict: Verdict, names: Mapping[str, str]) -> str:
    if judgement.memory_ratio is None:
        return tr("Their memory was not measured alike, and is not compared.")
    what, off = peaks.named(verdict.measure), percent(judgement.memory_ratio)
    if judgement.memory == "more":
        return tr(
            "At its peak {other} took {percent} % more memory than {first} ({what}).",
            percent=off,
            what=what,
            **names,
        )
    if judgement.memory == "less":
        return tr(
            "At its peak {other} took {percent} % less memory than {first} ({what}).",
            percent=off,
            what=what,
            **names,
        )
    return tr(
        "At its peak {other} took about as much memory as {first} ({what}).", what=what, **names
    )


# ---- what to do ---------------------------------------------------------------------------------


def _of_advice(judgement: Judgement, seeds: int, names: Mapping[str, str]) -> str:
    effects = (judgement.answers, judgement.loss)
    claimed = {effect.better for effect in effects if effect and effect.better}
    if len(claimed) > 1:
        return tr(
            "Answers and loss contradict each other, so neither {first} nor {other} is advised.",
            **names,
        )
    if judgement.better and seeds == 1:
        return _of_adapters(judgement, names)
    return _of_methods(judgement, names)


def _of_adapters(judgement: Judgement, names: Mapping[str, str]) -> str:
    match judgement.advice:
        case "first":
            return tr("Of these two adapters, use {first}'s.", **names)
        case "first_unless_memory":
            return tr(
                "Of these two adapters, use {first}'s; where memory is short, train with {other}.",
                **names,
            )
        case "other":
            return tr("Of these two adapters, use {other}'s.", **names)
    return tr(
        "Of these two adapters, use {other}'s; where memory is short, train with {first}.", **names
    )


def _of_methods(judgement: Judgement, names: Mapping[str, str]) -> str:
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
            return tr("Use {first} here: {other} costs time and saves no memory.", **names)
        case "first_saves_memory":
            return tr("Use {first} here: {other} costs memory and saves no time.", **names)
        case "either":
            return tr("Use either here.")


def size(comparison: Comparison) -> str:
    """Return what this run's model cannot tell of the largest one, and what is planned for that."""
    planned = comparison.verdict.planned
    if not planned:
        return ""
    labels = {method.name: method.label for method in comparison.methods}
    largest = planned[0].model
    lengths = [
        tr(
            "with {length} tokens {peaks}",
            length=each.length,
            peaks=series(_peaks(each.peak_bytes, labels)),
        )
        for each in planned
    ]
    return tr(
        "What {model} shows does not tell how much an adapter learns beside {largest}, or what "
        "share of memory and time the weights take there: run it with MODEL={largest}. Planned for "
        "{largest} on an Ascend card, micro-batch {rows}, nothing of it measured: {lengths}.",
        model=comparison.model,
        largest=largest,
        rows=planned[0].rows,
        lengths=clauses(lengths),
    )


def _peaks(sizes: Mapping[str, int], labels: Mapping[str, str]) -> Sequence[str]:
    return [f"{labels[name]} {amount / 2**30:.2f} GiB" for name, amount in sizes.items()]
