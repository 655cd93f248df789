"""Other seeds: what is trained again, and how the spread is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from helpers.calls import repeats
from helpers.ground.errors import TutorialError
from helpers.inputs import settings
from helpers.records import schema, store


def test_each_further_seed_has_its_own_recipe_and_folder(runs: object) -> None:
    chosen = settings.resolve("smoke", run="r", seeds=3)
    assert [(s.run.name, s.overrides) for s in repeats.others(chosen)] == [
        ("r-seed43", {"seed": 43}),
        ("r-seed44", {"seed": 44}),
    ]
    other = replace(chosen, overrides={"seed": 7, "lora_rank": 4}, seeds=2)
    [only] = repeats.others(other)
    assert only.overrides == {"seed": 8, "lora_rank": 4}
    assert repeats.others(only) == []  # a repetition repeats nothing
    zero = replace(chosen, overrides={"seed": 0})
    assert [each.overrides["seed"] for each in repeats.others(zero)] == [1, 2]


def test_a_seed_that_is_no_number_is_one_sentence(runs: object) -> None:
    chosen = settings.resolve("smoke", run="r", seeds=2, overrides={"seed": "first"})
    with pytest.raises(TutorialError, match="seed='first' must be a whole number"):
        repeats.others(chosen)


def test_once_is_the_default(smoke: settings.Settings) -> None:
    assert smoke.seeds == 1
    assert repeats.others(smoke) == []


@pytest.mark.parametrize("wanted", ["0", "three", "-1", "2.5", "21"])
def test_a_number_of_seeds_that_makes_no_sense(wanted: str) -> None:
    with pytest.raises(TutorialError, match="from 1 to 20"):
        settings.resolve("smoke", seeds=wanted)


def test_results_are_read_from_the_records_of_all_seeds(
    runs: object, make_record: Callable[..., schema.Record]
) -> None:
    chosen = settings.resolve("smoke", run="r", seeds=2)
    for each in (chosen, *repeats.others(chosen)):
        for method in ("lora", "qlora"):
            record = make_record(method)
            record.recipes["train"]["seed"] = each.overrides.get("seed", 42)
            store.write(each.run, record)
    found = [repeats.result("lora", record) for record in repeats.records("lora", chosen)]
    assert [(each.method, each.seed) for each in found] == [("lora", 42), ("lora", 43)]
    with pytest.raises(TutorialError, match="03_lora"):
        repeats.records("lora", replace(chosen, seeds=3))


def test_a_result_holds_what_each_problem_came_to(
    make_record: Callable[..., schema.Record],
) -> None:
    record = make_record("qlora")
    assert record.training is not None
    record.training.problem_losses = [schema.ProblemLoss(nats=3.0, tokens=10)]
    found = repeats.result("qlora", record)
    assert found.right == [True, True, False, False]
    assert found.correct == 2
    assert found.losses == record.training.problem_losses
    assert found.call_seconds == record.training.call_seconds
    assert found.tensors == 4 * 10**8
    record.training.peaks = schema.Peaks()
    assert repeats.result("qlora", record).tensors is None
    record.data.scored = False
    assert not repeats.result("qlora", record).scored
