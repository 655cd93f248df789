"""Known faults: the text that shows each, and the sentence that helps.

The same list serves the doctor and every failing log. The texts are as users report them; see the
tests for whole examples.
"""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """One fault: `pattern` finds it in a log, `sentence` says cause and remedy."""

    name: str
    pattern: re.Pattern[str]
    sentence: str  # may use the groups of the pattern as {0}, {1}, ...


def _fault(name: str, pattern: str, sentence: str) -> Fault:
    return Fault(name, re.compile(pattern), sentence)


# The first match wins, so the causes stand before what they lead to.
FAULTS = (
    _fault(
        "unknown recipe key",
        r"Some keys are not used by the HfArgumentParser: \[([^\]]*)\]",
        "LLaMA-Factory does not know the recipe key {0}: correct or remove it.",
    ),
    _fault(
        "disk full",
        r"No space left on device|Disk quota exceeded",
        "The disk is full: make room (old runs lie in runs/, models in models/) and run this "
        "again; finished steps are kept.",
    ),
    _fault(
        "no network",
        r"Temporary failure in name resolution|Name or service not known|Max retries exceeded"
        r"|Connection refused|Network is unreachable|ConnectTimeout|Could not find a version that",
        "The download failed because the site could not be reached: check the network and any "
        "proxy settings (http_proxy, https_proxy), then run this again; it goes on where it was.",
    ),
    _fault(
        "wrong hash",
        r"THESE PACKAGES DO NOT MATCH THE HASHES|FileIntegrityError|integrity check failed",
        "A downloaded file is not the expected one (its hash differs): the download was damaged "
        "or the mirror is wrong; run this again, or choose another mirror.",
    ),
    _fault(
        "NPU out of memory",
        r"NPU out of memory",
        "The NPU ran out of memory: lower per_device_train_batch_size or cutoff_len (raise "
        "gradient_accumulation_steps to keep the effective batch), or train with QLoRA.",
    ),
    _fault(
        "GPU out of memory",
        r"CUDA out of memory|OutOfMemoryError",
        "The GPU ran out of memory: lower per_device_train_batch_size or cutoff_len (raise "
        "gradient_accumulation_steps to keep the effective batch), or train with QLoRA.",
    ),
    _fault(
        "host out of memory",
        r"DefaultCPUAllocator: can't allocate memory|^MemoryError",
        "The machine ran out of memory: lower per_device_train_batch_size or cutoff_len, choose a "
        "smaller model, or close other programs.",
    ),
)


def recognise(text: str) -> str | None:
    """Return the sentence for the first known fault that `text` shows, or None."""
    for fault in FAULTS:
        match = fault.pattern.search(text)
        if match:
            return fault.sentence.format(*match.groups())
    return None


def explain(text: str, name: str, code: int) -> str:
    """Return one sentence on why a program failed.

    Args:
        text: what it printed.
        name: the program, as readers know it.
        code: its exit code; negative is the signal that ended it.
    """
    known = recognise(text)
    if known:
        return known
    if code == -signal.SIGKILL:
        return (
            f"{name} was killed from outside, most often because the machine ran out of memory: "
            "choose a smaller model or batch, or close other programs, and run this again."
        )
    if code < 0:
        return f"{name} was ended by {signal.Signals(-code).name}: run this again to go on."
    errors = re.findall(r"^(?:\w+\.)*(\w*(?:Error|Exception)): (.+)$", text, re.MULTILINE)
    cause = (
        f"{errors[-1][0]}: {errors[-1][1].strip().rstrip('.')}" if errors else f"exit code {code}"
    )
    return f"{name} failed ({cause}): its log says more; correct the cause and run this again."
