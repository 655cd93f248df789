"""Tables and texts as notebooks show them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from IPython.display import Markdown


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> Markdown:
    """Return rows as a table that notebooks and GitHub render."""
    lines = [list(header), ["---"] * len(header), *rows]
    return Markdown("\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines))


def code(text: str, language: str = "") -> Markdown:
    """Return text as a block of code."""
    return Markdown(f"```{language}\n{text.rstrip()}\n```")


def yaml_file(file: Path) -> Markdown:
    """Return a YAML file as a block of code."""
    return code(file.read_text("utf-8"), "yaml")
