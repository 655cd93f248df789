"""Answers that can be scored: where a problem has one, and how it is written for the model.

Numbers and letters are scored. An answer comes from the column `answer`; without it from what
follows "####" in the output, from its last `\\boxed{}`, or from its last number.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from typing import Any, Literal

from helpers.inputs.rows import Row
from helpers.inputs.values import Fault

MARK = "####"
NUMBER = re.compile(r"-?[0-9]{1,20}(\.[0-9]{1,20})?")
LETTER = re.compile(r"[A-Z]")
_LAST = re.compile(r"(?:(?<![\w)])-)?\d+(?:,\d{3})*(?:\.\d+)?")
_BOXED = re.compile(r"\\f?boxed\s*\{")
_DRESSED = re.compile(r"\\(?:text|mathrm|textbf|mathbf)\s*\{([^{}]*)\}")
_DECORATION = " \t*$€£¥%()[]"
# Data are scored where at least this share of the problems has an answer that can be.
LEAST_SCORABLE = 0.98

Way = Literal["column", "mark", "boxed", "last_number"]
Scoring = Literal["column", "output", "none"]  # where the answers of a data set are looked for


def final_answer(output: str) -> str:
    """Return what follows the last "####" of a text, its first line, or "" without one."""
    _, mark, rest = output.rpartition(MARK)
    lines = rest.strip().splitlines()
    return lines[0].strip() if mark and lines else ""


def plain(answer: str) -> str:
    """Return an answer without what dresses it up: "$1,200" is "1200", "(C)." is "C"."""
    text = _DRESSED.sub(r"\1", answer).replace("\\$", "$").replace("\\%", "%")
    text = text.strip(_DECORATION).rstrip(".").strip(_DECORATION)
    return re.sub(r"(?<=\d),(?=\d{3})", "", text)


def scorable(answer: str) -> bool:
    """Return whether an answer, dressed up or not, is a number or a letter."""
    if NUMBER.fullmatch(answer):  # most are, and it is quick
        return True
    text = plain(answer)
    return bool(NUMBER.fullmatch(text) or LETTER.fullmatch(text))


def _boxed(output: str) -> str:
    """Return what stands in the last `\\boxed{}` of a text, or ""."""
    starts = [found.end() for found in _BOXED.finditer(output)]
    if not starts:
        return ""
    depth = 1
    for at, letter in enumerate(output[starts[-1] :], starts[-1]):
        depth += {"{": 1, "}": -1}.get(letter, 0)
        if not depth:
            return output[starts[-1] : at]
    return ""


def in_output(output: str) -> tuple[Way, str] | None:
    """Return where in an output its answer stands, and the answer; None where there is none."""
    if MARK in output:
        answer = final_answer(output)
        return ("mark", plain(answer)) if scorable(answer) else None
    boxed = _boxed(output)
    if boxed:
        return ("boxed", plain(boxed)) if scorable(boxed) else None
    numbers = _LAST.findall(output)
    if numbers and scorable(numbers[-1]):
        return "last_number", plain(numbers[-1])
    return None


class Survey:
    """What the answers of a data set's problems are like, counted as they pass."""

    def __init__(self) -> None:
        self.problems = self.filled = self.scorable = self.found = 0
        self.with_tools = 0  # problems in which a tool is called or answers

    def see(self, row: Row) -> None:
        """Count one problem."""
        self.problems += 1
        self.with_tools += bool(row.of_tools)
        if row.answer is not None and row.answer.strip():
            self.filled += 1
            self.scorable += scorable(row.answer)
        else:
            self.found += not row.ends_in_call and in_output(row.output) is not None

    def scoring(self) -> Scoring:
        """Return where the answers are to be looked for.

        A column that is filled for half of the problems is meant to hold answers: if half of them
        can be scored they are all meant to be, and the others are faults. What is found in the
        outputs is only taken where nearly all have it: a number that happens to stand in a letter
        is no answer.
        """
        if self.filled * 2 >= self.problems and self.filled:
            return "column" if self.scorable * 2 >= self.problems else "none"
        return "output" if self.found >= LEAST_SCORABLE * (self.problems - self.filled) else "none"


def settled(row: Row, scoring: Scoring) -> tuple[Way | None, str] | Fault:
    """Return where a problem's answer comes from, and the output that the model should write.

    It ends with the answer after "####", if the data are scored; or why the problem cannot be
    used.
    """
    if scoring == "none":
        return (None, row.output) if row.output.strip() else Fault(code="empty", column="output")
    if row.ends_in_call:  # templates take nothing there but a call
        return Fault(code="called", column="messages")
    texts = {"instruction": row.instruction, "input": row.input}
    if scoring == "column":
        texts |= {"output": row.output, "answer": row.answer or ""}
    for column, text in texts.items():
        if MARK in text:
            return Fault(code="mark", column=column)
    if scoring == "column":
        if row.answer is None:
            return Fault(code="missing", column="answer")
        if not scorable(row.answer):
            detail = repr(row.answer.strip()[:20])
            return Fault(code="answer", column="answer", detail=detail)
        return "column", f"{row.output}\n{MARK} {row.answer}"
    found = in_output(row.output)
    if found is None:
        return Fault(code="no_answer", column="output")
    way, answer = found
    steps = row.output
    if way == "mark":
        steps, _, rest = row.output.rpartition(MARK)
        if MARK in steps or len(rest.strip().splitlines()) > 1:
            return Fault(code="mark", column="output")
        steps = steps.rstrip()
    return way, f"{steps}\n{MARK} {answer}"


def kinds(examples: Iterable[dict[str, Any]]) -> Counter[str]:
    """Count the examples whose answer is a number and those whose answer is a letter."""
    return Counter(
        "letter" if LETTER.fullmatch(plain(final_answer(row["output"]))) else "number"
        for row in examples
    )


def contradictions(examples: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the examples whose worked steps end in another number than their answer.

    Only numeric answers are looked at; the last number of the steps counts as what they end in.
    """
    found = []
    for row in examples:
        steps_text, _, _ = row["output"].rpartition(MARK)
        answer = plain(final_answer(row["output"]))
        numbers = re.findall(r"-?\d[\d,]*\.?\d*", steps_text)
        if not numbers or not NUMBER.fullmatch(answer):
            continue
        if float(numbers[-1].replace(",", "")) != float(answer):
            found.append(row)
    return found
