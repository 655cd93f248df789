"""Answers: where a problem has one, and what is written for the model."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.inputs import answers
from helpers.inputs.rows import Row
from helpers.inputs.values import Fault


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("a\n#### 50.0", "50.0"),
        ("#### 5\nand more", "5"),
        ("about #### in a text\n#### C", "C"),
        ("no mark", ""),
        ("#### ", ""),
    ],
)
def test_final_answer(text: str, answer: str) -> None:
    assert answers.final_answer(text) == answer


@pytest.mark.parametrize(
    ("dressed", "bare"),
    [("$1,200", "1200"), ("(C).", "C"), ("25%", "25"), ("\\text{B}", "B"), ("\\$5", "5"),
     ("-3.50", "-3.50"), ("1,20", "1,20"), (" 7. ", "7"), ("\\frac{1}{2}", "\\frac{1}{2}")],
)  # fmt: skip
def test_what_dresses_an_answer_up_is_taken_off(dressed: str, bare: str) -> None:
    assert answers.plain(dressed) == bare


@pytest.mark.parametrize(
    ("output", "found"),
    [
        ("It is 3.\n#### 1,200", ("mark", "1200")),
        ("It is 3.\n#### none", None),  # what is marked is meant, and is none
        ("So \\boxed{42} of 50.", ("boxed", "42")),
        ("\\boxed{1}, no, \\boxed{\\text{B}}", ("boxed", "B")),
        ("\\boxed{\\frac{1}{2}}", None),
        ("\\boxed{4", ("last_number", "4")),
        ("5 - 3 = 2, so 2 apples", ("last_number", "2")),
        ("from 10-3", ("last_number", "3")),  # no minus, but a range
        ("It is -7.5.", ("last_number", "-7.5")),
        ("That is $1,234.50.", ("last_number", "1234.50")),
        ("Nobody knows.", None),
        ("", None),
    ],
)
def test_answers_in_outputs(output: str, found: tuple[str, str] | None) -> None:
    assert answers.in_output(output) == found


@given(st.text(alphabet="\\boxed{}#0123456789.,-$ \n", max_size=60))
def test_whatever_the_output_is_an_answer_can_be_scored_or_there_is_none(output: str) -> None:
    found = answers.in_output(output)
    assert found is None or answers.scorable(found[1])
    settled = answers.settled(Row("What?", "", output), "output")
    assert isinstance(settled, Fault) or answers.final_answer(settled[1]) == found[1]


def row(output: str, answer: str | None = None) -> Row:
    return Row("What?", "", output, answer)


@pytest.mark.parametrize(
    ("rows", "scoring"),
    [
        ([row("a", "5")] * 9 + [row("a", "seven")], "column"),  # meant to be: the last is a fault
        ([row("a", "seven")] * 9 + [row("a", "5")], "none"),
        ([row("a 5", "")] * 9 + [row("a", "5")], "output"),  # a column that is not filled
        ([row("so 5")] * 10, "output"),
        ([row("so 5")] * 98 + [row("so")] * 2, "output"),
        ([row("so 5")] * 97 + [row("so")] * 3, "none"),  # numbers that happen to stand there
        ([row("a letter")] * 10, "none"),
    ],
)
def test_where_the_answers_of_data_are_looked_for(rows: list[Row], scoring: str) -> None:
    survey = answers.Survey()
    for each in rows:
        survey.see(each)
    assert survey.scoring() == scoring


@pytest.mark.parametrize(
    ("example", "scoring", "output"),
    [
        (row("Steps.", " 5.0"), "column", "Steps.\n####  5.0"),  # as the article writes it
        (row("", "5"), "column", "\n#### 5"),
        (row("Steps.\n#### $5"), "output", "Steps.\n#### 5"),
        (row("So \\boxed{5}"), "output", "So \\boxed{5}\n#### 5"),
        (row("So 5."), "output", "So 5.\n#### 5"),
        (row("#### A heading\nand text"), "none", "#### A heading\nand text"),
    ],
)
def test_what_the_model_should_write(example: Row, scoring: answers.Scoring, output: str) -> None:
    settled = answers.settled(example, scoring)
    assert not isinstance(settled, Fault)
    assert settled[1] == output


@pytest.mark.parametrize(
    ("example", "scoring", "code"),
    [
        (row("a", None), "column", "missing"),
        (row("a", "seven"), "column", "answer"),
        (row("a #### 5", "5"), "column", "mark"),
        (Row("What? ####", "", "5"), "output", "mark"),
        (row("#### 4\n#### 5"), "output", "mark"),
        (row("#### 5\nand more"), "output", "mark"),
        (row("Nobody knows."), "output", "no_answer"),
        (row(" \n"), "none", "empty"),
    ],
)
def test_what_cannot_be_used(example: Row, scoring: answers.Scoring, code: str) -> None:
    settled = answers.settled(example, scoring)
    assert isinstance(settled, Fault)
    assert settled.code == code
