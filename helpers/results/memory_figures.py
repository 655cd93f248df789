"""Figures of memory: planned, split into what takes the room, and measured beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from helpers.ground import drawing, width
from helpers.ground.shown import Picture
from helpers.ground.words import tr
from helpers.inputs.settings import Settings
from helpers.machine import memory
from helpers.planning.plan import GIB, Phase
from helpers.records.schema import Training
from helpers.results import saving
from helpers.results.figures import keep, note_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from helpers.planning.plan import ArticlePlans, Plan
    from helpers.records.schema import ArticleMemory

_DARK = "#333333"
_OUTSIDE: Final = "outside right center"
_PART_COLOURS = {"weights": "#0072B2", "adapter": "#CC79A7", "gradients": "#F0E442",
                 "optimizer": "#E69F00", "activations": "#009E73", "logits": "#D55E00"}  # fmt: skip

Row = tuple[str, Phase | int]  # its label; a planned phase, or measured bytes


def planned_and_measured(
    found: Mapping[str, tuple[Plan, Training]], settings: Settings, name: str
) -> Picture:
    """Draw planned peaks, split into what takes the room, and below each what was measured.

    Measured is what the allocator counted, of a training step and of an evaluation. Where it was
    not asked, the larger plan stands above what was sampled from outside, which is another figure.

    Args:
        found: plan and training by method.
        settings: the run's settings.
        name: of the file.
    """
    rows: list[Row] = []
    for method, (plan, training) in found.items():
        label = settings.subjects[method].label
        step, evaluation = training.peaks.training, training.peaks.evaluation
        shorter = "\n" + tr("without the longest example")
        if step is None:
            rows.append((tr("{method}: planned", method=label), plan.peak))
            what = memory.named(training.memory.measure)
            rows.append(
                (
                    tr("{method}: measured\n{what}", method=label, what=width.wrapped(what, 26)),
                    training.memory.peak_bytes,
                )
            )
            continue
        rows.append((tr("{method}, training step: planned", method=label), plan.training))
        measured = tr("{method}, training step: measured", method=label)
        rows.append((measured + ("" if training.peaks.training_longest else shorter), step))
        rows.append((tr("{method}, evaluation: planned", method=label), plan.evaluation))
        if evaluation is not None:
            measured = tr("{method}, evaluation: measured", method=label)
            rows.append(
                (measured + ("" if training.peaks.evaluation_longest else shorter), evaluation)
            )
    title = tr(
        "Memory, planned and measured: {model}, {profile} profile",
        model=settings.model.name,
        profile=settings.profile.name,
    )
    note = note_of(training for _, training in found.values())
    return keep(_plan_bars(rows, title, note), settings.run, name)


def all_plans(plans: Mapping[str, Plan], article: ArticlePlans, settings: Settings) -> Picture:
    """Draw a run's planned peaks, and those of the article's recipes on an Ascend card.

    Args:
        plans: the run's, by method.
        article: the article's.
        settings: the run's settings.
    """
    from helpers.planning import report

    labels = {name: subject.label for name, subject in settings.subjects.items()}
    rows: list[Row] = list(report.beside(plans, article, settings.model.name, labels).items())
    title = tr("Planned peak memory: this run, and the article's recipes on an Ascend card")
    return keep(_plan_bars(rows, title, tr("All of it is planned; nothing was measured.")),
                settings.run, "compare_plans")  # fmt: skip


def both_settings(
    plans: Mapping[str, Plan],
    trainings: Mapping[str, Training],
    article: Mapping[str, Plan],
    measured: ArticleMemory,
    settings: Settings,
) -> Picture:
    """Draw training steps with the article's settings and with the run's, planned and measured.

    Args:
        plans: of the run's trainings, by method.
        trainings: what these took.
        article: the plans of the same methods with the article's micro-batch and checkpointing.
        measured: what a few steps of these took.
        settings: the run's settings.
    """
    rows: list[Row] = []
    for step in saving.steps(plans, trainings, article, measured):
        label = settings.subjects[step.method].label
        planned, found = (
            (
                tr("{method}, article's settings: planned", method=label),
                tr("{method}, article's settings: measured", method=label),
            )
            if step.settings == "article"
            else (
                tr("{method}, tuned for speed: planned", method=label),
                tr("{method}, tuned for speed: measured", method=label),
            )
        )
        rows.append((planned, step.planned))
        if step.measured is not None:
            rows.append((found, step.measured))
    title = tr(
        "One training step, planned and measured: {model}, {profile} profile",
        model=settings.model.name,
        profile=settings.profile.name,
    )
    note = width.wrapped(saving.note(trainings, measured), 160)
    return keep(_plan_bars(rows, title, note), settings.run, "both_settings")


def _plan_bars(rows: Sequence[Row], title: str, note: str) -> Figure:
    from helpers.planning import report

    figure, (ax,) = drawing.new_figure(1, title, note, height=1.5 + 0.42 * len(rows))
    figure.set_figwidth(10)
    most = max(value if isinstance(value, int) else value.peak_bytes for _, value in rows)
    unit = GIB if most >= GIB / 10 else GIB / 1024
    shown: set[str] = set()
    for place, (_, value) in enumerate(rows):
        if isinstance(value, int):
            left = value / unit
            ax.barh(place, left, height=0.7, fill=False, edgecolor=_DARK, hatch="///",
                    label=None if "measured" in shown else tr("measured"))  # fmt: skip
            shown.add("measured")
        else:
            left = 0.0
            for part, part_name in report.part_names().items():
                width = value.parts[part] / unit
                ax.barh(place, width, left=left, color=_PART_COLOURS[part], height=0.7,
                        label=None if part in shown else part_name)  # fmt: skip
                shown.add(part)
                left += width
        ax.text(left, place, f" {left:.2f}", va="center", fontsize=9)
    ax.set_yticks(range(len(rows)), [label for label, _ in rows], fontsize=9)
    ax.invert_yaxis()
    ax.set_xlabel(
        tr("GiB = 2³⁰ bytes at the peak") if unit == GIB else tr("MiB = 2²⁰ bytes at the peak")
    )
    ax.margins(x=0.1)
    ax.set_axisbelow(True)
    ax.grid(visible=False, axis="y")
    figure.legend(loc=_OUTSIDE, frameon=False, fontsize=9)
    return figure
