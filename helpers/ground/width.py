"""How much room text takes: a Chinese character is as wide as two Latin ones, and ends no word."""
# ruff: noqa: RUF001

from __future__ import annotations

import re
import textwrap
import unicodedata

_WIDE = "WF"
# A word, or one wide character with the signs that may not begin a line.
_UNIT = re.compile(r"[\u2e80-\uffef][，。、：；！？）》」』”’]*\s*|[^\s\u2e80-\uffef]+\s*|\s+")


def columns(text: str) -> int:
    """Return how many columns of a terminal a line takes."""
    return sum(1 + (unicodedata.east_asian_width(sign) in _WIDE) for sign in text)


def padded(text: str, width: int) -> str:
    """Return text with spaces behind it, so that it takes `width` columns at least."""
    return text + " " * max(0, width - columns(text))


def wrapped(text: str, width: int) -> str:
    """Return text broken into lines of at most `width` columns, in any language."""
    if columns(text) == len(text):
        return textwrap.fill(text, width)
    lines = [""]
    for unit in _UNIT.findall(" ".join(text.split())):
        if lines[-1] and columns(lines[-1]) + columns(unit.rstrip()) > width:
            lines.append("")
        lines[-1] += unit
    return "\n".join(line.strip() for line in lines)
