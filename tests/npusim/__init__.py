"""What the tests need to run a subprocess on the simulated NPU (see README.md)."""

import os
import shutil
from collections.abc import Collection
from pathlib import Path

FOLDER = Path(__file__).parent


def available() -> str | None:
    """Why the simulated NPU cannot be used here; None where it can."""
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        return f"the simulated NPU is compiled on first use, and there is no {compiler}"
    return None


def environment(**overrides: str) -> dict[str, str]:
    """The environment of a subprocess that is to find one simulated NPU."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("NPUSIM_")}
    own["PYTHONPATH"] = os.pathsep.join(filter(None, [str(FOLDER), own.get("PYTHONPATH")]))
    own["OMP_NUM_THREADS"] = "1"
    own["ASCEND_RT_VISIBLE_DEVICES"] = "0"
    # What is measured of speed here is a CPU's: the kernels are those that an Ascend begins with.
    own["TUTORIAL_KERNELS"] = "pairs4"
    return own | overrides


def operators_changed(recorded: Collection[str], used: Collection[str]) -> str | None:
    """How the operators that a run used differ from the recorded ones; None where they do not."""
    new, gone = sorted(set(used) - set(recorded)), sorted(set(recorded) - set(used))
    if not new and not gone:
        return None
    return (
        f"device operators changed: new {new}, no longer used {gone}. A new one may be one that "
        "CANN lacks: look it up among torch_npu's supported operators, then record the lists "
        "with NPUSIM_UPDATE=1 python -m pytest tests/test_npusim.py"
    )
