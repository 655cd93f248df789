"""How long counted work takes: on a card of the catalogue, or by operators that were timed here.

An operator takes as long as its arithmetic at the card's peak or its bytes at the memory's speed,
whichever is longer (Williams, Waterman and Patterson 2009: the roofline), each at the efficiency
that eager PyTorch comes to, and never less than a kernel takes. Where the host cannot ask for
kernels as fast as the card does them, a phase takes what the asking takes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import BaseModel

from helpers.planning.cards import Card, Efficiencies
from helpers.planning.work import Operators, Work

MICRO = 1e-6
VIEW = 0.3  # of what asking for a kernel takes: the same dispatcher, no kernel
SPREAD = 0.2  # of an estimate from operators that were timed here


class Span(BaseModel):
    """Seconds, from a fast case to a slow one."""

    low: float
    high: float

    @property
    def middle(self) -> float:
        """What is held against a measured time: the geometric mean."""
        return (self.low * self.high) ** 0.5

    def __add__(self, other: Span) -> Span:
        return Span(low=self.low + other.low, high=self.high + other.high)

    def __mul__(self, times: float) -> Span:
        return Span(low=self.low * times, high=self.high * times)

    def corrected(self, factor: float, spread: float = SPREAD) -> Span:
        """Return the span around a middle that a measurement has moved."""
        middle = self.middle * factor
        return Span(low=middle * (1 - spread), high=middle * (1 + spread))


def _on_card(
    operators: Sequence[Operators], card: Card, reached: Efficiencies, case: int, together: bool
) -> float:
    """Return seconds in a slow case (0) or a fast one (1)."""
    peak, memory = card.tflops * 1e12, card.terabytes * 1e12 * reached.memory[case]
    share = {"matrix": reached.matrix[case], "attention": reached.attention[case], "vector": 1.0}
    on_card = on_host = 0.0
    call = reached.call[case] * MICRO
    for each in operators:
        if each.kind == "view":
            on_host += each.calls * call * VIEW
            continue
        on_host += each.calls * call
        arithmetic = each.flops / (peak * share[each.kind])
        least = 0.0 if together else reached.kernel[case] * MICRO
        on_card += each.calls * max(arithmetic, each.bytes / memory, least)
    return on_card if together else max(on_card, on_host)


class Phases(BaseModel):
    """The seconds of each phase of a training."""

    micro_batch: Span
    update: Span
    evaluation: Span
    token: Span

    def corrected(self, factor: float) -> Phases:
        """Return the phases around middles that a measurement has moved."""
        return Phases(
            micro_batch=self.micro_batch.corrected(factor),
            update=self.update.corrected(factor),
            evaluation=self.evaluation.corrected(factor),
            token=self.token.corrected(factor),
        )


def on_card(work: Work, card: Card, reached: Efficiencies) -> Phases:
    """Return how long each phase takes on a card.

    Args:
        work: what is to be done.
        card: where.
        reached: how much of what the card can do is had.
    """

    def span(operators: Sequence[Operators], together: bool = False) -> Span:
        slow, fast = (_on_card(operators, card, reached, case, together) for case in (0, 1))
        return Span(low=fast, high=slow)

    return Phases(
        micro_batch=span(work.micro_batch),
        # On CUDA the optimizer does all tensors in a few kernels; a trace on a CPU sees each.
        update=span(work.update, together=card.device == "cuda"),
        evaluation=span(work.evaluation),
        token=span(work.token),
    )


def here(work: Work, timed: Mapping[str, float]) -> Phases:
    """Return how long each phase takes on this machine.

    Args:
        work: what is to be done, with the operators' forms.
        timed: the seconds that an operator took, by its form.
    """

    def span(operators: Sequence[Operators]) -> Span:
        seconds = sum(each.calls * timed.get(each.form, 0.0) for each in operators)
        return Span(low=seconds, high=seconds).corrected(1.0)

    return Phases(
        micro_batch=span(work.micro_batch),
        update=span(work.update),
        evaluation=span(work.evaluation),
        token=span(work.token),
    )
