"""The notebooks' editions: one source, and a catalogue of its Markdown cells for each language.

notebooks/*.ipynb, in English, are the source. notebooks/zh/*.ipynb are built from them and
helpers/words/zh/notebooks/*.po, one catalogue a notebook (context: the cell's id; id: the cell).
Code cells, ids, tags and metadata are the source's; outputs are those that the edition had, where
the code that made them is unchanged. A cell that is missing in a catalogue, fuzzy or stale stops
the building: nothing falls back to English without a word.

`python -m helpers.calls.editions gather` (make words) brings the catalogues up to date and builds
what is complete; `check` (make lint) says what is wrong, the helpers' own sentences included.
"""

from __future__ import annotations

import copy
import re
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import nbformat

from helpers.ground import catalogues, paths, words
from helpers.ground.errors import TutorialError
from helpers.ground.files import write_bytes
from helpers.ground.words import tr, trn

if TYPE_CHECKING:
    from babel.messages.catalog import Catalog

_MOST_TOLD = 40  # faults that are listed
# What must stand in a cell and its translation alike.
_LINK = re.compile(r"\]\(([^)\s]+)\)|(https?://[\w./:-]+\w)")
_CODE = re.compile(r"`([^`]+)`")
_IMAGE = re.compile(r"!\[[^\]]*\]\(([^)]+)\)")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
# Out of the folder of the English edition, in which those of the others lie.
_OUTWARDS = re.compile(r"(?<=\]\()\.\./")
_HEADING = re.compile(r"^(#+) ", re.MULTILINE)


def catalogue_file(name: str, language: str) -> Path:
    """Return the catalogue of a notebook's Markdown cells in a language."""
    return words.CATALOGUES / language / "notebooks" / f"{name}.po"


def source_of(name: str) -> nbformat.NotebookNode:
    """Return a notebook of the English edition."""
    return nbformat.read(paths.NOTEBOOKS / f"{name}.ipynb", as_version=4)


def markdown_cells(notebook: nbformat.NotebookNode) -> dict[str, str]:
    """Return a notebook's Markdown cells by their ids."""
    return {cell.id: cell.source for cell in notebook.cells if cell.cell_type == "markdown"}


def gather(name: str, language: str) -> Catalog:
    """Bring a notebook's catalogue up to date with its English.

    A cell whose English has changed keeps its translation, marked fuzzy, with the English that it
    was made for beside it.

    Raises:
        TutorialError: the catalogue does not parse.
    """
    file = catalogue_file(name, language)
    before = catalogues.read(file) if file.is_file() else catalogues.empty(language)
    known = {entry.context: entry for entry in catalogues.entries(before)}
    now = catalogues.empty(language)
    for cell, text in markdown_cells(source_of(name)).items():
        old = known.get(cell)
        if old is None:
            now.add(text, "", context=cell)
        elif old.id == text:
            now.add(text, old.string, context=cell, flags=old.flags, previous_id=old.previous_id)
        else:
            flags = {"fuzzy"} if old.string else set()
            now.add(text, old.string, context=cell, flags=flags, previous_id=[str(old.id)])
    catalogues.write(file, now)
    return now


# ---- what is wrong ------------------------------------------------------------------------------


def _found(pattern: re.Pattern[str], text: str) -> Counter[str]:
    return Counter(next(filter(None, found.groups() or [found.group()]))
                   for found in pattern.finditer(text))  # fmt: skip


def same_facts(english: str, translation: str) -> list[str]:
    """Return in which facts a translated cell differs from its English, in words."""
    bare = [_CODE.sub(" ", text) for text in (english, translation)]
    compared = {
        tr("links"): [_found(_LINK, text) for text in bare],
        tr("inline code"): [_found(_CODE, text) for text in (english, translation)],
        tr("pictures"): [_found(_IMAGE, text) for text in (english, translation)],
        tr("headings"): [_found(_HEADING, text) for text in (english, translation)],
        tr("numbers"): [_found(_NUMBER, _LINK.sub(" ", text)) for text in bare],
    }
    return [
        tr(
            "its {what} are not the English ones: missing {missing}, added {added}",
            what=what,
            missing=list((one - other).elements()) or "-",
            added=list((other - one).elements()) or "-",
        )
        for what, (one, other) in compared.items()
        if one != other
    ]


def cell_faults(name: str, language: str) -> list[str]:
    """Return what is wrong with the translation of a notebook, one line each.

    Raises:
        TutorialError: a catalogue does not parse, or is missing.
    """
    catalogue = catalogues.read(catalogue_file(name, language))
    known = {entry.context: entry for entry in catalogues.entries(catalogue)}
    cells = markdown_cells(source_of(name))
    found = []
    for cell, text in cells.items():
        entry = known.pop(cell, None)
        if entry is None:
            wrong = [tr("it is not in the catalogue; run 'make words'")]
        elif entry.id != text:
            wrong = [tr("it is stale, for its English has changed since; run 'make words'")]
        else:
            wrong = catalogues.entry_faults(entry, language)
            if entry.string:
                wrong += same_facts(text, str(entry.string))
        found += [
            tr("{language}, cell {cell} of {notebook}: {what}",
               language=language, cell=cell, notebook=name, what=what)
            for what in wrong
        ]  # fmt: skip
    found += [
        tr("{language}: {notebook} has no cell {cell}: run 'make words'",
           language=language, notebook=name, cell=cell)
        for cell in known
    ]  # fmt: skip
    return found


def faults(language: str) -> list[str]:
    """Return what is wrong with an edition, one line each.

    Raises:
        TutorialError: a catalogue or an edition's notebook does not parse.
    """
    found = []
    for name in paths.NOTEBOOK_NAMES:
        wrong = cell_faults(name, language)
        found += wrong
        if not wrong and not is_built(name, language):
            file = paths.shown(paths.edition(paths.NOTEBOOKS, language) / f"{name}.ipynb")
            found.append(tr("{file} is not what its source gives: run 'make words'.", file=file))
    return found


# ---- building -----------------------------------------------------------------------------------


def _edition(name: str, language: str) -> nbformat.NotebookNode | None:
    """Return an edition's notebook as it lies there; None: there is none yet.

    Raises:
        TutorialError: it is no notebook.
    """
    file = paths.edition(paths.NOTEBOOKS, language) / f"{name}.ipynb"
    try:
        return nbformat.read(file, as_version=4)
    except FileNotFoundError:
        return None
    except (nbformat.reader.NotJSONError, nbformat.ValidationError) as error:
        raise TutorialError(
            tr("{file} is not a notebook any more: take it back from git.", file=paths.shown(file))
        ) from error


def build(name: str, language: str) -> nbformat.NotebookNode:
    """Return a notebook in a language, with the outputs that its edition has already.

    Raises:
        TutorialError: a cell is not translated; the sentence names it.
    """
    wrong = cell_faults(name, language) if language != words.SOURCE else []
    if wrong:
        raise TutorialError(
            tr(
                "The {language} edition of {notebook} cannot be built: {first} (and {n} more).",
                language=language,
                notebook=name,
                first=wrong[0],
                n=len(wrong) - 1,
            )
        )
    if language == words.SOURCE:
        return source_of(name)
    catalogue = catalogues.read(catalogue_file(name, language))
    told = {entry.context: str(entry.string) for entry in catalogues.entries(catalogue)}
    before = _edition(name, language)
    ran = {cell.id: cell for cell in (before.cells if before else []) if cell.cell_type == "code"}
    notebook = copy.deepcopy(source_of(name))
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = _OUTWARDS.sub("../../", told[cell.id])
        elif cell.cell_type == "code":
            old = ran.get(cell.id)
            if old is None or old.source != cell.source:
                cell.outputs, cell.execution_count = [], None
            else:
                cell.outputs, cell.execution_count = old.outputs, old.execution_count
    return notebook


def bytes_of(notebook: nbformat.NotebookNode) -> bytes:
    """Return a notebook as it is committed."""
    return (nbformat.writes(notebook) + "\n").encode()


def is_built(name: str, language: str) -> bool:
    """Return whether an edition's notebook is what its source and catalogue give."""
    file = paths.edition(paths.NOTEBOOKS, language) / f"{name}.ipynb"
    return file.is_file() and file.read_bytes() == bytes_of(build(name, language))


def write(name: str, language: str) -> Path:
    """Build a notebook of an edition, and return its file."""
    file = paths.edition(paths.NOTEBOOKS, language) / f"{name}.ipynb"
    notebook = build(name, language)
    file.parent.mkdir(exist_ok=True)
    write_bytes(file, bytes_of(notebook))
    return file


def _gather_all() -> int:
    left = 0
    for language in catalogues.translated_languages():
        catalogues.gather(language)
        left += len(catalogues.faults(language))
        for name in paths.NOTEBOOK_NAMES:
            gather(name, language)
            wrong = cell_faults(name, language)
            left += len(wrong)
            if not wrong:
                write(name, language)
    if left:
        print(trn("{n} entry is left to translate or to mend: 'make lint' lists it.",
                  "{n} entries are left to translate or to mend: 'make lint' lists them.",
                  left))  # fmt: skip
    return 0


def _check_all() -> int:
    found = [
        line
        for language in catalogues.translated_languages()
        for line in [*catalogues.faults(language), *faults(language)]
    ]
    print("\n".join(found[:_MOST_TOLD]), end="\n" if found else "")
    if len(found) > _MOST_TOLD:
        print(tr("... and {n} more.", n=len(found) - _MOST_TOLD))
    return int(bool(found))


def main(verb: str) -> int:
    """Gather or check, and return the exit code; what does not parse ends in one sentence."""
    try:
        return _gather_all() if verb == "gather" else _check_all()
    except TutorialError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
