"""The rows of a parquet file with Math10K's columns: drawn, read, and looked at one by one.

The draw is the article's: the first 90 % of the rows and the last 10 %, `random.seed(42)`, then a
sample from the first for training and one from the second for evaluation.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel

from helpers.ground import paths
from helpers.ground.errors import TutorialError
from helpers.ground.words import tr

# pyarrow is imported where a parquet file is opened: it takes time and memory, and most notebooks
# only read what was made of it.
if TYPE_CHECKING:
    import pyarrow.parquet as pq

COLUMNS = ("instruction", "input", "output", "answer")
SEED = 42
# A longer text than this is no school problem, and more than cutoff_len (2048) tokens can hold:
# LLaMA-Factory would cut its answer off without a word.
MOST_CHARACTERS = 8_000
BATCH = 10_000  # rows that are in memory as Python objects at a time

NUMBER = re.compile(r"-?[0-9]{1,20}(\.[0-9]{1,20})?")
LETTER = re.compile(r"[A-Z]")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")  # all but tab and line ends

Row = dict[str, str | bytes | None]
Code = Literal["missing", "not_utf8", "control", "mark", "long", "empty", "answer"]


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
        }[self.code]


def split_indices(rows: int, train: int, held_out: int) -> tuple[list[int], list[int]]:
    """Return the row numbers of the training and the held-out sample: the article's split.

    Args:
        rows: how many rows the source has.
        train: how many to draw from the first 90 %.
        held_out: how many to draw from the last 10 %.

    Raises:
        TutorialError: the source has too few rows.
    """
    cut = int(rows * 0.9)
    if train > cut or held_out > rows - cut:
        raise TutorialError(
            tr(
                "The data have {rows} rows, too few for {train} training and {held_out} held-out "
                "problems (at most {most_train} and {most_held_out}): ask for fewer, or use a "
                "larger file.",
                rows=rows,
                train=train,
                held_out=held_out,
                most_train=cut,
                most_held_out=rows - cut,
            )
        )
    draw = random.Random(SEED)
    return draw.sample(range(cut), train), draw.sample(range(cut, rows), held_out)


@contextmanager
def opened(file: Path, fetched: bool) -> Iterator[pq.ParquetFile]:
    """Open a parquet file that has the four columns.

    Args:
        file: which one.
        fetched: the tutorial fetched or made it, so that it can do so again; else it is the
            reader's own.

    Raises:
        TutorialError: the file is no parquet file, lacks a column, or a column is not text.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    shown = paths.shown(file)
    try:
        # With a buffer the columns are read piece by piece, not a row group at a time.
        source = pq.ParquetFile(file, buffer_size=1 << 20)
        schema = source.schema_arrow
        missing = [name for name in COLUMNS if name not in schema.names]
        if missing:
            raise TutorialError(
                tr(
                    "{file} has no column {missing}: it must have the columns {columns}, and has "
                    "{found}.",
                    file=shown,
                    missing=", ".join(missing),
                    columns=", ".join(COLUMNS),
                    found=", ".join(schema.names),
                )
            )
        for name in COLUMNS:
            kind = schema.field(name).type
            if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
                raise TutorialError(
                    tr(
                        "The column {column} of {file} holds {kind}, and must hold text.",
                        column=name,
                        file=shown,
                        kind=kind,
                    )
                )
        with source:
            yield source
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split()).split(".")[0]
        if fetched:
            message = tr(
                "{file} cannot be read as parquet ({reason}), so what was fetched is damaged: "
                "delete it and run this again to fetch it anew.",
                file=shown,
                reason=reason,
            )
        else:
            message = tr(
                "{file} cannot be read as parquet ({reason}), so it is damaged or not complete: "
                "DATA= takes a whole parquet file with the text columns {columns}.",
                file=shown,
                reason=reason,
                columns=", ".join(COLUMNS),
            )
        raise TutorialError(message) from error


def read(source: pq.ParquetFile, indices: Sequence[int]) -> Iterator[Row]:
    """Give the rows with these numbers, in this order, without holding more than they need."""
    import numpy as np
    import pyarrow as pa

    order = np.array(indices)
    sorted_ = np.sort(order)
    pieces, start = [], 0
    for batch in source.iter_batches(BATCH, columns=list(COLUMNS), use_threads=False):
        low, high = np.searchsorted(sorted_, [start, start + batch.num_rows])
        if high > low:
            pieces.append(batch.take(pa.array(sorted_[low:high] - start)))
        start += batch.num_rows
    if sum(piece.num_rows for piece in pieces) != len(indices):
        raise pa.ArrowInvalid("it holds fewer rows than it says")
    # As bytes: what is not UTF-8 is then a fault of its row, and not of the whole table.
    found = pa.Table.from_batches(pieces).select(COLUMNS)
    found = found.cast(pa.schema([(name, pa.binary()) for name in COLUMNS]))
    places = np.searchsorted(sorted_, order)
    for begin in range(0, len(places), BATCH):
        for row in found.take(pa.array(places[begin : begin + BATCH])).to_pylist():
            yield {name: _decoded(row[name]) for name in COLUMNS}


def _decoded(value: bytes | None) -> str | bytes | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return value


def fault(row: Row) -> Fault | None:
    """Return why a row cannot be trained on or scored, or None if it can.

    An empty output is no reason: some rows of Math10K have no worked steps, and the article trains
    on them.
    """
    for column in COLUMNS:
        value = row[column]
        if value is None:
            if column == "input":
                continue
            return Fault(code="missing", column=column)
        if isinstance(value, bytes):
            return Fault(code="not_utf8", column=column)
        control = _CONTROL.search(value)
        if control:
            return Fault(code="control", column=column, detail=repr(control[0]))
        if "####" in value:
            return Fault(code="mark", column=column)
    length = sum(len(row[column] or "") for column in COLUMNS)
    if length > MOST_CHARACTERS:
        return Fault(code="long", detail=str(length))
    if not str(row["instruction"]).strip():
        return Fault(code="empty", column="instruction")
    answer = str(row["answer"]).strip()
    if not (NUMBER.fullmatch(answer) or LETTER.fullmatch(answer)):
        return Fault(code="answer", column="answer", detail=repr(answer[:20]))
    return None


def to_alpaca(row: Row) -> dict[str, str]:
    """Return a usable row in Alpaca form: the worked steps, then the answer after "####"."""
    return {
        "instruction": str(row["instruction"]),
        "input": str(row["input"] or ""),
        "output": f"{row['output']!s}\n#### {row['answer']!s}",
    }
