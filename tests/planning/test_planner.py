"""What the memory planner is asked, and what it is asked again; its truth: test_plans_are_true."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.ground.errors import TutorialError
from helpers.inputs import models, settings
from helpers.machine import container, hardware
from helpers.planning import estimate, planner
from helpers.planning.plan import ArticlePlans, Plan, Question


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


def test_a_plan_is_of_one_card_of_several(runs: Path) -> None:
    whole = planner.question("lora", settings.resolve("npu", run="test"))
    each = planner.question("lora", settings.resolve("npu", run="test", cards=4))
    assert (whole.cards, each.cards) == (1, 4)
    assert whole.recipe["gradient_accumulation_steps"] == 8
    assert each.recipe == whole.recipe | {"gradient_accumulation_steps": 2}
    assert estimate.steps_of(each.recipe, 2000, 4) == estimate.steps_of(whole.recipe, 2000) == 125


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
