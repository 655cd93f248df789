"""The most bytes that tensors took at one moment, as the allocator counts them.

A device's allocator keeps that count itself. On a CPU nobody does: there it is added up from the
allocator's events, which torch.profiler records, and what was allocated before is counted from the
tensors themselves; it is taken to stay, for torch does not know the size of what it did not see
allocated, or takes an older one that lay at the same address. Loads torch.
"""

from __future__ import annotations

import atexit
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch._C._profiler import RecordScope, _EventType

from helpers.worker import ranks


def tensors_of(model: torch.nn.Module, optimizer: Any = None) -> Iterator[torch.Tensor]:
    """Yield everything that lives from step to step.

    Args:
        model: with its 4-bit weights' scales and code tables.
        optimizer: torch's, or what accelerate wraps it in.
    """
    for name, parameter in model.named_parameters():
        yield ranks.part(parameter)
        if parameter.grad is not None:
            yield ranks.part(parameter.grad)
        state = ranks.quant_state(model, name)
        while state is not None:
            yield from (state.absmax, state.code)
            if state.nested:
                yield state.offset
            state = state.state2
    yield from model.buffers()
    for state in optimizer.state.values() if optimizer is not None else ():
        yield from (ranks.part(v) for v in state.values() if isinstance(v, torch.Tensor))


def bytes_of(tensors: Iterable[torch.Tensor]) -> int:
    """Return the bytes of the tensors' storages, each counted once."""
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())


def _exchanged(model: torch.nn.Module) -> int:
    """Return the bytes that DDP keeps for what processes exchange, which no tensor here shows."""
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()) or ranks.is_sharded():
        return 0
    return sum(parameter.nbytes for parameter in model.parameters() if parameter.requires_grad)


class Meter:
    """The peak between `begin` and `end`, in bytes.

    Args:
        device: the type of torch's device: cpu, cuda or npu.
    """

    def __init__(self, device: str) -> None:
        self.costly = device == "cpu"  # a few steps are measured, and not all
        self.running = False
        self._memory = None if self.costly else torch.get_device_module(device)

    def until_now(self) -> int | None:
        """Return the most bytes since the process began, or since `begin`; None on a CPU."""
        return int(self._memory.max_memory_allocated()) if self._memory else None

    def begin(self, model: torch.nn.Module, optimizer: Any = None) -> None:
        """Begin to measure; `model` and `optimizer` are what is in memory already."""
        self.running = True
        if self._memory:
            self._memory.reset_peak_memory_stats()
            return
        self._before = bytes_of(tensors_of(model, optimizer)) + _exchanged(model)
        self._recording = _Recording()

    def end(self) -> int:
        """End measuring, and return the most bytes since `begin`."""
        self.running = False
        if self._memory:
            return int(self._memory.max_memory_allocated())
        peak, _ = self._recording.end()
        del self._recording
        return self._before + peak


class _Recording:
    """What torch's CPU allocator gives out and takes back in this thread, from now on."""

    def __init__(self) -> None:
        # What torch.profiler.profile wraps. It would record every operator as well, which takes
        # most of the time; so only those of a kind that no training has are asked for.
        made = torch.autograd.profiler.profile(use_kineto=True, profile_memory=True)
        config, activities = made.config(create_trace_id=True), made.kineto_activities
        torch.autograd._prepare_profiler(config, activities)
        no_operators = {RecordScope.BUILD_FEATURE}
        torch.autograd._enable_profiler(config, activities, no_operators)  # type: ignore[call-arg]

    def stop(self) -> Any:
        """End recording, and return what torch has recorded."""
        return torch.autograd._disable_profiler()

    def end(self, files: Collection[int] = ()) -> tuple[int, dict[int, int]]:
        """Return the most bytes at one moment, and those that are still there by their address.

        Args:
            files: the sizes of files that were mapped: torch tells of a mapping as if it gave out
                memory, of as many bytes as the file has.
        """
        recorded = self.stop()
        live: dict[int, int] = {}
        now = peak = 0
        for _, address, change in sorted(_changes(recorded.experimental_event_tree())):
            if change in files:
                continue
            now += change if change > 0 else -live.pop(address, 0)
            if change > 0:
                live[address] = change
            peak = max(peak, now)
        return peak, live


def _changes(tree: list[Any]) -> Iterator[tuple[int, int, int]]:
    """Yield when memory was given out or back, where it lies, and the bytes (negative: back)."""
    ahead = list(tree)
    while ahead:
        event = ahead.pop()
        ahead.extend(event.children)
        if event.tag == _EventType.Allocation:
            facts = event.extra_fields
            yield event.start_time_ns, facts.ptr, facts.alloc_size


# ---- loading on a CPU ---------------------------------------------------------------------------

_loading: _Recording | None = None


def watch_loading() -> None:
    """Record what the CPU's allocator does from now on; a device's counts by itself.

    That is when bitsandbytes is imported (helpers/worker/callback.py): before weights are read that
    are quantised on the way, and after 16-bit ones are, which no more than what the model holds
    was needed for.
    """
    global _loading
    if not torch.accelerator.is_available():
        _loading = _Recording()
        atexit.register(_abandon)


def _abandon() -> None:
    """End what still records: a process that ends meanwhile, as after an error, would crash."""
    if _loading is not None:
        _loading.stop()


def loaded(model: Any) -> int | None:
    """Return the most bytes of tensors while a model was loaded; None where nobody watched.

    What it holds and was not given out meanwhile counts from the beginning: 16-bit weights, mapped
    from their file or copied. Weights that are mapped in order to be quantised do not count.

    Args:
        model: transformers' or peft's, which names the folder that it is from.
    """
    global _loading
    if _loading is None:
        return None
    files = Path(model.name_or_path).glob("*.safetensors")
    peak, live = _loading.end([file.stat().st_size for file in files])
    _loading = None
    return peak + bytes_of(
        tensor for tensor in tensors_of(model) if tensor.untyped_storage().data_ptr() not in live
    )
