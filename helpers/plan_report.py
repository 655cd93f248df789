"""What a plan of memory says to readers: tables, sentences, and the refusal of what cannot run."""

from __future__ import annotations

from collections.abc import Mapping

from helpers.errors import TutorialError
from helpers.memory import MemoryTrace
from helpers.planner import ARTICLE_MODELS, GIB, PARTS, ArticlePlans, Capacity, Phase, Plan


def beside(
    run: Mapping[str, Plan], article: ArticlePlans, model: str, labels: Mapping[str, str]
) -> dict[str, Phase]:
    """Return the peaks of a run's plans and of the article's, by the name to show.

    Args:
        run: the run's plans by method.
        article: what article_plans returned.
        model: the run's model.
        labels: the methods' names, as readers know them.
    """
    peaks = {f"this run, {model}, {labels[name]}": plan.peak for name, plan in run.items()}
    named = [(name.split(), plan) for name, plan in article.plans.items()]
    # Both methods of a model and a length stand together.
    named.sort(key=lambda item: (ARTICLE_MODELS.index(item[0][0]), int(item[0][2])))
    for (size, method, length), plan in named:
        peaks[f"{size}, {labels[method]}, {length} tokens"] = plan.peak
    return peaks


def measured(memory: MemoryTrace) -> tuple[str, int]:
    """Return what of a training's memory compares best with a plan, and its peak in bytes."""
    if memory.allocator_peak_bytes is not None:
        return "torch's allocator on the device", memory.allocator_peak_bytes
    return memory.measure, memory.peak_bytes


def rows(plans: Mapping[str, Phase]) -> tuple[list[str], list[list[str]]]:
    """Return plans as a table: its header, and a row for each.

    Args:
        plans: phases by the name to show.
    """
    header = ["planned tensors, GiB", "micro-batch", "tokens", *PARTS, "peak"]
    return header, [
        [name, str(phase.rows), str(phase.length)]
        + [f"{phase.parts[part] / GIB:.2f}" for part in PARTS]
        + [f"{phase.peak_bytes / GIB:.2f}"]
        for name, phase in plans.items()
    ]


def verdict(name: str, plan: Plan, room: Capacity) -> str:
    """Return one sentence on whether a training fits.

    Args:
        name: the method, as readers know it.
        plan: its plan.
        room: the memory it may take.
    """
    peak = plan.peak
    says = "fits" if peak.peak_bytes <= room.usable_bytes else "does NOT fit"
    sentence = (
        f"{name} {says}: {peak.peak_bytes / GIB:.2f} GiB planned, "
        f"{room.usable_bytes / GIB:.2f} GiB usable of {room.total_bytes / GIB:.2f} GiB "
        f"({room.of}; {room.reserve_bytes / GIB:.2f} GiB kept free for what a plan cannot see: the "
        "runtime's own context, workspace, fragmentation)"
    )
    if plan.largest_micro_batch is not None:
        sentence += f"; the largest micro-batch that fits is {plan.largest_micro_batch}"
    return sentence + "."


def refuse(name: str, plan: Plan, room: Capacity) -> None:
    """Stop before a training that cannot fit.

    Raises:
        TutorialError: its planned peak is beyond what the device has, all of it; the sentence
            says which part is the largest and what makes it smaller.
    """
    peak = plan.peak
    if peak.peak_bytes <= room.total_bytes:
        return
    largest = max(peak.parts, key=lambda part: peak.parts[part])
    in_evaluation = peak is plan.evaluation
    batch = "per_device_eval_batch_size" if in_evaluation else "per_device_train_batch_size"
    remedy = (
        "choose a smaller model, or QLoRA, which keeps the weights in 4 bits"
        if largest == "weights"
        else f"lower {batch} (now {peak.rows}) or cutoff_len (longest example: {peak.length})"
    )
    raise TutorialError(
        f"{name} cannot run here: {'an evaluation' if in_evaluation else 'a training step'} needs "
        f"{peak.peak_bytes / GIB:.2f} GiB and {room.of} has {room.total_bytes / GIB:.2f} GiB; most "
        f"of it, {peak.parts[largest] / GIB:.2f} GiB, is {largest}: {remedy}."
    )
