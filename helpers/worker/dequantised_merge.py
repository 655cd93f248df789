"""Merge an adapter into dequantised weights: `python -m helpers.worker.dequantised_merge RECIPE`.

QLoRA's adapter is trained beside 4-bit weights. Expanded to 16 bits again, those weights are the
ones that it knows; the original 16-bit weights are not. llamafactory-cli export merges into the
original ones only, so this puts LLaMA-Factory's loader (which quantises as in training),
transformers' `dequantize` and peft's `merge_and_unload` in a row.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from helpers.ground import paths
from helpers.ground.files import read_yaml
from helpers.worker import loaded


def merge(used: dict[str, Any]) -> None:
    """Write the merged model and its tokenizer into the recipe's `export_dir`, in 16 bits.

    Args:
        used: the recipe that has the adapter answer beside its 4-bit base model.
    """
    target = paths.ROOT / used["export_dir"]
    found = loaded.load(used)
    model = found.model.dequantize()
    merged = loaded.with_adapter(model, used).merge_and_unload()
    merged.save_pretrained(target)
    found.tokenizer.padding_side = "left"  # for answering, as llamafactory-cli export leaves it
    found.tokenizer.save_pretrained(target)


if __name__ == "__main__":
    merge(read_yaml(Path(sys.argv[1])))
