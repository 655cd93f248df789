"""Counts operators as they pass: calls, floating-point operations, and bytes that are moved.

Loads torch; used by helpers/planning/traced_work.py on FakeTensors. What an operator computes is
counted as torch.utils.flop_counter does; a causal attention does half of it.
"""

from __future__ import annotations

import json
from collections import Counter as Counts
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count

from helpers.planning.work import Kind, Operators

aten = torch.ops.aten
# The CPU's fused attention, which torch's counter does not know; q, k, v come after the gradient.
_ATTENTION = {
    aten._scaled_dot_product_flash_attention_for_cpu.default: 0,
    aten._scaled_dot_product_flash_attention_for_cpu_backward.default: 1,
}
# They read of a table only what they are asked for.
_LOOKING_UP = {aten.embedding.default, aten.index_select.default, aten.index.Tensor,
               aten.gather.default}  # fmt: skip

COUNTED = ("aten", "bitsandbytes")  # others ask a tensor where it is, or tell a profiler
# Nothing is computed: a name for what is there, or room.
_NOTHING = {aten.detach.default, aten._unsafe_view.default, aten.empty_like.default,
            aten.empty.memory_format, aten.empty_strided.default, aten.new_empty.default,
            aten.lift_fresh.default}  # fmt: skip

Key = tuple[Kind, int, int, str]


def _moved(tensor: torch.Tensor) -> int:
    """Return the bytes of a tensor; what is expanded lies in memory once."""
    return min(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes())


def _attention(func: Any, args: tuple[Any, ...]) -> int:
    first = _ATTENTION[func]
    query, key, value = (args[first + i].shape for i in range(3))
    # Where several heads of queries share one of keys, each of them is computed with it.
    key, value = ((*query[:2], *shared[2:]) for shared in (key, value))
    if first:
        flops = sdpa_backward_flop_count(args[0].shape, query, key, value)
        causal = args[7] if len(args) > 7 else False
    else:
        flops = sdpa_flop_count(query, key, value)
        causal = args[4] if len(args) > 4 else False
    return flops // 2 if causal else flops


def described(func: Any, args: Any, kwargs: Any) -> str:
    """Return an operator and its arguments as JSON: of tensors, what they are like."""

    def plain(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return {"shape": list(value.shape), "stride": list(value.stride()),
                    "dtype": str(value.dtype).removeprefix("torch.")}  # fmt: skip
        if isinstance(value, torch.dtype | torch.device | torch.layout | torch.memory_format):
            return {type(value).__name__: str(value).removeprefix("torch.")}
        return value

    return json.dumps([str(func), *tree_map(plain, [list(args), dict(kwargs)])])


class Counter(TorchDispatchMode):
    """Counts every operator under it.

    Args:
        bodies: Python bodies that a device runs in an operator's place; they are counted instead.
        forms: keep how each operator was called.
    """

    def __init__(self, bodies: Mapping[Any, Callable[..., Any]], forms: bool = False) -> None:
        super().__init__()
        self.bodies, self.forms = bodies, forms
        self.counts: Counts[Key] = Counts()

    def take(self) -> Counts[Key]:
        """Return what was counted since the last call."""
        found, self.counts = self.counts, Counts()
        return found

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in self.bodies:
            with self:
                return self.bodies[func](*args, **kwargs)
        result = func(*args, **kwargs)
        if func.namespace not in COUNTED:
            return result
        read = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        written = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        if func.is_view or func in _NOTHING:
            self.counts["view", 0, 0, ""] += 1
            return result
        kind: Kind = "vector"
        flops = 0
        out = sum(map(_moved, written))
        if func in _ATTENTION:
            kind, flops = "attention", _attention(func, args)
        elif func._overloadpacket in flop_registry:
            kind = "matrix"
            flops = flop_registry[func._overloadpacket](*args, **kwargs, out_val=result)
        moved = 2 * out if func in _LOOKING_UP else out + sum(map(_moved, read))
        form = described(func, args, kwargs) if self.forms else ""
        self.counts[kind, flops, moved, form] += 1
        return result


def extrapolated(one: Counts[Key], two: Counts[Key], layers: int) -> list[Operators]:
    """Return the operators of a model of so many layers, from its counts with one and with two.

    Args:
        one: with one layer.
        two: with two.
        layers: how many the model has.
    """
    total = {key: one[key] + (layers - 1) * (two[key] - one[key]) for key in one.keys() | two}
    return [
        Operators(kind=kind, calls=calls, flops=flops, bytes=moved, form=form)
        for (kind, flops, moved, form), calls in sorted(total.items())
        if calls
    ]
