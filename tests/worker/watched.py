"""Records what is launched on a device: operators, types, bytes. For test_ai_core.py's children."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch_npu  # noqa: F401  (npu:0 is the simulated one)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from helpers.worker import dequantise_4bit, quantise_4bit

__all__ = ["Watch", "back", "dequantise_4bit", "there", "torch"]

# They look at memory in another way, or reserve it, and launch nothing.
SILENT = {"view", "slice", "select", "unsqueeze", "expand", "alias", "detach", "as_strided",
          "_unsafe_view", "_reshape_alias", "empty", "empty_strided", "empty_like", "new_empty",
          "t", "permute", "transpose", "split"}  # fmt: skip


@dataclass(frozen=True)
class Launched:
    """One operator: its name, the types of its tensors (in, then out), the bytes of all of them."""

    name: str
    types: tuple[str, ...]
    bytes: int


def _tensors(values: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor)]


class Watch(TorchDispatchMode):
    """Writes down every operator on device tensors that launches something.

    `mul_`, `mul.out` and `mul` are one: what is written to counts as what comes out.
    """

    def __init__(self) -> None:
        super().__init__()
        self.launched: list[Launched] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        given = dict(kwargs or {})
        result = func(*args, **given)
        name = func._schema.name
        short = (
            name.removeprefix("aten::").removesuffix("_") if name != "aten::_to_copy" else "copy"
        )
        if short in SILENT:
            return result
        given.pop("out", None)
        inside, outside = _tensors((args, given)), _tensors(result)
        if short == "copy" and name != "aten::_to_copy":  # the first is what is written to
            inside = inside[1:]
        if not any(each.device.type == "npu" for each in (*inside, *outside)):
            return result
        # A scale by itself is a number to the kernel that takes it.
        vectors = [each for each in inside if each.dim() > 0] or inside
        named = tuple(str(each.dtype).removeprefix("torch.") for each in (*vectors, *outside))
        size = sum(each.nbytes for each in (*inside, *outside))
        if short == "index_select":  # of the table, the elements that are taken
            size += outside[0].nbytes - inside[0].nbytes
        self.launched.append(Launched(f"aten::{short}", named, size))
        return result


def there(weights: torch.Tensor, quant_type: str, nested: bool) -> tuple[torch.Tensor, Any]:
    """Quantise as bitsandbytes' functional does, and return what `back` takes."""
    packed, absmax = quantise_4bit.quantize_4bit(weights, 64, quant_type, torch.uint8)
    form = (quant_type, weights.shape, weights.dtype)
    if not nested:
        return packed, (absmax, None, form)
    from bitsandbytes.functional import create_dynamic_map

    with torch.utils._python_dispatch._disable_current_modes():
        code = create_dynamic_map().to(weights.device)
        offset = absmax.mean()
        differences = absmax - offset
    inner = quantise_4bit.quantize_blockwise(differences, code, 256)
    return packed, (inner, (code, offset), form)


def back(packed: torch.Tensor, state: Any) -> torch.Tensor:
    """Dequantise what `there` returned."""
    scales, nested, (quant_type, shape, dtype) = state
    if nested:
        code, offset = nested
        scales = dequantise_4bit.dequantize_blockwise(*scales, code, 256, torch.float32)
        with torch.utils._python_dispatch._disable_current_modes():
            scales = scales + offset
    return dequantise_4bit.dequantize_4bit(packed, scales, 64, quant_type, shape, dtype)
