"""The versions of what decides the figures."""

from __future__ import annotations

import subprocess
from contextlib import suppress
from functools import cache
from importlib import metadata
from pathlib import Path

from helpers.machine import cann, hardware, npu_smi

PACKAGES = ("llamafactory", "transformers", "peft", "accelerate", "bitsandbytes", "torch",
            "torch-npu", "swanlab", "modelscope")  # fmt: skip


@cache
def versions() -> dict[str, str]:
    """Return the versions of what decides the figures: packages and, on an NPU, CANN and driver.

    All of it stands in files, so that it changes only when something was installed: steps are done
    again where it has changed.
    """
    found = {}
    for package in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    if hardware.detect_device() == "npu":
        found["CANN"] = next(iter(cann.installations(Path("/")).values()), "not found")
        found["driver"] = cann.driver_version(Path("/")) or "not found"
    return found


def recorded() -> dict[str, str]:
    """Return `versions()` and, on an NPU, npu-smi's own, for records.

    It is asked of a program, which may not answer in time: that must not pass for a change.
    """
    found = dict(versions())
    if hardware.detect_device() == "npu":
        with suppress(OSError, npu_smi.UnreadableOutput, subprocess.TimeoutExpired):
            found["npu-smi"] = npu_smi.query().version
    return found


def deciding(recorded: dict[str, str]) -> dict[str, str]:
    """Return the versions of a record that decide its figures: what npu-smi is does not."""
    return {name: version for name, version in recorded.items() if name != "npu-smi"}
