"""Scoring: exact match on what follows "####", numbers as numbers and letters as letters."""

from __future__ import annotations

import json
import re
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from helpers.inputs.answers import final_answer

_NUMBER = re.compile(r"-?(?:\d[\d,]*\.?\d*|\.\d+)")
_DECORATION = " \t*$€£¥%()[]"


class Answer(BaseModel):
    """One held-out problem as one model answered it."""

    problem: str
    expected: str
    given: str  # what follows "####", or "" where the model wrote none
    correct: bool  # exact match on what follows "####"
    correct_without_mark: bool  # the same, but without "####" the last number or letter counts
    text: str  # the whole answer


def canonical(answer: str) -> Decimal | str:
    """Return an answer in the form in which two are compared.

    "50.0", "$50" and " 50 " are the same number; "C", "(C)" and "C." the same letter. Anything
    else is itself, so that it equals nothing else.
    """
    text = answer.strip(_DECORATION).rstrip(".").strip(_DECORATION)
    try:
        number = Decimal(text.replace(",", ""))
    except InvalidOperation:
        return text.upper() if len(text) == 1 else answer.strip()
    # Two equal ones are equal as they are; `normalize` would round, and fails for huge ones.
    return number if number.is_finite() else answer.strip()


def same(expected: str, given: str) -> bool:
    """Return whether `given` is the expected number or letter."""
    return bool(given.strip()) and canonical(expected) == canonical(given)


def _without_mark(text: str, expected: str) -> str:
    marked = final_answer(text)
    if marked:
        return marked
    found = re.findall(r"\b[A-E]\b", text) if expected.isalpha() else _NUMBER.findall(text)
    return found[-1] if found else ""


def score(problem: str, label: str, text: str, scored: bool = True) -> Answer:
    """Score one answer.

    Args:
        problem: the problem as it was put to the model.
        label: the worked solution of the data set, with its "#### answer" line.
        text: what the model wrote.
        scored: whether the data have answers that can be scored (DataFacts.scored); without,
            nothing is expected, and the text is all there is.
    """
    if not scored:
        return Answer(
            problem=problem, expected="", given="", correct=False, correct_without_mark=False,
            text=text,
        )  # fmt: skip
    expected, given = final_answer(label), final_answer(text)
    return Answer(
        problem=problem,
        expected=expected,
        given=given,
        correct=same(expected, given),
        correct_without_mark=same(expected, _without_mark(text, expected)),
        text=text,
    )


def read_predictions(
    folder: Path, problems: list[dict[str, Any]], scored: bool = True
) -> list[Answer]:
    """Return the scored answers that LLaMA-Factory's predict left in `folder`.

    Args:
        folder: predict's output_dir, with generated_predictions.jsonl.
        problems: the held-out examples in the order in which they were put (Alpaca form).
        scored: whether the data have answers that can be scored (DataFacts.scored).

    Raises:
        ValueError: the file does not hold one line a problem.
    """
    lines = (folder / "generated_predictions.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines if line.strip()]
    if len(rows) != len(problems):
        raise ValueError(f"{len(rows)} answers for {len(problems)} problems in {folder}")
    return [
        score(
            "\n".join(part for part in (problem["instruction"], problem["input"]) if part),
            row["label"],
            row["predict"],
            scored,
        )
        for problem, row in zip(problems, rows, strict=True)
    ]
