"""Merging for real, with the tiny model: which bits come out, and which models are told apart."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import make_answers, make_merge, smoke_with_data

from helpers.calls import factory
from helpers.ground.errors import TutorialError
from helpers.ground.files import folder_aside
from helpers.inputs import data, recipes, settings
from helpers.records.schema import Divergence
from helpers.results import checks, merge_checks
from helpers.worker import divergence


@pytest.fixture(scope="module")
def chosen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[settings.Settings]:
    """The smoke profile with its model, its data, and two adapters (not trained: drawn)."""
    from peft import LoraConfig, get_peft_model

    with smoke_with_data(tmp_path_factory.mktemp("runs")) as found:
        for seed, method in enumerate(method.name for method in found.methods):
            torch.manual_seed(seed)
            config = LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM")
            adapted = get_peft_model(base(found), config)
            for name, parameter in adapted.named_parameters():
                if "lora_B" in name:
                    torch.nn.init.normal_(parameter, std=0.05)
            adapted.save_pretrained(found.run.adapter(method))
        yield found


def base(chosen: settings.Settings, **options: Any) -> Any:
    from transformers import AutoModelForCausalLM

    path = str(chosen.model.path)
    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.bfloat16, **options)


def merged(model: Any, adapter: Path) -> Any:
    from peft import PeftModel

    return PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()


@pytest.fixture(scope="module")
def dequantised(chosen: settings.Settings) -> Path:
    """QLoRA's adapter merged into the dequantised weights, as the notebook does it."""
    subject = "qlora_merged_dequantised"
    with folder_aside(chosen.run.merged(subject)) as aside:
        used = recipes.for_export(subject, chosen) | {"export_dir": str(aside)}
        factory.call("helpers.worker.dequantised_merge", subject, used, chosen)
    return chosen.run.merged(subject)


def test_the_dequantised_base_is_what_bitsandbytes_multiplies_with(
    chosen: settings.Settings, dequantised: Path
) -> None:
    """Bit for bit: quantise each linear layer, dequantise it, add what peft adds."""
    from bitsandbytes import functional
    from safetensors.torch import load_file

    model = base(chosen)
    for name, layer in model.named_modules():
        if isinstance(layer, torch.nn.Linear) and name != "lm_head":
            packed, state = functional.quantize_4bit(layer.weight.data, quant_type="nf4")
            layer.weight.data = functional.dequantize_4bit(packed, state)
    expected = merged(model, chosen.run.adapter("qlora")).state_dict()
    original = merged(base(chosen), chosen.run.adapter("qlora")).state_dict()
    found = load_file(dequantised / "model.safetensors")
    differ = 0
    for name, tensor in found.items():
        assert tensor.dtype == torch.bfloat16
        assert torch.equal(tensor, expected[name]), name
        differ += not torch.equal(tensor, original[name])
    assert differ == 14  # two layers of seven linear ones


@pytest.fixture(scope="module")
def found(chosen: settings.Settings, dequantised: Path) -> dict[str, Divergence]:
    """How far the merged models lie from base + adapter, sound ones and planted ones."""
    run = chosen.run
    for subject, method in (("lora_merged", "lora"), ("qlora_merged", "qlora")):
        merged(base(chosen), run.adapter(method)).save_pretrained(run.merged(subject))
    for file in ("tokenizer.json", "tokenizer_config.json"):
        for subject in ("lora_merged", "qlora_merged"):
            (run.merged(subject) / file).write_bytes((chosen.model.path / file).read_bytes())
    wanted = {
        "itself": ("lora", "lora"),
        "LoRA": ("lora", "lora_merged"),
        "another adapter": ("lora", "qlora_merged"),
        "no adapter": ("lora", "base"),
        "QLoRA": ("qlora", "qlora_merged_dequantised"),
        "QLoRA, 16-bit base": ("qlora", "qlora_merged"),
    }
    pairs = {
        name: dict(
            zip(
                ("reference", "other"),
                (recipes.for_prediction(subject, chosen) for subject in pair),
                strict=True,
            )
        )
        for name, pair in wanted.items()
    }
    plan = {"result": str(run.divergence), "pairs": pairs}
    factory.call("helpers.worker.divergence", "divergence", plan, chosen)
    results = json.loads(run.divergence.read_text())
    return {name: Divergence.model_validate(result) for name, result in results.items()}


def test_a_model_does_not_diverge_from_itself(found: dict[str, Divergence]) -> None:
    assert found["itself"].kl == 0
    assert found["itself"].same_token == 1


@pytest.mark.parametrize("name", ["LoRA", "QLoRA"])
def test_a_model_merged_into_its_own_base_passes(found: dict[str, Divergence], name: str) -> None:
    checks.conclude(merge_checks.of_merge("it", make_merge().model_copy(
        update={"divergence": found[name]}
    )))  # fmt: skip


@pytest.mark.parametrize("name", ["another adapter", "no adapter", "QLoRA, 16-bit base"])
def test_any_other_model_fails(found: dict[str, Divergence], name: str) -> None:
    planted = make_merge().model_copy(update={"divergence": found[name]})
    with pytest.raises(TutorialError, match="nats per token, at most"):
        checks.conclude(merge_checks.of_merge("it", planted))


def test_only_a_model_of_the_very_weights_that_answered_need_not_be_asked(
    found: dict[str, Divergence],
) -> None:
    """LLaMA-Factory merges LoRA's adapter while it loads it; one bit less, and it is another."""
    assert [name for name, each in found.items() if each.same_weights] == ["LoRA"]


def test_the_16_bit_base_is_farther_off_than_the_adapters_own(
    found: dict[str, Divergence],
) -> None:
    far = make_merge().model_copy(update={"divergence": found["QLoRA, 16-bit base"]})
    near = make_merge().model_copy(update={"divergence": found["QLoRA"]})
    answers = make_answers([True])
    checks.conclude(merge_checks.of_change_of_base("it", answers, answers, far, near))


def test_the_tokens_are_those_of_the_expected_answers(
    chosen: settings.Settings, found: dict[str, Divergence]
) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(chosen.model.path))
    rows = data.load(chosen.run.data, data.EVAL)
    # Qwen's template ends a turn so.
    tokens = sum(len(tokenizer.encode(row["output"] + "<|im_end|>\n")) for row in rows)
    assert {result.tokens for result in found.values()} == {tokens}


def test_the_divergence_is_kullback_and_leiblers() -> None:
    """Against the sum by definition, in float64, over more tokens than one chunk holds."""
    torch.manual_seed(0)
    tokens = divergence.CHUNK + 3
    p, q = (
        divergence.States(torch.randn(tokens, 8), torch.nn.Linear(8, 30, bias=bias), "cpu")
        for bias in (False, True)
    )
    first, second = (s.head(s.hidden).double().softmax(-1) for s in (p, q))
    by_definition = (first * (first / second).log()).sum() / tokens
    result = divergence.compare(p, q)
    assert result["kl"] == pytest.approx(float(by_definition.detach()), rel=1e-5)
    assert result["same_token"] == float((first.argmax(-1) == second.argmax(-1)).double().mean())
    assert result["kl"] != pytest.approx(divergence.compare(q, p)["kl"], rel=1e-3)
