"""What a plan of memory says to readers: tables, sentences, and the refusal of what cannot run."""

from __future__ import annotations

from collections.abc import Mapping

from helpers.ground.errors import TutorialError
from helpers.ground.shown import Table
from helpers.ground.words import sentences, tr
from helpers.inputs import methods
from helpers.planning.plan import GIB, PARTS, ArticlePlans, Capacity, Part, Phase, Plan, Whose
from helpers.planning.planner import ARTICLE_MODELS


def part_names() -> dict[Part, str]:
    """Return what takes the room, in words, in the order of tables and figures."""
    return {
        "weights": tr("weights"),
        "adapter": tr("adapter"),
        "gradients": tr("gradients"),
        "optimizer": tr("optimizer"),
        "activations": tr("activations"),
        "logits": tr("logits"),
    }


def _owner(of: Whose) -> str:
    names = {
        "named": tr("the card that was named"),
        "machine": tr("this machine's memory"),
        "container": tr("the memory of this container"),
        "card": tr("the first visible card"),
        "article": tr("an Ascend 910B2 (64 GB)"),
    }
    return names[of]


def beside(
    run: Mapping[str, Plan], article: ArticlePlans, model: str, labels: Mapping[str, str]
) -> dict[str, Phase]:
    """Return the peaks of a run's plans and of the article's, by the name to show.

    Args:
        run: the run's plans by method.
        article: what article_plans returned.
        model: the run's model.
        labels: the names of the run's methods, as readers know them.
    """
    peaks = {
        tr("this run, {model}, {method}", model=model, method=labels[name]): plan.peak
        for name, plan in run.items()
    }
    known = {name: methods.load(name).label for name in methods.default()} | dict(labels)
    named = [(name.split(), plan) for name, plan in article.plans.items()]
    # The methods of a model and a length stand together.
    named.sort(key=lambda item: (ARTICLE_MODELS.index(item[0][0]), int(item[0][2])))
    for (size, method, length), plan in named:
        name = tr(
            "{model}, {method}, {length} tokens", model=size, method=known[method], length=length
        )
        peaks[name] = plan.peak
    return peaks


def _gib(amount: int) -> str:
    return f"{amount / GIB:.2f}"


def phases(peaks: Mapping[str, Phase]) -> Table:
    """Return planned peaks as a table, a row for each.

    Args:
        peaks: by the name to show.
    """
    names = part_names()
    return Table(
        [
            tr("planned tensors, GiB"),
            tr("micro-batch"),
            tr("tokens"),
            *(names[part] for part in PARTS),
            tr("peak"),
        ],
        [
            [name, phase.rows, phase.length]
            + [_gib(phase.parts[part]) for part in PARTS]
            + [_gib(phase.peak_bytes)]
            for name, phase in peaks.items()
        ],
    )


def table(plans: Mapping[str, Plan]) -> Table:
    """Return plans as a table: of each, a training step and an evaluation.

    Args:
        plans: by the method, as readers know it.
    """
    peaks = {}
    for label, plan in plans.items():
        peaks[tr("{method}, training", method=label)] = plan.training
        peaks[tr("{method}, evaluation", method=label)] = plan.evaluation
    return phases(peaks)


def verdict(label: str, plan: Plan, room: Capacity) -> str:
    """Return whether a training fits, in a sentence or two.

    Args:
        label: the method, as readers know it.
        plan: its plan.
        room: the memory it may take.
    """
    figures = {
        "method": label,
        "peak": _gib(plan.peak.peak_bytes),
        "usable": _gib(room.usable_bytes),
        "total": _gib(room.total_bytes),
        "whose": _owner(room.of),
        "reserve": _gib(room.reserve_bytes),
    }
    if plan.peak.peak_bytes <= room.usable_bytes:
        says = tr(
            "{method} fits: {peak} GiB planned, {usable} GiB usable of {total} GiB ({whose}; "
            "{reserve} GiB kept free for what a plan cannot see: the runtime's own context, "
            "workspace, fragmentation).",
            **figures,
        )
    else:
        says = tr(
            "{method} does NOT fit: {peak} GiB planned, {usable} GiB usable of {total} GiB "
            "({whose}; {reserve} GiB kept free for what a plan cannot see: the runtime's own "
            "context, workspace, fragmentation).",
            **figures,
        )
    shared = list(filter(None, [sharing(plan)]))
    if plan.largest_micro_batch is None:
        return sentences([says, *shared])
    most = tr("The largest micro-batch that fits is {rows}.", rows=plan.largest_micro_batch)
    return sentences([says, most, *shared])


def _remedy(plan: Plan, largest: Part) -> str:
    """Return what makes the largest part of a plan's peak smaller."""
    peak = plan.peak
    if largest != "weights":
        asks_evaluation = peak is plan.evaluation
        return tr(
            "lower {batch} (now {rows}) or cutoff_len (longest example: {length})",
            batch=f"per_device_{'eval' if asks_evaluation else 'train'}_batch_size",
            rows=peak.rows,
            length=peak.length,
        )
    if plan.question.recipe.get("quantization_bit"):
        return tr("choose a smaller model")
    return tr("choose a smaller model, or a method that holds the weights in 4 bits")


def sharing(plan: Plan) -> str:
    """Return what each of several cards holds, in a sentence; "" for one card.

    Args:
        plan: of one of them.
    """
    cards, recipe = plan.question.cards, plan.question.recipe
    if cards == 1:
        return ""
    rows = plan.training.rows
    figures = {
        "cards": cards,
        "rows": rows,
        "batch": rows * recipe.get("gradient_accumulation_steps", 1) * cards,
    }
    if plan.question.sharded:
        return tr(
            "This is at most what each of {cards} cards holds: its part of the weights, of the "
            "adapter and of the optimizer's state, what lies outside the layers and one layer "
            "gathered from all of them with the next one on its way, and its own micro-batch of "
            "{rows}; a step takes {batch} examples in all, as on one card.",
            **figures,
        )
    return tr(
        "This is what each of {cards} cards holds: the whole model, its own micro-batch of {rows}, "
        "and room for the gradients that they exchange; a step takes {batch} examples in all, as "
        "on one card.",
        **figures,
    )


def refuse(label: str, plan: Plan, room: Capacity) -> None:
    """Stop before a training that cannot fit.

    Args:
        label: the method, as readers know it.
        plan: its plan.
        room: the memory it may take.

    Raises:
        TutorialError: its planned peak is beyond what the device has, all of it; the sentence
            says which part is the largest and what makes it smaller.
    """
    peak = plan.peak
    if peak.peak_bytes <= room.total_bytes:
        return
    largest = max(PARTS, key=lambda part: peak.parts[part])
    figures = {
        "method": label,
        "peak": _gib(peak.peak_bytes),
        "whose": _owner(room.of),
        "total": _gib(room.total_bytes),
        "size": _gib(peak.parts[largest]),
        "part": part_names()[largest],
        "remedy": _remedy(plan, largest),
    }
    if peak is plan.evaluation:
        message = tr(
            "{method} cannot run here: an evaluation needs {peak} GiB and {whose} has {total} GiB; "
            "most of it, {size} GiB, is {part}: {remedy}.",
            **figures,
        )
    else:
        message = tr(
            "{method} cannot run here: a training step needs {peak} GiB and {whose} has {total} "
            "GiB; most of it, {size} GiB, is {part}: {remedy}.",
            **figures,
        )
    raise TutorialError(message)
