"""What the first hour on a card found: figures and codes, no sentences, nothing of the host."""

from __future__ import annotations

from datetime import date
from statistics import median
from typing import Literal

from pydantic import BaseModel


class Operator(BaseModel):
    """An operator of one optimizer step, as the device's profiler has it."""

    name: str
    core: str  # AI_CORE, AI_VECTOR_CORE, AI_CPU, ...; CUDA
    calls: int
    microseconds: float

    @property
    def slow(self) -> bool:
        """Whether it ran on the AICPU or the host instead of the device's own cores."""
        return "CPU" in self.core.upper() or "HOST" in self.core.upper()


class KernelRow(BaseModel):
    """One formulation of the 4-bit kernels on one matrix."""

    matrix: str
    weights: int
    formulation: str
    piece: int
    equal: bool  # the default backend's bits
    nanoseconds: float | None  # a weight
    times_default: float | None


class Steps(BaseModel):
    """Optimizer steps of one training, with random weights."""

    model: str
    method: str
    kernels: Literal["chosen", "default", "bitsandbytes", ""]  # "": nothing is quantised
    setting: str  # "" for the article's, else what was changed: "use_v1_kernels=True"
    fault: str = ""  # why there are none: "late", "out of memory", the name of an error
    seconds: list[float] = []
    loading_seconds: float | None = None
    allocated_bytes: int | None = None
    planned_bytes: int | None = None
    tokens: int | None = None  # of a step
    micro_batch: int | None = None
    micro_batches: int | None = None
    operators: list[Operator] = []

    @property
    def tokens_per_second(self) -> float | None:
        return self.tokens / median(self.seconds) if self.tokens and self.seconds else None


class Card(BaseModel):
    """One card, as `make card` found it."""

    form: Literal[1] = 1
    day: date
    profile: str
    device: str  # npu or cuda
    name: str
    simulated: bool
    total_bytes: int
    versions: dict[str, str]
    length: int  # tokens of the longest example
    checks: dict[str, str]  # of the doctor, by name: OK, WARN, FAIL
    choice: str  # of the kernels, with the weights of a piece
    kernels: list[KernelRow]
    steps: list[Steps]
    fallbacks: list[str]  # operators that torch_npu says it runs on the host
    seconds: float  # all of it
