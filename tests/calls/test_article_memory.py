"""A few real steps with the article's settings take what was planned for them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from conftest import smoke_with_data

from helpers.calls import article_memory
from helpers.inputs.settings import Settings, Tuned
from helpers.planning import planner
from helpers.results.checks import PLAN_TOLERANCE

TUNED = Tuned(
    default=True,
    recipe={
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 1,
        "disable_gradient_checkpointing": True,
    },
)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> object:
    with smoke_with_data(tmp_path_factory.mktemp("runs")) as found:
        profile = found.profile.model_copy(update={"tuned": TUNED})
        yield replace(found, profile=profile, tuned=True)


def test_steps_take_what_was_planned_and_leave_nothing_but_their_peaks(tuned: Settings) -> None:
    said: list[str] = []
    before = set(tuned.run.root.iterdir())
    found = article_memory.measure(tuned, said.append)
    assert found is not None
    plans = planner.article_settings(tuned, said.append)
    assert set(found.training) == set(plans) == {"lora", "qlora"}
    for name, plan in plans.items():
        # The article's micro-batch, and not the tuned one.
        assert plan.training.rows == 2
        assert plan.question.recipe.get("disable_gradient_checkpointing") is None
        planned = plan.training.peak_bytes
        assert found.training[name] == pytest.approx(planned, rel=PLAN_TOLERANCE["cpu"])
    left = {path.name for path in set(tuned.run.root.iterdir()) - before}
    assert not [name for name in left if name.startswith(".short")]
    # Asked again, nothing is done again.
    assert article_memory.measure(tuned, said.append) == found
    assert any("Re-using article_memory" in line for line in said)
    # What was measured with other settings says nothing of these.
    assert article_memory.standing(tuned) == found
    assert article_memory.standing(replace(tuned, overrides={"lora_rank": 4})) is None


def test_a_run_with_the_articles_settings_has_nothing_to_measure(tuned: Settings) -> None:
    assert article_memory.measure(replace(tuned, tuned=False)) is None
    assert article_memory.standing(replace(tuned, tuned=False)) is None
