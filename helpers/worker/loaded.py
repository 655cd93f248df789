"""Models as LLaMA-Factory loads them, for the few steps that llamafactory-cli has no command for.

For processes of their own, started with helpers/calls/factory.py: everything here loads torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Loaded:
    """A model, ready to answer, and what LLaMA-Factory read beside it."""

    model: Any  # transformers' or peft's
    tokenizer: Any
    template: Any
    parts: dict[str, Any]  # LLaMA-Factory's argument classes, by the names its functions use


def load(used: dict[str, Any], as_answering: bool = False) -> Loaded:
    """Load a recipe's model, on its device, in 4 bits where it says so.

    Args:
        used: a recipe for answering, as helpers/inputs/recipes.py composes it.
        as_answering: load its adapter as well, as LLaMA-Factory does when it answers: merged, into
            16-bit weights. Otherwise no adapter.
    """
    from llamafactory.data import get_template_and_fix_tokenizer
    from llamafactory.hparams import get_train_args
    from llamafactory.model import load_model, load_tokenizer

    left_out = () if as_answering else ("adapter_name_or_path",)
    wanted = {key: value for key, value in used.items() if key not in left_out}
    model_args, data_args, training_args, finetuning_args, _ = get_train_args(wanted)
    tokenizer = load_tokenizer(model_args)["tokenizer"]
    template = get_template_and_fix_tokenizer(tokenizer, data_args)
    model = load_model(tokenizer, model_args, finetuning_args)
    if not getattr(model, "is_quantized", False):
        model = model.to(training_args.device)
    parts = {"model_args": model_args, "data_args": data_args, "training_args": training_args}
    return Loaded(model, tokenizer, template, parts)


def with_adapter(model: Any, used: dict[str, Any]) -> Any:
    """Return the model with the recipe's adapter beside it, not merged, as in training.

    LLaMA-Factory itself would merge an adapter into 16-bit weights while it loads them.
    """
    from peft import PeftModel

    return PeftModel.from_pretrained(model, used["adapter_name_or_path"]).eval()
