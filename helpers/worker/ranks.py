"""The processes of one training, a card each: which of them this is, and what all have found.

A training on one card is the only process of its own, and none of this starts anything.
"""

from __future__ import annotations

import atexit
import os
import re
import sys
from typing import Any, TypeVar

Found = TypeVar("Found")


def is_first() -> bool:
    """Return whether this is the process that tells what happens, as torchrun counts them."""
    return os.environ.get("RANK", "0") == "0"


def mend_resuming() -> None:
    """Let several processes of a CPU go on from a checkpoint.

    transformers 5.6 has each load the optimizer's state onto its own device, which is "cpu:0" to
    accelerate, a name that torch 2.10 refuses to load onto.
    """
    from torch import serialization

    def here(storage: Any, location: str) -> Any:
        return storage if re.fullmatch(r"cpu:\d+", location) else None

    if "RANK" in os.environ:
        serialization.register_package(1, lambda storage: None, here)


def mend_ending() -> None:
    """Let a process of several on a CPU end where its work has, and not be aborted after that.

    On busy cores one was seen to abort while Python was being taken down, with torch's threads
    still there ("terminate called without an active exception"): torchrun took the training for
    failed. So once LLaMA-Factory has left the process group, which it does last and only if all
    went well, what was registered to run at the end still runs, but Python is not taken down.
    """
    import torch
    from torch import distributed

    if "RANK" not in os.environ or torch.accelerator.is_available():
        return
    leave, left = distributed.destroy_process_group, []

    def leave_and_tell(group: Any = None) -> None:
        leave(group)
        left.append(group)

    def end() -> None:
        if None in left and not hasattr(sys, "last_value"):
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0)

    distributed.destroy_process_group = leave_and_tell
    atexit.register(end)  # what is registered after this runs before it


def is_sharded() -> bool:
    """Return whether the processes share the model out, each holding a part (FSDP2)."""
    return os.environ.get("ACCELERATE_USE_FSDP") == "true"


def mend_sharding() -> None:
    """Let processes share a model out as accelerate 1.11 does not by itself.

    On a CPU it would train by DDP without a word. It would turn 16-bit weights into float32, twice
    as large, and alter packed 4-bit weights with them, some of which are NaNs if read as numbers
    (1 in 256 words of 16 bits does not come back from float32); and round each loss, and the
    gradients that are summed, to the 16 bits that are computed in. From the first process to the
    others it cannot hand 4-bit weights, which all have read and quantised: the adapter is enough.
    """
    from dataclasses import replace

    import torch
    from accelerate import accelerator as accelerators
    from accelerate.state import AcceleratorState, PartialState
    from accelerate.utils import DistributedType

    made, prepared = AcceleratorState.__init__, accelerators.fsdp2_prepare_model

    def make(state: Any, *args: Any, **kwargs: Any) -> None:
        made(state, *args, **kwargs)
        plugin = kwargs.get("fsdp_plugin")
        if plugin and state.distributed_type == DistributedType.MULTI_CPU:
            state.distributed_type = DistributedType.FSDP
            PartialState._shared_state["distributed_type"] = DistributedType.FSDP
            if state.mixed_precision != "no":
                plugin.set_mixed_precision(state.mixed_precision)
            state.fsdp_plugin = plugin

    def prepare(accelerator: Any, model: Any) -> Any:
        state, plugin = accelerator.state, accelerator.state.fsdp_plugin
        if plugin.mixed_precision_policy:
            plugin.mixed_precision_policy = replace(
                plugin.mixed_precision_policy, reduce_dtype=torch.float32, output_dtype=None
            )
        before = state._mixed_precision, plugin.cpu_ram_efficient_loading
        state._mixed_precision = "no"
        if getattr(model, "is_loaded_in_4bit", False):
            plugin.cpu_ram_efficient_loading = False
            for parameter in model.parameters():
                if parameter.requires_grad:
                    torch.distributed.broadcast(parameter.data, 0)
        try:
            return prepared(accelerator, model)
        finally:
            state._mixed_precision, plugin.cpu_ram_efficient_loading = before

    AcceleratorState.__init__ = make  # type: ignore[method-assign]
    accelerators.fsdp2_prepare_model = prepare


def shares(model: Any) -> bool:
    """Return whether the processes do share a model out."""
    return all(hasattr(parameter, "to_local") for parameter in model.parameters())


def whole(tensor: Any) -> Any:
    """Return all of a tensor, which every process must ask for where they share it out."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


def part(tensor: Any) -> Any:
    """Return what this process holds of a tensor."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def quant_state(model: Any, name: str) -> Any:
    """Return the scales of a 4-bit weight; None for any other.

    A weight that is shared out has lost them; its layer keeps them, whole.

    Args:
        model: a torch module.
        name: of one of its parameters.
    """
    holder, _, own = name.rpartition(".")
    layer = model.get_submodule(holder)
    found = getattr(getattr(layer, own), "quant_state", None)
    return found or (getattr(layer, "quant_state", None) if own == "weight" else None)


def gathered(found: Found) -> list[Found]:
    """Return what every process gives here, in their order; all of them must come here.

    Args:
        found: this one's; of a kind that can be pickled.
    """
    from torch import distributed

    if not (distributed.is_available() and distributed.is_initialized()):
        return [found]
    everywhere: list[Found] = [found] * distributed.get_world_size()
    distributed.all_gather_object(everywhere, found)
    return everywhere
