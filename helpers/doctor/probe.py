"""The only process of the tutorial's own that imports torch to look at it, and what it sees.

`import torch` may fail or take its process down (a broken torch_npu does), so a child process does
it for the doctor, and reports stage by stage.
"""

from __future__ import annotations

import subprocess
import sys
import traceback
from importlib import metadata
from typing import Any

from pydantic import BaseModel, ValidationError

from helpers.doctor.kernels import Kernels, look_at_kernels
from helpers.ground import paths

PROBE_SECONDS = 300  # a cold start from a network disk is slow; a hung driver never ends


class Probe(BaseModel):
    """What the child process saw. Bytes where not said otherwise; None is "not known"."""

    torch: str | None = None
    torch_npu: str | None = None
    cann: str | None = None  # torch.version.cann
    cards: int | None = None  # visible ones
    name: str | None = None
    bf16: bool | None = None
    free: int | None = None
    total: int | None = None
    nf4_error: float | None = None
    device_fault: str = ""  # why the device could not be asked
    nf4_fault: str = ""  # why NF4 did not work
    kernels: Kernels | None = None  # of an NPU whose NF4 works
    output: str = ""  # what the child printed besides


def installed(package: str) -> str | None:
    """Return the installed version of a package, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _see_device(torch: Any, device: str, seen: Probe) -> None:
    """Fill in what torch says about the first visible card."""
    module = getattr(torch, device)
    seen.cards = module.device_count() if module.is_available() else 0
    if seen.cards:
        seen.name = module.get_device_name(0)
        seen.bf16 = module.is_bf16_supported()
        seen.free, seen.total = module.mem_get_info(0)


def _nf4_error(torch: Any, device: str) -> float:
    """Quantise weights to NF4 on the device and back; return the relative error."""
    from bitsandbytes.functional import dequantize_4bit, quantize_4bit

    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(256, 1024, generator=generator).to(torch.bfloat16)
    packed, state = quantize_4bit(weights.to(device), blocksize=64, quant_type="nf4")
    back = dequantize_4bit(packed, state).cpu().float()
    return float((back - weights.float()).norm() / weights.float().norm())


def look(device: str) -> None:
    """Print a Probe of this Python and `device` as JSON: the child process's whole work.

    A line is printed after each stage, because the next one may take the process down; the last
    line counts.
    """
    seen = Probe()
    import torch  # dies here if torch_npu is broken; the parent reads why from stderr

    seen.torch = torch.__version__
    seen.cann = getattr(torch.version, "cann", None)
    seen.torch_npu = installed("torch-npu")
    print(seen.model_dump_json(), flush=True)
    if device != "cpu":
        try:
            _see_device(torch, device, seen)
        except Exception:
            seen.device_fault = traceback.format_exc()
        print(seen.model_dump_json(), flush=True)
    if device == "cpu" or seen.cards:
        try:
            seen.nf4_error = _nf4_error(torch, device)
        except Exception:
            seen.nf4_fault = traceback.format_exc()
    print(seen.model_dump_json(), flush=True)
    if device == "npu" and seen.nf4_error is not None:
        seen.kernels = look_at_kernels(device)
        print(seen.model_dump_json(), flush=True)


def _read_probe(printed: bytes) -> Probe:
    """Return the last Probe among the printed lines; an empty one if there is none."""
    for line in reversed(printed.splitlines()):
        try:
            return Probe.model_validate_json(line)
        except ValidationError:
            continue  # libraries print on import, too
    return Probe()


def ask(device: str) -> Probe:
    """Return what a child process sees of torch and `device` ("npu", "cuda" or "cpu").

    Never raises: a child that dies or hangs leaves what it saw until then, and its last words.
    """
    # Not process.run: that one raises with the sentence, and here a failure is a finding beside
    # others. And stdout has to stay apart from stderr.
    try:
        done = subprocess.run(
            [sys.executable, "-m", "helpers.doctor.probe", device],
            cwd=paths.ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PROBE_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        seen = _read_probe(error.stdout or b"")
        seen.output = f"TimeoutError: importing torch took more than {PROBE_SECONDS} s"
        return seen
    seen = _read_probe(done.stdout)
    seen.output = done.stderr.decode(errors="replace")
    if done.returncode < 0:
        seen.output += f"\nRuntimeError: ended by signal {-done.returncode}"
    return seen


if __name__ == "__main__":
    look(sys.argv[1])
