"""The memory planner against the allocator, on real LLaMA-Factory steps of a small model."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import npusim
import pytest
from safetensors.torch import load_file

from helpers.ground import paths
from helpers.inputs import recipes, tiny_model
from helpers.machine import hardware
from helpers.planning import planner
from helpers.planning.plan import Plan, Question

TESTS = Path(__file__).parents[1]
SIZES = {"hidden_size": 256, "layers": 3, "heads": 8, "kv_heads": 2, "intermediate_size": 768,
         "vocab_size": 1024}  # fmt: skip
ROWS = 4  # of a micro-batch
EVAL_ROWS = 8


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tiny_model.make(SIZES, folder)
    return folder


@pytest.fixture(scope="module")
def in_float32(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model as a machine without bf16 holds it."""
    import torch
    from transformers import AutoModelForCausalLM

    folder = tmp_path_factory.mktemp("float32")
    shutil.copytree(model, folder, dirs_exist_ok=True)
    AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).save_pretrained(folder)
    return folder


def questions(
    model: Path, folder: Path, device: str, padding: tuple[bool, ...] = (True, False), **more: Any
) -> list[Question]:
    """Return questions: both methods, checkpointing or not, padded or not, two lengths.

    Half of all combinations, so chosen that any three of these meet in each way (any two, where
    all are padded): what one of them does to a peak may depend on another, hardly on three.
    """
    (folder / "data").mkdir()
    words = {True: "apple", False: "apple pear " * 900}
    info = {}
    for padded in (True, False):
        rows = [
            {"instruction": words[padded and i % 2 == 0], "input": "", "output": "#### 7"}
            for i in range(24)
        ]
        (folder / "data" / f"{padded}.json").write_text(json.dumps(rows))
        info[f"{padded}"] = {"file_name": f"{padded}.json"}
    (folder / "data" / "dataset_info.json").write_text(json.dumps(info))
    asked = []
    for method, checkpointing, padded, length in itertools.product(
        ("lora", "qlora"), (True, False), padding, (128, 256)
    ):
        if ((method == "qlora") + checkpointing + (not padded) + (length == 256)) % 2:
            continue
        used = {k: v for k, v in recipes.article(method).items() if "swanlab" not in k} | {
            "model_name_or_path": str(model),
            "dataset_dir": str(folder / "data"),
            "dataset": f"{padded}",
            "eval_dataset": f"{padded}",
            "output_dir": str(folder / "out"),
            "disable_gradient_checkpointing": not checkpointing,
            "cutoff_len": length,
            "per_device_train_batch_size": ROWS,
            "gradient_accumulation_steps": 2,
            "per_device_eval_batch_size": EVAL_ROWS,
            "num_train_epochs": 1.0,
            "save_strategy": "no",
            "eval_strategy": "no",  # the measured evaluation is asked for at its step
            "do_eval": False,
            **more,
        }
        attention = "math" if device == "npu" else "fused"
        asked.append(
            Question(
                recipe=used, device=device, attention=attention, length=length,
                eval_length=length, padded=padded,
            )
        )  # fmt: skip
    return asked


def truth(asked: list[Question], folder: Path, env: dict[str, str]) -> list[dict[str, int]]:
    """Return what real trainings took."""
    out = folder / "truth.json"
    done = subprocess.run(
        [sys.executable, str(TESTS / "allocator_truth.py"), str(out)],
        input=json.dumps([{"recipe": question.recipe} for question in asked]),
        env=os.environ | {"OMP_NUM_THREADS": "1"} | env,
        cwd=paths.ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return json.loads(out.read_text())


def compare(asked: list[Question], folder: Path, env: dict[str, str]) -> list[Plan]:
    """Hold plans against the allocator: within 1 %, for training and for evaluation."""
    plans = planner.ask(asked, folder / "plan.log")
    for question, true, plan in zip(asked, truth(asked, folder, env), plans, strict=True):
        shown = {k: question.recipe.get(k) for k in ("quantization_bit", "cutoff_len")}
        shown |= {"padded": question.padded, "parts": plan.training.parts}
        assert plan.training.peak_bytes == pytest.approx(true["training"], rel=0.01), shown
        assert plan.evaluation.peak_bytes == pytest.approx(true["evaluation"], rel=0.01), shown
        for phase in (plan.training, plan.evaluation):
            assert sum(phase.parts.values()) == phase.peak_bytes
    return plans


def test_within_one_percent_of_the_allocator_on_a_cpu(
    model: Path, in_float32: Path, tmp_path: Path
) -> None:
    """In what this processor computes in: emulated bf16 would take half an hour."""
    here = hardware.has_bf16()
    asked = questions(model if here else in_float32, tmp_path, "cpu", use_cpu=True, bf16=here)
    assert len(asked) == 8
    compare(asked, tmp_path, {})


def test_within_one_percent_in_float32_and_of_a_third_method(
    in_float32: Path, tmp_path: Path
) -> None:
    """DoRA holds a magnitude a row besides, and takes the norm of the merged weight."""
    asked = questions(in_float32, tmp_path, "cpu", padding=(True,), use_cpu=True, bf16=False)
    lora, *_, qlora = (each for each in asked if each.length == 128)
    dora = lora.model_copy(update={"recipe": lora.recipe | {"use_dora": True}})
    first, _, other = compare([lora, qlora, dora], tmp_path, {})
    assert other.training.parts["weights"] == first.training.parts["weights"]
    assert other.training.parts["adapter"] > first.training.parts["adapter"]


@pytest.mark.skipif(npusim.available() is not None, reason=str(npusim.available()))
def test_within_one_percent_of_torch_npu_on_the_simulated_npu(
    model: Path, in_float32: Path, tmp_path: Path
) -> None:
    """In what this processor computes in, for it computes what the simulated NPU is asked to."""
    here = hardware.has_bf16()
    asked = questions(model if here else in_float32, tmp_path, "npu", padding=(True,), bf16=here)
    compare(asked, tmp_path, npusim.environment())


def test_cards_that_share_a_model_hold_a_part_of_it_and_what_they_gather(
    model: Path, tmp_path: Path
) -> None:
    lora, *_, qlora = questions(model, tmp_path, "npu", padding=(True,))
    asked = [
        each.model_copy(update={"cards": cards, "sharded": sharded})
        for each in (lora, qlora)
        for cards, sharded in ((2, False), (2, True), (8, True))
    ]
    plans = planner.ask(asked, tmp_path / "plan.log")
    tensors = load_file(model / "model.safetensors")
    layer = sum(tensor.nbytes for name, tensor in tensors.items() if ".layers.0." in name)
    outside = sum(tensor.nbytes for name, tensor in tensors.items() if ".layers." not in name)
    for whole, two, eight in (plans[:3], plans[3:]):
        held, on_two, on_eight = (plan.training.parts for plan in (whole, two, eight))
        assert on_two["adapter"] == pytest.approx(held["adapter"] / 2, rel=0.05)
        assert on_two["optimizer"] == pytest.approx(held["optimizer"] / 2, rel=0.05)
        # Both gather the same; what they hold of the weights halves twice.
        parts = held["weights"] / 2 - held["weights"] / 8
        if whole.question.recipe.get("quantization_bit"):
            parts *= 0.9  # the scales, in float32, are whole on each card
        assert on_two["weights"] - on_eight["weights"] == pytest.approx(parts, rel=0.05)
    in_16_bits = plans[1].training.parts["weights"] - plans[0].training.parts["weights"] / 2
    adapter = plans[0].training.parts["adapter"] / 2 / SIZES["layers"]  # of a layer, in 16 bits
    assert in_16_bits == pytest.approx(outside + 2 * (layer + adapter), rel=0.02)


def test_the_length_is_that_of_the_longest_example(model: Path, tmp_path: Path) -> None:
    """... as LLaMA-Factory prepares it, and the largest micro-batch is the last that fits."""
    [asked, *_] = questions(model, tmp_path, "npu")
    open_ended = {"length": None, "eval_length": None, "padded": False}
    first = asked.model_copy(update=open_ended | {"budget_bytes": 100 * 2**20})
    [plan] = planner.ask([first], tmp_path / "plan.log")
    assert plan.training.length == asked.length  # cutoff_len cuts the long ones
    assert plan.question.padded
    most = plan.largest_micro_batch
    assert most
    sizes = [asked.recipe | {"per_device_train_batch_size": n} for n in (most, most + 1)]
    fits, breaks = planner.ask(
        [asked.model_copy(update={"recipe": size}) for size in sizes], tmp_path / "plan.log"
    )
    assert fits.training.peak_bytes <= 100 * 2**20 < breaks.training.peak_bytes
