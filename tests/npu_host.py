"""A made-up Ascend host for tests: npu-smi, CANN, and as many simulated NPUs as are asked for."""

from __future__ import annotations

import os
from pathlib import Path

import npusim

# Of a driver that carries the CANN of these pins; the host that was looked at had 24.1.
NPU_SMI = (
    (Path(__file__).parent / "fixtures" / "npu_smi" / "910b3_24.1_idle.txt")
    .read_text("utf-8")
    .replace("24.1.rc3", "25.2.0  ")
)
CARDS = 2  # that npu-smi lists there


def environment(folder: Path, cards: int = 1) -> dict[str, str]:
    """Return the environment of a host that has what the doctor asks for.

    Args:
        folder: takes the tool and CANN's file.
        cards: how many simulated NPUs are there and shown, at most CARDS.
    """
    tool = folder / "npu-smi"
    (folder / "shown.txt").write_text(NPU_SMI)
    tool.write_text(f"#!/bin/sh\ncat '{folder / 'shown.txt'}'\n")
    tool.chmod(0o755)
    (folder / "cann").mkdir()
    (folder / "cann" / "version.cfg").write_text("toolkit_running_version=[9.1.0:9.1.0]\n")
    env = npusim.environment(
        PATH=f"{folder}:{os.environ['PATH']}",
        ASCEND_HOME_PATH=str(folder / "cann"),
        JUPYTER_PREFER_ENV_PATH="1",
        NPUSIM_DEVICES=str(cards),
        ASCEND_RT_VISIBLE_DEVICES=",".join(map(str, range(cards))),
    )
    return {name: value for name, value in env.items() if not name.startswith("TUTORIAL_")}
