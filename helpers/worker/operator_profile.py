"""Which operators a device ran, where, and for how long, by the device's own profiler.

On an Ascend a kernel's row says on which core it ran: the AI Core's, or the AICPU, which is slow
and of which torch_npu says nothing. Loads torch.
"""

from __future__ import annotations

import csv
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

KERNELS = "kernel_details.csv"  # what torch_npu's profiler leaves, one row a kernel


def read_kernels(lines: Iterable[str]) -> list[dict[str, Any]]:
    """Return the operators of torch_npu's table of kernels, the slowest first.

    Args:
        lines: of the CSV: Type (or, where that says nothing, Name), Accelerator Core, Duration(us).

    Returns:
        name, core, calls, microseconds, an operator and core each.
    """
    found: dict[tuple[str, str], list[float]] = {}
    for row in csv.DictReader(lines):
        kind = (row.get("Type") or "").strip()
        name = kind if kind not in ("", "N/A") else (row.get("Name") or "").strip()
        core = (row.get("Accelerator Core") or "").strip() or "N/A"
        found.setdefault((name, core), []).append(float(row.get("Duration(us)") or 0))
    return _sorted(
        {"name": name, "core": core, "calls": len(times), "microseconds": sum(times)}
        for (name, core), times in found.items()
    )


def _sorted(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(rows, key=lambda row: -row["microseconds"])


def _on_npu(work: Callable[[], None]) -> list[dict[str, Any]]:
    from torch_npu import profiler

    with tempfile.TemporaryDirectory() as folder:
        profile = profiler.profile(
            activities=[profiler.ProfilerActivity.CPU, profiler.ProfilerActivity.NPU],
            on_trace_ready=profiler.tensorboard_trace_handler(folder),
            experimental_config=profiler._ExperimentalConfig(
                profiler_level=profiler.ProfilerLevel.Level1
            ),
        )
        with profile:
            work()
            torch.get_device_module("npu").synchronize()
        rows: list[dict[str, Any]] = []
        for file in Path(folder).rglob(KERNELS):
            with file.open(encoding="utf-8", newline="") as lines:
                rows += read_kernels(lines)
        return rows


def _on_cuda(work: Callable[[], None]) -> list[dict[str, Any]]:
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiled:
        work()
        torch.cuda.synchronize()
    return _sorted(
        {
            "name": event.key[:80],
            "core": "CUDA",
            "calls": event.count,
            "microseconds": event.self_device_time_total,
        }
        for event in profiled.key_averages()
        if event.device_type == torch.autograd.DeviceType.CUDA
    )


def of(work: Callable[[], None], device: str) -> list[dict[str, Any]]:
    """Return the operators of some work, the slowest first.

    Args:
        work: what to run.
        device: npu or cuda.

    Returns:
        name, core, calls, microseconds, an operator and core each; nothing where the profiler
        left nothing.
    """
    return _on_npu(work) if device == "npu" else _on_cuda(work)
