"""The test over seeds and problems: what it is in cases that are known, and how often it errs."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy import stats

from benchmarks import bench_verdict
from helpers.records.schema import ProblemLoss, SeedResult
from helpers.results import study

DRAW = np.random.default_rng(1)


def test_with_one_training_each_it_is_the_paired_t_test() -> None:
    first, other = DRAW.random((1, 30)), DRAW.random((1, 30))
    found, known = study.between(first, other), stats.ttest_rel(other[0], first[0])
    assert float(found.p()) == pytest.approx(known.pvalue)
    interval = known.confidence_interval()
    assert [float(end) for end in found.interval()] == pytest.approx([interval.low, interval.high])


def test_where_problems_tell_nothing_of_the_methods_it_is_the_t_test_of_the_seeds() -> None:
    """What varies from problem to problem is less here than single answers would make it."""
    problems = DRAW.random(40)
    first = problems + np.array([[0.1], [0.3], [0.2]])
    other = problems + np.array([[0.5], [0.3], [0.6]])
    known = stats.ttest_ind(other.mean(axis=1), first.mean(axis=1))
    assert float(study.between(first, other).p()) == pytest.approx(known.pvalue)


def test_seeds_never_vary_less_than_single_answers_do() -> None:
    """Six trainings that happen to answer the same number, each of them other problems."""
    first = np.array([np.roll([1.0] * 20 + [0.0] * 20, shift) for shift in (0, 7, 13)])
    other = np.array([np.roll([1.0] * 22 + [0.0] * 18, shift) for shift in (3, 9, 29)])
    assert first.mean(axis=1).var() == other.mean(axis=1).var() == 0
    assert float(study.between(first, other).p()) > 0.3


def test_many_studies_are_judged_as_each_alone() -> None:
    first, other = DRAW.random((7, 3, 20)), DRAW.random((7, 3, 20))
    together = study.between(first, other).p()
    alone = [float(study.between(a, b).p()) for a, b in zip(first, other, strict=True)]
    assert together.tolist() == pytest.approx(alone)


def test_where_nothing_varies_the_problems_alone_speak() -> None:
    none, all_right = np.zeros((2, 6)), np.ones((2, 6))
    assert float(study.between(none, none).p()) == 1
    assert float(study.between(none, all_right).p()) == 0.5**5


@pytest.mark.parametrize("other", [np.zeros((2, 5)), np.zeros((3, 4)), np.zeros((2, 1))])
def test_what_is_not_paired_is_refused(other: study.Array) -> None:
    first = np.zeros((2, 1 if other.shape[-1] == 1 else 4))
    with pytest.raises(ValueError, match="problem by problem"):
        study.between(first, other)


def test_a_difference_as_large_as_could_be_missed_is_found_in_four_of_five() -> None:
    first = DRAW.standard_normal((4000, 3, 4))
    other = DRAW.standard_normal((4000, 3, 4))
    known = study.Estimate(np.array(0.0), np.array((2 / 12) ** 0.5), np.array(4.0), 4)
    shift = float(known.missed(0.05))
    # The seeds' means, tested as they are: the test itself is more careful.
    p = stats.ttest_ind(other.mean(axis=2) + shift, first.mean(axis=2), axis=1).pvalue
    assert (p < 0.05).mean() == pytest.approx(study.POWER, abs=0.02)
    assert float(known.missed(0.01)) > shift


def test_contributions_add_up_to_the_loss_per_token() -> None:
    nats, tokens = DRAW.random((2, 10)) * 20, DRAW.integers(5, 50, 10).astype(float)
    found = study.contributions(nats, tokens)
    assert found.mean(axis=-1) == pytest.approx(nats.sum(axis=-1) / tokens.sum())


def test_a_longer_problem_at_the_same_loss_a_token_adds_no_spread() -> None:
    tokens = np.array([10.0, 20.0, 90.0])
    assert study.contributions(0.5 * tokens[None], tokens).tolist() == [pytest.approx([0.5] * 3)]


def test_the_interval_of_two_shares() -> None:
    # By hand from Bonett and Price (2012): 10 and 1 of 50, so 11/52 and 2/52.
    found = study.paired_shares(10, 1, 50)
    assert float(found.difference) == pytest.approx(-0.18)
    assert float(found.error) == pytest.approx(((13 / 52 - (9 / 52) ** 2) / 52) ** 0.5)


# ---- how often it errs --------------------------------------------------------------------------

STUDIES = 400


@pytest.fixture(scope="module")
def equal() -> list[bench_verdict.Studies]:
    """Studies of methods that are equal, with the spread that was seen: 2, 3 and 5 seeds."""
    seen, draw = bench_verdict.as_seen(), np.random.default_rng(5)
    return [bench_verdict.simulate(seen, STUDIES, seeds, 200, draw) for seeds in (2, 3, 5)]


def test_equal_methods_are_seldom_told_apart(equal: list[bench_verdict.Studies]) -> None:
    for studies in equal:
        claimed = bench_verdict.claims(studies)["either"].mean()
        # Three standard errors above 5 %.
        assert claimed <= 0.05 + 3 * (0.05 * 0.95 / STUDIES) ** 0.5


def test_the_first_seed_alone_would_tell_them_apart_far_too_often(
    equal: list[bench_verdict.Studies],
) -> None:
    for studies in equal:
        assert bench_verdict.first_seed_claims(studies).mean() > 0.15


def test_what_is_simulated_is_what_was_seen() -> None:
    seen, draw = bench_verdict.as_seen(), np.random.default_rng(3)
    assert [bench_verdict.disagreements(*pair) for pair in bench_verdict.SEEN_PAIRS] == [11, 8, 6]
    right, _ = bench_verdict.simulate(seen, 3000, 3, 50, draw).right
    counts = right.sum(axis=2)
    assert counts.mean() == pytest.approx(107 / 6, rel=0.05)
    assert counts.var(axis=1, ddof=1).mean() == pytest.approx(20 / 3, rel=0.1)
    assert (right[:, 0] != right[:, 1]).mean() == pytest.approx(25 / 150, rel=0.1)


def test_the_later_run_is_simulated_as_it_was() -> None:
    """The trainings that the READMEs show as their second table."""
    seen, draw = bench_verdict.read(), np.random.default_rng(3)
    found = bench_verdict.simulate(bench_verdict.as_later(seen), 3000, 3, seen.n, draw)
    right = found.right[0]
    assert right.sum(axis=2).mean() == pytest.approx(np.mean(seen.counts), rel=0.05)
    disagree = (right[:, 0] != right[:, 1]).sum(axis=1).mean()
    assert disagree == pytest.approx(np.mean(seen.disagree), rel=0.05)
    spread = (found.nats[0] / found.tokens).mean(axis=2).std(axis=1, ddof=1)
    expected = seen.loss_seeds**2 + seen.loss_single**2 / bench_verdict.CURVE
    assert (spread**2).mean() == pytest.approx(expected, rel=0.1)


def test_what_was_seen_is_taken_apart_into_problems_seeds_and_the_rest() -> None:
    """Of losses that are drawn, the analysis of variance gives what they were drawn with."""
    draw = np.random.default_rng(1)
    shape = (40, 60)
    results = []
    for method in ("lora", "qlora"):
        loss = (
            5 + 0.3 * draw.standard_normal((1, 60)) + 0.2 * draw.standard_normal((40, 1))
            + 0.5 * draw.standard_normal(shape)
        )  # fmt: skip
        results += [
            SeedResult(
                method=method, seed=seed, held_out_loss=sum(each) / 60, correct=1, n=3,
                right=[True, False, seed % 2 == 0], call_seconds=1,
                losses=[ProblemLoss(nats=10 * one, tokens=10) for one in each],
            )
            for seed, each in enumerate(loss.tolist())
        ]  # fmt: skip
    seen = bench_verdict.seen_in(results, "here")
    assert seen.loss_difficulty == pytest.approx(0.3, rel=0.2)
    assert seen.loss_seeds == pytest.approx(0.2, rel=0.3)
    assert seen.loss_single == pytest.approx(0.5, rel=0.05)
    assert set(seen.disagree[0]) == {0, 1}
    with pytest.raises(ValueError, match="SEEDS=3"):
        bench_verdict.seen_in(results[:1], "here")


def test_the_figures_that_are_kept_hold_what_is_said_of_them() -> None:
    found = json.loads(bench_verdict.FILE.read_text("utf-8"))
    assert found["studies"] >= 2000
    assert {row["seeds"] for row in found["equal"]} == {2, 3, 5}
    for row in found["equal"]:
        for what in ("exact_match", "loss", "either"):
            assert row[what]["share"] <= 0.05
            assert row[what]["high"] < 0.065
        assert row["first_seed_alone"]["share"] > 0.05
