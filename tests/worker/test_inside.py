"""Inside a trained model: what is shown is what peft and bitsandbytes compute."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import make_training, smoke_with_data

from helpers.calls import inside, training
from helpers.ground.errors import TutorialError
from helpers.ground.files import sha256_file, write_json
from helpers.inputs import settings
from helpers.worker import inside as worker

LAYER = "model.layers.1.self_attn.q_proj"


def base(chosen: settings.Settings) -> Any:
    from transformers import AutoModelForCausalLM

    path = str(chosen.model.path)
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.bfloat16)


def write_adapter(chosen: settings.Settings, method: str, seed: int) -> Path:
    """Write an adapter that was drawn and not trained, with the facts of a training."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    dora = bool(chosen.method(method).recipe.get("use_dora"))
    config = LoraConfig(
        r=4, lora_alpha=12, target_modules="all-linear", task_type="CAUSAL_LM", use_dora=dora
    )
    adapted = get_peft_model(base(chosen), config)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05)
        if "magnitude" in name:
            parameter.data *= 1.01
    folder = chosen.run.adapter(method)
    adapted.save_pretrained(folder)
    sha256 = sha256_file(folder / "adapter_model.safetensors")
    facts = make_training(adapter_sha256=sha256).model_dump(mode="json")
    write_json(folder / "training.json", facts)
    return folder


@pytest.fixture(scope="module")
def chosen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[settings.Settings]:
    with smoke_with_data(tmp_path_factory.mktemp("runs")) as found:
        found = settings.resolve("smoke", run="test", methods="lora qlora dora")
        for seed, method in enumerate(found.methods):
            write_adapter(found, method.name, seed)
        yield found


def corner(matrix: Any) -> torch.Tensor:
    return torch.tensor(matrix)


def test_a_layer_is_peft_s_and_is_looked_into_once(chosen: settings.Settings) -> None:
    from peft import PeftModel

    said: list[str] = []
    found = inside.layer("lora", chosen, said.append)
    assert inside.layer("lora", chosen, said.append) == found
    assert said[-1].startswith("Re-using lora_layer")
    model = base(chosen)
    before = model.get_submodule(LAYER).weight.detach().float().clone()
    adapted = PeftModel.from_pretrained(model, str(chosen.run.adapter("lora")))
    layer = adapted.base_model.model.get_submodule(LAYER)
    assert (found.name, found.rows, found.columns, found.rank, found.scale) == (LAYER, 64, 64, 4, 3)
    assert torch.equal(corner(found.a), layer.lora_A["default"].weight.data.float())
    assert torch.equal(corner(found.b), layer.lora_B["default"].weight.data.float())
    assert torch.equal(corner(found.weight), before)
    product = 3 * corner(found.b) @ corner(found.a)
    assert torch.allclose(corner(found.product), product, atol=1e-6)
    assert torch.allclose(corner(found.change), product, atol=1e-6)
    assert found.norm_weight == pytest.approx(float(before.norm()), rel=1e-5)
    assert found.norm_product == pytest.approx(float(product.norm()), rel=1e-4)
    assert found.ratio == pytest.approx(float(product.norm() / before.norm()), rel=1e-4)
    assert found.magnitude is None


def test_what_was_trained_is_counted_as_peft_counts_it(chosen: settings.Settings) -> None:
    from peft import LoraConfig, get_peft_model

    for method, dora in (("lora", False), ("dora", True)):
        config = LoraConfig(r=4, target_modules="all-linear", use_dora=dora)
        trained, every = get_peft_model(base(chosen), config).get_nb_trainable_parameters()
        found = inside.layer(method, chosen, lambda line: None)
        assert (found.model_trained, found.model_parameters) == (trained, every - trained)
        assert found.share == trained / (every - trained)
        assert found.trained == 4 * (64 + 64) + (64 if dora else 0)
        assert found.parameters == 64 * 64


def test_dora_changes_more_than_the_product(chosen: settings.Settings) -> None:
    found = inside.layer("dora", chosen, lambda line: None)
    assert found.magnitude
    assert len(found.magnitude) == 64
    weight = corner(found.weight) + corner(found.product)
    scaled = corner(found.magnitude)[:, None] * weight / weight.norm(dim=1, keepdim=True)
    assert torch.allclose(corner(found.change), scaled - corner(found.weight), atol=1e-4)
    assert found.norm_change != pytest.approx(found.norm_product, rel=1e-3)


def test_a_quantised_method_s_weight_is_the_one_it_was_trained_beside(
    chosen: settings.Settings,
) -> None:
    from bitsandbytes import functional

    found = inside.layer("qlora", chosen, lambda line: None)
    weight = base(chosen).get_submodule(LAYER).weight.detach()
    expanded = functional.dequantize_4bit(*functional.quantize_4bit(weight, quant_type="nf4"))
    assert torch.equal(corner(found.weight), expanded.float())
    assert not torch.equal(corner(found.weight), weight.float())


def test_a_block_is_bitsandbytes_own(chosen: settings.Settings) -> None:
    from bitsandbytes import functional

    found = inside.block("qlora", chosen, lambda line: None)
    weight = base(chosen).get_submodule(LAYER).weight.detach()
    before = weight.flatten()[:64].float()
    assert (found.name, found.rows, found.columns, found.quant_type) == (LAYER, 64, 64, "nf4")
    assert torch.equal(corner(found.before), before)
    codes = functional.get_4bit_type("nf4", device="cpu")
    assert corner(found.codes).tolist() == codes.tolist()
    assert found.scale == float(before.abs().max())
    # Each weight gets the code that is nearest, and comes back as that code times the scale.
    nearest = (before[:, None] / found.scale - codes).abs().argmin(1)
    assert torch.equal(corner(found.indices), nearest)
    expanded = functional.dequantize_4bit(*functional.quantize_4bit(weight, quant_type="nf4"))
    back = expanded.flatten()[:64].float()
    assert torch.equal(corner(found.after), back)
    assert torch.allclose(back, codes[nearest] * found.scale, rtol=2**-7)  # bfloat16's digits
    errors = back - before
    assert found.error_max == pytest.approx(float(errors.abs().max()))
    assert found.error_rms == pytest.approx(float(errors.norm()) / 8)
    assert found.error_relative == pytest.approx(float(errors.norm() / before.norm()))
    wrong = expanded.float() - weight.float()
    assert found.matrix_error_max == pytest.approx(float(wrong.abs().max()))
    assert found.matrix_error_relative == pytest.approx(
        float(wrong.norm() / weight.float().norm()), rel=1e-4
    )
    # 4 bits a weight, and a 32-bit scale for 64 of them.
    assert (found.bytes_16, found.bytes_codes, found.bytes_scales) == (8192, 2048, 256)
    assert found.bits_a_weight == 4.5


@pytest.mark.parametrize("quant_type", ["nf4", "fp4"])
def test_scales_that_are_quantised_themselves_are_expanded(
    chosen: settings.Settings, quant_type: str
) -> None:
    recipe = {
        "model_name_or_path": str(chosen.model.path), "bf16": True, "quantization_bit": 4,
        "double_quantization": True, "quantization_type": quant_type,
    }  # fmt: skip
    found = worker.block(recipe, chosen.run.adapter("qlora"))
    back = torch.tensor(found["codes"])[found["indices"]] * found["scale"]
    assert torch.allclose(back, torch.tensor(found["after"]), atol=0.01 * found["scale"])
    assert found["bytes_scales"] != 256


def test_a_method_without_4_bits_has_no_block(chosen: settings.Settings) -> None:
    with pytest.raises(TutorialError, match="LoRA does not hold its base model in 4 bits"):
        inside.block("lora", chosen)


def test_a_model_that_lacks_the_weight_is_a_failure_with_a_cause(
    chosen: settings.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = chosen.run.adapter("lora") / "training.json"
    kept = json.loads(file.read_text())
    write_json(file, kept | {"adapter_sha256": "another"})
    recipe = training.recipes.for_training("lora", chosen)
    monkeypatch.setattr(
        inside.recipes, "for_training", lambda *_: recipe | {"model_name_or_path": "/nowhere"}
    )
    with pytest.raises(TutorialError, match=r"helpers\.worker\.inside"):
        inside.layer("lora", chosen, lambda line: None)
    write_json(file, kept)


def test_the_middle_layer_is_taken_whatever_the_layers_are_called() -> None:
    names = [f"model.layers.{n}.mlp.{part}" for n in range(12) for part in ("up", "down")]
    assert worker.middle(names) == "model.layers.6.mlp.up"
    assert worker.middle(["transformer.h.0.attn", "transformer.h.1.attn"]) == "transformer.h.1.attn"
    assert worker.middle(["head"]) == "head"
