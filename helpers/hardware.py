"""What this machine is, found without importing torch: it may be missing, broken, or slow."""

from __future__ import annotations

import os
import platform
import subprocess
from functools import cache
from pathlib import Path

import psutil
from pydantic import BaseModel

from helpers import cards, npu_smi

# What torch_npu reports as the memory of a card that npu-smi calls 64 GB.
NPU_GIB = 60.96


class Hardware(BaseModel):
    """The machine, as it is written into every record."""

    device: str  # npu, cuda or cpu: what training would run on
    accelerators: list[str]  # one name a card, in the order of their ids
    cpu: str
    cores: int
    memory_gb: float  # host memory, 10^9 bytes
    system: str

    def sentence(self) -> str:
        """Return the machine in one line."""
        cards = f"{len(self.accelerators)} x {self.accelerators[0]}, " if self.accelerators else ""
        return f"{cards}{self.cpu}, {self.cores} cores, {self.memory_gb:.0f} GB of memory"


@cache
def cuda_cards() -> tuple[str, ...]:
    """Return the names of the CUDA cards that the driver shows."""
    import pynvml

    try:
        pynvml.nvmlInit()
        return tuple(
            str(pynvml.nvmlDeviceGetName(pynvml.nvmlDeviceGetHandleByIndex(i)))
            for i in range(pynvml.nvmlDeviceGetCount())
        )
    except pynvml.NVMLError:
        return ()


def cuda_memory() -> tuple[int, int]:
    """Return the memory in use on the first visible CUDA card and all of it, in bytes.

    Raises:
        pynvml.NVMLError: there is no such card.
    """
    import pynvml

    pynvml.nvmlInit()
    visible = cards.first_visible("CUDA_VISIBLE_DEVICES")
    if visible.isdigit():
        handle = pynvml.nvmlDeviceGetHandleByIndex(int(visible))
    else:
        handle = pynvml.nvmlDeviceGetHandleByUUID(visible)
    found = pynvml.nvmlDeviceGetMemoryInfo(handle)
    return int(found.used), int(found.total)


def card_bytes(device: str) -> int | None:
    """Return the memory of the first visible card, in bytes; None where there is no such card.

    Of an Ascend card it is what torch_npu gets of what npu-smi names.
    """
    import pynvml

    if device == "npu":
        try:
            card = npu_smi.card_in_use(npu_smi.query())
        except (OSError, npu_smi.UnreadableOutput, subprocess.TimeoutExpired):
            return None
        return int(card.hbm_total_mb * 2**20 * NPU_GIB / 64) if card.hbm_total_mb else None
    try:
        return cuda_memory()[1]
    except pynvml.NVMLError:
        return None


def detect_device() -> str:
    """Return what training would run on here: "npu", "cuda" or "cpu"."""
    if cards.is_ascend_host():
        return "npu"
    return "cuda" if cuda_cards() else "cpu"


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def usable_cores() -> int:
    """Return how many cores this process may use (containers and taskset narrow them)."""
    return len(os.sched_getaffinity(0))


def describe() -> Hardware:
    """Return a description of this machine."""
    device = detect_device()
    try:
        names = [f"Ascend {card.name}" for card in npu_smi.query().cards]
    except (OSError, npu_smi.UnreadableOutput, subprocess.TimeoutExpired):
        names = [f"Ascend NPU ({file.name})" for file in cards.npu_device_files()]
    return Hardware(
        device=device,
        accelerators=names if device == "npu" else list(cuda_cards()),
        cpu=_cpu_name(),
        cores=usable_cores(),
        memory_gb=round(psutil.virtual_memory().total / 1e9, 1),
        system=f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
    )
