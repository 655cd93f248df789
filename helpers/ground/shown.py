"""What shows itself: a table, a sentence, code, a picture; in a notebook, a terminal and a log.

Whatever a table or a sentence holds is text, wherever it comes from: it is escaped here, once
(escaping.py), so that a problem which holds `<script>` or a Markdown link shows as what it is.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from helpers.ground import escaping, width, words
from helpers.ground.escaping import markdown as escaped

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.console import Console
    from rich.table import Table as RichTable

_WIDEST = 60  # characters of a column in a log


class Shown(ABC):
    """A result that shows itself."""

    @abstractmethod
    def markdown(self) -> str:
        """Return it for a notebook, as Markdown."""

    @abstractmethod
    def plain(self) -> str:
        """Return it for a log, as plain lines."""

    def print(self, console: Console) -> None:
        """Print it to a terminal (rich)."""
        console.print(self.plain(), markup=False, highlight=False, emoji=False)

    def __str__(self) -> str:
        return self.plain()

    # Jupyter's display protocol; a log gets the plain lines.
    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        return {"text/markdown": self.markdown(), "text/plain": self.plain()}


class View(Shown):
    """A result that holds its facts, and shows them as something else that shows itself."""

    @abstractmethod
    def shown(self) -> Shown:
        """Return what this shows itself as."""

    def markdown(self) -> str:
        return self.shown().markdown()

    def plain(self) -> str:
        return self.shown().plain()

    def print(self, console: Console) -> None:
        self.shown().print(console)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:
        return self.shown()._repr_mimebundle_(include, exclude)


@dataclass(frozen=True)
class Table(Shown):
    """Rows under a header.

    Args:
        header: one name a column.
        rows: as many cells each, shown as text.
        title: what it is, for terminals and logs; notebooks say it around the table.
        note: a line below it: where and when it was measured.
        heads: the first column names its row, and is shown so.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[object]]
    title: str = ""
    note: str = ""
    heads: bool = False

    def markdown(self) -> str:
        lines = [[escaped(name) or " " for name in self.header], ["---"] * len(self.header)]
        for row in self.rows:
            cells = [escaped(cell) for cell in row]
            if self.heads:
                cells[0] = f"**{cells[0]}**"
            lines.append(cells)
        table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
        return f"{table}\n\n*{escaped(self.note)}*" if self.note else table

    def plain(self) -> str:
        lines = [[escaping.line(cell) for cell in row] for row in (self.header, *self.rows)]
        widths = [
            min(_WIDEST, max(map(width.columns, column))) for column in zip(*lines, strict=True)
        ]
        text = ["  ".join(map(width.padded, line, widths)).rstrip() for line in lines]
        return "\n".join(filter(None, [escaping.line(self.title), *text, escaping.line(self.note)]))

    def print(self, console: Console) -> None:
        console.print(self.rich())

    def rich(self) -> RichTable:
        """Return the table as a terminal shows it."""
        from rich.table import Table as RichTable
        from rich.text import Text as RichText

        table = RichTable(
            title=RichText(escaping.line(self.title)) if self.title else None,
            title_justify="left",
            caption=RichText(escaping.line(self.note)) if self.note else None,
            caption_justify="left",
        )
        for name in self.header:
            table.add_column(RichText(escaping.line(name)))
        for row in self.rows:
            table.add_row(*(RichText(escaping.line(cell)) for cell in row))
        return table


@dataclass(frozen=True)
class Sentence(Shown):
    """A sentence that stands out, and a note below it."""

    text: str
    note: str = ""

    def markdown(self) -> str:
        return f"> **{escaped(self.text)}**" + (
            f"\n>\n> *{escaped(self.note)}*" if self.note else ""
        )

    def plain(self) -> str:
        return "\n".join(filter(None, [escaping.line(self.text), escaping.line(self.note)]))


@dataclass(frozen=True)
class Code(Shown):
    """Text that is read as it stands: a file, a command."""

    text: str
    language: str = ""

    def markdown(self) -> str:
        ticks = max((len(run) for run in re.findall(r"`{3,}", self.text)), default=2) + 1
        fence = "`" * ticks
        return f"{fence}{self.language}\n{self.plain()}\n{fence}"

    def plain(self) -> str:
        return escaping.lines(self.text).rstrip()


@dataclass(frozen=True)
class Entry:
    """One question or problem, and what several answered: (mark, who, text)."""

    heading: str
    answers: Sequence[tuple[str, str, str]]


@dataclass(frozen=True)
class Dialogue(Shown):
    """Problems with what was answered to each."""

    entries: Sequence[Entry]
    note: str = ""

    def markdown(self) -> str:
        parts = []
        for entry in self.entries:
            parts.append(f"**{escaped(entry.heading)}**\n")
            parts += [
                f"- {escaped(mark) + ' ' if mark else ''}"
                + words.tr("{name}: {value}", name=f"*{escaped(who)}*", value=escaped(text))
                for mark, who, text in entry.answers
            ]
            parts.append("")
        return "\n".join([*parts, *([f"*{escaped(self.note)}*"] if self.note else [])])

    def plain(self) -> str:
        parts = []
        for entry in self.entries:
            parts.append(escaping.line(entry.heading))
            parts += [
                "  "
                + words.tr(
                    "{name}: {value}",
                    name=escaping.line(f"{mark} {who}"),
                    value=escaping.line(text),
                )
                for mark, who, text in entry.answers
            ]
        return "\n".join([*parts, *filter(None, [escaping.line(self.note)])])


@dataclass(frozen=True)
class Picture(Shown):
    """A figure, kept in the run folder.

    Args:
        png: its bytes.
        alt: what it shows, in one line.
        file: where it was kept.
        figure: what it was drawn from, for whoever needs it in another form.
    """

    png: bytes
    alt: str
    file: Path
    figure: Figure | None = field(default=None, repr=False, compare=False)

    def markdown(self) -> str:
        return f"![{escaped(self.alt)}]({self.file.name})"

    def plain(self) -> str:
        return escaping.line(self.alt)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> Any:
        alt = self.plain()
        return {"image/png": self.png, "text/plain": alt}, {"image/png": {"alt": alt}}


@dataclass(frozen=True)
class Link(Shown):
    """A file, and the way to it where a page can lead there.

    Args:
        what: what it is.
        name: the file, as readers type it.
        target: the same, relative to the page that shows the link; "": no page leads there.
    """

    what: str
    name: str
    target: str = ""

    def markdown(self) -> str:
        name = escaped(self.name)
        linked = f"[{name}](<{quote(self.target)}>)" if self.target else name
        return words.sentences([escaped(self.what), linked])

    def plain(self) -> str:
        return escaping.line(words.sentences([self.what, self.name]))


@dataclass(frozen=True)
class Several(Shown):
    """Things that are shown one after the other; pictures by their name."""

    parts: Sequence[Shown]

    def markdown(self) -> str:
        return "\n\n".join(part.markdown() for part in self.parts)

    def plain(self) -> str:
        return "\n\n".join(part.plain() for part in self.parts)

    def print(self, console: Console) -> None:
        for part in self.parts:
            part.print(console)


def facts(rows: Mapping[str, object], header: Sequence[str], note: str = "") -> Table:
    """Return named facts as a table of two columns."""
    return Table(header, [(name, value) for name, value in rows.items()], note=note)
