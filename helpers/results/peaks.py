"""A training's peak of memory, in the one way in which several of them can be compared."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from helpers.ground.words import tr
from helpers.machine import memory
from helpers.records.schema import Training
from helpers.results.schema import PeakMeasure


def allocated(training: Training) -> int | None:
    """Return the most bytes of tensors at one moment of a training; None: not measured.

    Training steps count and evaluations: whatever ends a training for lack of memory.
    """
    measured = (training.peaks.training, training.peaks.evaluation)
    if training.peaks.training is None:
        return None
    return max(peak for peak in measured if peak is not None)


def unmeasurable(training: Training) -> bool:
    """Return whether there was no optimizer step to measure: it went on from after its last one.

    Peaks are told when a training ends, so what an interrupted part has measured is lost.
    """
    return bool(training.resumed_at) and training.resumed_at[-1] >= training.optimizer_steps


def why_none(trainings: Iterable[Training]) -> str:
    """Return why some of these trainings have no peak of tensors; "" where each had its steps."""
    if not any(map(unmeasurable, trainings)):
        return ""
    return tr("A training that went on from after its last step had none left to measure.")


def common(trainings: Collection[Training]) -> PeakMeasure:
    """Return how the peaks of these trainings can be compared.

    The allocator's count is the nearest to what a method itself takes; where it is missing, what
    was sampled from outside.
    """
    if all(allocated(training) is not None for training in trainings):
        return "allocator"
    measures = {training.memory.measure for training in trainings}
    return measures.pop() if len(measures) == 1 else "mixed"


def of(training: Training, measure: PeakMeasure) -> int:
    """Return a training's peak in bytes, so measured; what was sampled, where it is "mixed"."""
    if measure == "allocator":
        return allocated(training) or 0
    return training.memory.peak_bytes


def named(measure: PeakMeasure) -> str:
    """Return what is measured, in words."""
    if measure == "allocator":
        return tr("tensors, as the allocator counts them")
    if measure == "mixed":
        return tr("memory, not measured alike")
    return memory.named(measure)


def decimal(amount: int) -> str:
    """Return bytes as text, in GB = 10^9 bytes, or in MB where that would be next to nothing."""
    return f"{amount / 1e9:.2f} GB" if amount >= 1e8 else f"{amount / 1e6:.1f} MB"


def binary(amount: int) -> str:
    """Return bytes as text, in GiB = 2^30 bytes as plans are, or in MiB."""
    return f"{amount / 2**30:.3f} GiB" if amount >= 2**30 / 10 else f"{amount / 2**20:.2f} MiB"
