"""What each further method saves of the first one's memory, in the settings of a run and in the
article's, and why the two differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from helpers.ground.shown import Sentence, Several, Shown, Table
from helpers.ground.words import tr
from helpers.inputs.settings import Settings
from helpers.planning.plan import Phase, Plan
from helpers.records.schema import Training
from helpers.results import peaks, tables

if TYPE_CHECKING:
    from helpers.records.schema import ArticleMemory


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
    rows = []
    of_article = {name: (plan.training, measured.training[name]) for name, plan in article.items()}
    of_run = {name: (plan.training, trainings[name].peaks.training) for name, plan in plans.items()}
    for named, found in ((tr("the article's"), of_article), (tr("tuned for speed"), of_run)):
        for name, (phase, peak) in found.items():
            rows.append(
                [
                    settings.subjects[name].label,
                    named,
                    phase.rows,
                    peaks.binary(_weights(phase)),
                    peaks.binary(phase.peak_bytes),
                    tables.NONE if peak is None else peaks.binary(peak),
                ]
            )
    header = [tr("method"), tr("settings"), tr("micro-batch"), tr("weights"),
              tr("peak, planned"), tr("peak, measured")]  # fmt: skip
    origins = [measured.origin, *(training.origin for training in trainings.values())]
    return Table(header, rows, note=tables.notes(origins))


def why(
    trainings: Mapping[str, Training],
    article: Mapping[str, Plan],
    measured: ArticleMemory,
    settings: Settings,
) -> Shown:
    """Return what each further method saved in both settings, and why not the same share.

    Args:
        trainings: what the run's trainings took, by method.
        article: the plans with the article's settings.
        measured: what a few steps of these took.
        settings: the run's settings.
    """
    first, *others = article
    said = []
    for other in others:
        step, other_step = (trainings[name].peaks.training for name in (first, other))
        names = {
            "other": settings.subjects[other].label,
            "first": settings.subjects[first].label,
            "article": _less(measured.training[first], measured.training[other]),
            "weights": peaks.binary(
                _weights(article[first].training) - _weights(article[other].training)
            ),
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
