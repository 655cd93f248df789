"""What a study has come to: its trials' records side by side, and a verdict for each model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

from helpers.calls import repeats
from helpers.ground import drawing, paths, width
from helpers.ground.errors import TutorialError
from helpers.ground.shown import Picture, Sentence, Several, Shown, Table
from helpers.ground.words import series, tr
from helpers.inputs import methods, models
from helpers.records import store
from helpers.records.schema import Record, SeedResult, Training
from helpers.results import figures, judging, tables
from helpers.results import verdict as verdict_words
from helpers.results.schema import Comparison, MethodFacts, Verdict
from helpers.study import record as records
from helpers.study import scheduling
from helpers.study.asked import settings_of
from helpers.study.record import Outcome, Row, Study

GIB = 2**30
HOUR = 3600


def gather(study: Study) -> None:
    """Take what is done into a study's outcomes and verdicts.

    Raises:
        TutorialError: the trials of a model were not made alike.
    """
    kinds: dict[str, dict[str, list[tuple[Row, Record]]]] = {}
    for row in study.rows:
        if row.state == "done":
            trial, settings = row.trial, settings_of(row.trial, study.asked)
            read = store.read(settings.run, settings.subject(trial.method))
            kinds.setdefault(trial.model, {}).setdefault(trial.method, []).append((row, read))
    study.outcomes, study.verdicts = [], {}
    for model, of in kinds.items():
        _check_alike(model, [read for done in of.values() for _, read in done])
        results = {
            method: [repeats.result(method, read) for _, read in done]
            for method, done in of.items()
        }
        study.outcomes += [_outcome(of[name], each, study) for name, each in results.items()]
        seeds = {tuple(row.trial.seed for row, _ in done) for done in of.values()}
        if len(of) > 1 and len(seeds) == 1:
            first = {method: done[0][1] for method, done in of.items()}
            study.verdicts[model] = _verdict(model, results, first)


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


def _outcome(
    done: Sequence[tuple[Row, Record]], results: Sequence[SeedResult], study: Study
) -> Outcome:
    trial, first = done[0][0].trial, done[0][1]
    model = models.find(trial.model)
    seconds = [row.seconds or 0.0 for row, _ in done]
    return Outcome(
        model=trial.model,
        label=model.name,
        parameters=model.parameters,
        method=trial.method,
        seeds=[row.trial.seed for row, _ in done],
        exact_match=[each.correct / each.n if each.scored else None for each in results],
        held_out_loss=[each.held_out_loss for each in results],
        planned_bytes=done[0][0].planned_bytes or 0,
        measured_bytes=[each.tensors for each in results],
        longest=all(_training(read).peaks.training_longest for _, read in done),
        seconds=seconds,
        cost=None if study.price is None else fmean(seconds) / HOUR * study.price,
        origin=_training(first).origin.model_copy(update={"run": study.name}),
    )


def _training(read: Record) -> Training:
    assert read.training is not None
    return read.training


def _verdict(
    model: str, results: Mapping[str, Sequence[SeedResult]], first: Mapping[str, Record]
) -> Verdict:
    """Return the verdict over a model's seeds; of larger models the study itself tells."""
    trainings = {method: _training(read) for method, read in first.items()}
    scored = next(iter(first.values())).data.scored
    found = judging.decide(results, trainings, model=model, scored=scored)
    return found.model_copy(update={"planned": []})


def _label(method: str) -> str:
    return methods.load(method).label


def _spread(values: Sequence[float], form: str) -> str:
    """Return a mean, and from where to where its seeds lie."""
    mean = format(fmean(values), form)
    if len(values) == 1:
        return mean
    return tr("{mean} ({low} to {high})", mean=mean, low=format(min(values), form),
              high=format(max(values), form))  # fmt: skip


def _known(values: Sequence[float | None], factor: float) -> list[float]:
    return [value * factor for value in values if value is not None]


def _measured(memory: Sequence[float], longest: bool) -> str:
    if not memory:
        return tr("not measured")
    found = _spread(memory, ".3g")
    # A processor's first step is not measured, and of a short training it may have that one.
    return found if longest else tr("{size} (without the longest example)", size=found)


def table(each: Sequence[Outcome]) -> Table:
    """Return what the methods came to at each size, with the spread over their seeds."""
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
        memory = _known(one.measured_bytes, 1 / GIB)
        share = _known(one.exact_match, 100)
        rows.append(
            [
                one.label,
                _label(one.method),
                len(one.seeds),
                _spread(share, ".1f") if share else tr("not scored"),
                _spread(one.held_out_loss, ".4f"),
                f"{one.planned_bytes / GIB:.3g}",
                _measured(memory, one.longest),
                _spread([seconds / 60 for seconds in one.seconds], ".1f"),
            ]
        )
    if all(one.cost is not None for one in each):
        header.append(tr("cost of a trial"))
        for row, one in zip(rows, each, strict=True):
            row.append(f"{one.cost:.2f}")
    return Table(header, rows, note=tables.notes(one.origin for one in each))


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
            methods=series(map(_label, row.refusal.methods)),
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


def figure(study: Study, run: paths.RunFolder) -> Picture:
    """Draw accuracy, loss, memory and time against the size of the model, a line a method.

    Args:
        study: what is done of it is drawn.
        run: keeps the figure.
    """
    each = study.outcomes
    panels: Mapping[str, list[tuple[Outcome, list[float]]]] = {
        tr("exact match, %"): [(one, _known(one.exact_match, 100)) for one in each],
        tr("held-out loss"): [(one, one.held_out_loss) for one in each],
        tr("memory, GiB"): [(one, _known(one.measured_bytes, 1 / GIB)) for one in each],
        tr("minutes a trial"): [(one, [s / 60 for s in one.seconds]) for one in each],
    }
    drawn, axes = drawing.new_figure(
        len(panels),
        tr("The study {name}: what the methods come to, by size", name=study.name),
        width.wrapped(tables.notes(one.origin for one in each), 160),
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
        ax.set_xticks(range(len(sizes)), [_size(model, each) for model in sizes])
        ax.legend()
    return figures.keep(drawn, run, "study")


def _size(model: str, each: Sequence[Outcome]) -> str:
    """Return a model's name, and how many parameters it has, where that is known."""
    one = next(one for one in each if one.model == model)
    return f"{one.label}\n{one.parameters / 1e9:.2f} B" if one.parameters else one.label


def shown(study: Study) -> Shown:
    """Return all that a study has come to so far."""
    if not study.outcomes:
        return board(study)
    labels = {one.model: one.label for one in study.outcomes}
    said_of = [
        Sentence(tr("{model}: {verdict}", model=labels[model], verdict=judged(verdict, model)))
        for model, verdict in study.verdicts.items()
    ]
    return Several([board(study), table(study.outcomes), *said_of])
