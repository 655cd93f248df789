"""A test-only stand-in for Huawei's torch_npu: an ``npu`` device of host memory and CPU kernels.

Put the folder above this one on PYTHONPATH and every library that looks for an Ascend finds this
one. It says nothing about an Ascend's speed, precision or operators; README.md has the details.
"""

import atexit
import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

# torch loads this package through its entry point. Should this package be imported first, torch
# must not import it a second time halfway through.
_autoload_before = os.environ.get("TORCH_DEVICE_BACKEND_AUTOLOAD")
os.environ["TORCH_DEVICE_BACKEND_AUTOLOAD"] = "0"
import torch  # noqa: E402

del os.environ["TORCH_DEVICE_BACKEND_AUTOLOAD"]
if _autoload_before is not None:
    os.environ["TORCH_DEVICE_BACKEND_AUTOLOAD"] = _autoload_before

__version__ = "2.10.0.post2+sim"


def _build() -> Path:
    """Compile npusim.cpp once per source, compiler, flags and torch; return the library."""
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        raise ImportError(
            f"the simulated NPU is compiled on first use, and there is no {compiler}: "
            "install g++ (Debian, Ubuntu: apt install g++), or name a compiler in CXX"
        )
    source = Path(__file__).with_name("npusim.cpp")
    root = Path(torch.__file__).parent
    command = [compiler, "-std=c++17", "-O1", "-fPIC", "-shared"]
    command += [f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.compiled_with_cxx11_abi())}"]
    command += [f"-I{root}/include", f"-I{root}/include/torch/csrc/api/include"]
    command += [str(source), f"-L{root}/lib", "-lc10", "-ltorch_cpu"]
    recipe = source.read_bytes() + repr((command, torch.__version__)).encode()
    # __pycache__ is what git ignores and `find -name __pycache__` cleans.
    folder = Path(__file__).with_name("__pycache__")
    library = folder / f"npusim-{hashlib.sha256(recipe).hexdigest()[:16]}.so"
    if not library.exists():
        folder.mkdir(exist_ok=True)
        # Of two processes that build at once, each moves a whole file into place.
        part = library.with_suffix(f".{os.getpid()}.part")
        subprocess.run([*command, "-o", str(part)], check=True)
        part.replace(library)
    return library


def _setting(name: str, default: int) -> int:
    """A whole number from the environment."""
    text = os.environ.get(name) or str(default)
    if not text.isdecimal():
        raise ImportError(f"{name} wants a whole number, and is {text!r}")
    return int(text)


def _visible_devices(present: int) -> int:
    """As torch_npu: none where ASCEND_RT_VISIBLE_DEVICES is empty or not strictly ascending."""
    text = os.environ.get("ASCEND_RT_VISIBLE_DEVICES")
    if text is None:
        return present
    with contextlib.suppress(ValueError):
        chosen = [int(part) for part in text.split(",")]
        if chosen == sorted(set(chosen)) and chosen[0] >= 0:
            return sum(index < present for index in chosen)
    return 0


def _write_reports() -> None:
    """At exit: the operators used and the peak memory, for the tests to read."""
    counts = dict(torch.ops.npusim.operators())
    if not counts:  # a process that never used the device must not overwrite one that did
        return
    if trace := os.environ.get("NPUSIM_TRACE"):
        Path(trace).write_text(json.dumps(counts, indent=1, sort_keys=True) + "\n")
    if stats := os.environ.get("NPUSIM_STATS"):
        peaks = [torch.ops.npusim.memory(index)[2] for index in range(npu.device_count())]
        report = {"device": npu.get_device_name(), "peak_bytes": peaks}
        Path(stats).write_text(json.dumps(report, indent=1) + "\n")


def _autoload() -> None:
    """What torch calls through the entry point ``torch.backends``; importing has done it all."""


def npu_fusion_attention(*args: object, **kwargs: object) -> NoReturn:
    """transformers imports it wherever it finds an NPU; nothing calls it without fa2."""
    raise NotImplementedError("the simulated NPU has no npu_fusion_attention")


torch.ops.load_library(str(_build()))
torch.ops.npusim.configure(
    _visible_devices(_setting("NPUSIM_DEVICES", 1)),
    _setting("NPUSIM_MEMORY_MB", 62423) << 20,  # the 60.96 GiB that a 64 GB card reports
)
torch.utils.rename_privateuse1_backend("npu")

from . import npu  # noqa: E402

torch._register_device_module("npu", npu)
sys.modules["torch.npu"] = npu
if torch.distributed.is_available():
    from . import hccl

    hccl.register()
torch.utils.generate_methods_for_privateuse1_backend()
torch.version.cann = "0.0 (simulated)"
atexit.register(_write_reports)
