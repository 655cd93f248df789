"""Fast 4-bit kernels for bitsandbytes on Ascend NPUs and on CPUs, in plain torch operators.

bitsandbytes lists "npu" as supported but ships no kernels for it, and 0.48.2 has none of 4 bits for
a CPU, so its `default` backend runs there: it spreads every nibble over an int32, looks each one
up, and compares every weight with all 16 codes when it quantises. That is what makes QLoRA slow on
an NPU, and what two fifths of a step with the article's settings went to on a CPU (SmolLM2-135M).

The kernels here give the same bits as the `default` backend of 0.48.2 (`backends/default/ops.py`;
the tests compare them), and take to operators that a 910B's AI Core runs, by CANN's sources
(tests/worker/ai_core.toml): casts, `index_select` of 4-byte elements, `mul`, `gt`, `add`, `abs`,
`amax`, `clamp`, `nan_to_num`. No shifts, no `|`, no float64, no `bucketize`, no compiler.

* dequantise_4bit.py looks a whole byte up, in a table of 256 code pairs. One gather instead of
  two, and no unpacking.
* quantise_4bit.py descends a table of thresholds: 4 comparisons instead of 16 differences a weight.
  The thresholds are found by bisection over float32 with the default's own arithmetic, ties
  included (codes_4bit.py).
* Both work through the tensor in pieces, so their temporaries do not grow with it.

`gemv_4bit` needs no kernel of its own: the default one calls `dequantize_4bit` through the
dispatcher, and so reaches the one here.

bitsandbytes calls `register` itself, through the entry-point group `bitsandbytes.backends`.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any

import torch

from helpers.worker import kernel_choice
from helpers.worker.dequantise_4bit import dequantize_4bit, dequantize_blockwise
from helpers.worker.quantise_4bit import quantize_4bit, quantize_blockwise

logger = logging.getLogger(__name__)

# torch_npu claims PyTorch's one spare device slot and renames it. The slot exists on every machine
# and also before torch_npu is imported; the device name "npu" does not.
DISPATCH_KEY = "PrivateUse1"
UNCLAIMED = "privateuseone"

KERNELS: dict[str, Callable[..., Any]] = {
    "bitsandbytes::dequantize_4bit": dequantize_4bit,
    "bitsandbytes::dequantize_blockwise": dequantize_blockwise,
    "bitsandbytes::quantize_4bit": quantize_4bit,
    "bitsandbytes::quantize_blockwise": quantize_blockwise,
}
# bitsandbytes has kernels of its own for the others there.
ON_CPU = ("bitsandbytes::dequantize_4bit", "bitsandbytes::quantize_4bit")
_registered: set[str] = set()
# This module, as a .venv of today and one made before (helpers/npu_4bit.py) call it.
OWN = (f"{__name__}:register", "helpers.npu_4bit:register")


def registered() -> bool:
    """Whether the kernels of this module are the NPU's in this process."""
    return bool(_registered)


def reason_to_step_aside() -> str | None:
    """Why these kernels must not be registered, or None."""
    if importlib.util.find_spec("bitsandbytes.backends.npu") is not None:
        return "bitsandbytes brings its own NPU backend"
    for entry in entry_points(group="bitsandbytes.backends"):
        # Were both to register, the second would raise, and `import bitsandbytes` with it.
        if entry.value not in OWN and (
            "npu" in entry.value.lower() or "ascend" in entry.value.lower()
        ):
            return f"the NPU backend {entry.value} is installed"
    for op in KERNELS:
        if torch._C._dispatch_has_kernel_for_dispatch_key(op, DISPATCH_KEY):
            return f"{op} has a kernel for the NPU already"
    slot = torch._C._get_privateuse1_backend_name()
    if DISPATCH_KEY == "PrivateUse1" and slot not in ("npu", UNCLAIMED):
        return f"PyTorch's spare device is {slot} here, not npu"
    return None


def reason_to_leave_the_cpu() -> str | None:
    """Why the CPU keeps what bitsandbytes brings for it, or None."""
    for op in ON_CPU:
        if torch._C._dispatch_has_kernel_for_dispatch_key(op, "CPU"):
            return f"{op} has a kernel for the CPU already"
    if kernel_choice.current(torch.device("cpu")).formulation == "default":
        return f"{kernel_choice.VARIABLE} asks for the default backend"
    return None


def register() -> None:
    """Register the kernels; bitsandbytes calls this when it is imported, on every machine.

    It never raises: that would make `import bitsandbytes` fail where no NPU is even present.
    """
    if _registered:
        return
    try:
        from bitsandbytes._ops import register_kernel

        if (reason := reason_to_leave_the_cpu()) is None:
            for op in ON_CPU:
                register_kernel(op, "cpu")(KERNELS[op])
        else:
            logger.info("The tutorial's CPU kernels step aside: %s.", reason)
        if (reason := reason_to_step_aside()) is not None:
            logger.info("The tutorial's NPU kernels step aside: %s.", reason)
            return
        for op, kernel in KERNELS.items():
            register_kernel(op, DISPATCH_KEY)(kernel)
            _registered.add(op)
    except (AttributeError, ImportError, RuntimeError) as error:
        # A bitsandbytes or a torch that is built otherwise; its own kernels serve instead.
        logger.warning("The tutorial's 4-bit kernels could not be registered: %s", error)
