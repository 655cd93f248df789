"""Rows of a JSON list or of JSON Lines, one at a time: a list of any length takes little memory."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Literal

from helpers.ground import paths
from helpers.ground.errors import TutorialError
from helpers.ground.words import tr

_CHUNK = 1 << 20  # characters
_LONGEST = 1 << 26  # characters of one row; a longer one is a bracket or a quote not closed
_SPACE = re.compile(r"[ \t\r\n]*")
# The first key of an object that holds a list or an object: rows that are nested in something.
_KEY = r'"((?:[^"\\]|\\.)*)"\s*:\s*'
_PLAIN = r'(?:"(?:[^"\\]|\\.)*"|[\w.+-]+)\s*,\s*'
_NESTED = re.compile(rf"[ \t\r\n]*\{{\s*(?:{_KEY}{_PLAIN})*{_KEY}[\[{{]")

Row = dict[str, Any]


def kind(file: Path) -> Literal["json", "jsonl"]:
    """Return whether a file holds a list of rows or a row on each line."""
    with file.open(encoding="utf-8-sig", errors="replace") as opened:
        head = opened.read(_CHUNK)
    return "json" if head.lstrip().startswith("[") else "jsonl"


def _object(value: Any, file: Path, number: int) -> Row:
    if isinstance(value, dict):
        return value
    raise TutorialError(
        tr(
            "Row {row} of {file} holds {value}, where an object with the columns' names is "
            'expected, as in {{"instruction": "...", "output": "..."}}.',
            row=number,
            file=paths.shown(file),
            value=json.dumps(value)[:40],
        )
    )


def of_lines(file: Path) -> Iterator[tuple[int, Row]]:
    """Give the object of each line, numbered by its line; blank lines are passed over.

    Raises:
        TutorialError: a line holds no object.
    """
    with file.open(encoding="utf-8-sig") as opened:
        found, first = 0, None
        for number, line in enumerate(opened, 1):
            if line.isspace():
                continue
            try:
                value = json.loads(line)
            except (ValueError, RecursionError) as error:
                nested = _nested(opened, line) if not found else ""
                raise TutorialError(
                    _nesting(file, nested) if nested else _broken(file, number, number, error)
                ) from error
            found, first = found + 1, value if not found else first
            yield number, _object(value, file, number)
        if found == 1 and (nested := _list_in(first)):
            raise TutorialError(_nesting(file, nested))


def _nested(opened: IO[str], line: str) -> str:
    """Return the key under which the rows of a file that is one object stand, or ""."""
    key = _NESTED.match(line + opened.read(_CHUNK))
    return key[2] if key else ""


def _list_in(row: Any) -> str:
    """Return the key under which the only object of a file holds rows or a column, or "".

    Rows stand in a list, or each under a key of its own; a column stands there where every key
    holds one.
    """
    if {"messages", "conversations"} & row.keys():
        return ""
    nothing_else = bool(row) and all(isinstance(value, list | dict) for value in row.values())
    rows = (k for k, v in row.items() if isinstance(v, list) and v and isinstance(v[0], dict))
    return next(rows, next(iter(row)) if nothing_else else "")


def _nesting(file: Path, key: str) -> str:
    return tr(
        "{file} holds one object, with the rows nested under {key!r}: DATA= takes the list itself, "
        "[{{...}}, {{...}}], or one object on each line.",
        file=paths.shown(file),
        key=key[:40],
    )


def _broken(file: Path, number: int, line: int, error: Exception) -> str:
    reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error).split(";")[0]
    return tr(
        "Row {row} of {file} (line {line}) is no JSON ({reason}): DATA= takes a list of objects, "
        "[{{...}}, {{...}}], or one whole object on each line.",
        row=number,
        file=paths.shown(file),
        line=line,
        reason=reason,
    )


class _Text:
    """The text of a file from some place on; what was read is let go."""

    def __init__(self, opened: IO[str]) -> None:
        self._opened = opened
        self.buffer, self.place, self.line, self.whole = "", 0, 1, False

    def more(self) -> None:
        """Read on, as much again as there is: a long row is not parsed too often."""
        rest = self.buffer[self.place :]
        read = self._opened.read(max(_CHUNK, len(rest)))
        self.buffer, self.place, self.whole = rest + read, 0, not read

    def go(self, place: int) -> None:
        """Go on to a place in the buffer."""
        self.line += self.buffer.count("\n", self.place, place)
        self.place = place

    def mark(self) -> str:
        """Return the next character that is no white space; "" at the end."""
        while True:
            space = _SPACE.match(self.buffer, self.place)
            self.go(space.end() if space else self.place)
            if self.place < len(self.buffer) or self.whole:
                return self.buffer[self.place : self.place + 1]
            self.more()


def of_list(file: Path) -> Iterator[tuple[int, Row]]:
    """Give the objects of a list, numbered from 1.

    Raises:
        TutorialError: it is no list of objects, or it ends too early.
    """
    with file.open(encoding="utf-8-sig") as opened:
        text, number = _Text(opened), 0
        text.mark()
        text.go(text.place + 1)  # "[", or it would be no list
        if text.mark() == "]":
            text.go(text.place + 1)
        else:
            while True:
                number += 1
                text.mark()
                yield number, _object(_next(text, file, number), file, number)
                mark = text.mark()
                text.go(text.place + 1)
                if mark == "]":
                    break
                if mark != ",":
                    missing = json.JSONDecodeError("a , or ] is missing after it", "", 0)
                    raise TutorialError(_broken(file, number, text.line, missing))
        if text.mark():
            more = json.JSONDecodeError("text follows the end of the list", "", 0)
            raise TutorialError(_broken(file, number + 1, text.line, more))


def _next(text: _Text, file: Path, number: int) -> Any:
    """Return the value that begins here."""
    decoder = json.JSONDecoder()
    while True:
        try:
            value, end = decoder.raw_decode(text.buffer, text.place)
        except json.JSONDecodeError as error:
            # What breaks off does so at the end of the buffer, or within a string.
            cut = error.pos > len(text.buffer) - 16 or error.msg.startswith("Unterminated")
            if cut and not text.whole and len(text.buffer) - text.place < _LONGEST:
                text.more()
                continue
            line = text.line + text.buffer.count("\n", text.place, error.pos)
            raise TutorialError(_broken(file, number, line, error)) from error
        except (ValueError, RecursionError) as error:
            raise TutorialError(_broken(file, number, text.line, error)) from error
        text.go(end)
        return value
