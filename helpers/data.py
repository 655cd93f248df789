"""Math10K, or generated problems in its schema: read, split as the article does, registered.

The split is the article's: the first 90 % of the rows and the last 10 %, `random.seed(42)`, then a
sample from the first for training and one from the second for evaluation.
"""

from __future__ import annotations

import json
import random
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel

from helpers import paths, process, steps, wordproblems
from helpers.errors import TutorialError
from helpers.files import read_json, refusals_explained, sha256_file, whole_file, write_json
from helpers.settings import Settings

# pyarrow is imported where a parquet file is opened: it takes time and memory, and most notebooks
# only read what was made of it.
if TYPE_CHECKING:
    import pyarrow.parquet as pq

COLUMNS = ("instruction", "input", "output", "answer")
MATH10K = "lmms-lab/Math10K"
MATH10K_FILE = "data/train-00000-of-00001.parquet"
GENERATED = "generated word problems"
GENERATED_ROWS = 10_000  # about what Math10K has
SEED = 42
TRAIN, EVAL = "math_train", "math_eval"
# With more unusable rows than this share of a sample, something is wrong with the file.
MOST_UNUSABLE = 0.02

# A longer text than this is no school problem, and more than cutoff_len (2048) tokens can hold:
# LLaMA-Factory would cut its answer off without a word.
MOST_CHARACTERS = 8_000
BATCH = 10_000  # rows that are in memory as Python objects at a time

_NUMBER = re.compile(r"-?[0-9]{1,20}(\.[0-9]{1,20})?")
_LETTER = re.compile(r"[A-Z]")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")  # all but tab and line ends


class DataFacts(BaseModel):
    """What the run's data are; written as data/about.json and into every record."""

    source: str
    source_rows: int
    source_sha256: str
    train: int
    eval: int
    train_sha256: str
    eval_sha256: str
    unusable: list[str]  # one line a row that was sampled and cannot be used, and why


def _download(log: Path) -> Path:
    folder = paths.MODELS / "Math10K"
    process.run(
        [
            str(Path(sys.executable).with_name("modelscope")),
            *("download", MATH10K, "--repo-type", "dataset", "--local-dir", str(folder)),
            # Files named one by one come without a check of their SHA-256; a listing has it.
            *("--include", MATH10K_FILE),
        ],
        log,
    )
    return folder / MATH10K_FILE


def _generate(run: paths.RunFolder, say: Callable[[str], None]) -> Path:
    file = run.root / "source.parquet"

    def write() -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        rows = wordproblems.generate(GENERATED_ROWS, SEED)
        with refusals_explained(file):
            file.parent.mkdir(parents=True, exist_ok=True)
            aside = file.with_suffix(".part")
            pq.write_table(pa.Table.from_pylist(rows), aside)
            aside.replace(file)

    generator = sha256_file(Path(wordproblems.__file__))
    inputs = {"rows": GENERATED_ROWS, "seed": SEED, "generator": generator}
    steps.done_once(run, "source", inputs, [file], write, say)
    return file


def obtain(settings: Settings, say: Callable[[str], None] = print) -> tuple[str, Path]:
    """Bring the problems to this machine; return what they are, in words, and the parquet file.

    Math10K comes from ModelScope. Where ModelScope cannot be reached, generated problems take its
    place and `say` is told so; the records name what was used.

    Raises:
        TutorialError: the named file is missing, or a download failed for another reason.
    """
    source = settings.profile.data.source
    if source == "generated":
        return GENERATED, _generate(settings.run, say)
    if source != "math10k":
        file = Path(source)
        if not file.is_file():
            raise TutorialError(
                f"There is no file {paths.shown(file)}: DATA= takes math10k, generated, or the "
                "path of a parquet file."
            )
        return f"file {file.name}", file
    existing = paths.MODELS / "Math10K" / MATH10K_FILE
    if existing.is_file():
        return f"Math10K (ModelScope, {MATH10K})", existing
    try:
        return f"Math10K (ModelScope, {MATH10K})", _download(settings.run.logs / "math10k.log")
    except TutorialError as error:
        if "could not be reached" not in error.message:
            raise
        say(
            "WARNING: ModelScope could not be reached, so generated problems take Math10K's place. "
            "They are easier: do not compare these figures with Math10K's."
        )
        return GENERATED, _generate(settings.run, say)


@contextmanager
def _problems(file: Path) -> Iterator[pq.ParquetFile]:
    """Open a parquet file that has the four columns.

    Raises:
        TutorialError: the file is no parquet file, lacks a column, or a column is not text.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # With a buffer the columns are read piece by piece, not a row group at a time.
        source = pq.ParquetFile(file, buffer_size=1 << 20)
        schema = source.schema_arrow
        missing = [name for name in COLUMNS if name not in schema.names]
        if missing:
            raise TutorialError(
                f"{paths.shown(file)} has no column {', '.join(missing)}: it must have the columns "
                f"{', '.join(COLUMNS)}, and has {', '.join(schema.names)}."
            )
        for name in COLUMNS:
            kind = schema.field(name).type
            if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
                raise TutorialError(
                    f"The column {name} of {paths.shown(file)} holds {kind}, and must hold text."
                )
        with source:
            yield source
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split()).split(".")[0]
        raise TutorialError(
            f"{paths.shown(file)} cannot be read as parquet ({reason}): the file is damaged or not "
            "complete; delete it and run this again to fetch it anew."
        ) from error


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
            f"The data have {rows} rows, too few for {train} training and {held_out} held-out "
            f"problems (at most {cut} and {rows - cut}): ask for fewer, or use a larger file."
        )
    draw = random.Random(SEED)
    return draw.sample(range(cut), train), draw.sample(range(cut, rows), held_out)


Row = dict[str, str | bytes | None]


def _rows(source: pq.ParquetFile, indices: Sequence[int]) -> Iterator[Row]:
    """Give the rows with these numbers, in this order, without holding more than they need."""
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


def unusable(row: Row) -> str | None:
    """Return why a row cannot be trained on or scored, or None if it can.

    An empty output is no reason: some rows of Math10K have no worked steps, and the article trains
    on them.
    """
    for column in COLUMNS:
        value = row[column]
        if value is None:
            if column == "input":
                continue
            return f"no {column}"
        if isinstance(value, bytes):
            return f"{column} is not UTF-8 text"
        control = _CONTROL.search(value)
        if control:
            return f"control character {control[0]!r} in {column}"
        if "####" in value:
            return f"'####' in {column}, where it would be taken for the mark of an answer"
    length = sum(len(row[column] or "") for column in COLUMNS)
    if length > MOST_CHARACTERS:
        return f"{length} characters, over {MOST_CHARACTERS}"
    if not str(row["instruction"]).strip():
        return "empty instruction"
    answer = str(row["answer"]).strip()
    if not (_NUMBER.fullmatch(answer) or _LETTER.fullmatch(answer)):
        return f"answer {answer[:20]!r} is neither a number nor a letter"
    return None


def to_alpaca(row: Row) -> dict[str, str]:
    """Return a usable row in Alpaca form: the worked steps, then the answer after "####"."""
    return {
        "instruction": str(row["instruction"]),
        "input": str(row["input"] or ""),
        "output": f"{row['output']!s}\n#### {row['answer']!s}",
    }


def _write_set(
    target: Path, source: pq.ParquetFile, indices: Sequence[int], file: Path
) -> list[str]:
    """Write the usable ones of some rows in Alpaca form; return a line for each of the others.

    Written row by row: as one text, a million of them would take gigabytes.

    Raises:
        TutorialError: too many rows cannot be used.
    """
    lines, separator = [], b"[\n"
    with whole_file(target) as written:
        for index, row in zip(indices, _rows(source, indices), strict=True):
            reason = unusable(row)
            if reason:
                lines.append(f"row {index} ({target.stem}): {reason}")
                continue
            text = json.dumps([to_alpaca(row)], ensure_ascii=False, indent=2)
            written.write(separator + text[2:-2].encode())
            separator = b",\n"
        written.write(b"\n]\n")
        if len(lines) > MOST_UNUSABLE * len(indices):
            raise TutorialError(
                f"{len(lines)} of the {len(indices)} rows sampled for {target.stem} cannot be used "
                f"(the first: {lines[0]}): check {paths.shown(file)}."
            )
    return lines


def prepare(settings: Settings, say: Callable[[str], None] = print) -> DataFacts:
    """Make the train and eval sets of a run and register them for LLaMA-Factory.

    Writes math_train.json, math_eval.json, dataset_info.json and about.json into the run's data
    folder, unless they are there and nothing they depend on has changed.

    Raises:
        TutorialError: the source is missing or damaged, too short, or has too many unusable rows.
    """
    source, file = obtain(settings, say)
    source_sha256 = sha256_file(file)
    wanted = settings.profile.data
    folder = settings.run.data

    def make() -> None:
        with _problems(file) as source_file:
            source_rows = source_file.metadata.num_rows
            samples = split_indices(source_rows, wanted.train, wanted.eval)
            rejected = {
                name: _write_set(folder / f"{name}.json", source_file, indices, file)
                for name, indices in zip((TRAIN, EVAL), samples, strict=True)
            }
        columns = {"prompt": "instruction", "query": "input", "response": "output"}
        write_json(
            folder / "dataset_info.json",
            {name: {"file_name": f"{name}.json", "columns": columns} for name in (TRAIN, EVAL)},
        )
        facts = DataFacts(
            source=source,
            source_rows=source_rows,
            source_sha256=source_sha256,
            train=wanted.train - len(rejected[TRAIN]),
            eval=wanted.eval - len(rejected[EVAL]),
            train_sha256=sha256_file(folder / f"{TRAIN}.json"),
            eval_sha256=sha256_file(folder / f"{EVAL}.json"),
            unusable=rejected[TRAIN] + rejected[EVAL],
        )
        write_json(folder / "about.json", facts.model_dump())

    inputs = {"source": source_sha256, "train": wanted.train, "eval": wanted.eval, "seed": SEED}
    steps.done_once(settings.run, "data", inputs, [folder], make, say)
    return facts_of(settings.run)


def load(folder: Path, name: str) -> list[dict[str, str]]:
    """Return the examples of one prepared set, in Alpaca form."""
    examples: list[dict[str, str]] = json.loads((folder / f"{name}.json").read_text("utf-8"))
    return examples


def facts_of(run: paths.RunFolder) -> DataFacts:
    """Return what the run's prepared data are.

    Raises:
        TutorialError: 02_data has not prepared them.
    """
    file = run.data / "about.json"
    if not file.is_file():
        raise TutorialError(
            f"The data of run {run.name!r} are not prepared yet: run the notebook 02_data first."
        )
    return read_json(file, DataFacts, "run the notebook 02_data again")


def final_answer(output: str) -> str:
    """Return what follows the last "####" of a text, its first line, or "" without one."""
    _, mark, rest = output.rpartition("####")
    lines = rest.strip().splitlines()
    return lines[0].strip() if mark and lines else ""


def kinds(examples: Sequence[dict[str, str]]) -> Counter[str]:
    """Count the examples whose answer is a number and those whose answer is a letter."""
    return Counter(
        "letter" if _LETTER.fullmatch(final_answer(row["output"])) else "number" for row in examples
    )


def contradictions(examples: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """Return the examples whose worked steps end in another number than their answer.

    Only numeric answers are looked at; the last number of the steps counts as what they end in.
    """
    found = []
    for row in examples:
        steps_text, _, _ = row["output"].rpartition("####")
        answer = final_answer(row["output"])
        numbers = re.findall(r"-?\d[\d,]*\.?\d*", steps_text)
        if not numbers or not _NUMBER.fullmatch(answer):
            continue
        if float(numbers[-1].replace(",", "")) != float(answer):
            found.append(row)
    return found


def overlap(train: Sequence[dict[str, str]], held_out: Sequence[dict[str, str]]) -> int:
    """Return how many held-out problems stand in the training set word for word."""
    known = {row["instruction"] for row in train}
    return sum(row["instruction"] in known for row in held_out)
