"""How far models' next-token distributions lie apart: `python -m helpers.worker.divergence PLAN`.

PLAN is a YAML: `result` names the JSON file to write, `pairs` holds for each pair's name the two
recipes, `reference` and `other`. Each model reads the held-out problems with their expected
solutions (teacher forcing, in the recipe's template and cut at its cutoff_len), and for every token
of the solutions, the one that ends the turn included, gives a distribution over the whole
vocabulary. KL(reference || other) is the mean over these tokens of all problems, in nats.

One model is in memory at a time: what is kept of it are its last hidden states at those tokens and
its output layer, which is applied in float32, for bfloat16 logits are too coarse (steps of 0.125
beyond 16) to tell two nearly equal models apart.

Where LLaMA-Factory merges the reference's adapter while it loads it for answering, those weights
are held against the other model's, bit for bit: equal ones need not be asked twice.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helpers.ground import paths
from helpers.ground.files import read_yaml, write_json
from helpers.worker import callback, loaded

BATCH = 8  # problems at a time: the model's own logits of a batch are the largest tensor
CHUNK = 256  # tokens at a time in float32, whole vocabulary


@dataclass(frozen=True)
class States:
    """What a model holds at the tokens before each answer token."""

    hidden: Any  # [tokens, hidden size], on the CPU
    head: Any  # the output layer
    device: Any
    weights: str = ""  # a digest of the model's; "" where an adapter stands beside them

    def log_probabilities(self, start: int) -> Any:
        """Return log-probabilities [tokens, vocabulary] of one chunk, in float32."""
        import torch

        hidden = self.hidden[start : start + CHUNK].to(self.device).float()
        bias = None if self.head.bias is None else self.head.bias.float()
        logits = torch.nn.functional.linear(hidden, self.head.weight.float(), bias)
        return logits.log_softmax(-1)


def states(used: dict[str, Any]) -> States:
    """Let a recipe's model, with its adapter beside it if it has one, read the held-out set."""
    import torch
    from llamafactory.data import SFTDataCollatorWith4DAttentionMask, get_dataset
    from torch.utils.data import DataLoader

    reading = used | {"do_predict": False, "do_eval": True, "predict_with_generate": False}
    found = loaded.load(reading)
    model, weights = found.model, ""
    if "adapter_name_or_path" in used:
        model = loaded.with_adapter(model, used)
    else:
        weights = callback.digest(model)["digest"]
    rows = get_dataset(found.template, stage="sft", tokenizer=found.tokenizer, **found.parts)
    collate = SFTDataCollatorWith4DAttentionMask(
        template=found.template, tokenizer=found.tokenizer, label_pad_token_id=-100
    )
    head = model.get_output_embeddings()
    seen: list[tuple[Any, Any]] = []
    head.register_forward_hook(lambda _, inputs, output: seen.append((inputs[0], output)))
    device = found.parts["training_args"].device
    # As in training: a processor without bfloat16 takes thirty times as long to compute in it.
    half = torch.autocast(device.type, torch.bfloat16, enabled=bool(used.get("bf16")))
    kept = []
    for batch in DataLoader(rows["eval_dataset"], batch_size=BATCH, collate_fn=collate):
        ids, mask = batch["input_ids"].to(device), batch["attention_mask"].to(device)
        seen.clear()
        with torch.inference_mode(), half:
            logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
        [(hidden, output)] = seen
        if not torch.equal(output.to(logits.dtype), logits):
            sys.exit("This model changes its logits after the output layer: no divergence for it.")
        kept.append(hidden[:, :-1].cpu()[batch["labels"][:, 1:] != -100])
    return States(torch.cat(kept), head, device, weights)


def answering_weights(used: dict[str, Any]) -> str:
    """Return the digest of the weights from which a recipe's model answers.

    "" where its adapter stays beside them, as it does beside quantised ones.
    """
    from peft import PeftModel

    if "quantization_bit" in used:
        return ""
    model = loaded.load(used, as_answering=True).model
    return "" if isinstance(model, PeftModel) else str(callback.digest(model)["digest"])


def compare(reference: States, other: States) -> dict[str, float]:
    """Return the mean divergence in nats, the share of equal likeliest tokens, and how many."""
    import torch

    total, same, count = 0.0, 0, len(reference.hidden)
    if len(other.hidden) != count:
        sys.exit("The two models did not read the same tokens.")
    with torch.inference_mode():
        for start in range(0, count, CHUNK):
            p, q = reference.log_probabilities(start), other.log_probabilities(start)
            total += float((p.exp() * (p - q)).sum(-1).cpu().double().sum())
            same += int((p.argmax(-1) == q.argmax(-1)).sum())
    return {"kl": total / count, "same_token": same / count, "tokens": count}


def compare_all(pairs: dict[str, dict[str, dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Return `compare` of each pair, and whether both answer from the same weights.

    Pairs with one reference stand together: it is read once.
    """
    results: dict[str, dict[str, Any]] = {}
    reference, last, answering = None, None, ""
    for name, pair in pairs.items():
        if reference is None or pair["reference"] != last:
            reference, last = None, pair["reference"]
            answering = answering_weights(last)
            reference = states(last)
        other = states(pair["other"])
        same = bool(answering) and answering == other.weights
        results[name] = {**compare(reference, other), "same_weights": same}
    return results


if __name__ == "__main__":
    plan = read_yaml(Path(sys.argv[1]))
    write_json(paths.ROOT / plan["result"], compare_all(plan["pairs"]))
