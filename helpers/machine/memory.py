"""Memory over time while training runs, named for what is measured."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import psutil
from pydantic import BaseModel

from helpers.ground.words import tr
from helpers.machine import hardware, npu_smi

# Resident memory of the training's processes; HBM in use on the NPU, as npu-smi has it; memory in
# use on the CUDA card, as NVML has it.
Measure = Literal["resident", "npu_smi", "nvml"]


def named(measure: Measure) -> str:
    """Return what is measured, in words."""
    names = {
        "resident": tr("resident memory of the training process"),
        "npu_smi": tr("HBM in use on the NPU (npu-smi)"),
        "nvml": tr("memory in use on the CUDA card (NVML)"),
    }
    return names[measure]


class MemoryTrace(BaseModel):
    """Samples of one kind of memory.

    `seconds` count from the start of the process, `bytes_used` is what was in use then.
    """

    measure: Measure
    seconds: list[float] = []
    bytes_used: list[int] = []

    @property
    def peak_bytes(self) -> int:
        return max(self.bytes_used, default=0)


def process_tree_bytes(pid: int) -> int:
    """Return the resident memory of a process and its children, in bytes; 0 when it has ended.

    Of a child only what it shares with nobody counts: for a moment after a fork it shows all of its
    parent's memory as its own.
    """
    try:
        root = psutil.Process(pid)
        total: int = root.memory_info().rss
        children = root.children(recursive=True)
    except psutil.Error:
        return 0
    for child in children:
        with suppress(psutil.Error):
            total += child.memory_full_info().uss
    return total


def _cuda_bytes(pid: int) -> int:
    """Return the memory in use on the first visible CUDA card, whoever holds it, in bytes."""
    return hardware.cuda_memory()[0]


@dataclass(frozen=True)
class Reader:
    """A way to read memory: what it measures, how, and how often it may be asked."""

    measure: Measure
    read: Callable[[int], int]  # from the training's process id to bytes
    interval_seconds: float = 0.5


def reader(device: str) -> Reader:
    """Return how memory is sampled for a device: npu, cuda or cpu.

    Without npu-smi or NVML only the process can be seen, and the measure says so.
    """
    if device == "npu":
        try:
            card = npu_smi.card_in_use(npu_smi.query())
        except (OSError, npu_smi.UnreadableOutput, subprocess.TimeoutExpired):
            return _PROCESS
        return Reader(
            "npu_smi",
            lambda pid: npu_smi.hbm_used_bytes(card.npu_id, card.chip_id),
            interval_seconds=2.0,  # npu-smi is a program, and takes about a second to answer
        )
    if device == "cuda" and hardware.cuda_cards():
        return Reader("nvml", _cuda_bytes)
    return _PROCESS


_PROCESS = Reader("resident", process_tree_bytes)


class Sampler:
    """Samples memory in a thread of its own between `start` and `stop`."""

    def __init__(self, how: Reader) -> None:
        self._how = how
        self.trace = MemoryTrace(measure=how.measure)
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, pid: int) -> None:
        """Begin to sample for the process `pid`."""
        self._thread = threading.Thread(target=self._sample, args=(pid,), daemon=True)
        self._thread.start()

    def _sample(self, pid: int) -> None:
        begin = time.monotonic()
        while not self._ended.wait(self._how.interval_seconds):
            try:
                used = self._how.read(pid)
            except Exception:  # a sample that cannot be taken must not end a training
                continue
            if used:
                self.trace.seconds.append(round(time.monotonic() - begin, 2))
                self.trace.bytes_used.append(used)

    def stop(self) -> MemoryTrace:
        """End sampling and return the samples."""
        self._ended.set()
        if self._thread:
            self._thread.join()
        return self.trace
