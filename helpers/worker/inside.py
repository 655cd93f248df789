"""One linear layer of a trained model, looked into: `python -m helpers.worker.inside PLAN`.

PLAN is a YAML: `what` is layer or block, `result` names the JSON file to write, `recipe` is that of
the training, and `adapter` the folder of what was trained. The layer is the first one that was
trained beside in the middle transformer layer. Everything is read from the files, one weight at a
time, and computed on the processor, so that a large model is never loaded; peft and bitsandbytes
say what their adapter and their codes mean.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from helpers.ground import paths
from helpers.ground.files import read_yaml, write_json

if TYPE_CHECKING:
    import torch

CORNER = 64  # rows and columns of a matrix that are kept for drawing
BLOCK = 64  # weights that share one scale: bitsandbytes' default, which LLaMA-Factory keeps


def _skeleton(model: Path) -> Any:
    """Return the model without its numbers: its modules in their order, and their sizes."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(model))


def _adapter(folder: Path) -> dict[str, torch.Tensor]:
    """Return the trained tensors by their names in the model ("...q_proj.lora_A.weight")."""
    from safetensors.torch import load_file

    kept = load_file(folder / "adapter_model.safetensors")
    return {name.removeprefix("base_model.model."): tensor for name, tensor in kept.items()}


def middle(modules: list[str]) -> str:
    """Return the first module of the middle transformer layer.

    Args:
        modules: the names of those that were trained beside, in the model's order.
    """
    by_layer: dict[int, list[str]] = {}
    for name in modules:
        if number := re.search(r"\.(\d+)\.", name):
            by_layer.setdefault(int(number[1]), []).append(name)
    if not by_layer:
        return modules[0]
    numbers = sorted(by_layer)
    return by_layer[numbers[len(numbers) // 2]][0]


def _weight(model: Path, name: str, recipe: dict[str, Any]) -> torch.Tensor:
    """Return one weight from the model's files, in the type that the recipe trains in."""
    import torch
    from safetensors import safe_open

    for file in sorted(model.glob("*.safetensors")):
        with safe_open(file, framework="pt") as content:
            if name in content.keys():  # noqa: SIM118 - it is no mapping
                found: torch.Tensor = content.get_tensor(name)
                if recipe.get("bf16"):
                    return found.to(torch.bfloat16)
                return found.to(torch.float16) if recipe.get("fp16") else found
    sys.exit(f"ValueError: the model's files hold no {name}")


def _quantised(weight: torch.Tensor, recipe: dict[str, Any]) -> tuple[torch.Tensor, Any]:
    """Return a weight as bitsandbytes packs it, in the way that LLaMA-Factory asks it to."""
    from bitsandbytes import functional

    packed, state = functional.quantize_4bit(
        weight,
        blocksize=BLOCK,
        compress_statistics=bool(recipe.get("double_quantization", True)),
        quant_type=recipe.get("quantization_type", "nf4"),
    )
    return packed, state


def _beside(layer: str, weight: torch.Tensor, folder: Path, trained: dict[str, Any]) -> Any:
    """Return peft's layer: the frozen weight, and beside it what was trained."""
    import torch
    from peft import LoraConfig, inject_adapter_in_model, set_peft_model_state_dict

    config = LoraConfig.from_pretrained(str(folder))
    # Of the whole model one module is left, under its own name: ranks can depend on it.
    config.target_modules = [layer]
    config.modules_to_save = None
    holder = torch.nn.Module()
    inner = holder
    *above, last = layer.split(".")
    for name in above:
        inner.add_module(name, torch.nn.Module())
        inner = inner.get_submodule(name)
    linear = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    linear.weight = torch.nn.Parameter(weight.float(), requires_grad=False)
    inner.add_module(last, linear)
    inject_adapter_in_model(config, holder)
    own = {name: tensor for name, tensor in trained.items() if name.startswith(f"{layer}.")}
    set_peft_model_state_dict(holder, own)
    return holder.get_submodule(layer)


def _corner(matrix: torch.Tensor) -> list[list[float]]:
    rows: list[list[float]] = matrix[:CORNER, :CORNER].float().tolist()
    return rows


def _of(recipe: dict[str, Any], adapter: Path) -> tuple[str, dict[str, Any], int]:
    """Return the layer's name, everything that was trained, and how many numbers the model has."""
    model = _skeleton(paths.ROOT / recipe["model_name_or_path"])
    trained = _adapter(adapter)
    names = [name for name, _ in model.named_modules() if f"{name}.lora_A.weight" in trained]
    if not names:
        sys.exit("ValueError: the adapter belongs to no linear layer of this model")
    return middle(names), trained, model.num_parameters()


def layer(recipe: dict[str, Any], adapter: Path) -> dict[str, Any]:
    """Return what helpers/records/inside.py calls a layer, but where it is from."""
    import torch
    from bitsandbytes import functional

    name, trained, numbers = _of(recipe, adapter)
    weight = _weight(paths.ROOT / recipe["model_name_or_path"], f"{name}.weight", recipe)
    if recipe.get("quantization_bit") == 4:  # what it was trained beside, expanded
        weight = functional.dequantize_4bit(*_quantised(weight, recipe)).to(weight.dtype)
    beside = _beside(name, weight, adapter, trained)
    thin_a = beside.lora_A["default"].weight.detach()
    thin_b = beside.lora_B["default"].weight.detach()
    product = beside.get_delta_weight("default").detach()
    magnitudes = beside.lora_magnitude_vector
    magnitude = magnitudes["default"].weight.detach().flatten() if len(magnitudes) else None
    frozen = beside.get_base_layer().weight.detach().clone()
    beside.merge()
    change = beside.get_base_layer().weight.detach() - frozen
    norm = torch.linalg.matrix_norm
    return {
        "name": name,
        "rows": frozen.shape[0],
        "columns": frozen.shape[1],
        "rank": thin_a.shape[0],
        "scale": float(beside.scaling["default"]),
        "a": _corner(thin_a),
        "b": _corner(thin_b),
        "weight": _corner(frozen),
        "product": _corner(product),
        "change": _corner(change),
        "norm_weight": float(norm(frozen)),
        "norm_product": float(norm(product)),
        "norm_change": float(norm(change)),
        "magnitude": magnitude[:CORNER].tolist() if magnitude is not None else None,
        "trained": sum(t.numel() for n, t in trained.items() if n.startswith(f"{name}.")),
        "parameters": frozen.numel(),
        "model_trained": sum(tensor.numel() for tensor in trained.values()),
        "model_parameters": numbers,
    }


def _errors(errors: torch.Tensor, weights: torch.Tensor) -> dict[str, float]:
    """Return the largest error and the root of the mean square, this also against the weights'."""
    mean_square = float(errors.square().mean())
    return {
        "error_max": float(errors.abs().max()),
        "error_rms": mean_square**0.5,
        "error_relative": (mean_square / float(weights.square().mean())) ** 0.5,
    }


def block(recipe: dict[str, Any], adapter: Path) -> dict[str, Any]:
    """Return what helpers/records/inside.py calls a block, but where it is from.

    It is the first block of the layer that `layer` looks into.
    """
    import torch
    from bitsandbytes import functional

    name, _, _ = _of(recipe, adapter)
    weight = _weight(paths.ROOT / recipe["model_name_or_path"], f"{name}.weight", recipe)
    packed, state = _quantised(weight, recipe)
    after = functional.dequantize_4bit(packed, state).float()
    scales = state.absmax
    kept = [scales]
    if state.nested:  # the scales are held in 8 bits themselves
        kept += [state.state2.absmax, state.state2.code, state.offset]
        scales = functional.dequantize_blockwise(state.absmax, state.state2) + state.offset
    byte = packed.flatten()[: BLOCK // 2].to(torch.int64)
    indices = torch.stack([byte >> 4, byte & 15], dim=1).flatten()
    before = weight.float()
    errors = after - before
    first = slice(0, BLOCK)
    return {
        "name": name,
        "rows": weight.shape[0],
        "columns": weight.shape[1],
        "quant_type": state.quant_type,
        "codes": state.code.float().tolist(),
        "scale": float(scales.flatten()[0]),
        "before": before.flatten()[first].tolist(),
        "indices": indices.tolist(),
        "after": after.flatten()[first].tolist(),
        **_errors(errors.flatten()[first], before.flatten()[first]),
        **{f"matrix_{key}": value for key, value in _errors(errors, before).items()},
        "bytes_16": 2 * weight.numel(),
        "bytes_codes": packed.nbytes,
        "bytes_scales": sum(tensor.nbytes for tensor in kept),
    }


if __name__ == "__main__":
    plan = read_yaml(Path(sys.argv[1]))
    looked = {"layer": layer, "block": block}[plan["what"]]
    found = looked(plan["recipe"], paths.ROOT / plan["adapter"])
    write_json(paths.ROOT / plan["result"], found)
