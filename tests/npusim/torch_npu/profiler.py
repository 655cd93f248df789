"""`torch_npu.profiler` of the simulated device: what was dispatched to it, as a table of kernels.

Only what helpers/worker/operator_profile.py asks for. The cores are made up from one rule, so that
a page about this device has rows of both kinds: what facts about CANN put on the AICPU is said to
have run there. The times are none.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Any

import torch

AICPU = ("__lshift__", "__rshift__", "__ilshift__", "__irshift__", "bucketize", "searchsorted")


class ProfilerActivity(Enum):
    CPU = 0
    NPU = 1


class ProfilerLevel(Enum):
    Level0 = 0
    Level1 = 1


class _ExperimentalConfig:
    def __init__(self, profiler_level: ProfilerLevel) -> None:
        self.profiler_level = profiler_level


def tensorboard_trace_handler(dir_name: str) -> Callable[[dict[str, int]], None]:
    """Write into a folder as torch_npu does, which names it after host, process and time."""

    def write(calls: dict[str, int]) -> None:
        output = Path(dir_name) / "host_1_20260101000000000_ascend_pt" / "ASCEND_PROFILER_OUTPUT"
        output.mkdir(parents=True)
        with (output / "kernel_details.csv").open("w", encoding="utf-8", newline="") as file:
            table = csv.writer(file)
            table.writerow(
                ["Device_id", "Name", "Type", "Accelerator Core", "Start Time(us)", "Duration(us)"]
            )
            for name, count in calls.items():
                kind = name.removeprefix("aten::")
                core = "AI_CPU" if kind.partition(".")[0] in AICPU else "AI_VECTOR_CORE"
                for _ in range(count):
                    table.writerow([0, f"aclnn_{kind}", kind, core, "0.0", "0.0"])

    return write


class profile:
    def __init__(
        self,
        activities: list[ProfilerActivity],
        on_trace_ready: Callable[[dict[str, int]], None],
        experimental_config: _ExperimentalConfig,
    ) -> None:
        self.ready = on_trace_ready

    def __enter__(self) -> profile:
        self.before = dict(torch.ops.npusim.operators())
        return self

    def __exit__(self, *exc: Any) -> None:
        now = dict(torch.ops.npusim.operators())
        changed = {name: count - self.before.get(name, 0) for name, count in now.items()}
        self.ready({name: count for name, count in changed.items() if count})
