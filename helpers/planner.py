"""Planning memory before training: will it fit, what takes the room, how large a batch fits.

A plan is a trace of one real optimizer step on tensors that have sizes but no bytes
(helpers/traced_step.py), so no card and no weights are needed: a config.json is enough.

It counts the tensors that the framework allocates. It leaves out what the framework does not see:
the runtime's own context, CANN's or cuBLAS's workspace, communication buffers, and the allocator's
fragmentation. For those a share of the card is kept free (`RESERVE`).
What a plan says to readers: helpers/plan_report.py.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
from pydantic import BaseModel, ValidationError

from helpers import data, hardware, models, paths, process, recipe, records, steps
from helpers.errors import TutorialError
from helpers.files import sha256_file, sha256_json, write_bytes
from helpers.settings import Settings

GIB = 2**30
NPU_BYTES = int(hardware.NPU_GIB * GIB)
# Kept free for what a plan cannot see. On a CPU the process's resident memory is what counts: it
# read 1.7 to 2.7 times the tensors' peak.
RESERVE = {"npu": 0.10, "cuda": 0.10, "cpu": 1 - 1 / 2.8}
PARTS = ("weights", "adapter", "gradients", "optimizer", "activations", "logits")
ARTICLE_PLANS = paths.BENCHMARKS / "plans.json"
ARTICLE_MODELS = ("Qwen2-0.5B", "Qwen2.5-3B", "Qwen2-7B")
ARTICLE_LENGTHS = (512, 2048)
# On an Ascend host there is torch-npu besides, which a trace does not use.
TRACED_PACKAGES = ("llamafactory", "transformers", "peft", "accelerate", "bitsandbytes", "torch")


class Question(BaseModel):
    """What to plan: a recipe on a model and a device."""

    recipe: dict[str, Any]
    config: dict[str, Any] | None = None  # the model's; None: it lies where the recipe says
    device: str  # npu, cuda or cpu
    attention: str = "fused"  # "math": what a device without a fused kernel runs
    # Tokens of the longest example; None: that of the data set which the recipe names.
    length: int | None = None
    eval_length: int | None = None
    padded: bool = True  # examples of a batch differ in length
    budget_bytes: int | None = None  # given: the largest micro-batch within it is looked for


class Phase(BaseModel):
    """The peak of a training step or of an evaluation."""

    rows: int  # examples in the batch: the micro-batch
    length: int  # tokens of its longest example
    peak_bytes: int
    parts: dict[str, int]  # bytes at the peak, by PARTS


class Plan(BaseModel):
    """What a training will take."""

    question: Question
    training: Phase
    evaluation: Phase
    largest_micro_batch: int | None  # within the budget; 0: not even one example fits
    seconds: float

    @property
    def peak(self) -> Phase:
        """The larger of the two."""
        return max(self.training, self.evaluation, key=lambda phase: phase.peak_bytes)


class Capacity(BaseModel):
    """The memory that a training may take."""

    total_bytes: int
    reserve_bytes: int
    of: str  # whose memory it is

    @property
    def usable_bytes(self) -> int:
        return self.total_bytes - self.reserve_bytes


def capacity(device: str, card_gib: float | None = None) -> Capacity:
    """Return the memory of a device, and how much of it is kept free.

    Args:
        device: npu, cuda or cpu.
        card_gib: the memory of the card in GiB; None: of the card that is here, and without one,
            on an npu, of the tutorial's 64 GB card.

    Raises:
        TutorialError: nothing says how large the card is.
    """
    total = int(card_gib * GIB) if card_gib else None
    of = "the card that was named"
    if total is None and device == "cpu":
        total, of = psutil.virtual_memory().total, "this machine's memory"
    elif total is None:
        total, of = hardware.card_bytes(device), "the first visible card"
        if total is None and device == "npu":
            total, of = NPU_BYTES, "an Ascend 910B2 (64 GB)"
    if total is None:
        raise TutorialError("There is no CUDA card here: say how large it is with CARD_GIB=24.")
    return Capacity(total_bytes=total, reserve_bytes=int(total * RESERVE[device]), of=of)


def _config(model: models.Model) -> dict[str, Any] | None:
    """Return the model's config where it has to come from the catalogue."""
    if (model.path / "config.json").is_file():
        return None
    if model.config is None:
        raise TutorialError(
            f"Nothing is known of {model.name} yet: run 'make data MODEL={model.asked_for}' first, "
            "or name a folder that holds its config.json."
        )
    return model.config


def question(method: str, settings: Settings, **more: Any) -> Question:
    """Return the question that a run's training asks.

    Args:
        method: lora or qlora.
        settings: the run's settings. Where its data lie, the longest example counts; before that,
            `cutoff_len` does.
        more: further fields of Question.

    Raises:
        TutorialError: an override is no recipe key, or nothing is known of the model.
    """
    config = _config(settings.model)
    used = recipe.for_training(method, settings, planned=True)
    at_hand = (settings.run.data / "dataset_info.json").is_file() and config is None
    if not at_hand:
        more = {"length": used["cutoff_len"], "eval_length": used["cutoff_len"]} | more
    return Question(recipe=used, config=config, device=settings.profile.device, **more)


def ask(questions: list[Question], log: Path) -> list[Plan]:
    """Answer questions in one process, about 12 s of which go into importing the libraries.

    Raises:
        TutorialError: the recipe cannot be traced; the log says why.
    """
    with tempfile.TemporaryDirectory() as folder:
        asked, answers = Path(folder) / "questions.json", Path(folder) / "plans.json"
        asked.write_text(json.dumps([each.model_dump() for each in questions]))
        # One thread: nothing is computed, and a trace is Python code.
        env = process.environment("cpu") | {"OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "helpers.traced_step", str(asked), str(answers)]
        process.run(command, log, env=env)
        return [Plan.model_validate(each) for each in json.loads(answers.read_text())]


def _source() -> str:
    """Return a hash over the code that makes a plan."""
    folder = Path(__file__).parent
    return sha256_json([sha256_file(folder / name) for name in ("ledger.py", "traced_step.py")])


def for_run(settings: Settings, say: Callable[[str], None] = print) -> dict[str, Plan]:
    """Plan a run's two trainings, unless that was done from the same inputs.

    Args:
        settings: the run's settings; the model and the data must be there.
        say: takes the lines that tell what happens.

    Returns:
        The plans by method.

    Raises:
        TutorialError: an input is missing (with the notebook that makes it).
    """
    run = settings.run
    facts = data.facts_of(run)
    file = run.root / "plan.json"
    asked = {method: question(method, settings) for method in recipe.METHODS}
    inputs = {
        "recipes": {name: recipe.without_places(each.recipe) for name, each in asked.items()},
        "device": settings.profile.device,
        "model": sha256_file(settings.model.path / "config.json"),
        "data": [facts.train_sha256, facts.eval_sha256],
        "versions": records.versions(),
        "planner": _source(),
    }

    def action() -> None:
        plans = ask(list(asked.values()), run.logs / "plan.log")
        named = {name: plan.model_dump() for name, plan in zip(asked, plans, strict=True)}
        write_bytes(file, json.dumps(named, indent=1).encode())

    steps.done_once(run, "plan", inputs, [file], action, say)
    return {name: Plan.model_validate(plan) for name, plan in json.loads(file.read_text()).items()}


class ArticlePlans(BaseModel):
    """The article's two recipes, planned for three models and two lengths on an Ascend card."""

    made_from: str  # a hash over recipes, models, versions and the planner's code
    plans: dict[str, Plan]  # by "MODEL METHOD LENGTH"


def _article_questions() -> dict[str, Question]:
    catalogue = models.catalogue()
    return {
        f"{name} {method} {length}": Question(
            recipe=recipe.article(method) | {"model_name_or_path": name},
            config=catalogue[name].config,
            device="npu",
            length=length,
            eval_length=length,
        )
        for name in ARTICLE_MODELS
        for method in recipe.METHODS
        for length in ARTICLE_LENGTHS
    }


def article_made_from() -> str:
    """Return a hash over all that decides the article's plans."""
    asked = [each.model_dump() for each in _article_questions().values()]
    versions = {k: v for k, v in records.versions().items() if k in TRACED_PACKAGES}
    return sha256_json([asked, versions, _source()])


def article_plans(log: Path) -> ArticlePlans:
    """Return the plans of the article's recipes for the catalogue's Qwen models.

    They lie in benchmarks/results; where recipes, models, versions or the planner have changed
    since, they are made anew (about a minute).
    """
    made_from = article_made_from()
    try:
        kept = ArticlePlans.model_validate_json(ARTICLE_PLANS.read_text("utf-8"))
    except (OSError, ValidationError):
        kept = None
    if kept and kept.made_from == made_from:
        return kept
    questions = _article_questions()
    plans = ask(list(questions.values()), log)
    return ArticlePlans(made_from=made_from, plans=dict(zip(questions, plans, strict=True)))
