"""The verdict in words: it says what was decided, of what, and how sure."""

from __future__ import annotations

from typing import Any

import pytest
from results import made

from helpers.results import comparison, verdict
from helpers.results.schema import Comparison, Effect, Judgement


def effect(better: str | None, **changes: Any) -> Effect:
    """Return a difference in answers, 60 % against 42 %, claimed or not."""
    facts = {
        "first": 0.6, "other": 0.42, "difference": -0.18, "low": -0.3, "high": -0.06,
        "p": 0.004, "p_adjusted": 0.012, "missed": 0.15, "n": 100, "better": better,
    }  # fmt: skip
    return Effect.model_validate(facts | changes)


def loss(better: str | None) -> Effect:
    return effect(better, first=0.35, other=0.385, difference=0.035, low=0.03, high=0.04)


def judgement(**changes: Any) -> Judgement:
    facts = {
        "answers": effect(None), "loss": loss(None), "better": None, "time_ratio": 1.0,
        "time": "about", "memory_ratio": 1.0, "memory": "about", "advice": "either",
    }  # fmt: skip
    return Judgement.model_validate(facts | changes)


@pytest.fixture
def compared(runs: object) -> Comparison:
    chosen = made.chosen()
    made.write(chosen)
    return comparison.compare(chosen)


def said(compared: Comparison, seeds: int = 1, **changes: Any) -> str:
    compared.verdict.judgements = {"qlora": judgement(**changes)}
    compared.verdict.seeds = seeds
    return verdict.sentence(compared)


def test_one_training_each_is_about_two_adapters(compared: Comparison) -> None:
    text = said(compared, answers=effect("first"), better="first", advice="first")
    assert (
        "LoRA answered 60 and QLoRA 42 of 100 held-out problems: of these two adapters LoRA's is "
        "better (QLoRA against LoRA -18.0 points, 95 % interval -30.0 to -6.0, p = 0.012)." in text
    )
    assert "Of these two adapters, use LoRA's." in text
    assert "all of this is about these adapters: other seeds give other ones" in text
    assert "the better method" not in text
    assert "missed" not in text.split("Held-out loss")[0]


def test_several_seeds_are_about_the_methods(compared: Comparison) -> None:
    text = said(compared, 3, answers=effect("first"), better="first", advice="first")
    assert (
        "LoRA answered 60.0 % and QLoRA 42.0 % of 100 held-out problems, means of 3 trainings "
        "each: LoRA is the better method (" in text
    )
    assert "Use LoRA here." in text
    assert "from 3 trainings of each" in text
    assert "adapters" not in text


def test_a_difference_that_could_have_been_missed_is_told(compared: Comparison) -> None:
    text = said(compared)
    assert "no difference can be told from chance (QLoRA against LoRA" in text
    assert "A true difference of 15 points would have been missed in one of five" in text
    assert "Held-out loss, LoRA 0.350 and QLoRA 0.385 nats per token on 100 problems: no" in text


def test_loss_is_judged_for_itself(compared: Comparison) -> None:
    text = said(compared, 3, loss=loss("first"), better="first", advice="first_unless_memory")
    assert "on 100 problems: LoRA is the better method (+0.0350, 95 % interval +0.0300 to" in text
    assert "Use LoRA here unless only QLoRA fits in memory." in text


def test_answers_and_loss_that_contradict_give_no_advice(compared: Comparison) -> None:
    text = said(compared, answers=effect("first"), loss=loss("other"))
    assert "contradict each other, so neither LoRA nor QLoRA is advised" in text
    assert "Use either" not in text


def test_what_was_not_scored_or_recorded_is_said_to_be_so(compared: Comparison) -> None:
    text = said(compared, answers=None, loss=None)
    assert "There are no scored answers to compare." in text
    assert "not recorded problem by problem" in text


@pytest.mark.parametrize(
    ("advice", "seeds", "better", "words"),
    [
        ("first", 3, "first", "Use LoRA here."),
        ("first_unless_memory", 3, "first", "Use LoRA here unless only QLoRA fits"),
        ("other", 3, "other", "Use QLoRA here."),
        ("other_unless_memory", 3, "other", "Use QLoRA here unless only LoRA fits"),
        ("first", 1, "first", "Of these two adapters, use LoRA's."),
        ("first_unless_memory", 1, "first", "use LoRA's; where memory is short, train with QLoRA"),
        ("other", 1, "other", "Of these two adapters, use QLoRA's."),
        ("other_unless_memory", 1, "other", "use QLoRA's; where memory is short, train with LoRA"),
        ("other_if_short", 1, None, "Use QLoRA where memory is short, and LoRA where it is not."),
        ("other_if_short_else_either", 1, None, "Use QLoRA where memory is short, and either"),
        ("first_if_short", 1, None, "Use LoRA where memory is short, and QLoRA where it is not."),
        ("first_saves_time", 1, None, "Use LoRA here: QLoRA costs time and saves no memory."),
        ("first_saves_memory", 1, None, "Use LoRA here: QLoRA costs memory and saves no time."),
        ("either", 1, None, "Use either here."),
    ],
)
def test_advice(
    compared: Comparison, advice: str, seeds: int, better: str | None, words: str
) -> None:
    text = said(compared, seeds, answers=effect(better), better=better, advice=advice)
    assert words in text


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"time_ratio": 1.31, "time": "more"}, "QLoRA's training took 31 % more time than LoRA's."),
        ({"time_ratio": 0.5, "time": "less"}, "QLoRA's training took 50 % less time than LoRA's."),
        ({}, "about as much time as LoRA's: calls of one recipe lie up to 10 % apart."),
        ({"memory_ratio": 0.917, "memory": "less"},
         "QLoRA took 8.3 % less memory than LoRA (tensors, as the allocator counts them)."),
        ({"memory_ratio": 2.0, "memory": "more"}, "QLoRA took 100 % more memory than LoRA"),
        ({"memory_ratio": None, "memory": None}, "not measured alike, and is not compared"),
    ],
)  # fmt: skip
def test_costs(compared: Comparison, changes: dict[str, Any], words: str) -> None:
    assert words in said(compared, **changes)


def test_tests_that_were_corrected_are_said_to_be_so(compared: Comparison) -> None:
    compared.verdict.tests = 4
    assert "corrected for 4 tests (Holm); each interval stands for itself" in said(compared)
    compared.verdict.tests = 1
    assert "Holm" not in said(compared)


def test_what_a_small_model_cannot_tell_is_said_with_what_is_planned(compared: Comparison) -> None:
    text = said(compared)
    short, long = compared.verdict.planned
    assert "What tiny shows does not tell how much an adapter learns beside Qwen2-7B" in text
    assert "run it with MODEL=Qwen2-7B" in text
    for each in (short, long):
        peaks = [f"{each.peak_bytes[name] / 2**30:.2f} GiB" for name in ("lora", "qlora")]
        assert f"with {each.length} tokens LoRA {peaks[0]}, QLoRA {peaks[1]}" in text
    assert "nothing of it measured" in text
    compared.verdict.planned = []
    assert "Qwen2-7B" not in said(compared)


def test_one_method_alone_is_compared_with_nothing(compared: Comparison) -> None:
    compared.verdict.judgements = {}
    assert verdict.sentence(compared).startswith("Only LoRA was trained")


@pytest.mark.parametrize(
    ("p", "words"), [(0.0002, "p < 0.001"), (0.0304, "p = 0.030"), (0.734, "p = 0.73")]
)
def test_p_values_in_words(p: float, words: str) -> None:
    assert verdict.probability(p) == words
