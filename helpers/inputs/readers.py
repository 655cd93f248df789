"""Files of rows: parquet, JSON, JSON Lines or CSV, looked through once and then read as a stream.

Parquet is read with pyarrow. Text is read with the standard library, row by row, for what was tried
instead loses rows or their places: pyarrow.csv (26) takes all that follows a quote that is not
closed into one cell, and text behind a closing quote as well, without a word; pyarrow.json takes no
list, and refuses a column that holds numbers here and letters there, as answers do; `datasets` (4)
fills what a CSV row lacks with nothing, and reads JSON by pyarrow.json.
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helpers.ground import paths
from helpers.ground.errors import TutorialError
from helpers.ground.words import series, tr
from helpers.inputs import file_kinds, json_rows
from helpers.inputs.file_kinds import Kind

BATCH = 2_000  # rows that are in memory as Python objects at a time
_BLOCK = 1 << 20  # bytes
_MOST_NAMES = 20  # columns that a sentence names

Row = dict[str, Any]


@dataclass(frozen=True)
class Source:
    """A file that was looked through."""

    file: Path
    kind: Kind
    columns: tuple[str, ...]
    rows: int
    fetched: bool  # the tutorial fetched or made it, so that it can do so again


def listed(names: Sequence[str]) -> str:
    """Return columns' names as a sentence names them: not too many, and none too long."""
    shown = [name[:40].encode("utf-8", "replace").decode() for name in names[:_MOST_NAMES]]
    return series([*shown, *(["..."] if len(names) > _MOST_NAMES else [])])


@contextmanager
def explained(file: Path, fetched: bool) -> Iterator[None]:
    """Turn whatever is wrong with a file into one sentence.

    Args:
        file: the file that is read.
        fetched: the tutorial fetched or made it: then the remedy is to do that again, whatever it
            is. A reader's own file stays as it is.
    """
    import pyarrow as pa

    try:
        try:
            yield
        except (pa.ArrowException, OSError) as error:
            raise TutorialError(_reason(file, error)) from error
    except TutorialError as error:
        if fetched and not error.fault:
            raise TutorialError(
                tr(
                    "{file} was fetched, and what was fetched is damaged: move it away and run "
                    "this again to fetch it anew. What was found: {reason}",
                    file=paths.shown(file),
                    reason=error.message,
                )
            ) from error
        raise


def _reason(file: Path, error: Exception) -> str:
    shown = paths.shown(file)
    if isinstance(error, PermissionError):
        return tr(
            "{file} may not be read by this user: give the permission with 'chmod u+r', as its "
            "owner, or name a copy that is yours.",
            file=shown,
        )
    if isinstance(error, FileNotFoundError):
        return tr("There is no file {file} any more: DATA= names the data.", file=shown)
    reason = " ".join(str(error).split()).split(".")[0]
    return tr(
        "{file} cannot be read to its end ({reason}), so it is damaged or not complete: copy or "
        "download it once more from where it came.",
        file=shown,
        reason=reason,
    )


def examined(file: Path, fetched: bool) -> Source:
    """Look through a file: what it is, which columns it has, and how many rows.

    Args:
        file: which one.
        fetched: the tutorial fetched or made it.

    Raises:
        TutorialError: it cannot be read; the sentence says what is wrong, where, and what would
            be right.
    """
    with explained(file, fetched):
        kind = file_kinds.checked(file)
        if kind == "parquet":
            columns, rows = _parquet(file)
        else:
            file_kinds.check_utf8(file)
            found: dict[str, None] = {}
            rows = 0
            for _, row in _TEXT[kind](file):
                found |= dict.fromkeys(row)
                rows += 1
            columns = tuple(found)
        _check_names(file, columns)
        if not rows:
            raise TutorialError(
                tr(
                    "{file} holds no row: DATA= takes a file with one row a problem.",
                    file=paths.shown(file),
                )
            )
    return Source(file, kind, columns, rows, fetched)


def _check_names(file: Path, columns: Sequence[str]) -> None:
    twice = [name for name, count in Counter(columns).items() if count > 1]
    if twice:
        raise TutorialError(
            tr(
                "{file} has more than one column called {names}: give each a name of its own.",
                file=paths.shown(file),
                names=listed(twice),
            )
        )


def read(
    source: Source, columns: Sequence[str], wanted: Sequence[int]
) -> Iterator[tuple[int, Row]]:
    """Give some rows of a file, without holding more than a batch of them.

    Args:
        source: the file, looked through.
        columns: the columns to read.
        wanted: the rows' numbers from 0, ascending.

    Yields:
        A row's number as people count, from 1 (of JSON Lines: its line), and its values by
        column; text that is not UTF-8 as bytes.

    Raises:
        TutorialError: the file cannot be read to its end.
    """
    with explained(source.file, source.fetched):
        if source.kind == "parquet":
            yield from _parquet_rows(source, columns, wanted)
            return
        asked = iter(wanted)
        following = next(asked, None)
        for index, (number, row) in enumerate(_TEXT[source.kind](source.file)):
            if index == following:
                yield number, {name: row.get(name) for name in columns}
                following = next(asked, None)


# ---- parquet ------------------------------------------------------------------------------------


def _parquet(file: Path) -> tuple[tuple[str, ...], int]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(file) as opened:
        return tuple(opened.schema_arrow.names), opened.metadata.num_rows


def _parquet_rows(
    source: Source, columns: Sequence[str], wanted: Sequence[int]
) -> Iterator[tuple[int, Row]]:
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    order, start = np.asarray(wanted), 0
    # With a buffer the columns are read piece by piece, not a row group at a time.
    with pq.ParquetFile(source.file, buffer_size=_BLOCK) as opened:
        for batch in opened.iter_batches(BATCH, columns=list(columns), use_threads=False):
            low, high = np.searchsorted(order, [start, start + batch.num_rows])
            if high > low:
                found = batch.take(pa.array(order[low:high] - start))
                values = [_values(found.column(name)) for name in columns]
                for index, row in zip(order[low:high], zip(*values, strict=True), strict=True):
                    yield int(index) + 1, dict(zip(columns, row, strict=True))
            start += batch.num_rows
    if start != source.rows:
        raise pa.ArrowInvalid("it holds fewer rows than it says")


def _values(column: Any) -> list[Any]:
    """Return a column's values; text that is not UTF-8 as bytes, a fault of its row alone."""
    import pyarrow as pa

    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return [_decoded(value) for value in column.cast(pa.binary()).to_pylist()]
    try:
        return list(column.to_pylist())
    except ValueError:  # of text within lists, or of a time that Python has not
        return [_plain(value) for value in column]


def _decoded(value: bytes | None) -> str | bytes | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return value


def _plain(value: Any) -> Any:
    try:
        return value.as_py()
    except ValueError:
        return b""


# ---- CSV ----------------------------------------------------------------------------------------


def _csv_rows(file: Path) -> Iterator[tuple[int, Row]]:
    """Give the rows below the header, numbered from 1.

    Raises:
        TutorialError: a row has more or fewer cells than the header, or a quote is not closed.
    """
    with file.open(encoding="utf-8-sig", newline="") as opened:
        first = opened.readline()
        opened.seek(0)
        # Excel writes ";" where "," is the decimal mark.
        delimiter = max(",;\t", key=first.count)
        reader = csv.reader(opened, delimiter=delimiter, strict=True)
        number, line = 0, 1
        try:
            header = next(reader)
            _check_names(file, header)
            for cells in reader:
                if cells and len(cells) != len(header):
                    raise TutorialError(
                        tr(
                            "Row {row} of {file} (line {line}) has {cells} cells, and the header "
                            "has {columns}: put a text that holds {mark!r} or a line end between "
                            "double quotes.",
                            row=number + 1,
                            file=paths.shown(file),
                            line=line + 1,
                            cells=len(cells),
                            columns=len(header),
                            mark=delimiter,
                        )
                    )
                if cells:
                    number += 1
                    yield number, dict(zip(header, cells, strict=True))
                line = reader.line_num
        except csv.Error as error:
            raise TutorialError(
                tr(
                    "Row {row} of {file} (from line {line}) is no CSV ({reason}): a double quote "
                    'is not closed, or stands single within a text, where "" is right.',
                    row=number + 1,
                    file=paths.shown(file),
                    line=line + 1,
                    reason=error,
                )
            ) from error


_TEXT: dict[Kind, Callable[[Path], Iterator[tuple[int, Row]]]] = {
    "json": json_rows.of_list,
    "jsonl": json_rows.of_lines,
    "csv": _csv_rows,
}
