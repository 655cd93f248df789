"""bitsandbytes' `default` backend, whatever kernel the dispatcher would take on a device."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from typing import Any


@functools.cache
def kernels() -> dict[str, Callable[..., Any]]:
    """Return the backend's functions by operator ("dequantize_4bit", ...), in plain torch.

    Where another kernel is registered for a device, the dispatcher cannot be asked for these: their
    module is run once more, with a `register_kernel` that only takes notes.
    """
    import bitsandbytes._ops as ops

    found: dict[str, Callable[..., Any]] = {}

    def note(op: str, _device: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        return lambda kernel: found.setdefault(op.removeprefix("bitsandbytes::"), kernel)

    spec = importlib.util.find_spec("bitsandbytes.backends.default.ops")
    assert spec is not None
    assert spec.loader is not None
    real, ops.register_kernel = ops.register_kernel, note  # type: ignore[assignment]
    try:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
    finally:
        ops.register_kernel = real
    return found
