"""The tables of 06_compare, drawn from comparison.json alone."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence

from helpers.ground.shown import Sentence, Several, Shown, Table
from helpers.ground.words import sentences, series, tr, trn
from helpers.inputs.subjects import Subject
from helpers.records.schema import Origin, SeedResult
from helpers.results import peaks, tables
from helpers.results.schema import Comparison, MethodFacts, Paired, Verdict
from helpers.results.verdict import percent, points, probability


def comparison(found: Comparison) -> Table:
    """Return the comparison: a row a subject, with how many problems each was asked."""
    measure = found.verdict.measure
    scored = [tr("exact match (95 % interval)")] if found.accuracy else []
    header = [
        "",
        *scored,
        tr("held-out loss"),
        tr("train call"),
        tr("samples/s"),
        tr("peak: {measure}", measure=peaks.named(measure)),
        tr("size on disk"),
    ]
    rows = []
    for name, subject in found.subjects.items():
        row = [subject.label]
        if found.accuracy:
            score = found.accuracy[name]
            row.append(
                f"{score.correct}/{score.n} ({100 * score.low:.0f}-{100 * score.high:.0f} %)"
            )
        training, merge = found.training.get(name), found.merges.get(name)
        if training:
            row += [
                f"{training.final_eval_loss:.3f}",
                tables.seconds(training.call_seconds),
                f"{training.samples_per_second:.2f}",
                peaks.decimal(peaks.of(training, measure)),
                f"{training.adapter_bytes / 1e6:.1f} MB",
            ]
        else:
            size = f"{merge.bytes_on_disk / 1e6:.1f} MB" if merge else tables.NONE
            row += [tables.NONE] * 4 + [size]
        rows.append(row)
    first = tr("Of each method its first seed.") if found.verdict.seeds > 1 else ""
    note = tables.notes(each.origin for each in found.training.values())
    return Table(header, rows, note=sentences([scores(found), first, note]))


def scores(found: Comparison) -> str:
    """Return which weights stood under the scores, or that nothing was scored."""
    if not found.accuracy:
        return tr("These data do not say what is right: losses and texts are compared.")
    methods = [subject for subject in found.subjects.values() if subject.kind == "adapter"]
    beside = [each.label for each in methods if each.method and each.method.quantised]
    merged = [each.label for each in methods if each.label not in beside]
    said = [
        trn(
            "{methods} answered from merged weights: LLaMA-Factory adds an adapter to 16-bit "
            "weights while it loads them.",
            "{methods} answered from merged weights: LLaMA-Factory adds adapters to 16-bit "
            "weights while it loads them.",
            len(merged),
            methods=series(merged),
        )
        if merged
        else "",
        tr(
            "{methods} answered from quantised weights with the adapter beside them.",
            methods=series(beside),
        )
        if beside
        else "",
        tables.not_asked(
            [
                found.subjects[name].label
                for name, merge in found.merges.items()
                if merge.divergence.same_weights
            ]
        ),
    ]
    return sentences(said)


def conditions(found: Comparison) -> Table:
    """Return what was compared, and under which conditions."""
    first = found.methods[0].label
    labels = {method.name: method.label for method in found.methods}
    rows = [
        (tr("model"), found.model),
        (tr("machine"), found.origin.machine.sentence()),
        (
            tr("data"),
            tr(
                "{source}, {train} to train, {held_out} held out",
                source=found.data.words(),
                train=found.data.train,
                held_out=found.data.eval,
            ),
        ),
        *(
            (
                tr("recipe: {key}", key=each.key),
                tr(
                    "{first} {value}, {other} {other_value}",
                    first=first,
                    value=tables.recipe_value(each.first),
                    other=labels[each.method],
                    other_value=tables.recipe_value(each.other),
                ),
            )
            for each in found.differences
        ),
        *found.versions.items(),
    ]
    return Table([tr("what"), tr("value")], rows, note=found.origin.note())


def pairs(found: Comparison) -> Shown:
    """Return how the first adapter of each further method did on the problems of the first's."""
    first, *others = found.methods
    if not others:
        return Sentence(
            tr("Only {method} was trained: there is nothing to compare it with.",
               method=first.label)
        )  # fmt: skip
    if not found.pairs:
        return Sentence(scores(found))
    shown = [
        _pair(found.pairs[each.name], first.label, each.label, found.origin) for each in others
    ]
    return shown[0] if len(shown) == 1 else Several(shown)


def _pair(pair: Paired, first: str, other: str, origin: Origin) -> Table:
    note = tr("McNemar's exact test of these two adapters: p = {p}.", p=f"{pair.p:.4f}")
    header = [tr("problems"), tr("{method} right", method=other), tr("{method} wrong",
                                                                    method=other)]  # fmt: skip
    rows = [
        (tr("{method} right", method=first), pair.both, pair.only_first),
        (tr("{method} wrong", method=first), pair.only_other, pair.neither),
    ]
    return Table(header, rows, note=sentences([note, origin.note()]), heads=True)


# ---- all seeds, and what the verdict weighs -----------------------------------------------------


def spread(values: Sequence[float], digits: int) -> str:
    """Return mean and standard deviation (of a sample: n - 1) of values, as text."""
    mean = f"{statistics.mean(values):.{digits}f}"
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean


def seeds(
    results: Sequence[SeedResult], subjects: Mapping[str, Subject], origins: Iterable[Origin] = ()
) -> Table:
    """Return what trainings with several seeds came to: a row each, and mean ± deviation.

    Args:
        results: of one method or several.
        subjects: what is compared, by name.
        origins: where and when they were measured; none where that stands elsewhere.
    """
    header = [tr("method"), tr("seed"), tr("held-out loss"), tr("train call")]
    rows = [
        [
            subjects[r.method].label,
            str(r.seed),
            f"{r.held_out_loss:.4f}",
            tables.seconds(r.call_seconds),
            tr("{part} of {whole}", part=r.correct, whole=r.n),
        ]
        for r in results
    ]
    for method in dict.fromkeys(result.method for result in results):
        own = [result for result in results if result.method == method]
        if len(own) > 1:
            right = spread([result.correct for result in own], 1)
            rows.append(
                [
                    subjects[method].label,
                    tr("{n} seeds", n=len(own)),
                    spread([result.held_out_loss for result in own], 4),
                    tr("{seconds} s", seconds=spread([each.call_seconds for each in own], 0)),
                    tr("{part} of {whole}", part=right, whole=own[0].n),
                ]
            )
    note = tables.notes(origins)
    if all(each.scored for each in results):
        return Table([*header, tr("exact match")], rows, note=note)
    return Table(header, [row[:-1] for row in rows], note=note)


def evidence(found: Comparison) -> Table:
    """Return the figures that the verdict weighs, with what each is from: a row each."""
    verdict = found.verdict
    first, *others = found.methods
    rows = [row for other in others for row in _weighed(verdict, first, other)]
    labels = {method.name: method.label for method in found.methods}
    for each in verdict.planned:
        sizes = {labels[name]: size for name, size in each.peak_bytes.items()}
        for label in [label for label in sizes if label != first.label]:
            if first.label in sizes:
                ratio = sizes[label] / sizes[first.label]
                rows.append(
                    [
                        tr("peak of tensors, {model}, {length} tokens", model=each.model,
                           length=each.length),
                        f"{first.label} {peaks.binary(sizes[first.label])}",
                        f"{label} {peaks.binary(sizes[label])}",
                        f"{100 * (ratio - 1):+.0f} %",
                        tables.NONE,
                        tr("planned"),
                    ]
                )  # fmt: skip
    header = [tr("what"), tr("first"), tr("other"), tr("difference"),
              tr("95 % interval, p"), tr("from")]  # fmt: skip
    return Table(header, rows, note=sentences([_which_mean(verdict), found.origin.note()]))


def _which_mean(verdict: Verdict) -> str:
    """Return why the losses that are weighed are other numbers than those of the trainings."""
    if not any(judgement.loss for judgement in verdict.judgements.values()):
        return ""
    return tr(
        "The held-out losses here are means over all tokens; those that a training reports are "
        "transformers' means over batches, in which the tokens of short solutions weigh more."
    )


def _weighed(verdict: Verdict, one: MethodFacts, two: MethodFacts) -> list[list[str]]:
    first, other, judgement = one.label, two.label, verdict.judgements[two.name]
    here = (
        tr("these two adapters")
        if verdict.seeds == 1
        else tr("{seeds} trainings each", seeds=verdict.seeds)
    )
    rows = []
    if judgement.answers:
        each = judgement.answers
        rows.append(
            [
                tr("exact match, {n} problems", n=each.n),
                f"{first} {100 * each.first:.1f} %",
                f"{other} {100 * each.other:.1f} %",
                tr("{difference} points", difference=points(each.difference)),
                f"{points(each.low)} .. {points(each.high)}, {probability(each.p_adjusted)}",
                here,
            ]
        )
    if judgement.loss:
        each = judgement.loss
        rows.append(
            [
                tr("held-out loss, {n} problems", n=each.n),
                f"{first} {each.first:.4f}",
                f"{other} {each.other:.4f}",
                f"{each.difference:+.4f}",
                f"{each.low:+.4f} .. {each.high:+.4f}, {probability(each.p_adjusted)}",
                here,
            ]
        )
    seconds = {name: tables.seconds(taken) for name, taken in verdict.seconds.items()}
    memory = {name: peaks.decimal(round(taken)) for name, taken in verdict.memory_bytes.items()}
    what_memory = tr("peak: {measure}", measure=peaks.named(verdict.measure))
    for what, taken, ratio, allowance in (
        (tr("train call"), seconds, judgement.time_ratio, verdict.time_allowance),
        (what_memory, memory, judgement.memory_ratio, verdict.memory_allowance),
    ):
        if ratio is not None:
            kept = (
                tr("this run's repeats lie {percent} % apart", percent=percent(1 + allowance.share))
                if allowance.measured == "here"
                else tr("this run; repeats lie {percent} % apart (configs/tutorial.yaml)",
                        percent=percent(1 + allowance.share))
            )  # fmt: skip
            rows.append(
                [
                    what,
                    f"{first} {taken[one.name]}",
                    f"{other} {taken[two.name]}",
                    f"{100 * (ratio - 1):+z.1f} %",
                    tables.NONE,
                    kept,
                ]
            )
    return rows
