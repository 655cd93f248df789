"""The output layer of a prediction, given what it can multiply in one go.

At the first token transformers hands it the last position of every sequence, a slice with gaps, for
which torch makes a batched product and copies the whole layer once a sequence: with SmolLM2's
49,152 words and 200 problems that would be 22 GB in float32, and half of the time of the first
token. Without the gaps it is one product. No recipe key asks for that.
"""

from __future__ import annotations

from typing import Any


def close_gaps(model: Any) -> None:
    """Have a model's output layer take its input without gaps.

    Args:
        model: one of transformers' or peft's; one without an output layer is left as it is.
    """
    head = model.get_output_embeddings()
    if head is not None:
        head.register_forward_pre_hook(lambda module, args: (args[0].contiguous(), *args[1:]))
