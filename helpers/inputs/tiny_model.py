"""Make a tiny random Qwen2 with a tokenizer: `python -m helpers.inputs.tiny_model SIZES FOLDER`.

For the smoke profile and the tests. Runs in a process of its own, because it loads torch.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from helpers.inputs.wordproblems import generate


def make(sizes: dict[str, int], target: Path) -> None:
    """Write a random model and a byte-level BPE tokenizer with Qwen's special tokens.

    Args:
        sizes: hidden_size, layers, heads, kv_heads, intermediate_size, vocab_size.
        target: an existing folder.
    """
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    texts = [f"{row['instruction']}\n{row['output']}" for row in generate(500, seed=1)]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=sizes["vocab_size"],
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=sizes["vocab_size"],
        hidden_size=sizes["hidden_size"],
        num_hidden_layers=sizes["layers"],
        num_attention_heads=sizes["heads"],
        num_key_value_heads=sizes["kv_heads"],
        intermediate_size=sizes["intermediate_size"],
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        eos_token_id=fast.eos_token_id,
        pad_token_id=fast.pad_token_id,
        # Larger than usual: random logits differ enough for greedy answers to be reproducible.
        initializer_range=0.1,
    )
    config.dtype = torch.bfloat16
    Qwen2ForCausalLM._from_config(config).save_pretrained(target)
    fast.save_pretrained(target)


if __name__ == "__main__":
    make(json.loads(sys.argv[1]), Path(sys.argv[2]))
