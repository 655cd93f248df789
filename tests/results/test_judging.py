"""What the figures decide: claims, "about as much", and what was planned."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from conftest import make_training
from results import made

from helpers.ground import paths
from helpers.ground.errors import TutorialError
from helpers.machine.memory import MemoryTrace
from helpers.planning import planner
from helpers.records.schema import Peaks, SeedResult, Training
from helpers.results import judging
from helpers.results.schema import Verdict

N = 40
HALF = [True, False] * (N // 2)
MORE = [True] * 32 + [False] * 8
LEVEL = [0.4 + 0.001 * (i % 7) for i in range(N)]
HIGHER = [loss + 0.05 + 0.001 * (i % 3) for i, loss in enumerate(LEVEL)]


def decided(
    results: Mapping[str, Sequence[SeedResult]],
    trainings: Mapping[str, Training] | None = None,
    **more: bool,
) -> Verdict:
    found = trainings or {name: make_training() for name in results}
    return judging.decide(results, found, model="SmolLM2-135M-Instruct", **more)


def moved(values: list[bool], by: int) -> list[bool]:
    """Return the same answers with other problems among the right ones."""
    return values[by:] + values[:by]


def seeds(name: str, right: list[bool], losses: list[float], count: int = 3) -> list[SeedResult]:
    """Return trainings that differ a little."""
    return [
        made.result(
            name,
            [*moved(right, 2 * seed)[:-1], bool(seed % 2)],
            [loss + 0.002 * seed for loss in losses],
            seed=42 + seed,
            call_seconds=100 + 4 * seed,
            tensors=10**9 + seed * 10**7,
        )
        for seed in range(count)
    ]


# ---- what is claimed ----------------------------------------------------------------------------


def test_one_training_each_is_judged_by_its_problems() -> None:
    lora, qlora = made.result("lora", MORE, LEVEL), made.result("qlora", HALF, HIGHER)
    verdict = decided({"lora": [lora], "qlora": [qlora]})
    judged = verdict.judgements["qlora"]
    assert verdict.seeds == 1
    assert verdict.tests == 2
    assert judged.answers is not None
    assert (judged.answers.first, judged.answers.other) == (0.8, 0.5)
    # 16 problems only the one solved, 4 only the other: McNemar's exact test.
    assert judged.answers.p == pytest.approx(0.0118, abs=1e-4)
    assert judged.answers.better == "first"
    assert judged.answers.low < -0.3 < judged.answers.high < 0
    assert judged.loss is not None
    assert judged.loss.difference == pytest.approx(0.051, abs=1e-3)
    assert judged.loss.better == judged.better == "first"
    assert judged.advice == "first"


def test_a_clear_difference_of_loss_is_claimed_where_answers_show_none() -> None:
    verdict = decided(
        {"lora": seeds("lora", HALF, LEVEL), "qlora": seeds("qlora", moved(HALF, 1), HIGHER)}
    )
    judged = verdict.judgements["qlora"]
    assert judged.answers is not None
    assert judged.answers.better is None
    assert judged.answers.missed > 0.05
    assert judged.loss is not None
    assert judged.loss.better == judged.better == "first"


def test_what_first_seeds_show_by_luck_is_not_claimed_of_the_methods() -> None:
    """The counts that were seen: 22, 19, 18 against 13, 19, 16 of 50."""

    def answered(counts: Sequence[int], name: str) -> list[SeedResult]:
        return [
            made.result(name, [i < count for i in range(50)], [0.4] * 50, seed=seed)
            for seed, count in enumerate(counts)
        ]

    lora, qlora = answered((22, 19, 18), "lora"), answered((13, 19, 16), "qlora")
    alone = decided({"lora": lora[:1], "qlora": qlora[:1]}).judgements["qlora"]
    together = decided({"lora": lora, "qlora": qlora}).judgements["qlora"]
    assert alone.answers is not None
    assert together.answers is not None
    assert alone.answers.better == "first"
    assert together.answers.better is None


def test_trainings_that_all_answered_alike_have_the_interval_of_one() -> None:
    """A model that solves nothing: three seeds of it do not make an interval of no width."""
    none = [made.result(name, [False] * N, LEVEL, seed) for name in "ab" for seed in (1, 2, 3)]
    judged = decided({"a": none[:3], "b": none[3:]}).judgements["b"]
    assert judged.answers is not None
    assert judged.answers.p == 1
    assert judged.answers.low < -0.02
    assert judged.answers.high > 0.02


def test_all_tests_of_a_verdict_are_corrected_together() -> None:
    some = [True] * 30 + [False] * 10
    results = {
        "lora": [made.result("lora", some, LEVEL)],
        "qlora": [made.result("qlora", HALF, LEVEL)],
        "dora": [made.result("dora", some, LEVEL)],
    }
    verdict = decided(results)
    answers = verdict.judgements["qlora"].answers
    assert answers is not None
    assert verdict.tests == 4
    assert answers.p < 0.05
    assert answers.p_adjusted == pytest.approx(4 * answers.p)
    assert answers.better is verdict.judgements["qlora"].better is None


def test_answers_and_loss_that_contradict_are_no_better_method() -> None:
    lora, qlora = made.result("lora", MORE, HIGHER), made.result("qlora", HALF, LEVEL)
    judged = decided({"lora": [lora], "qlora": [qlora]}).judgements["qlora"]
    assert judged.answers is not None
    assert judged.loss is not None
    assert (judged.answers.better, judged.loss.better, judged.better) == ("first", "other", None)


def test_answers_that_cannot_be_scored_are_left_out() -> None:
    lora, qlora = made.result("lora", HALF, LEVEL), made.result("qlora", HALF, HIGHER)
    verdict = decided({"lora": [lora], "qlora": [qlora]}, scored=False)
    assert verdict.judgements["qlora"].answers is None
    assert verdict.judgements["qlora"].better == "first"
    assert verdict.tests == 1


def test_losses_that_were_not_recorded_are_not_judged() -> None:
    lora = made.result("lora", HALF, LEVEL).model_copy(update={"losses": []})
    verdict = decided({"lora": [lora], "qlora": [made.result("qlora", HALF, LEVEL)]})
    assert verdict.judgements["qlora"].loss is None


def test_one_method_alone_is_compared_with_nothing() -> None:
    assert decided({"lora": [made.result("lora", HALF, LEVEL)]}).judgements == {}


# ---- about as much ------------------------------------------------------------------------------


def test_the_kept_spread_of_calls_is_the_one_that_was_measured() -> None:
    """Of the calls of one recipe in benchmarks/results/recipes.json."""
    found = json.loads((paths.BENCHMARKS / "recipes.json").read_text("utf-8"))
    spreads = [
        judging.spread([call["call_seconds"] for call in calls])
        for method in found["methods"].values()
        for calls in method["calls"].values()
    ]
    assert judging.kept_allowances()["time"] == round(max(spreads), 2)


@pytest.mark.parametrize(
    ("seconds", "amount"), [(109.0, "about"), (112.0, "more"), (91.0, "about"), (85.0, "less")]
)
def test_with_one_training_the_kept_spread_decides(seconds: float, amount: str) -> None:
    lora = made.result("lora", HALF, LEVEL)
    qlora = made.result("qlora", HALF, LEVEL, call_seconds=seconds)
    verdict = decided({"lora": [lora], "qlora": [qlora]})
    assert verdict.judgements["qlora"].time == amount
    assert verdict.time_allowance.measured == "before"


def test_with_several_seeds_their_own_spread_decides() -> None:
    """12 % apart by turns: 8 % more is nothing, though single calls elsewhere lie nearer."""
    lora = [made.result("lora", HALF, LEVEL, call_seconds=each) for each in (100.0, 112.0)]
    qlora = [made.result("qlora", HALF, LEVEL, call_seconds=each) for each in (114.0, 115.0)]
    verdict = decided({"lora": lora, "qlora": qlora})
    assert verdict.time_allowance.measured == "here"
    assert verdict.time_allowance.share == pytest.approx(0.12)
    assert verdict.judgements["qlora"].time == "about"
    assert verdict.judgements["qlora"].time_ratio == pytest.approx(114.5 / 106, abs=1e-3)


def test_memory_of_several_seeds_has_its_own_spread() -> None:
    lora = [made.result("lora", HALF, LEVEL, tensors=each) for each in (10**9, 1_010_000_000)]
    qlora = [made.result("qlora", HALF, LEVEL, tensors=each) for each in (9 * 10**8, 9 * 10**8)]
    verdict = decided({"lora": lora, "qlora": qlora})
    assert verdict.memory_allowance.share == pytest.approx(0.01)
    assert verdict.judgements["qlora"].memory == "less"


def test_memory_that_was_not_measured_alike_is_not_compared() -> None:
    card = MemoryTrace(measure="npu_smi", seconds=[1.0], bytes_used=[10])
    one = {"lora": [made.result("lora", HALF, LEVEL)], "qlora": [made.result("qlora", HALF, LEVEL)]}
    trainings = {"lora": make_training(peaks={}), "qlora": make_training(peaks={}, memory=card)}
    judged = decided(one, trainings).judgements["qlora"]
    assert judged.memory is judged.memory_ratio is None


def test_an_evaluation_that_takes_more_than_training_is_the_peak() -> None:
    one = {
        "lora": [made.result("lora", HALF, LEVEL, tensors=10**9)],
        "qlora": [made.result("qlora", HALF, LEVEL, tensors=None)],
    }
    trainings = {
        "lora": make_training(),
        "qlora": make_training(peaks=Peaks(training=10**8, evaluation=8 * 10**9)),
    }
    assert decided(one, trainings).judgements["qlora"].memory_ratio == pytest.approx(8.0)


def test_a_file_that_does_not_say_how_far_calls_lie_apart_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "CONFIGS", tmp_path)
    (tmp_path / "tutorial.yaml").write_text("methods: [lora]\nrepeats: {time: often}\n")
    with pytest.raises(TutorialError, match=r"must hold 'repeats: {time: 0\.1"):
        judging.kept_allowances()


# ---- planned ------------------------------------------------------------------------------------


def test_what_is_planned_for_the_largest_model_is_read_from_its_file() -> None:
    kept = json.loads(planner.ARTICLE_PLANS.read_text("utf-8"))["plans"]
    short, long = judging.planned("SmolLM2-135M-Instruct", ["lora", "qlora", "dora"])
    assert (short.model, short.length, long.length) == ("Qwen2-7B", 512, 2048)
    assert short.peak_bytes == {
        name: kept[f"Qwen2-7B {name} 512"]["training"]["peak_bytes"] for name in ("lora", "qlora")
    }


def test_nothing_is_planned_for_the_model_that_was_run_or_without_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert judging.planned("Qwen2-7B", ["lora", "qlora"]) == []
    assert judging.planned("SmolLM2-135M-Instruct", ["lora", "mine"]) == []
    monkeypatch.setattr(planner, "ARTICLE_PLANS", tmp_path / "none.json")
    assert judging.planned("SmolLM2-135M-Instruct", ["lora", "qlora"]) == []
