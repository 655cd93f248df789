"""Two who answered the same problems."""

from __future__ import annotations

import pytest
from conftest import make_answers

from helpers.results import pairs

FIRST = make_answers([True] * 10 + [False] * 2)
SECOND = make_answers([False] * 8 + [True] * 3 + [False])


def test_pairs_are_counted_and_tested() -> None:
    pair = pairs.against(FIRST, {"qlora": SECOND})["qlora"]
    assert (pair.both, pair.only_first, pair.only_other, pair.neither) == (2, 8, 1, 1)
    assert (pair.n, pair.first_right, pair.other_right) == (12, 10, 3)
    assert pair.p == round(20 / 512, 4)  # 2 * (1 + 9) / 2^9


def test_who_was_asked_fewer_is_compared_on_those() -> None:
    asked_fewer = make_answers([True, False, True])
    assert pairs.paired_counts(FIRST, asked_fewer) == (2, 1, 0, 0)
    assert pairs.paired_counts(asked_fewer, FIRST) == (2, 0, 1, 0)
    assert len(pairs.shared(FIRST, asked_fewer)) == 3


def test_other_problems_cannot_be_paired() -> None:
    other = make_answers([True, True])
    other.items[0].problem = "another"
    with pytest.raises(ValueError, match="same problems"):
        pairs.against(make_answers([True, True]), {"qlora": other})


def test_examples_hold_what_each_wrote() -> None:
    [first, second] = pairs.examples({"lora": FIRST, "qlora": SECOND}, 2)
    assert (first.problem, second.expected) == ("problem 0", "7.0")
    assert first.answers == {"lora": ("\n#### 7", True), "qlora": ("\n#### 8", False)}
