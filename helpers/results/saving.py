"""What each further method saves of the first one's memory, in the settings of a run and in the
article's, and why the two differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from helpers.ground.shown import Sentence, Several, Shown, Table
from helpers.ground.words import tr
from helpers.inputs.settings import Settings
from helpers.planning.plan import Phase, Plan
from helpers.records.schema import Training
from helpers.results import peaks, tables

if TYPE_CHECKING:
    from helpers.records.schema import ArticleMemory


@dataclass(frozen=True)
class Step:
    """A training step of a method in some settings: what was planned, and what was measured."""

    method: str
    settings: Literal["article", "tuned"]
    planned: Phase
    measured: int | None  # bytes of tensors; None: it was not measured


def steps(
    plans: Mapping[str, Plan],
    trainings: Mapping[str, Training],
    article: Mapping[str, Plan],
    measured: ArticleMemory,
) -> Iterator[Step]:
    """Give the training steps with the article's settings, then those of the run.

    Args:
        plans: of the run's trainings, by method.
        trainings: what these took.
        article: the plans of the same methods with the article's settings.
        measured: what a few steps of these took.
    """
    for name in _measured(article, measured):
        yield Step(name, "article", article[name].training, measured.training[name])
    for name, plan in plans.items():
        yield Step(name, "tuned", plan.training, _peak(trainings, name))


def _measured(article: Mapping[str, Plan], measured: ArticleMemory) -> list[str]:
    """Return the methods of which a few steps were taken: a run may compare more of them since."""
    return [name for name in article if name in measured.training]


def _peak(trainings: Mapping[str, Training], method: str) -> int | None:
    """Return what a training step took, in bytes; None if it was not measured, or not trained."""
    return trainings[method].peaks.training if method in trainings else None


def article_steps(
    article: Mapping[str, Plan], measured: ArticleMemory | None, settings: Settings
) -> list[Step]:
    """Return the steps that were measured with the article's settings, by their methods' labels.

    Args:
        article: the plans with these settings.
        measured: what the steps took; None: they were not taken.
        settings: the run's settings.
    """
    taken = measured.training if measured else {}
    return [
        Step(settings.subjects[name].label, "article", article[name].training, peak)
        for name, peak in taken.items()
        if name in article
    ]


def note(trainings: Mapping[str, Training], measured: ArticleMemory) -> str:
    """Return where and when these steps were measured."""
    return tables.notes([measured.origin, *(training.origin for training in trainings.values())])


def _less(first: int, other: int) -> str:
    return f"{100 * (1 - other / first):.0f} %"


def _weights(phase: Phase) -> int:
    return phase.parts["weights"]


def table(
    plans: Mapping[str, Plan],
    trainings: Mapping[str, Training],
    article: Mapping[str, Plan],
    measured: ArticleMemory,
    settings: Settings,
) -> Table:
    """Return the peaks of a training step, planned and measured, a row a method and setting.

    Args:
        plans: of the run's trainings, by method.
        trainings: what these took.
        article: the plans of the same methods with the article's settings.
        measured: what a few steps of these took.
        settings: the run's settings.
    """
    named = {"article": tr("the article's"), "tuned": tr("tuned for speed")}
    rows = [
        [
            settings.subjects[step.method].label,
            named[step.settings],
            step.planned.rows,
            peaks.binary(_weights(step.planned)),
            peaks.binary(step.planned.peak_bytes),
            tables.NONE if step.measured is None else peaks.binary(step.measured),
        ]
        for step in steps(plans, trainings, article, measured)
    ]
    header = [tr("method"), tr("settings"), tr("micro-batch"), tr("weights"),
              tr("peak, planned"), tr("peak, measured")]  # fmt: skip
    return Table(header, rows, note=note(trainings, measured))


def why(
    trainings: Mapping[str, Training],
    article: Mapping[str, Plan],
    measured: ArticleMemory,
    settings: Settings,
) -> Shown:
    """Return what each further method saved in both settings, and why not the same share.

    Nothing is said of one whose weights are no smaller: it saves nothing.

    Args:
        trainings: what the run's trainings took, by method.
        article: the plans with the article's settings.
        measured: what a few steps of these took.
        settings: the run's settings.
    """
    first, *others = _measured(article, measured)
    said = []
    for other in others:
        smaller = _weights(article[first].training) - _weights(article[other].training)
        if smaller <= 0:
            continue
        step, other_step = (_peak(trainings, name) for name in (first, other))
        names = {
            "other": settings.subjects[other].label,
            "first": settings.subjects[first].label,
            "article": _less(measured.training[first], measured.training[other]),
            "weights": peaks.binary(smaller),
            "whole": peaks.binary(measured.training[first]),
        }
        if step is None or other_step is None:
            said.append(
                tr(
                    "In a training step with the article's settings {other} took {article} less "
                    "than {first}; its weights are {weights} smaller, of {whole}.",
                    **names,
                )
            )
            continue
        said.append(
            tr(
                "In a training step {other} took {article} less than {first} with the article's "
                "settings, and {tuned} less with those tuned for speed: its weights are {weights} "
                "smaller in both, but beside larger batches and kept activations that is a part of "
                "{tuned_whole} instead of {whole}.",
                tuned=_less(step, other_step),
                tuned_whole=peaks.binary(step),
                **names,
            )
        )
    return Several([Sentence(text) for text in said])
