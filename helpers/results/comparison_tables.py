"""The tables of 06_compare, drawn from comparison.json alone."""

from __future__ import annotations

from helpers.ground.shown import Sentence, Several, Shown, Table
from helpers.ground.words import tr
from helpers.records.schema import Origin
from helpers.results import peaks, tables
from helpers.results.schema import Comparison, Paired


def comparison(found: Comparison) -> Table:
    """Return the comparison: a row a subject."""
    measure = found.verdict.measure
    header = [
        "",
        tr("exact match (95 % interval)"),
        tr("held-out loss"),
        tr("train call"),
        tr("samples/s"),
        tr("peak: {measure}", measure=peaks.named(measure)),
        tr("size on disk"),
    ]
    rows = []
    for name, subject in found.subjects.items():
        score = found.accuracy[name]
        row = [
            subject.label,
            f"{score.correct}/{score.n} ({100 * score.low:.0f}-{100 * score.high:.0f} %)",
        ]
        training, merge = found.training.get(name), found.merges.get(name)
        if training:
            row += [
                f"{training.final_eval_loss:.3f}",
                f"{training.call_seconds:.0f} s",
                f"{training.samples_per_second:.2f}",
                peaks.decimal(peaks.of(training, measure)),
                f"{training.adapter_bytes / 1e6:.1f} MB",
            ]
        else:
            size = f"{merge.bytes_on_disk / 1e6:.1f} MB" if merge else tables.NONE
            row += [tables.NONE] * 4 + [size]
        rows.append(row)
    return Table(header, rows, note=tables.notes(each.origin for each in found.training.values()))


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
    """Return how each further method did on the same problems as the first."""
    first, *others = found.methods
    if not others:
        return Sentence(
            tr("Only {method} was trained: there is nothing to compare it with.",
               method=first.label)
        )  # fmt: skip
    shown = [
        _pair(found.pairs[each.name], first.label, each.label, len(others), found.origin)
        for each in others
    ]
    return shown[0] if len(shown) == 1 else Several(shown)


def _pair(pair: Paired, first: str, other: str, number: int, origin: Origin) -> Table:
    test = (
        tr("McNemar's exact test: p = {p}.", p=f"{pair.p:.4f}")
        if number == 1
        else tr(
            "McNemar's exact test: p = {p}, corrected for {n} comparisons {adjusted} (Holm).",
            p=f"{pair.p:.4f}",
            n=number,
            adjusted=f"{pair.p_adjusted:.4f}",
        )
    )
    header = [tr("problems"), tr("{method} right", method=other), tr("{method} wrong",
                                                                    method=other)]  # fmt: skip
    rows = [
        (tr("{method} right", method=first), pair.both, pair.only_first),
        (tr("{method} wrong", method=first), pair.only_other, pair.neither),
    ]
    return Table(header, rows, note=f"{test} {origin.note()}", heads=True)
