"""Memory over time while training runs, named for what is measured."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

import psutil
from pydantic import BaseModel

from helpers import hardware

INTERVAL_SECONDS = 0.5


class MemoryTrace(BaseModel):
    """Samples of one kind of memory.

    `seconds` count from the start of the process, `bytes_used` is what was in use then. Peaks are
    of the samples; `allocator_peak_bytes` is torch's own count on the device, which sees tensors
    only, where LLaMA-Factory logged it (rounded by it to 0.01 GiB).
    """

    measure: str
    seconds: list[float] = []
    bytes_used: list[int] = []
    allocator_peak_bytes: int | None = None

    @property
    def peak_bytes(self) -> int:
        return max(self.bytes_used, default=0)


def process_tree_bytes(pid: int) -> int:
    """Return the resident memory of a process and its children, in bytes; 0 when it has ended."""
    try:
        root = psutil.Process(pid)
        members = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    total = 0
    for member in members:
        try:
            total += member.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total


def _cuda_bytes(pid: int) -> int:
    """Return the memory in use on the first visible CUDA card, whoever holds it, in bytes."""
    import pynvml

    pynvml.nvmlInit()
    visible = (os.environ.get("CUDA_VISIBLE_DEVICES") or "0").split(",")[0]
    if visible.isdigit():
        handle = pynvml.nvmlDeviceGetHandleByIndex(int(visible))
    else:
        handle = pynvml.nvmlDeviceGetHandleByUUID(visible)
    return int(pynvml.nvmlDeviceGetMemoryInfo(handle).used)


def reader(device: str) -> tuple[str, Callable[[int], int]]:
    """Return what is sampled on a device: its name, and a function from process id to bytes."""
    if device == "cuda" and hardware.cuda_cards():
        return "memory in use on the CUDA card (NVML)", _cuda_bytes
    return "resident memory of the training process", process_tree_bytes


class Sampler:
    """Samples memory in a thread of its own between `start` and `stop`."""

    def __init__(self, device: str, interval: float = INTERVAL_SECONDS) -> None:
        measure, self._read = reader(device)
        self.trace = MemoryTrace(measure=measure)
        self._interval = interval
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, pid: int) -> None:
        """Begin to sample for the process `pid`."""
        self._thread = threading.Thread(target=self._sample, args=(pid,), daemon=True)
        self._thread.start()

    def _sample(self, pid: int) -> None:
        begin = time.monotonic()
        while not self._ended.wait(self._interval):
            used = self._read(pid)
            if used:
                self.trace.seconds.append(round(time.monotonic() - begin, 2))
                self.trace.bytes_used.append(used)

    def stop(self) -> MemoryTrace:
        """End sampling and return the samples."""
        self._ended.set()
        if self._thread:
            self._thread.join()
        return self.trace
