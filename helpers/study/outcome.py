"""What a study has come to: its trials' records side by side, and a verdict for each model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from helpers.calls import repeats
from helpers.ground import drawing
from helpers.ground.errors import TutorialError
from helpers.ground.shown import Picture, Sentence, Several, Shown, Table
from helpers.ground.words import tr
from helpers.inputs import methods, models
from helpers.records import store
from helpers.records.schema import Record, SeedResult
from helpers.results import figures, judging
from helpers.results import verdict as verdict_words
from helpers.results.schema import Comparison, MethodFacts, Verdict
from helpers.study import record as records
from helpers.study import scheduling
from helpers.study.asked import settings_of
from helpers.study.record import Row, Study

GIB = 2**30
HOUR = 3600


@dataclass(frozen=True)
class Found:
    """The trials of one model and method that are done."""

    model: str
    method: str
    rows: list[Row]
    records: list[Record]

    @property
    def results(self) -> list[SeedResult]:
        return [repeats.result(self.method, each) for each in self.records]

    @property
    def hours(self) -> float:
        """Of a trial, training and answers."""
        return fmean(row.seconds or 0.0 for row in self.rows) / HOUR


def found(study: Study) -> list[Found]:
    """Return what is done, in the order of the study.

    Raises:
        TutorialError: the trials of a model were not made alike.
    """
    kinds: dict[tuple[str, str], list[tuple[Row, Record]]] = {}
    for row in study.rows:
        if row.state == "done":
            settings = settings_of(row.trial, study.asked)
            read = store.read(settings.run, settings.subject(row.trial.method))
            kinds.setdefault((row.trial.model, row.trial.method), []).append((row, read))
    each = [
        Found(model, method, [row for row, _ in done], [read for _, read in done])
        for (model, method), done in kinds.items()
    ]
    for model in dict.fromkeys(one.model for one in each):
        _check_alike(model, [read for one in each if one.model == model for read in one.records])
    return each


def _check_alike(model: str, read: Sequence[Record]) -> None:
    """Check that trials were made from the same and on the same kind of device."""

    def made(one: Record) -> tuple[object, ...]:
        return (one.data.train_sha256, one.data.eval_sha256, one.model_sha256, one.device,
                one.versions)  # fmt: skip

    if any(made(one) != made(read[0]) for one in read):
        raise TutorialError(
            tr(
                "The trials of {model} were made from other data or versions than one another: run "
                "'make study' again.",
                model=model,
            )
        )


def verdicts(study: Study, each: Sequence[Found]) -> dict[str, Verdict]:
    """Return the verdict over the seeds, by model, where two methods or more are done there."""
    said = {}
    for model in study.asked.models:
        of = {one.method: one for one in each if one.model == model}
        seeds = {len(one.rows) for one in of.values()}
        if len(of) > 1 and len(seeds) == 1:  # the same seeds of each
            results = {method: one.results for method, one in of.items()}
            trainings = {}
            for method, one in of.items():
                trained = one.records[0].training
                assert trained is not None
                trainings[method] = trained
            scored = next(iter(of.values())).records[0].data.scored
            said[model] = judging.decide(results, trainings, model=model, scored=scored)
    return said


def _label(method: str) -> str:
    return methods.load(method).label


def _spread(values: Sequence[float], form: str) -> str:
    """Return a mean, and from where to where its seeds lie."""
    mean = format(fmean(values), form)
    if len(values) == 1:
        return mean
    return tr("{mean} ({low} to {high})", mean=mean, low=format(min(values), form),
              high=format(max(values), form))  # fmt: skip


def table(each: Sequence[Found], price: float | None) -> Table:
    """Return what the methods came to at each size, with the spread over their seeds.

    Args:
        each: what is done.
        price: of an hour of a card; None leaves the cost out.
    """
    header = [
        tr("model"),
        tr("method"),
        tr("trainings"),
        tr("exact match, %"),
        tr("held-out loss"),
        tr("memory planned, GiB"),
        tr("memory measured, GiB"),
        tr("minutes a trial"),
    ]
    rows: list[list[object]] = []
    for one in each:
        results = one.results
        memory = [result.tensors / GIB for result in results if result.tensors]
        share = [100 * result.correct / result.n for result in results if result.scored]
        rows.append(
            [
                one.model,
                _label(one.method),
                len(results),
                _spread(share, ".1f") if share else tr("not scored"),
                _spread([result.held_out_loss for result in results], ".4f"),
                f"{(one.rows[0].planned_bytes or 0) / GIB:.2f}",
                _spread(memory, ".2f") if memory else tr("not measured"),
                _spread([(row.seconds or 0) / 60 for row in one.rows], ".1f"),
            ]
        )
    if price is not None:
        header.append(tr("cost of a trial"))
        for row, one in zip(rows, each, strict=True):
            row.append(f"{one.hours * price:.2f}")
    return Table(header, rows)


def board(study: Study) -> Table:
    """Return where every trial is."""
    names = scheduling.state_names()
    return Table(
        [tr("trial"), tr("state"), tr("where"), tr("attempts"), tr("what it says")],
        [
            [row.trial.run, names[row.state], row.where, row.attempts, said(row)]
            for row in study.rows
        ],
    )


def said(row: Row) -> str:
    """Return what there is to say of a trial: why it does not fit, where it is, what was wrong."""
    if row.refusal:
        return _of_refusal(row)
    if row.state in ("running", "failed"):
        return records.last_line(scheduling.log_of(row))[:160]
    return ""


def _of_refusal(row: Row) -> str:
    assert row.refusal
    figures_of = {
        "needed": f"{row.refusal.needed_bytes / GIB:.2f}",
        "usable": f"{row.refusal.usable_bytes / GIB:.2f}",
    }
    if row.refusal.micro_batch:
        return tr(
            "needs {needed} GiB of {usable}; per_device_train_batch_size={rows} would fit",
            rows=row.refusal.micro_batch,
            **figures_of,
        )
    if row.refusal.methods:
        return tr(
            "needs {needed} GiB of {usable}; {methods} would fit",
            methods=", ".join(map(_label, row.refusal.methods)),
            **figures_of,
        )
    return tr("needs {needed} GiB of {usable}; a smaller model would fit", **figures_of)


def judged(verdict: Verdict, model: str) -> str:
    """Return a model's verdict in sentences: of each further method against the first."""
    compared = [
        MethodFacts(name=name, label=_label(name), recipe=methods.load(name).recipe)
        for name in verdict.seconds
    ]
    # Of a comparison, what a verdict is told from.
    told = Comparison.model_construct(methods=compared, verdict=verdict, model=model)
    return verdict_words.sentence(told)


def figure(study: Study, each: Sequence[Found]) -> Picture:
    """Draw accuracy, loss, memory and time against the size of the model, a line a method."""
    panels: Mapping[str, list[tuple[Found, list[float]]]] = {
        tr("exact match, %"): [
            (one, [100 * r.correct / r.n for r in one.results if r.scored]) for one in each
        ],
        tr("held-out loss"): [(one, [r.held_out_loss for r in one.results]) for one in each],
        tr("memory, GiB"): [
            (one, [r.tensors / GIB for r in one.results if r.tensors]) for one in each
        ],
        tr("minutes a trial"): [
            (one, [(row.seconds or 0) / 60 for row in one.rows]) for one in each
        ],
    }
    note = figures.note_of(one.records[0].training for one in each if one.records[0].training)
    drawn, axes = drawing.new_figure(
        len(panels),
        tr("The study {name}: what the methods come to, by size", name=study.name),
        note,
    )
    sizes = list(dict.fromkeys(one.model for one in each))
    for ax, (heading, points) in zip(axes, panels.items(), strict=True):
        for method in dict.fromkeys(one.method for one in each):
            line = [(sizes.index(one.model), values) for one, values in points
                    if one.method == method and values]  # fmt: skip
            if not line:
                continue
            means = [fmean(values) for _, values in line]
            spread = [
                [mean - min(values) for mean, (_, values) in zip(means, line, strict=True)],
                [max(values) - mean for mean, (_, values) in zip(means, line, strict=True)],
            ]
            ax.errorbar([place for place, _ in line], means, yerr=spread, marker="o", capsize=4,
                        label=_label(method))  # fmt: skip
        ax.set(ylabel=heading)
        ax.set_xticks(range(len(sizes)), [_size(name) for name in sizes])
        ax.legend()
    return figures.keep(drawn, settings_of(study.rows[0].trial, study.asked).run, "study")


def _size(name: str) -> str:
    """Return a model's name, and how many parameters it has, where that is known."""
    parameters = models.find(name).parameters
    return f"{name}\n{parameters / 1e9:.2f} B" if parameters else name


def shown(study: Study, price: float | None) -> Shown:
    """Return all that a study has come to so far."""
    each = found(study)
    if not each:
        return board(study)
    said_of = [
        Sentence(tr("{model}: {verdict}", model=model, verdict=judged(verdict, model)))
        for model, verdict in verdicts(study, each).items()
    ]
    return Several([board(study), table(each, price), *said_of])
