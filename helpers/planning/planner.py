"""Planning memory before training: will it fit, what takes the room, how large a batch fits.

A plan is a trace of one real optimizer step on tensors that have sizes but no bytes
(helpers/planning/traced_step.py), so no card and no weights are needed: a config.json is enough.

It counts the tensors that the framework allocates. It leaves out what the framework does not see:
the runtime's own context, CANN's or cuBLAS's workspace, communication buffers, and the allocator's
fragmentation. For those a share of the card is kept free (`RESERVE`).
What is asked and answered: helpers/planning/plan.py; what readers see of it:
helpers/planning/report.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
from pydantic import ValidationError

from helpers.ground import paths
from helpers.ground.errors import TutorialError
from helpers.ground.files import read_json, sha256_file, sha256_json, write_bytes
from helpers.ground.words import tr
from helpers.inputs import data, methods, models, recipes
from helpers.inputs.settings import Settings
from helpers.machine import container, hardware
from helpers.planning import asking
from helpers.planning.plan import (
    GIB,
    ArticlePlans,
    Capacity,
    Plan,
    Question,
    RunPlans,
    Whose,
)
from helpers.programs import steps
from helpers.programs.making import Making
from helpers.records.versions import code, versions

NPU_BYTES = int(hardware.NPU_GIB * GIB)
MOST_GIB = 100_000  # beyond any card
# Kept free for what a plan cannot see. On a CPU the process's resident memory is what counts: it
# read 1.7 to 2.7 times the tensors' peak.
RESERVE = {"npu": 0.10, "cuda": 0.10, "cpu": 1 - 1 / 2.8}
ARTICLE_PLANS = paths.BENCHMARKS / "plans.json"
ARTICLE_MODELS = ("Qwen2-0.5B", "Qwen2.5-3B", "Qwen2-7B")
ARTICLE_LENGTHS = (512, 2048)
# On an Ascend host there is torch-npu besides, which a trace does not use.
TRACED_PACKAGES = ("llamafactory", "transformers", "peft", "accelerate", "bitsandbytes", "torch")


def capacity(device: str, card_gib: float | None = None) -> Capacity:
    """Return the memory of a device, and how much of it is kept free.

    Args:
        device: npu, cuda or cpu. In a container that has a limit, the limit is what a CPU has.
        card_gib: the memory of the card in GiB; None: of the card that is here, and without one,
            on an npu, of the tutorial's 64 GB card.

    Raises:
        TutorialError: nothing says how large the card is, or what does is no size.
    """
    if card_gib is not None and not 0 < card_gib < MOST_GIB:
        raise TutorialError(
            tr(
                "CARD_GIB={size} is not the memory of a card: say how many GiB it has, as in "
                "CARD_GIB=24.",
                size=card_gib,
            )
        )
    total = int(card_gib * GIB) if card_gib else None
    of: Whose = "named"
    if total is None and device == "cpu":
        total, of = psutil.virtual_memory().total, "machine"
        limit = container.limit_bytes()
        if limit is not None and limit < total:
            total, of = limit, "container"
    elif total is None:
        total, of = hardware.card_bytes(device), "card"
        if total is None and device == "npu":
            total, of = NPU_BYTES, "article"
    if total is None:
        raise TutorialError(tr("There is no CUDA card here: say how large it is with CARD_GIB=24."))
    return Capacity(total_bytes=total, reserve_bytes=int(total * RESERVE[device]), of=of)


def _config(model: models.Model) -> dict[str, Any] | None:
    """Return the model's config where it has to come from the catalogue."""
    if model.is_here:
        return None
    if model.config is None:
        raise TutorialError(
            tr(
                "Nothing is known of {model} yet: run 'make data MODEL={asked_for}' first, or name "
                "a folder that holds its config.json.",
                model=model.name,
                asked_for=model.asked_for,
            )
        )
    return model.config | ({"dtype": models.expanded_dtype()} if model.wheel else {})


def question(method: str, settings: Settings, **more: Any) -> Question:
    """Return the question that a run's training asks.

    Args:
        method: one of the run's methods.
        settings: the run's settings. Where its data lie, the longest example counts; before that,
            `cutoff_len` does.
        more: further fields of Question.

    Raises:
        TutorialError: the run has no such method, or nothing is known of the model.
    """
    config = _config(settings.model)
    used = recipes.for_training(method, settings, planned=True)
    at_hand = (settings.run.data / "dataset_info.json").is_file() and config is None
    if not at_hand:
        more = {"length": used["cutoff_len"], "eval_length": used["cutoff_len"]} | more
    return Question(
        recipe=used, config=config, device=settings.profile.device, cards=settings.cards,
        sharded=settings.sharded, **more,
    )  # fmt: skip


def ask(questions: list[Question], log: Path) -> list[Plan]:
    """Answer questions in one process (asking.py).

    Raises:
        TutorialError: the recipe cannot be traced; the log says why.
    """
    return [Plan.model_validate(each) for each in asking.ask("traced_step", questions, log)]


def _source() -> str:
    """Return a hash over the code that makes a plan, the NPU's kernels within it."""
    return code(
        "planning/building.py", "planning/ledger.py", "planning/traced_step.py",
        "worker/dequantise_4bit.py", "worker/kernel_choice.py",
    )  # fmt: skip


def beforehand(settings: Settings, room: Capacity) -> dict[str, Plan]:
    """Plan the trainings of all methods of a run, before there is a model, data, or a card.

    Args:
        settings: the run's settings.
        room: the memory that a training may take; the largest micro-batch within it is looked for.

    Returns:
        The plans by method.

    Raises:
        TutorialError: nothing is known of the model, or a recipe cannot be traced.
    """
    asked = {
        method.name: question(method.name, settings, budget_bytes=room.usable_bytes)
        for method in settings.methods
    }
    plans = ask(list(asked.values()), settings.run.logs / "plan.log")
    return dict(zip(asked, plans, strict=True))


def untuned(settings: Settings) -> Settings:
    """Return the settings of a run as they are without what makes it faster: the article's.

    What they take is measured in one process, which holds all of a model.
    """
    return replace(settings, tuned=False, sharded=False)


def _kept(run: paths.RunFolder) -> Path:
    return run.root / "plan.json"


def kept(run: paths.RunFolder) -> RunPlans | None:
    """Return the plans that a run has made; None where it has none.

    Raises:
        TutorialError: they cannot be read.
    """
    file = _kept(run)
    again = tr("run the notebook {notebook} again", notebook=paths.NOTEBOOK_NAMES[2])
    return read_json(file, RunPlans, again) if file.is_file() else None


def _of_run(settings: Settings, say: Callable[[str], None]) -> RunPlans:
    run = settings.run
    facts = data.facts_of(run)
    file = _kept(run)
    names = [method.name for method in settings.methods]
    asked = [question(name, settings) for name in names]
    if settings.tuned:
        asked += [question(name, untuned(settings)) for name in names]
    inputs: dict[str, Any] = {
        "recipes": [recipes.without_places(each.recipe) for each in asked],
        "device": settings.profile.device,
        "model": sha256_file(settings.model.path / "config.json"),
        "data": [facts.train_sha256, facts.eval_sha256],
        "versions": versions(),
        "planner": _source(),
    }
    if settings.cards > 1:
        inputs["cards"] = settings.cards
    if settings.sharded:
        inputs["sharded"] = True

    def action(making: Making) -> None:
        plans = ask(asked, run.logs / "plan.log")
        found = RunPlans(
            run=dict(zip(names, plans, strict=False)),
            article=dict(zip(names, plans[len(names) :], strict=False)),
        )
        write_bytes(making.place(file), found.model_dump_json(indent=1).encode())

    steps.done_once(run, "plan", inputs, file, action, say)
    return RunPlans.model_validate_json(file.read_bytes())


def for_run(settings: Settings, say: Callable[[str], None] = print) -> dict[str, Plan]:
    """Plan the trainings of all methods of a run, unless that was done from the same inputs.

    Args:
        settings: the run's settings; the model and the data must be there.
        say: takes the lines that tell what happens.

    Returns:
        The plans by method.

    Raises:
        TutorialError: an input is missing (with the notebook that makes it).
    """
    return _of_run(settings, say).run


def article_settings(settings: Settings, say: Callable[[str], None] = print) -> dict[str, Plan]:
    """Plan the same trainings without what makes this run faster; as `for_run`.

    Returns:
        The plans by method; none where the run trains with the article's settings anyway.
    """
    return _of_run(settings, say).article


def _article_questions() -> dict[str, Question]:
    catalogue = models.catalogue()
    return {
        f"{name} {method} {length}": Question(
            recipe=recipes.article(method) | {"model_name_or_path": name},
            config=catalogue[name].config,
            device="npu",
            length=length,
            eval_length=length,
        )
        for name in ARTICLE_MODELS
        for method in methods.default()
        for length in ARTICLE_LENGTHS
    }


def article_made_from() -> str:
    """Return a hash over all that decides the article's plans."""
    asked = [each.model_dump() for each in _article_questions().values()]
    traced = {k: v for k, v in versions().items() if k in TRACED_PACKAGES}
    return sha256_json([asked, traced, _source()])


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
