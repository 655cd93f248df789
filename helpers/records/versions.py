"""The versions of what decides the figures."""

from __future__ import annotations

import subprocess
from contextlib import suppress
from functools import cache
from importlib import metadata
from pathlib import Path

from helpers.ground import paths
from helpers.ground.files import sha256_file, sha256_json
from helpers.machine import cann, hardware, npu_smi

PACKAGES = ("llamafactory", "transformers", "peft", "accelerate", "bitsandbytes", "torch",
            "torch-npu", "swanlab", "modelscope")  # fmt: skip


@cache
def versions() -> dict[str, str | None]:
    """Return the versions of what decides the figures: packages and, on an NPU, CANN and driver.

    All of it stands in files, so that it changes only when something was installed: steps are done
    again where it has changed. None: it could not be found out, which is no change.
    """
    found: dict[str, str | None] = {"CANN": None, "driver": None}
    for package in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    if hardware.detect_device() == "npu":
        found["CANN"] = next(iter(cann.installations(Path("/")).values()), None)
        found["driver"] = cann.driver_version(Path("/"))
    return found


def recorded() -> dict[str, str]:
    """Return what is known of `versions()` and, on an NPU, npu-smi's own, for records.

    It is asked of a program, which may not answer in time: that must not pass for a change.
    """
    found = {name: version for name, version in versions().items() if version is not None}
    if hardware.detect_device() == "npu":
        with suppress(OSError, npu_smi.UnreadableOutput, subprocess.TimeoutExpired):
            found["npu-smi"] = npu_smi.query().version
    return found


def code(*modules: str) -> str:
    """Return one hash of modules of `helpers/` that decide figures: "worker/divergence.py", say."""
    return sha256_json([sha256_file(paths.ROOT / "helpers" / name) for name in modules])


def deciding(recorded: dict[str, str]) -> dict[str, str]:
    """Return the versions of a record that decide its figures: what npu-smi is does not."""
    return {name: version for name, version in recorded.items() if name != "npu-smi"}
