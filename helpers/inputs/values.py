"""One value of a row as text, and what keeps a row from being trained on or scored."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any, Literal

from pydantic import BaseModel

from helpers.ground.words import tr

# A longer text than this is no school problem, and more than cutoff_len (2048) tokens can hold:
# LLaMA-Factory would cut its answer off without a word.
MOST_CHARACTERS = 8_000

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")  # all but tab and line ends

Code = Literal[
    "missing", "not_utf8", "control", "mark", "long", "empty", "answer", "no_answer", "kind",
    "turns", "call", "tools", "called",
]  # fmt: skip


class Fault(BaseModel):
    """Why a row cannot be trained on or scored: a code, the column, and what stands there."""

    code: Code
    column: str = ""
    detail: str = ""

    def words(self) -> str:
        """Return it in words."""
        return {
            "missing": tr("no {column}", column=self.column),
            "not_utf8": tr("{column} is not UTF-8 text", column=self.column),
            "control": tr(
                "control character {detail} in {column}", detail=self.detail, column=self.column
            ),
            "mark": tr(
                "'####' in {column}, where it would be taken for the mark of an answer",
                column=self.column,
            ),
            "long": tr(
                "{detail} characters, over {most}", detail=self.detail, most=MOST_CHARACTERS
            ),
            "empty": tr("empty {column}", column=self.column),
            "answer": tr("answer {detail} is neither a number nor a letter", detail=self.detail),
            "no_answer": tr("{column} holds no answer that can be scored", column=self.column),
            "kind": tr(
                "{column} holds {detail}, where text belongs",
                column=self.column,
                detail=_kind_named(self.detail),
            ),
            "turns": tr(
                "turn {detail} of {column} is not whose turn it is: user and assistant take "
                "turns, after one system text at most, and the assistant ends",
                column=self.column,
                detail=self.detail,
            ),
            "call": tr(
                "turn {detail} of {column} is no function call, which is JSON with a name and "
                "arguments",
                column=self.column,
                detail=self.detail,
            ),
            "tools": tr(
                "{column} holds no JSON list of tools with their names", column=self.column
            ),
            "called": tr(
                "{column} end with a function call, which no answer to be scored can follow",
                column=self.column,
            ),
        }[self.code]


def _kind_named(code: str) -> str:
    return {
        "list": tr("a list"),
        "dict": tr("an object"),
        "bool": tr("true or false"),
        "int": tr("a number"),
        "float": tr("a number"),
        "Decimal": tr("a number"),
        "text": tr("text that is no list of turns"),
    }.get(code, code)


def _number(value: float | Decimal) -> str:
    """Return a number as text that is a plain number, if it is finite: 1e3 is "1000.0"."""
    exact = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    return f"{exact:f}" if exact.is_finite() and abs(exact.adjusted()) < 30 else str(value)


def text_of(value: Any, column: str, numbers: bool = True) -> str | Fault | None:
    """Return a value as text, None where there is none, or what is wrong with it."""
    if value is None:
        return None
    if isinstance(value, bytes):
        return Fault(code="not_utf8", column=column)
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool) and numbers:
        return str(value) if isinstance(value, int) else _number(value)
    if not isinstance(value, str):
        return Fault(code="kind", column=column, detail=type(value).__name__)
    control = _CONTROL.search(value)
    if control:
        return Fault(code="control", column=column, detail=repr(control[0]))
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:  # half of a pair, as "\ud83d" in JSON
            return Fault(code="not_utf8", column=column)
    return value
