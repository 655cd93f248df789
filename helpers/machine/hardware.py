"""What this machine is, found without importing torch: it may be missing, broken, or slow."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections import Counter
from functools import cache
from pathlib import Path

import psutil
from pydantic import BaseModel

from helpers.ground.shown import Shown, Table, View, facts
from helpers.ground.words import phrases, series, tr, trn
from helpers.machine import cards, npu_smi

# What torch_npu reports as the memory of a card that npu-smi calls 64 GB.
NPU_GIB = 60.96


class Hardware(View, BaseModel):
    """The machine, as it is written into every record; it shows itself as a table."""

    device: str  # npu, cuda or cpu: what training would run on
    accelerators: list[str]  # one name a card, in the order of their ids
    cpu: str
    cores: int
    memory_gb: float  # host memory, 10^9 bytes
    system: str

    def sentence(self) -> str:
        """Return the machine in one line."""
        without_cards = trn(
            "{cpu}, {n} core, {memory:.0f} GB of memory",
            "{cpu}, {n} cores, {memory:.0f} GB of memory",
            self.cores,
            cpu=self.cpu,
            memory=self.memory_gb,
        )
        return phrases(filter(None, [self._cards(), without_cards]))

    def _cards(self) -> str:
        """Return the accelerators, those of one name counted: "8 x Ascend 910B2"."""
        counted = Counter(self.accelerators)
        return series(f"{count} x {name}" for name, count in counted.items())

    def table(self) -> Table:
        """Return what the machine is, as a table of two columns."""
        rows = {
            tr("device"): self.device,
            tr("accelerators"): self._cards() or tr("none"),
            tr("processor"): self.cpu,
            tr("usable cores"): self.cores,
            tr("memory"): tr("{memory:.1f} GB", memory=self.memory_gb),
            tr("system"): self.system,
        }
        return facts(rows, [tr("what"), tr("value")])

    def shown(self) -> Shown:
        return self.table()


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
    visible = cards.visible("CUDA_VISIBLE_DEVICES", 1)
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


# What a processor needs to multiply in bf16 itself: of an x86 one of these flags, of an Arm the one
# feature. Without AVX-512 torch then computes one value at a time (an optimizer step of the cpu
# profile took 325 s on an AVX2 machine, 4 s where bf16 is native). With AVX-512 alone oneDNN has
# kernels and emulates the product: 31 GFLOP/s where float32 reaches 124 (1768 x 576 x 1536, torch
# 2.10, two cores of a Xeon at 2.8 GHz).
_BF16 = (
    frozenset({"avx512_bf16"}),
    frozenset({"amx_bf16"}),
    frozenset({"avx_ne_convert"}),
    frozenset({"bf16"}),
)


def has_bf16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Return whether the processor computes in bf16, which torch else does slowly in software.

    Args:
        cpuinfo: what Linux says of the processor (tests give a made-up one).
    """
    try:
        text = cpuinfo.read_text(encoding="utf-8")
    except OSError:
        return False
    match = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    flags = set(match[1].split()) if match else set()
    return any(needed <= flags for needed in _BF16)


def usable_cores() -> int:
    """Return how many cores this process may use (containers and taskset narrow them)."""
    return len(os.sched_getaffinity(0))


def visible_cards(device: str) -> list[str]:
    """Return the names of the cards that the environment shows, in order; of a CPU, its cores.

    Args:
        device: npu, cuda or cpu.

    Returns:
        A name each; "" of one that is not shown by its number.
    """
    found = describe()
    if device == "cpu":
        return [found.cpu] * found.cores
    names = found.accelerators
    if found.device != device or not names:
        return []
    asked = cards.visible(cards.VARIABLES[device], len(names)).split(",")
    numbers = [int(card) if card.isdecimal() else None for card in asked]
    return [
        "" if number is None else names[number]
        for number in numbers
        if number is None or number < len(names)
    ]


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
