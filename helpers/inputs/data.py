"""Math10K, or generated problems in its schema: obtained, split, and registered for LLaMA-Factory.

How rows are drawn and what a usable one is: helpers/inputs/rows.py. What readers see of them:
helpers/inputs/data_tables.py.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel

from helpers.ground import paths
from helpers.ground.errors import TutorialError
from helpers.ground.files import (
    read_json,
    refusals_explained,
    sha256_file,
    sha256_json,
    whole_file,
    write_json,
)
from helpers.ground.words import tr
from helpers.inputs import rows, wordproblems
from helpers.inputs.settings import Settings
from helpers.programs import process, steps

if TYPE_CHECKING:
    import pyarrow.parquet as pq

MATH10K = "lmms-lab/Math10K"
MATH10K_FILE = "data/train-00000-of-00001.parquet"
GENERATED_ROWS = 10_000  # about what Math10K has
TRAIN, EVAL = "math_train", "math_eval"
# With more unusable rows than this share of a sample, something is wrong with the file.
MOST_UNUSABLE = 0.02
# What about.json holds has this form; data with another are prepared again.
FORM = 2

Source = Literal["math10k", "generated", "file"]


class Unusable(BaseModel):
    """A row that was sampled and cannot be used."""

    row: int  # its number in the source, from 0
    set: str  # TRAIN or EVAL
    fault: rows.Fault

    def words(self) -> str:
        """Return it as one line."""
        return tr(
            "row {row} ({set}): {reason}", row=self.row, set=self.set, reason=self.fault.words()
        )


class DataFacts(BaseModel):
    """What the run's data are; written as data/about.json and into every record."""

    source: Source
    name: str = ""  # Math10K's id on ModelScope, or the name of the reader's file
    source_rows: int
    source_sha256: str
    train: int
    eval: int
    train_sha256: str
    eval_sha256: str
    unusable: list[Unusable]

    def words(self) -> str:
        """Return where they come from, in words."""
        return {
            "math10k": tr("Math10K (ModelScope, {id})", id=self.name),
            "generated": tr("generated word problems"),
            "file": tr("file {name}", name=self.name),
        }[self.source]


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

        problems = wordproblems.generate(GENERATED_ROWS, rows.SEED)
        with refusals_explained(file):
            file.parent.mkdir(parents=True, exist_ok=True)
            aside = file.with_suffix(".part")
            pq.write_table(pa.Table.from_pylist(problems), aside)
            aside.replace(file)

    generator = sha256_json([sha256_file(source) for source in wordproblems.SOURCES])
    inputs = {"rows": GENERATED_ROWS, "seed": rows.SEED, "generator": generator}
    steps.done_once(run, "source", inputs, [file], write, say)
    return file


@dataclass(frozen=True)
class Obtained:
    """The problems on this machine: a parquet file, and what it is."""

    source: Source
    name: str
    file: Path


def obtain(settings: Settings, say: Callable[[str], None] = print) -> Obtained:
    """Bring the problems to this machine.

    Math10K comes from ModelScope. Where ModelScope cannot be reached, generated problems take its
    place and `say` is told so; the records name what was used.

    Raises:
        TutorialError: the named file is missing, or a download failed for another reason.
    """
    wanted = settings.profile.data.source
    if wanted == "generated":
        return Obtained("generated", "", _generate(settings.run, say))
    if wanted != "math10k":
        file = Path(wanted)
        if not file.is_file():
            raise TutorialError(
                tr(
                    "There is no file {file}: DATA= takes math10k, generated, or the path of a "
                    "parquet file.",
                    file=paths.shown(file),
                )
            )
        return Obtained("file", file.name, file)
    existing = paths.MODELS / "Math10K" / MATH10K_FILE
    if existing.is_file():
        return Obtained("math10k", MATH10K, existing)
    try:
        return Obtained("math10k", MATH10K, _download(settings.run.logs / "math10k.log"))
    except TutorialError as error:
        if error.fault != "no network":
            raise
        say(
            tr(
                "WARNING: ModelScope could not be reached, so generated problems take Math10K's "
                "place. They are easier: do not compare these figures with Math10K's."
            )
        )
        return Obtained("generated", "", _generate(settings.run, say))


def _write_set(
    target: Path, source: pq.ParquetFile, indices: Sequence[int], file: Path
) -> list[Unusable]:
    """Write the usable ones of some rows in Alpaca form; return the others.

    Written row by row: as one text, a million of them would take gigabytes.

    Raises:
        TutorialError: too many rows cannot be used.
    """
    unusable: list[Unusable] = []
    separator = b"[\n"
    with whole_file(target) as written:
        for index, row in zip(indices, rows.read(source, indices), strict=True):
            fault = rows.fault(row)
            if fault:
                unusable.append(Unusable(row=index, set=target.stem, fault=fault))
                continue
            text = json.dumps([rows.to_alpaca(row)], ensure_ascii=False, indent=2)
            written.write(separator + text[2:-2].encode())
            separator = b",\n"
        written.write(b"\n]\n")
        if len(unusable) > MOST_UNUSABLE * len(indices):
            raise TutorialError(
                tr(
                    "{count} of the {sampled} rows sampled for {set} cannot be used (the first: "
                    "{first}): check {file}.",
                    count=len(unusable),
                    sampled=len(indices),
                    set=target.stem,
                    first=unusable[0].words(),
                    file=paths.shown(file),
                )
            )
    return unusable


def prepare(settings: Settings, say: Callable[[str], None] = print) -> DataFacts:
    """Make the train and eval sets of a run and register them for LLaMA-Factory.

    Writes math_train.json, math_eval.json, dataset_info.json and about.json into the run's data
    folder, unless they are there and nothing they depend on has changed.

    Raises:
        TutorialError: the source is missing or damaged, too short, or has too many unusable rows.
    """
    obtained = obtain(settings, say)
    source_sha256 = sha256_file(obtained.file)
    wanted = settings.profile.data
    folder = settings.run.data

    def make() -> None:
        with rows.opened(obtained.file, fetched=obtained.source != "file") as source_file:
            source_rows = source_file.metadata.num_rows
            samples = rows.split_indices(source_rows, wanted.train, wanted.eval)
            rejected = {
                name: _write_set(folder / f"{name}.json", source_file, indices, obtained.file)
                for name, indices in zip((TRAIN, EVAL), samples, strict=True)
            }
        columns = {"prompt": "instruction", "query": "input", "response": "output"}
        write_json(
            registration_file(settings.run),
            {name: {"file_name": f"{name}.json", "columns": columns} for name in (TRAIN, EVAL)},
        )
        facts = DataFacts(
            source=obtained.source,
            name=obtained.name,
            source_rows=source_rows,
            source_sha256=source_sha256,
            train=wanted.train - len(rejected[TRAIN]),
            eval=wanted.eval - len(rejected[EVAL]),
            train_sha256=sha256_file(folder / f"{TRAIN}.json"),
            eval_sha256=sha256_file(folder / f"{EVAL}.json"),
            unusable=rejected[TRAIN] + rejected[EVAL],
        )
        write_json(folder / "about.json", facts.model_dump())

    inputs: dict[str, Any] = {"source": source_sha256, "name": obtained.name, "form": FORM}
    inputs |= {"train": wanted.train, "eval": wanted.eval, "seed": rows.SEED}
    steps.done_once(settings.run, "data", inputs, [folder], make, say)
    return facts_of(settings.run)


def load(folder: Path, name: str) -> list[dict[str, str]]:
    """Return the examples of one prepared set, in Alpaca form."""
    examples: list[dict[str, str]] = json.loads((folder / f"{name}.json").read_text("utf-8"))
    return examples


def registration_file(run: paths.RunFolder) -> Path:
    """Return the file in which LLaMA-Factory finds the two sets."""
    return run.data / "dataset_info.json"


def facts_of(run: paths.RunFolder) -> DataFacts:
    """Return what the run's prepared data are.

    Raises:
        TutorialError: 02_data has not prepared them.
    """
    file = run.data / "about.json"
    if not file.is_file():
        raise TutorialError(
            tr(
                "The data of run {run!r} are not prepared yet: run the notebook 02_data first.",
                run=run.name,
            )
        )
    return read_json(file, DataFacts, tr("run the notebook 02_data again"))


def final_answer(output: str) -> str:
    """Return what follows the last "####" of a text, its first line, or "" without one."""
    _, mark, rest = output.rpartition("####")
    lines = rest.strip().splitlines()
    return lines[0].strip() if mark and lines else ""


def kinds(examples: Sequence[dict[str, str]]) -> Counter[str]:
    """Count the examples whose answer is a number and those whose answer is a letter."""
    return Counter(
        "letter" if rows.LETTER.fullmatch(final_answer(row["output"])) else "number"
        for row in examples
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
        if not numbers or not rows.NUMBER.fullmatch(answer):
            continue
        if float(numbers[-1].replace(",", "")) != float(answer):
            found.append(row)
    return found


def overlap(train: Sequence[dict[str, str]], held_out: Sequence[dict[str, str]]) -> int:
    """Return how many held-out problems stand in the training set word for word."""
    known = {row["instruction"] for row in train}
    return sum(row["instruction"] in known for row in held_out)
