"""The memory planner against the allocator, on real LLaMA-Factory steps of a small model."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import npusim
import pytest

from helpers import models, paths, plan_report, planner, recipe, settings, tiny_model
from helpers.errors import TutorialError
from helpers.memory import MemoryTrace
from helpers.planner import Capacity, Phase, Plan, Question

TESTS = Path(__file__).parent
SIZES = {"hidden_size": 256, "layers": 3, "heads": 8, "kv_heads": 2, "intermediate_size": 768,
         "vocab_size": 1024}  # fmt: skip
ROWS = 4  # of a micro-batch
EVAL_ROWS = 8


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tiny_model.make(SIZES, folder)
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
        used = {k: v for k, v in recipe.article(method).items() if "swanlab" not in k} | {
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


def compare(asked: list[Question], folder: Path, env: dict[str, str]) -> None:
    """Hold plans against the allocator: within 1 %, for training and for evaluation."""
    plans = planner.ask(asked, folder / "plan.log")
    for question, true, plan in zip(asked, truth(asked, folder, env), plans, strict=True):
        shown = {k: question.recipe.get(k) for k in ("quantization_bit", "cutoff_len")}
        shown |= {"padded": question.padded, "parts": plan.training.parts}
        assert plan.training.peak_bytes == pytest.approx(true["training"], rel=0.01), shown
        assert plan.evaluation.peak_bytes == pytest.approx(true["evaluation"], rel=0.01), shown
        for phase in (plan.training, plan.evaluation):
            assert sum(phase.parts.values()) == phase.peak_bytes


def test_within_one_percent_of_the_allocator_on_a_cpu(model: Path, tmp_path: Path) -> None:
    asked = questions(model, tmp_path, "cpu", use_cpu=True)
    assert len(asked) == 16
    compare(asked, tmp_path, {})


@pytest.mark.skipif(npusim.available() is not None, reason=str(npusim.available()))
def test_within_one_percent_of_torch_npu_on_the_simulated_npu(model: Path, tmp_path: Path) -> None:
    compare(questions(model, tmp_path, "npu", padding=(True,)), tmp_path, npusim.environment())


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


def plan_of(training: int, evaluation: int, largest: str = "logits") -> Plan:
    """Return a plan with the peaks told, most of each being one part."""

    def phase(size: int) -> Phase:
        parts = dict.fromkeys(planner.PARTS, 0) | {largest: size}
        return Phase(rows=4, length=128, peak_bytes=size, parts=parts)

    question = Question(recipe={}, device="npu", length=128, eval_length=128)
    return Plan(
        question=question, training=phase(training), evaluation=phase(evaluation),
        largest_micro_batch=None, seconds=1,
    )  # fmt: skip


ROOM = Capacity(total_bytes=1000 * 2**20, reserve_bytes=100 * 2**20, of="a card")


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        (plan_of(1001 * 2**20, 5), "a training step needs 0.98 GiB and a card has 0.98"),
        (plan_of(1001 * 2**20, 5), "lower per_device_train_batch_size (now 4) or cutoff_len"),
        (plan_of(5, 1001 * 2**20), "lower per_device_eval_batch_size"),
        (plan_of(1001 * 2**20, 5, "weights"), "choose a smaller model, or QLoRA"),
    ],
)
def test_a_run_that_cannot_fit_is_refused_with_its_remedy(plan: Plan, words: str) -> None:
    with pytest.raises(TutorialError) as refused:
        plan_report.refuse("LoRA", plan, ROOM)
    assert words in str(refused.value)


def test_a_run_that_fits_is_not_refused() -> None:
    plan_report.refuse("LoRA", plan_of(1000 * 2**20, 5), ROOM)
    assert "LoRA fits" in plan_report.verdict("LoRA", plan_of(900 * 2**20, 5), ROOM)
    assert "does NOT fit" in plan_report.verdict("LoRA", plan_of(901 * 2**20, 5), ROOM)


def test_a_card_that_nobody_named_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("helpers.hardware.card_bytes", lambda device: None)
    with pytest.raises(TutorialError, match="CARD_GIB=24"):
        planner.capacity("cuda")
    assert planner.capacity("npu").total_bytes == planner.NPU_BYTES
    assert planner.capacity("cuda", 24).total_bytes == 24 * 2**30


def test_a_model_that_nothing_is_known_of_is_one_sentence(runs: Path) -> None:
    unknown = settings.resolve("npu", model="some/model", run="test")
    with pytest.raises(TutorialError, match=r"make data MODEL=some/model"):
        planner.question("lora", unknown)


@pytest.fixture(scope="module")
def committed() -> planner.ArticlePlans:
    return planner.ArticlePlans.model_validate_json(planner.ARTICLE_PLANS.read_text())


def test_the_committed_plans_are_those_of_the_recipes_and_versions_here(
    committed: planner.ArticlePlans,
) -> None:
    assert committed.made_from == planner.article_made_from(), "run 'make plans' and commit it"


def test_catalogue_configs_have_as_many_parameters_as_the_models(
    committed: planner.ArticlePlans,
) -> None:
    for name in planner.ARTICLE_MODELS:
        weights = committed.plans[f"{name} lora 512"].training.parts["weights"]
        assert weights == pytest.approx(2 * models.catalogue()[name].parameters, rel=1e-4)


def test_plans_that_are_out_of_date_are_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, committed: planner.ArticlePlans
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


def test_plans_of_a_run_and_of_the_article_side_by_side(committed: planner.ArticlePlans) -> None:
    own = {"lora": plan_of(7, 5), "qlora": plan_of(5, 6)}
    shown = plan_report.beside(own, committed, "tiny", {"lora": "LoRA", "qlora": "QLoRA"})
    assert shown["this run, tiny, LoRA"].peak_bytes == 7
    assert shown["this run, tiny, QLoRA"].peak_bytes == 6  # its evaluation takes more
    assert len(shown) == 2 + 12
    at_7b = [shown[f"Qwen2-7B, {name}, 512 tokens"].peak_bytes for name in ("LoRA", "QLoRA")]
    assert at_7b[1] < 0.5 * at_7b[0]
    at_half = [shown[f"Qwen2-0.5B, {name}, 2048 tokens"].peak_bytes for name in ("LoRA", "QLoRA")]
    assert at_half[1] > 0.9 * at_half[0]


def test_the_allocators_peak_is_what_compares_with_a_plan() -> None:
    trace = MemoryTrace(measure="resident", seconds=[0.5], bytes_used=[9])
    assert plan_report.measured(trace) == ("resident", 9)
    trace.allocator_peak_bytes = 7
    assert plan_report.measured(trace) == ("torch's allocator on the device", 7)
