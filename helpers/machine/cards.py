"""Which cards a run uses, the first that the environment shows; and whether there are Ascends."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

# Which variable says what cards of a kind are shown.
VARIABLES = {"cuda": "CUDA_VISIBLE_DEVICES", "npu": "ASCEND_RT_VISIBLE_DEVICES"}


def visible(variable: str, count: int, env: Mapping[str, str] = os.environ) -> str:
    """Return the first `count` cards that a variable such as CUDA_VISIBLE_DEVICES shows.

    Without one they are 0, 1, ...; where it shows fewer, these.
    """
    named = env.get(variable)
    shown = named.split(",") if named else [str(card) for card in range(count)]
    return ",".join(card.strip() for card in shown[:count])


def npu_device_files() -> list[Path]:
    """Return the Ascend device files (/dev/davinci0, ...), in order."""
    return sorted(Path("/dev").glob("davinci[0-9]*"))


def is_ascend_host() -> bool:
    """Return whether this machine has an Ascend NPU, or the tools of one."""
    return bool(npu_device_files()) or shutil.which("npu-smi") is not None
