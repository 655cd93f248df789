"""Scoring: what counts as the same answer, and what does not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.records import scoring


@pytest.mark.parametrize(
    ("expected", "given_answer"),
    [
        ("50.0", "50"),
        ("50.0", "$50"),
        ("1200.0", "1,200"),
        ("0.5", ".5"),
        ("50.0", "50."),
        ("-3.0", "-3"),
        ("25.0", "25%"),
        ("C", "c"),
        ("C", "(C)"),
        ("C", "C."),
        ("100.0", "1e2"),
    ],
)
def test_the_same_answer(expected: str, given_answer: str) -> None:
    assert scoring.same(expected, given_answer)


@pytest.mark.parametrize(
    ("expected", "given_answer"),
    [
        ("50.0", "51"),
        ("50.0", "5"),
        ("50.0", ""),
        ("50.0", "50 apples"),
        ("C", "D"),
        ("C", "3"),
        ("3.0", "C"),
        ("", ""),
        ("50.0", "nan"),
        ("C", "C) 12"),
    ],
)
def test_another_answer(expected: str, given_answer: str) -> None:
    assert not scoring.same(expected, given_answer)


@pytest.mark.parametrize("huge", ["1e9999999", "-1E+999999999", "1e-9999999", "9" * 5000, "sNaN"])
def test_no_number_ends_the_scoring(huge: str) -> None:
    answer = scoring.score("p", "so\n#### 7.0", f"so\n#### {huge}")
    assert not answer.correct
    assert answer.given == huge
    assert scoring.same(huge, huge)


def test_long_numbers_are_compared_to_the_last_digit() -> None:
    assert not scoring.same("1" * 40, "1" * 39 + "2")


def test_what_is_not_scored_is_neither_right_nor_wrong(tmp_path: Path) -> None:
    label = "#### A heading\n5 apples"
    line = json.dumps({"prompt": "", "label": label, "predict": label})
    (tmp_path / "generated_predictions.jsonl").write_text(line + "\n")
    problem = {"instruction": "Write", "input": "", "output": label}
    (answer,) = scoring.read_predictions(tmp_path, [problem], scored=False)
    assert (answer.expected, answer.given, answer.text) == ("", "", label)
    assert not answer.correct
    assert not answer.correct_without_mark


@given(st.integers(-(10**9), 10**9))
def test_numbers_are_compared_as_numbers(number: int) -> None:
    assert scoring.same(str(float(number)), f"{number:,}")
    assert not scoring.same(str(float(number)), str(number + 1))


@given(st.text())
def test_any_text_can_be_scored(text: str) -> None:
    answer = scoring.score("problem", "steps\n#### 7.0", text)
    assert answer.correct <= answer.correct_without_mark


def test_without_the_mark_the_last_number_or_letter_counts() -> None:
    number = scoring.score("p", "s\n#### 7.0", "First 3, then 4, so 7 apples.")
    letter = scoring.score("p", "s\n#### C", "It is B, no, C.")
    assert not number.correct
    assert number.correct_without_mark
    assert letter.correct_without_mark


def test_predictions_must_match_the_problems_in_number(tmp_path: Path) -> None:
    line = json.dumps({"prompt": "", "label": "s\n#### 7", "predict": "#### 7"})
    (tmp_path / "generated_predictions.jsonl").write_text(line + "\n")
    problem = {"instruction": "How many?", "input": "", "output": "s\n#### 7"}
    assert scoring.read_predictions(tmp_path, [problem])[0].correct
    with pytest.raises(ValueError, match="1 answers for 2 problems"):
        scoring.read_predictions(tmp_path, [problem, problem])
