"""The measured choice: the fastest that gives the right bits, and never slower than the default."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from helpers.worker import dequantise_4bit, kernel_timing
from helpers.worker.kernel_choice import BUILT_IN, Choice, Formulation, Timing


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors of 2^16 weights, so that a test takes no time."""
    for name, value in {"SMALL": 16, "LARGE": 18, "SMALLEST_PIECE": 14}.items():
        monkeypatch.setattr(kernel_timing, name, value)


def as_if(
    monkeypatch: pytest.MonkeyPatch, costs: dict[Formulation, float], piece: float = 0.0
) -> None:
    """Let formulations take so many nanoseconds a weight, and each piece so many beside."""

    def seconds(choice: Choice, arguments: Sequence[Any], device: str, clock: object) -> float:
        (weights,) = arguments[4]
        return 1e-9 * (weights * costs[choice.formulation] + piece * -(-weights // choice.piece))

    monkeypatch.setattr(kernel_timing, "seconds", seconds)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("fastest", ["pairs4", "pairs8", "default"])
def test_the_fastest_is_chosen(fastest: Formulation, monkeypatch: pytest.MonkeyPatch) -> None:
    costs: dict[Formulation, float] = dict.fromkeys(("pairs4", "pairs8", "default"), 20.0)
    as_if(monkeypatch, costs | {fastest: 2.0})
    choice, timings = kernel_timing.measure("cpu")
    assert choice.formulation == fastest
    theirs = min(t.nanoseconds for t in timings if t.formulation == "default")
    assert min(t.nanoseconds for t in timings if t.choice == choice) <= theirs


@pytest.mark.usefixtures("quick")
def test_where_launches_cost_the_largest_piece_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    as_if(monkeypatch, {"pairs4": 0.02, "pairs8": 0.05, "default": 1.0}, piece=10_000)
    assert kernel_timing.measure("cpu")[0] == Choice("pairs4", 1 << 18)


def test_of_what_is_about_as_fast_the_smaller_is_chosen() -> None:
    timings = [
        Timing("default", 1 << 22, 1.0),
        Timing("pairs8", 1 << 20, 1.01),
        Timing("pairs4", 1 << 22, 1.02),
        Timing("pairs4", 1 << 21, 1.025),
        Timing("pairs4", 1 << 20, 1.05),
    ]
    assert kernel_timing.chosen(timings) == Choice("pairs4", 1 << 21)
    assert kernel_timing.chosen([]) == BUILT_IN


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("broken", ["raises", "other bits"])
def test_a_formulation_that_does_not_work_on_the_device_is_not_chosen(
    broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = dequantise_4bit._by_short_pairs

    def fill(out: torch.Tensor, *rest: Any) -> None:
        if broken == "raises":
            raise RuntimeError("this view is not supported")
        real(out, *rest)
        out[70] += 1

    monkeypatch.setattr(dequantise_4bit, "_by_short_pairs", fill)
    as_if(monkeypatch, {"pairs4": 0.001, "pairs8": 3.0, "default": 9.0})
    choice, timings = kernel_timing.measure("cpu")
    assert choice.formulation == "pairs8"
    assert "pairs4" not in {timing.formulation for timing in timings}


@pytest.mark.usefixtures("quick")
def test_it_ends_in_time_and_everything_is_timed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter(range(10**6))
    calls: list[Choice] = []
    real = kernel_timing.seconds

    def counted(choice: Choice, *rest: Any) -> float:
        calls.append(choice)
        return real(choice, *rest)

    monkeypatch.setattr(kernel_timing, "seconds", counted)
    _, timings = kernel_timing.measure("cpu", budget=0.0, clock=lambda: float(next(ticks)))
    assert {t.formulation for t in timings} == {"pairs4", "pairs8", "default"}
    assert len(calls) == len(timings) + 3  # and once each, to see how large the tensor may be


def test_on_this_processor_it_takes_a_few_seconds_and_beats_the_default() -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        begin = time.process_time()
        choice, timings = kernel_timing.measure("cpu")
        took = time.process_time() - begin
    finally:
        torch.set_num_threads(threads)
    fastest = {t.choice: t.nanoseconds for t in timings}
    assert fastest[choice] < min(t.nanoseconds for t in timings if t.formulation == "default")
    assert took < 5
