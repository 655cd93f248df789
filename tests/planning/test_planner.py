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

from helpers.ground import paths
from helpers.ground.errors import TutorialError
from helpers.inputs import models, recipes, settings, tiny_model
from helpers.machine import container, hardware
from helpers.planning import planner
from helpers.planning.plan import ArticlePlans, Plan, Question

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
    """Return questions: both methods, checkpointing or not, padded or not, two lengths."""
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
    assert len(asked) == 16
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


def test_the_length_is_that_of_the_longest_example(model: Path, tmp_path: Path) -> None:
    """... as LLaMA-Factory prepares it, and the largest micro-batch is the last that fits."""
    [asked, *_] = questions(model, tmp_path, "npu")
    open_ended = {"length": None, "eval_length": None, "padded": False}
    first = asked.model_copy(update=open_ended | {"budget_bytes": 100 * 2**20})
    [plan] = planner.ask([first], tmp_path / "plan.log")
    assert plan.training.length == 128  # cutoff_len cuts the long ones
    assert plan.question.padded
    most = plan.largest_micro_batch
    assert most
    sizes = [asked.recipe | {"per_device_train_batch_size": n} for n in (most, most + 1)]
    fits, breaks = planner.ask(
        [asked.model_copy(update={"recipe": size}) for size in sizes], tmp_path / "plan.log"
    )
    assert fits.training.peak_bytes <= 100 * 2**20 < breaks.training.peak_bytes


def test_a_card_that_nobody_named_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("helpers.machine.hardware.card_bytes", lambda device: None)
    with pytest.raises(TutorialError, match="CARD_GIB=24"):
        planner.capacity("cuda")
    assert planner.capacity("npu").total_bytes == planner.NPU_BYTES
    assert planner.capacity("cuda", 24).total_bytes == 24 * 2**30


def test_a_model_that_nothing_is_known_of_is_one_sentence(runs: Path) -> None:
    unknown = settings.resolve("npu", model="some/model", run="test")
    with pytest.raises(TutorialError, match=r"make data MODEL=some/model"):
        planner.question("lora", unknown)


@pytest.fixture(scope="module")
def committed() -> ArticlePlans:
    return ArticlePlans.model_validate_json(planner.ARTICLE_PLANS.read_text())


def test_the_committed_plans_are_those_of_the_recipes_and_versions_here(
    committed: ArticlePlans,
) -> None:
    assert committed.made_from == planner.article_made_from(), "run 'make plans' and commit it"


def test_catalogue_configs_have_as_many_parameters_as_the_models(
    committed: ArticlePlans,
) -> None:
    for name in planner.ARTICLE_MODELS:
        weights = committed.plans[f"{name} lora 512"].training.parts["weights"]
        assert weights == pytest.approx(2 * models.catalogue()[name].parameters, rel=1e-4)


def test_plans_that_are_out_of_date_are_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, committed: ArticlePlans
) -> None:
    stale = tmp_path / "plans.json"
    stale.write_text(committed.model_copy(update={"made_from": "before"}).model_dump_json())
    monkeypatch.setattr(planner, "ARTICLE_PLANS", stale)
    asked = []
    monkeypatch.setattr(
        planner, "ask", lambda questions, log: asked.append(questions) or committed.plans.values()
    )
    assert planner.article_plans(tmp_path / "plan.log") == committed
    assert len(asked) == 1


def test_a_run_plans_all_its_methods(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Question] = []

    def ask(questions: list[Question], log: Path) -> list[Plan]:
        asked.extend(questions)
        return [
            Plan.model_construct(question=each, training=None, evaluation=None)
            for each in questions
        ]

    monkeypatch.setattr(planner, "ask", ask)
    chosen = settings.resolve("npu", run="test", methods="dora lora qlora")
    room = planner.capacity("npu", 24)
    assert list(planner.beforehand(chosen, room)) == ["dora", "lora", "qlora"]
    assert [each.budget_bytes for each in asked] == [room.usable_bytes] * 3
    assert [each.recipe.get("use_dora") for each in asked] == [True, None, None]
    assert [each.recipe.get("quantization_bit") for each in asked] == [None, None, 4]


def test_a_model_that_is_made_here_is_planned_as_it_will_be_made(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "detect_device", lambda: "cpu")
    for here, dtype in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr(hardware, "has_bf16", lambda here=here: here)
        asked = planner.question("lora", settings.resolve("cpu", run="test"))
        assert asked.config
        assert (asked.config["dtype"], asked.recipe["bf16"]) == (dtype, here)


def test_a_container_has_its_limit_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = planner.capacity("cpu")
    monkeypatch.setattr(container, "limit_bytes", lambda: 2**30)
    assert (planner.capacity("cpu").total_bytes, planner.capacity("cpu").of) == (2**30, "container")
    for limit in (None, 2**62):
        monkeypatch.setattr(container, "limit_bytes", lambda limit=limit: limit)
        machine = planner.capacity("cpu")
        assert machine.of == "machine"
        assert machine.total_bytes >= whole.total_bytes
    assert planner.capacity("cpu", 3).of == "named"
