"""Text on its way to a reader: whatever it says, it is text, and nothing in it is obeyed.

One function for each place that would otherwise obey something: terminals (control characters),
Markdown and the HTML made of it (markup, MathJax), YAML comments (line ends). Figures find no
formula in a text, because drawing.py tells matplotlib to look for none.
"""

from __future__ import annotations

import re

# C0 and C1 without tab and line feed, what turns the direction of writing round, and halves of
# characters (a file's name that is not UTF-8), which cannot be printed at all.
_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)
_MARKUP = re.compile(r"([`*_{}\[\]#|~!])")
# A page's MathJax looks for formulas after Markdown is done, and never across an element's end.
_FORMULA = {"$": "<span>\\$</span>", "\\": "<span>&#92;</span>"}


def lines(text: object) -> str:
    """Return text without control characters; its lines and tabs stay."""
    unix = str(text).replace("\r\n", "\n")
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", unix)


def line(text: object) -> str:
    """Return text without control characters, on one line."""
    return " ".join(lines(text).split())


def markdown(text: object) -> str:
    """Return text, on one line, in which Markdown, HTML and MathJax find nothing to mark up."""
    safe = line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    safe = re.sub(r"[$\\]", lambda found: _FORMULA[found[0]], safe)
    # What would be made a link of its own accord: an address, a mail.
    safe = safe.replace("://", ":&#47;/").replace("www.", "www&#46;").replace("@", "&#64;")
    return _MARKUP.sub(_escaped, safe)


def _escaped(found: re.Match[str]) -> str:
    """Return a character behind a backslash, unless it is the "#" of an entity made above."""
    entity = found[0] == "#" and found.string[found.start() - 1 : found.start()] == "&"
    return found[0] if entity else f"\\{found[0]}"
