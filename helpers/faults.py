"""Known faults: the text that shows each, and the sentence that helps.

The same list serves the doctor and every failing log. The texts are as users report them; see the
tests for whole examples.
"""

from __future__ import annotations

import re
import signal
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Fault:
    """One fault: `pattern` finds it in a log, `sentence` says cause and remedy."""

    name: str
    pattern: re.Pattern[str]
    sentence: str  # may use the groups of the pattern as {0}, {1}, ...


def _fault(name: str, pattern: str, sentence: str) -> Fault:
    return Fault(name, re.compile(pattern, re.MULTILINE), sentence)


_LESS_MEMORY = (
    "lower per_device_train_batch_size or cutoff_len (raise gradient_accumulation_steps to keep "
    "the effective batch) or, if this was LoRA, train with QLoRA."
)

# The first match wins, so the causes stand before what they lead to: what breaks the import of
# torch, then the driver, then what is written by hand, then what ends a run by itself. What a
# healthy run can log as well (a refused connection, say) stands last.
FAULTS = (
    _fault(
        "CANN missing",
        r"lib(?:hccl|ascendcl)\.so: cannot open shared object file"
        r"|Please check that the cann package is installed",
        "CANN's libraries are not found: run 'source /usr/local/Ascend/ascend-toolkit/set_env.sh' "
        "(from CANN 8.5 /usr/local/Ascend/cann/set_env.sh), or install CANN, and start this again "
        "from that shell.",
    ),
    _fault(
        "torch and torch_npu differ",
        r"libtorch_npu\.so: undefined symbol",
        "torch and torch_npu were made for different versions: run 'make setup', which installs "
        "two that go together.",
    ),
    _fault(
        "CUDA torch beside torch_npu",
        r"Two accelerators cannot be used at the same time in PyTorch",
        "A CUDA build of torch and torch_npu are in one environment: on an NPU host remove .venv "
        "and run 'make setup', elsewhere run '.venv/bin/python -m uv pip uninstall torch-npu'.",
    ),
    _fault(
        "NPU held elsewhere",
        r"ret is -8020\b",
        "The NPU is held by another container: stop that one, or ask for a card of your own.",
    ),
    _fault(
        "NPU driver down",
        r"drvRetCode=87\b|ErrCode=507899\b|error code is 507033\b"
        r"|ret is -8005\b",
        "The NPU's driver does not answer: check that 'npu-smi info' lists the card and that this "
        "user may open /dev/davinci*, then restart the machine or rent another one.",
    ),
    _fault(
        "torch_npu does not load",
        r"Failed to load the backend extension: torch_npu",
        "torch_npu is installed but does not load: on an NPU host source CANN's set_env.sh and run "
        "'make doctor', elsewhere run '.venv/bin/python -m uv pip uninstall torch-npu'.",
    ),
    _fault(
        "HCCL busy",
        r"EJ0001\b|Failed to initialize the HCCP process",
        "The NPU is still busy with the last training: wait ten seconds and run this again; if it "
        "stays so, end the process that 'npu-smi info' shows.",
    ),
    _fault(
        "forked subprocess",
        r"Cannot re-initialize (?:NPU|CUDA) in forked subprocess",
        "A process that already used the device was forked: set preprocessing_num_workers=1 and "
        "dataloader_num_workers=0, restart the notebook's kernel and run this again.",
    ),
    _fault(
        "unknown recipe key",
        r"Some keys are not used by the HfArgumentParser: \[([^\]]*)\]",
        "LLaMA-Factory does not know the recipe key {0}: correct or remove it.",
    ),
    _fault(
        "unknown template",
        r"ValueError: Template (\S+) does not exist",
        "LLaMA-Factory has no chat template called {0}: correct template in the recipe or in the "
        "override (Qwen2 and Qwen2.5 take qwen).",
    ),
    _fault(
        "bitsandbytes missing",
        r"No module named 'bitsandbytes'|quantization requires bitsandbytes"
        r"|distribution was not found and is required[^\n]*\n[^\n]*bitsandbytes"
        r"|No package metadata was found for [^\n]*bitsandbytes",
        "bitsandbytes is not installed, and QLoRA needs it: run 'make setup'.",
    ),
    _fault(
        "flash_attn: fa2",
        r"flash_att[\s\S]{0,600}?'NoneType' object has no attribute 'to'",
        "flash_attn: fa2 does not work with this version of transformers: remove flash_attn from "
        "the recipe or the overrides.",
    ),
    _fault(
        "disk full",
        r"No space left on device|Disk quota exceeded",
        "The disk is full: make room (old runs lie in runs/, models in models/) and run this "
        "again; finished steps are kept.",
    ),
    _fault(
        "read-only",
        r"Read-only file system|PermissionError: \[Errno 13\]",
        "A file could not be written or opened because of its permissions: change them, or choose "
        "other folders with TUTORIAL_RUNS=/folder and TUTORIAL_MODELS=/folder.",
    ),
    _fault(
        "wrong hash",
        r"THESE PACKAGES DO NOT MATCH THE HASHES|Hash mismatch for |FileIntegrityError"
        r"|integrity check failed",
        "A downloaded file is not the expected one (its hash differs): the download was damaged "
        "or the mirror is wrong; run this again, or choose another mirror.",
    ),
    _fault(
        "damaged weights",
        r"Error while deserializing header",
        "A *.safetensors file is damaged, most often by a download that broke off: remove the "
        "model's folder under models/ (or the adapter's under runs/) and run this again.",
    ),
    _fault(
        "NPU out of memory",
        r"NPU out of memory",
        "The NPU ran out of memory: " + _LESS_MEMORY,
    ),
    _fault(
        "GPU out of memory",
        r"CUDA out of memory|OutOfMemoryError",
        "The GPU ran out of memory: " + _LESS_MEMORY,
    ),
    _fault(
        "host out of memory",
        r"DefaultCPUAllocator: can't allocate memory|^MemoryError",
        "The machine ran out of memory: lower per_device_train_batch_size or cutoff_len, choose a "
        "smaller model, or close other programs.",
    ),
    _fault(
        "loss is not a number",
        r"['\"](?:train_|eval_)?loss['\"]: ['\"]?-?(?:nan|inf)\b"
        r"|probability tensor contains either `inf`, `nan`",
        "The loss became NaN or infinite: lower learning_rate, keep bf16 (not fp16), and look for "
        "damaged rows in the data.",
    ),
    _fault(
        "port in use",
        r"[Aa]ddress already in use|EADDRINUSE|Cannot find empty port in range",
        "The network port is in use by another program: end that one (an older training or "
        "dashboard, say), or choose another port (MASTER_PORT for torchrun, GRADIO_SERVER_PORT for "
        "webui and webchat).",
    ),
    _fault(
        "no network",
        r"Temporary failure in name resolution|Name or service not known|Max retries exceeded"
        r"|Connection refused|Network is unreachable|ConnectTimeout|ConnectionError: "
        r"|Could not find a version that|Failed to fetch: |error sending request for url",
        "The download failed because the site could not be reached: check the network and any "
        "proxy settings (http_proxy, https_proxy), then run this again; it goes on where it was.",
    ),
)

_CPU_FALLBACK = re.compile(
    r"The operator '([^']+)' is not currently supported on the NPU backend and will fall back"
)


def cpu_fallbacks(text: str) -> list[str]:
    """Return the operators that torch_npu says it runs on the CPU instead, each once.

    Such a run goes well, but slowly: a warning, not a fault.
    """
    return list(dict.fromkeys(_CPU_FALLBACK.findall(text)))


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


if __name__ == "__main__":  # the Makefile asks, while there are no packages yet
    print(f"\n{explain(Path(sys.argv[1]).read_text('utf-8', 'replace'), 'The set-up', 1)}")
