"""How fast each formulation of the 4-bit kernels is on the device that is there, and which is best.

Measured on NF4 weights in blocks of 64, expanded to bf16, as QLoRA's recipe has them. A way that
raises, or gives other bits than bitsandbytes' `default` backend does on the device, is not chosen.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import torch

from helpers.worker import kernel_choice
from helpers.worker.dequantise_4bit import dequantize_4bit_by
from helpers.worker.kernel_choice import BUILT_IN, FORMULATIONS, Choice, Timing

SECONDS = 3.0  # after which nothing is timed a second time
ROUNDS = 5
BLOCKSIZE = 64
SMALL, LARGE = 22, 26  # powers of two: weights that are looked up, and the pieces they come in
SMALLEST_PIECE = 20
A_CALL = 0.02  # seconds that one call may take; the number of weights is chosen for it
NOISE = 1.03  # what is so near the best is as good

Clock = Callable[[], float]


def sample(weights: int, device: str, dtype: torch.dtype = torch.bfloat16) -> tuple[Any, ...]:
    """Return the arguments of a dequantisation: NF4, blocks of 64, random nibbles and scales."""
    generator = torch.Generator().manual_seed(0)
    packed = torch.randint(0, 256, (weights // 2, 1), generator=generator, dtype=torch.uint8)
    absmax = torch.rand(weights // BLOCKSIZE, generator=generator)
    return (packed.to(device), absmax.to(device), BLOCKSIZE, "nf4", (weights,), dtype)


def _wait(device: str) -> None:
    if device != "cpu":
        torch.get_device_module(device).synchronize()


def seconds(choice: Choice, arguments: Sequence[Any], device: str, clock: Clock) -> float:
    """Return how long one dequantisation takes, from an empty queue to an empty queue."""
    _wait(device)
    begin = clock()
    dequantize_4bit_by(choice, *arguments)
    _wait(device)
    return clock() - begin


def usable(device: str) -> list[Choice]:
    """Return one choice of each formulation that gives the default backend's bits on a device.

    Pieces are smaller than the tensor, so that their borders are looked at as well.
    """
    arguments = sample(1 << SMALL, device)
    expected = dequantize_4bit_by(Choice("default", 1 << SMALL), *arguments)
    found = []
    for formulation in FORMULATIONS:
        choice = Choice(formulation, 1 << SMALLEST_PIECE)
        try:
            if torch.equal(dequantize_4bit_by(choice, *arguments), expected):
                found.append(choice)
        except RuntimeError:  # an operator that the device lacks, or has no room for
            continue
    return found


def measure(
    device: str, budget: float = SECONDS, clock: Clock = time.perf_counter
) -> tuple[Choice, list[Timing]]:
    """Measure every formulation by pieces of several sizes, and return the best and all timings.

    Args:
        device: npu, cuda or cpu.
        budget: seconds after which nothing is timed again; once, everything is.
        clock: what tells the time (tests give their own).

    Raises:
        RuntimeError: the device cannot even run the default backend.
    """
    begin = clock()
    ways = usable(device)
    small = sample(1 << SMALL, device)
    fastest = min(seconds(way, small, device, clock) for way in ways)
    size = SMALL
    while size < LARGE and fastest * 2 ** (size + 1 - SMALL) <= A_CALL:
        size += 1
    large = sample(1 << size, device) if size > SMALL else small
    candidates = [
        Choice(way.formulation, 1 << power)
        for way in ways
        for power in (range(SMALLEST_PIECE, size + 1) if way.formulation != "default" else [size])
    ]
    best: dict[Choice, float] = {}
    for round_ in range(ROUNDS):
        for choice in candidates:
            late = clock() - begin > budget
            if round_ and (late or best[choice] > 4 * min(best.values())):
                continue  # what is so slow will not win
            took = seconds(choice, large, device, clock)
            best[choice] = min(took, best.get(choice, took))
    timings = [
        Timing(choice.formulation, choice.piece, 1e9 * took / (1 << size))
        for choice, took in best.items()
    ]
    return chosen(timings), timings


def chosen(timings: Sequence[Timing]) -> Choice:
    """Return the fastest; of those that are about as fast, the one that takes the least memory."""
    if not timings:
        return BUILT_IN
    bound = NOISE * min(timing.nanoseconds for timing in timings)
    near = [timing for timing in timings if timing.nanoseconds <= bound]
    return min(near, key=lambda t: (FORMULATIONS.index(t.formulation), t.piece)).choice


def to_time(choice: Choice) -> list[Choice]:
    """Return the default backend, a device's choice, and other formulations, by equal pieces."""
    ways = [Choice("default", choice.piece), choice]
    ways += [Choice(formulation, choice.piece) for formulation in FORMULATIONS]
    return list(dict.fromkeys(ways))


def compare(
    matrices: dict[str, Sequence[int]],
    device: str,
    repeats: int = 5,
    clock: Clock = time.perf_counter,
) -> tuple[str, list[dict[str, Any]]]:
    """Time every formulation on matrices.

    Args:
        matrices: rows and columns by name.
        device: npu, cuda or cpu.
        repeats: calls of each.
        clock: what tells the time.

    Returns:
        The choice that holds for the device (measured now on a cpu or cuda, whose own kernels
        bitsandbytes brings), and a row a matrix and formulation: matrix, weights, and what `timed`
        says of it.
    """
    choice = measure(device)[0] if device != "npu" else kernel_choice.current(torch.device(device))
    rows: list[dict[str, Any]] = []
    for name, (height, width) in matrices.items():
        arguments = sample(height * width, device)
        rows += [
            {"matrix": name, "weights": height * width, **row}
            for row in timed(to_time(choice), arguments, device, repeats, clock)
        ]
    return str(choice), rows


def timed(
    choices: Sequence[Choice], arguments: Sequence[Any], device: str, repeats: int, clock: Clock
) -> list[dict[str, Any]]:
    """Time choices on one matrix, in turns so that a disturbance meets all of them.

    Args:
        choices: the first is what the others are compared with.
        arguments: of a dequantisation (`sample`).
        device: npu, cuda or cpu.
        repeats: calls of each.
        clock: what tells the time.

    Returns:
        A row each: formulation, piece, equal (to the bits of the first; if not, it is not timed),
        nanoseconds (a weight; median), times_default (how many times faster than the first).
    """
    expected = dequantize_4bit_by(choices[0], *arguments)
    equal = {}
    for choice in choices:
        try:
            equal[choice] = torch.equal(dequantize_4bit_by(choice, *arguments), expected)
        except RuntimeError:
            equal[choice] = False
    times: dict[Choice, list[float]] = {choice: [] for choice in choices if equal[choice]}
    for _ in range(repeats):
        for choice, taken in times.items():
            taken.append(seconds(choice, arguments, device, clock))
    weights = arguments[4][0]
    nanoseconds = {choice: 1e9 * median(taken) / weights for choice, taken in times.items()}
    return [
        {
            "formulation": choice.formulation,
            "piece": choice.piece,
            "equal": equal[choice],
            "nanoseconds": nanoseconds.get(choice),
            "times_default": nanoseconds[choices[0]] / nanoseconds[choice]
            if choice in nanoseconds
            else None,
        }
        for choice in choices
    ]
