"""A ledger of tensor storages: what is alive, of which kind, and the moment most of it was.

Loads torch; used by helpers/planning/traced_step.py in a process of its own.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Ledger(TorchDispatchMode):
    """Adds up every storage that comes into being under it, and takes it off when it goes.

    Works on FakeTensors, which have sizes and lifetimes but no bytes.

    Args:
        vocabulary: the length that marks a tensor as logits.
        bodies: Python bodies of operators whose fake kernels would hide their temporaries. One is
            run under the ledger the first time an operator meets arguments of some form; after
            that, what it took for a moment is added to the fake kernel's result.
        rounding: every storage takes a multiple of this many bytes, as an allocator hands them out.
    """

    def __init__(
        self, vocabulary: int, bodies: Mapping[Any, Callable[..., Any]], rounding: int = 1
    ) -> None:
        super().__init__()
        self.vocabulary = vocabulary
        self.bodies = bodies
        self.rounding = rounding
        self.kind = "activations"  # of what comes into being now
        self.alive: dict[int, tuple[int, str]] = {}
        self.now: Counter[str] = Counter()
        self.total = 0
        self.peak = 0
        self.at_peak: dict[str, int] = {}
        self.height = 0  # the most since a body began
        self.passing: dict[Any, int] = {}  # bytes that a body takes for a moment, by its arguments

    def add(self, tensors: Iterable[torch.Tensor | None], kind: str, cards: int = 1) -> None:
        """Enter tensors that were there before, of which each of some cards holds a part."""
        for tensor in tensors:
            if tensor is not None:
                self._enter(tensor, kind, cards)
        self._look()

    def rename(self, tensor: torch.Tensor, kind: str) -> None:
        """Count a tensor's storage as another kind from now on."""
        key = tensor.untyped_storage()._cdata
        if key in self.alive:
            size, before = self.alive[key]
            self.alive[key] = (size, kind)
            self.now[before] -= size
            self.now[kind] += size

    def _enter(self, tensor: torch.Tensor, kind: str, cards: int = 1) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self.alive:
            return
        size = -(-storage.nbytes() // (self.rounding * cards)) * self.rounding
        self.alive[key] = (size, kind)
        self.now[kind] += size
        self.total += size
        weakref.finalize(storage, self._leave, key).atexit = False

    def _leave(self, key: int) -> None:
        size, kind = self.alive.pop(key)
        self.now[kind] -= size
        self.total -= size

    def _look(self, passing: int = 0) -> None:
        total = self.total + passing
        self.height = max(self.height, total)
        if total > self.peak:
            self.peak = total
            at_peak = self.now + Counter({self.kind: passing})
            self.at_peak = {kind: size for kind, size in at_peak.items() if size}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func in self.bodies:
            form = (func, *map(_form, args))
            if form not in self.passing:
                begin = self.height = self.total
                with self:
                    result = self.bodies[func](*args, **(kwargs or {}))
                self.passing[form] = self.height - begin
                return result
            self._look(self.passing[form])
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor):
                logits = self.vocabulary in leaf.shape and leaf.numel() > self.vocabulary
                self._enter(leaf, "logits" if logits else self.kind)
        self._look()
        return result


def _form(argument: Any) -> Any:
    """Return what of an operator's argument decides how much memory it takes."""
    if isinstance(argument, torch.Tensor):
        return tuple(argument.shape), argument.dtype
    return tuple(argument) if isinstance(argument, list) else argument
