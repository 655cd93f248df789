"""Convert a GGUF file: `python -m helpers.inputs.gguf_model FILE FOLDER EOS_TOKEN DTYPE`.

Runs in a process of its own, because it loads torch. LLaMA-Factory has no option for GGUF.
"""

from __future__ import annotations

import sys
from pathlib import Path


def convert(gguf: Path, target: Path, eos_token: str, dtype: str) -> None:
    """Write the model and the tokenizer of `gguf` into `target`, in safetensors form.

    Args:
        gguf: the GGUF file; its quantised weights are expanded.
        target: an existing folder.
        eos_token: the token that ends a turn, where the file names a wrong one; "" keeps it.
        dtype: how the weights are held: "bfloat16" or "float32". Their values are those of
            bfloat16 in both, so that it is one model on every machine.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    tokenizer = AutoTokenizer.from_pretrained(**source)
    if eos_token:
        tokenizer.eos_token = tokenizer.pad_token = eos_token
    model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.bfloat16)
    model.to(getattr(torch, dtype))
    model.config.eos_token_id = model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4])
