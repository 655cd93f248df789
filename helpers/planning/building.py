"""A training's model and adapter as LLaMA-Factory builds them, without its weights' files.

On the meta device for a plan (traced_step.py), or on a card with random weights, where real steps
are taken (real_steps.py). What it calls is LLaMA-Factory's: its argument classes, `patch_config`,
`patch_model` and `init_adapter`, transformers' 4-bit layers, peft's adapter. Loads torch.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import torch

# Recipe keys that write something; none of them decides what a step takes.
WRITING = ("use_swanlab", "swanlab_mode", "swanlab_project", "swanlab_run_name", "swanlab_logdir",
           "overwrite_output_dir")  # fmt: skip
# And those that ask for hardware, of which a plan knows nothing.
HARDWARE = ("use_cpu", "use_v1_kernels")


class Arguments:
    """A recipe as LLaMA-Factory reads it.

    Args:
        recipe: as it would be trained.
        config: the model's config.json; None: it lies where the recipe says.
        folder: for what LLaMA-Factory wants to lie somewhere.
        planned: nothing is computed, so no hardware is asked for.
    """

    def __init__(
        self, recipe: dict[str, Any], config: dict[str, Any] | None, folder: Path, planned: bool
    ) -> None:
        from llamafactory.hparams import get_train_args

        if config:
            (folder / "config.json").write_text(json.dumps(config))
        left_out = (*WRITING, *HARDWARE) if planned else WRITING
        used = {key: value for key, value in recipe.items() if key not in left_out}
        used |= {
            "model_name_or_path": str(folder) if config else used["model_name_or_path"],
            "output_dir": str(folder / "out"),
        }
        if planned:
            used["use_cpu"] = True
        self.model, self.data, self.training, self.finetuning, _ = get_train_args(used)


def build(args: Arguments, device: str = "meta") -> torch.nn.Module:
    """Return the model that training would load, with its adapter.

    Follows llamafactory.model.loader.load_model, which cannot leave the weights out.

    Args:
        args: the recipe.
        device: meta, or where the weights are to be, which then are random.
    """
    from llamafactory.model.adapter import init_adapter
    from llamafactory.model.loader import load_config
    from llamafactory.model.patcher import patch_config, patch_model
    from transformers import AutoModelForCausalLM

    with contextlib.suppress(ImportError):
        import bitsandbytes  # noqa: F401  (before the meta device: it makes tables of its own)
    config = load_config(args.model)
    loading: dict[str, Any] = {}
    patch_config(config, None, args.model, loading, True)  # type: ignore[arg-type]
    with torch.device(device):
        # `torch_dtype: auto` loads what the checkpoint holds, which its config names.
        model = AutoModelForCausalLM.from_config(config, dtype=config.dtype or torch.float32)
        if "quantization_config" in loading:
            quantise(model, loading["quantization_config"], device)
        patch_model(model, None, args.model, True, False)  # type: ignore[arg-type]
        model = init_adapter(config, model, args.model, args.finetuning, True)
    if args.model.use_v1_kernels:
        from llamafactory.v1.plugins.model_plugins.kernels.interface import apply_default_kernels

        model = apply_default_kernels(model, include_kernels=args.model.use_v1_kernels)
    return model.train()


def quantise(model: Any, config: Any, device: str) -> None:
    """Replace the linear layers by 4-bit ones, as transformers does when it loads a model."""
    import bitsandbytes as bnb
    from transformers.integrations.bitsandbytes import replace_with_bnb_linear
    from transformers.quantizers import AutoHfQuantizer

    if config.bnb_4bit_use_double_quant:  # made from a Python list, which the meta device cannot
        with torch.device("cpu"):
            bnb.functional.name2qmap["dynamic"] = bnb.functional.create_dynamic_map()
    dense = dict(model.named_modules())
    quantizer = AutoHfQuantizer.from_config(config)
    kept = quantizer.get_modules_to_not_convert(model, None, model._keep_in_fp32_modules)
    replace_with_bnb_linear(model, modules_to_not_convert=kept, quantization_config=config)
    for name, module in model.named_modules():
        if isinstance(module, bnb.nn.Linear4bit):
            source = dense.pop(name)  # one layer's 16 bits go before the next one's 4 bits come
            old = dict(module.weight.__dict__)
            weight = bnb.nn.Params4bit(source.weight.data, requires_grad=False, **old)
            module.weight = weight._quantize(torch.device(device))
            if source.bias is not None:
                module.bias = torch.nn.Parameter(source.bias.data, requires_grad=False)
    model.is_loaded_in_4bit = True
    model.quantization_method = "bitsandbytes"


def optimizer_of(args: Arguments, model: torch.nn.Module) -> torch.optim.Optimizer:
    """Return the optimizer that transformers would choose, over what is trained."""
    from transformers import Trainer

    kind, options = Trainer.get_optimizer_cls_and_kwargs(args.training, model)  # type: ignore[arg-type]
    return kind([p for p in model.parameters() if p.requires_grad], **options)


def precision_of(args: Arguments) -> str:
    """Return what accelerate calls the numbers that are computed in: bf16, fp16 or no."""
    return "bf16" if args.training.bf16 else "fp16" if args.training.fp16 else "no"
