"""Whether training left the frozen weights alone, told by the process that trained.

A file on disk says nothing about the weights in memory, which are what is trained beside, and
llamafactory-cli has no option for a callback. So bitsandbytes loads `register`, through the
entry-point group `bitsandbytes.backends`, in every process that imports it (peft does, for LoRA as
well). It does nothing unless TUTORIAL_FROZEN_WEIGHTS names a file, as helpers/factory.py has it for
a training; then transformers' Trainer gets a callback that takes a digest of all frozen weights
when it is made, again when training has ended, and after each evaluation from then on.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from helpers.files import write_json

VARIABLE = "TUTORIAL_FROZEN_WEIGHTS"
FILE = "frozen_weights.json"  # in the folder of the adapter


def digest(model: Any) -> dict[str, Any]:
    """Return one digest over everything in a model that training must not change.

    That is every parameter that takes no gradient, every buffer, and of 4-bit weights the scales
    and code tables as well: names, types, shapes and all bytes, copied to the host one tensor at a
    time and hashed with XXH3 (128 bits), which is as fast as the copy.

    Args:
        model: a torch module.

    Returns:
        digest (32 hex digits), tensors, bytes.
    """
    import torch
    import xxhash

    tensors: dict[str, torch.Tensor] = dict(model.named_buffers())
    rest: list[tuple[str, Any]] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            continue
        tensors[name] = parameter.data
        state = getattr(parameter, "quant_state", None)
        for key, value in state.as_dict().items() if state else ():
            if isinstance(value, torch.Tensor):
                tensors[f"{name}.{key}"] = value
            else:
                rest.append((f"{name}.{key}", value))
    hashed = xxhash.xxh3_128(repr(sorted(rest)).encode())
    size = 0
    for name, tensor in sorted(tensors.items()):
        content = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        hashed.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        hashed.update(content.data)
        size += content.nbytes
    return {"digest": hashed.hexdigest(), "tensors": len(tensors), "bytes": size}


def register() -> None:
    """Add the callback to every Trainer of this process, if a file is named for it."""
    if not os.environ.get(VARIABLE):
        return
    from transformers import TrainerCallback, trainer

    class FrozenWeights(TrainerCallback):
        """Writes {before, after} after training and after each evaluation that follows it."""

        def __init__(self) -> None:
            self.before: dict[str, Any] = {}
            self.ended = False

        def on_init_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            self.before = digest(rest["model"])

        def on_train_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            self.ended = True
            self.on_evaluate(args, state, control, **rest)

        def on_evaluate(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            if self.ended:
                found = {"before": self.before, "after": digest(rest["model"])}
                write_json(Path(os.environ[VARIABLE]), found)

    trainer.DEFAULT_CALLBACKS.append(FrozenWeights)  # type: ignore[arg-type]
