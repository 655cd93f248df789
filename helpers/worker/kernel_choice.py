"""Which formulation of the 4-bit kernels a device uses, and for how many weights at a time.

It is measured once on a device (helpers/worker/kernel_timing.py), which the doctor does, and kept
with the versions that it holds for; TUTORIAL_KERNELS overrides it. Without either, the kernels are
those that suit a 910B by CANN's sources, and on a CPU those that were fastest on one. All
formulations give the same bits, so the choice decides about time and memory alone.

Read by the kernels, in whatever process bitsandbytes has loaded them into: it never raises there.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from helpers.ground import paths

logger = logging.getLogger(__name__)

Formulation = Literal["pairs4", "pairs8", "default"]
FORMULATIONS: tuple[Formulation, ...] = get_args(Formulation)
VARIABLE = "TUTORIAL_KERNELS"
FEWEST = 1 << 10  # weights in a piece


@dataclass(frozen=True)
class Choice:
    """How to dequantise."""

    formulation: Formulation
    piece: int  # weights at a time; `default` takes them all

    def __str__(self) -> str:
        return f"{self.formulation}:{self.piece}"


# A 910B's vector gather takes 4-byte elements, and 8 M weights are enough to keep it busy. Not
# measured on one.
BUILT_IN = Choice("pairs4", 1 << 23)
# What a measurement chose on a Xeon: with the shapes of Qwen2's layers, on one thread, 3.2 to 10.4
# times as fast as the default backend (benchmarks/results/dequant_4bit.json).
ON_CPU = Choice("pairs8", 1 << 20)


@dataclass(frozen=True)
class Timing:
    """How fast one way to dequantise was."""

    formulation: Formulation
    piece: int
    nanoseconds: float  # a weight

    @property
    def choice(self) -> Choice:
        return Choice(self.formulation, self.piece)


def parsed(text: str) -> Choice:
    """Return what a text asks for: "pairs4", or "pairs4:8388608" with the weights of a piece.

    Raises:
        ValueError: it asks for nothing that there is.
    """
    name, _, piece = text.partition(":")
    if name not in FORMULATIONS or (piece and not piece.isdecimal()):
        raise ValueError(text)
    size = int(piece) if piece else BUILT_IN.piece
    if size < FEWEST:
        raise ValueError(text)
    return Choice(name, size)  # type: ignore[arg-type]  # it is one of them


def asked() -> Choice | None:
    """Return what TUTORIAL_KERNELS asks for; None where it is not set.

    Raises:
        ValueError: it asks for nothing that there is.
    """
    text = os.environ.get(VARIABLE, "").strip()
    return parsed(text) if text else None


def holds_for(device: str) -> dict[str, str]:
    """Return what a measurement on a device (npu, cuda, cpu) depends on, by name."""
    from importlib import metadata

    name = device if device == "cpu" else torch.get_device_module(device).get_device_name(0)
    kernels = Path(__file__).with_name("dequantise_4bit.py").read_bytes()
    return {
        "device": name,
        "torch": torch.__version__,
        "cann": str(getattr(torch.version, "cann", None)),
        "bitsandbytes": metadata.version("bitsandbytes"),
        "kernels": hashlib.sha256(kernels).hexdigest()[:16],
    }


def _file() -> Path:
    return paths.RUNS / "kernels_4bit.json"


def _entries() -> list[dict[str, Any]]:
    """Return what was measured on this machine's devices; nothing where the file is no such."""
    try:
        found = json.loads(_file().read_bytes())
    except (OSError, ValueError):
        return []
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def kept(device: str) -> tuple[Choice, list[Timing]] | None:
    """Return what was chosen on a device with these versions, and the timings; None: nothing."""
    now = holds_for(device)
    for entry in _entries():
        if entry.get("holds_for") == now:
            try:
                timings = [Timing(**each) for each in entry["timings"]]
                return parsed(entry["choice"]), timings
            except (KeyError, TypeError, ValueError, AttributeError):
                return None
    return None


def keep(device: str, choice: Choice, timings: list[Timing]) -> None:
    """Keep what was measured, in place of what was kept for the same versions."""
    from helpers.ground.files import write_json

    now = holds_for(device)
    others = [entry for entry in _entries() if entry.get("holds_for") != now]
    entry = {
        "holds_for": now,
        "choice": str(choice),
        "timings": [asdict(timing) for timing in timings],
    }
    write_json(_file(), [*others, entry])
    current.cache_clear()


@cache
def current(device: torch.device) -> Choice:
    """Return how to dequantise on a device, found out once a process."""
    built_in = ON_CPU if device.type == "cpu" else BUILT_IN
    try:
        wanted = asked()
        if wanted is None and device.type == "npu":
            found = kept(device.type)
            wanted = found[0] if found else None
    except (OSError, ValueError, RuntimeError, AttributeError, ImportError) as error:
        # `make doctor` says what is wrong; a training goes on.
        logger.warning("The 4-bit kernels' choice cannot be read: %s", error)
        return built_in
    return wanted or built_in
