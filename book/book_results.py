"""The results page in another language: its texts looked up, its figures taken over.

benchmarks/results/README.md is made by script, so its figures change and its texts hardly do: in
book/LANGUAGE/results.po a text's figures are {1}, {2} ... in the order of its English.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from babel.messages.pofile import PoFileError, read_po

from helpers.ground.errors import TutorialError
from helpers.ground.words import clauses, series, tr, trn

_NUMBER = re.compile(r"(?<![\w.-])[-+]?\d+(?:[.,]\d+)*(?!\w|\.\d)")
# What is the same in every language: figures with their units, and models' names.
_SAME = re.compile(r"(?:[^A-Za-z]*(?:s|x|MB|GB|GiB|TB)?|Qwen\S+ .*)")


def split(text: str) -> tuple[str, list[str]]:
    """Return a text with {1}, {2} ... in place of its figures, and the figures."""
    figures: list[str] = []

    def take(found: re.Match[str]) -> str:
        figures.append(found[0])
        return f"{{{len(figures)}}}"

    return _NUMBER.sub(take, text), figures


def catalogue(file: Path) -> dict[str, str]:
    """Return what a catalogue translates.

    Raises:
        TutorialError: it is missing or does not parse, or an entry lacks a figure, or is fuzzy.
    """
    try:
        with file.open("rb") as stream:
            entries = [each for each in read_po(stream, abort_invalid=True) if each.id]
    except (OSError, PoFileError, UnicodeDecodeError, ValueError) as error:
        raise TutorialError(
            tr(
                "The catalogue {file} of the results page cannot be read ({reason}): put that line "
                "right.",
                file=file.name,
                reason=" ".join(str(error).split()),
            )
        ) from error
    found = {}
    for entry in entries:
        english, told = str(entry.id), str(entry.string)
        lost = set(re.findall(r"\{\d+\}", english)) ^ set(re.findall(r"\{\d+\}", told))
        if entry.fuzzy or (told and lost):
            raise TutorialError(
                tr(
                    "{file} does not translate {english!r} as it stands: {what}.",
                    file=file.name,
                    english=english,
                    what=tr("it is fuzzy, for its English has changed since, or it was guessed")
                    if entry.fuzzy
                    else tr("{figures} stands in one of them alone", figures=series(sorted(lost))),
                )
            )
        if told:
            found[english] = told
    return found


def translated(page: str, known: dict[str, str], where: str) -> str:
    """Return the page in another language.

    Args:
        page: the English page.
        known: the catalogue.
        where: its file, as readers type it.

    Raises:
        TutorialError: a text is in no catalogue; the sentence names all of them.
    """
    missing: list[str] = []

    def told(text: str) -> str:
        if _SAME.fullmatch(text):
            return text
        key, figures = split(text)
        if key not in known:
            missing.append(key)
            return text
        return re.sub(r"\{(\d+)\}", lambda found: figures[int(found[1]) - 1], known[key])

    blocks = [_block(block, told) for block in re.split(r"\n\s*\n", page.strip())]
    if lacking := list(dict.fromkeys(missing)):
        raise TutorialError(
            trn(
                "{where} lacks {n} text of benchmarks/results/README.md, so the book has no "
                "results page in that language: translate it ({texts}).",
                "{where} lacks {n} texts of benchmarks/results/README.md, so the book has no "
                "results page in that language: translate them ({texts}).",
                len(lacking),
                where=where,
                texts=clauses(lacking),
            )
        )
    return "\n\n".join(blocks) + "\n"


def _block(block: str, told: Callable[[str], str]) -> str:
    if not block.startswith("|"):
        return told(" ".join(block.split()))
    lines = []
    for line in block.splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        lines.append("| " + " | ".join(told(cell) for cell in cells) + " |")
    return "\n".join(lines)
