"""A study before it starts: what fits, in which order, and what was done before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from helpers.ground.errors import TutorialError
from helpers.inputs.models import find, obtain
from helpers.inputs.settings import resolve
from helpers.machine import hardware
from helpers.planning import asking, planner
from helpers.planning.plan import PARTS, Capacity, Phase, Plan
from helpers.study import planned, record
from helpers.study.asked import Asked
from helpers.study.record import Study

GIB = 2**30
WANTED = Asked(
    profile="smoke", models=["Qwen2-0.5B", "Qwen2.5-3B"],
    methods=["lora", "qlora"], seeds=2,
)  # fmt: skip


def plan_as_told(monkeypatch: pytest.MonkeyPatch, sizes: list[float], total: float) -> None:
    """Have models and methods take so many GiB, in their order, of so many."""

    def ask(questions: list[Any], log: Path) -> list[Plan]:
        found = []
        for each, size in zip(questions, sizes, strict=True):
            parts = dict.fromkeys(PARTS, 0)
            phase = Phase(rows=2, length=64, peak_bytes=int(size * GIB), parts=parts)
            found.append(
                Plan(question=each, training=phase, evaluation=phase,
                     largest_micro_batch=1 if size < 2 * total else 0, seconds=1)
            )  # fmt: skip
        return found

    def work(program: str, questions: list[Any], log: Path) -> list[Any]:
        return [
            {"length": 64, "eval_length": 64, "update": [], "evaluation": [], "token": [],
             "micro_batch": [{"kind": "matrix", "calls": 1, "flops": n * 10**12, "bytes": 1}]}
            for n, _ in enumerate(questions, 1)
        ]  # fmt: skip

    monkeypatch.setattr(planner, "ask", ask)
    monkeypatch.setattr(asking, "ask", work)
    room = Capacity(total_bytes=int(total * GIB), reserve_bytes=0, of="machine")
    monkeypatch.setattr(planner, "capacity", lambda device: room)
    monkeypatch.setattr(hardware, "usable_cores", lambda: 2)


def make(workers: int = 0) -> Study:
    return planned.make("s", WANTED, workers, lambda line: None)


def test_what_does_not_fit_is_refused_in_its_row_with_what_would(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan_as_told(monkeypatch, [1, 1, 9, 3], total=4)
    study = make()
    states = [row.state for row in study.rows]
    assert states == ["waiting"] * 4 + ["refused"] * 2 + ["waiting"] * 2
    refusal = study.rows[4].refusal
    assert refusal
    assert (refusal.micro_batch, refusal.methods) == (0, ["qlora"])
    assert (refusal.needed_bytes, refusal.usable_bytes) == (9 * GIB, 4 * GIB)


def test_where_the_model_is_at_hand_the_longest_example_counts(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else what a recipe allows does, and what would fit is refused."""
    plan_as_told(monkeypatch, [1, 1, 1, 1], total=8)
    ask, lengths = planner.ask, []

    def asked(questions: list[Any], log: Path) -> list[Plan]:
        lengths.extend(each.length for each in questions)
        return ask(questions, log)

    monkeypatch.setattr(planner, "ask", asked)
    models = ["tiny-random-qwen2", "Qwen2-0.5B"]
    obtain(find("tiny-random-qwen2"), runs / "model.log")
    planned.make("s", WANTED.model_copy(update={"models": models}), 0, lambda line: None)
    cutoff = resolve("smoke", "Qwen2-0.5B").profile.recipe["cutoff_len"]
    assert lengths == [None, None, cutoff, cutoff]


def test_the_longest_are_done_first(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan_as_told(monkeypatch, [1, 1, 1, 1], total=8)
    order = [(row.trial.model, row.trial.method) for row in planned.order(make())]
    large, small = "Qwen2.5-3B", "Qwen2-0.5B"
    assert order[::2] == [(large, "qlora"), (large, "lora"), (small, "qlora"), (small, "lora")]


def test_trials_beside_each_other_share_the_memory(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan_as_told(monkeypatch, [1, 1, 3, 3], total=8)
    assert make().workers == 2
    plan_as_told(monkeypatch, [1, 1, 3, 3], total=5)
    assert make().workers == 1
    assert make(workers=7).workers == 1


def test_what_is_done_is_not_done_again_unless_something_else_decides_it(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan_as_told(monkeypatch, [1, 1, 1, 1], total=8)
    study = make()
    study.rows[0].state, study.rows[0].seconds = "done", 7.0
    study.rows[1].state, study.rows[2].state = "failed", "running"
    record.write(study)
    again = make()
    assert [row.state for row in again.rows] == ["done"] + ["waiting"] * 7
    assert again.rows[0].seconds == 7.0
    monkeypatch.setenv("TUTORIAL_OVERRIDES", "lora_rank=4")
    assert make().rows[0].state == "waiting"


def test_a_study_that_goes_on_plans_only_what_is_new_and_keeps_its_price(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan_as_told(monkeypatch, [1, 2, 9, 3], total=4)
    study = make()
    study.price, study.rows[0].state = 2.88, "done"
    record.write(study)
    plan_as_told(monkeypatch, [8], total=4)  # what did not fit is planned anew, and nothing else
    again = make()
    assert again.price == 2.88
    assert [row.planned_bytes for row in again.rows[::2]] == [GIB, 2 * GIB, 8 * GIB, 3 * GIB]
    assert [row.load for row in again.rows[:4]] == [row.load for row in study.rows[:4]]
    assert again.rows[4].refusal
    assert again.rows[4].refusal.methods == ["qlora"]
    plan_as_told(monkeypatch, [9, 7], total=2.5)  # less is free: what no longer fits is refused
    states = [row.state for row in make().rows]
    assert states == ["done"] + ["waiting"] * 3 + ["refused"] * 4


def test_no_card_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = hardware.describe().model_copy(update={"device": "cpu", "accelerators": []})
    monkeypatch.setattr(hardware, "describe", lambda: machine)
    assert planned.cards_here("cpu") == 0
    with pytest.raises(TutorialError, match="There is no card for PROFILE=npu here"):
        planned.cards_here("npu")
    seen = machine.model_copy(update={"device": "npu", "accelerators": ["910B2"] * 8})
    monkeypatch.setattr(hardware, "describe", lambda: seen)
    monkeypatch.delenv("ASCEND_RT_VISIBLE_DEVICES", raising=False)
    assert planned.cards_here("npu") == 8
    monkeypatch.setenv("ASCEND_RT_VISIBLE_DEVICES", "2,3")
    assert planned.cards_here("npu") == 2
