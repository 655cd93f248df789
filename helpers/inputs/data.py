"""A run's problems: obtained, drawn, split, and registered for LLaMA-Factory.

Where they come from: helpers/inputs/sources.py. How files are read: readers.py. What a row is:
rows.py, and a conversation: conversations.py; what an answer is: answers.py. What readers see of
them: data_tables.py.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from helpers.ground import paths
from helpers.ground.errors import TutorialError
from helpers.ground.files import read_json, sha256_file, whole_file, write_json
from helpers.ground.words import series, tr
from helpers.inputs import answers, conversations, json_rows, readers, rows, sources
from helpers.inputs.answers import Scoring, Way
from helpers.inputs.conversations import Formatting
from helpers.inputs.data_settings import DataSettings
from helpers.inputs.file_kinds import Kind
from helpers.inputs.rows import Form
from helpers.inputs.settings import Settings
from helpers.inputs.sources import Obtained
from helpers.inputs.values import Fault
from helpers.programs import steps
from helpers.programs.making import Making

# numpy and pyarrow are imported where files are read: they take time and memory, and most
# notebooks only read what was made of them.
if TYPE_CHECKING:
    from helpers.inputs.drawn import Drawn

TRAIN, EVAL = "math_train", "math_eval"
CURVE = "math_curve"  # the first of EVAL, where a profile asks for it
# With more unusable rows than this share of a sample, something is wrong with the file.
MOST_UNUSABLE = 0.02
# With a larger share of the held-out problems in the training set, a score tells what was learnt
# by heart.
MOST_LEAKED = 0.05
# What about.json holds has this form; data with another are prepared again.
FORM = 3
_REGISTRATION, _ABOUT = "dataset_info.json", "about.json"


class Unusable(BaseModel):
    """A row that was sampled and cannot be used."""

    file: str
    row: int  # its number in the file, from 1
    set: str  # TRAIN or EVAL
    fault: Fault

    def words(self) -> str:
        """Return it as one line."""
        return tr(
            "row {row} of {file} ({set}): {reason}",
            row=self.row,
            file=self.file,
            set=self.set,
            reason=self.fault.words(),
        )


class DataFacts(BaseModel):
    """What the run's data are; written as data/about.json and into every record."""

    source: sources.Code
    name: str = ""  # the id on ModelScope, or the name of the reader's file or folder
    source_rows: int
    source_sha256: str
    train: int
    eval: int
    train_sha256: str
    eval_sha256: str
    unusable: list[Unusable]
    curve: int | None = None  # how many of the held-out problems are CURVE; None: there is none
    kind: Kind = "parquet"
    files: int = 1
    form: Form = "alpaca"
    columns: dict[str, str] = {}  # one of rows.COLUMNS: the file's own name of it
    # Whether the problems have answers that can be scored: without, there is no accuracy.
    scored: bool = True
    answers: dict[Way, int] = {}  # where those of both sets come from
    repeated: int = 0  # training problems that stand in the training set before
    leaked: int = 0  # held-out problems that stand in the training set, too
    with_tools: int = 0  # problems of both sets in which a tool is called or answers

    def words(self) -> str:
        """Return where they come from, in words."""
        return {
            "math10k": tr("Math10K (ModelScope, {id})", id=self.name),
            "generated": tr("generated word problems"),
            "file": tr("file {name}", name=self.name),
            "folder": tr("folder {name}", name=self.name),
            "modelscope": tr("ModelScope, {id}", id=self.name),
        }[self.source]


class _Written(BaseModel):
    """What was written of one set."""

    count: int = 0
    with_tools: int = 0  # those in which a tool is called or answers
    formatting: Formatting
    ways: Counter[Way] = Counter()
    more: set[str] = set()  # of conversations.MORE


def _write_set(target: Path, drawn: Drawn, places: range, scoring: Scoring) -> _Written:
    """Write the usable ones of some rows in Alpaca form, or in ShareGPT's where tools speak.

    Written row by row: as one text, a million of them would take gigabytes.

    Raises:
        TutorialError: too many rows cannot be used.
    """
    written = _Written(formatting="sharegpt" if drawn.survey.with_tools else "alpaca")
    ways = Counter[Way]()
    separator = b"[\n"
    with whole_file(target) as file:
        for place, row in drawn.rows(places):
            found = answers.settled(row, scoring)
            if isinstance(found, Fault):
                drawn.reject(place, found)
                continue
            way, output = found
            example = row.example(output, written.formatting)
            text = json.dumps([example], ensure_ascii=False, indent=2)
            file.write(separator + text[2:-2].encode())
            separator = b",\n"
            written.count += 1
            written.with_tools += bool(row.of_tools)
            written.more |= example.keys() & set(conversations.MORE)
            if way:
                ways[way] += 1
        file.write(b"\n]\n" if written.count else b"[]\n")
        _check_unusable(drawn, places, written.count, target.stem)
    written.ways = ways
    return written


def _unusable(drawn: Drawn, places: range, name: str) -> list[Unusable]:
    found = []
    for place in (place for place in places if place in drawn.faults):
        file, row = drawn.where(place)
        found.append(Unusable(file=file, row=row, set=name, fault=drawn.faults[place]))
    return found


def _check_unusable(drawn: Drawn, places: range, usable: int, name: str) -> None:
    count = len(places) - usable
    if count <= MOST_UNUSABLE * len(places):
        return
    first = _unusable(drawn, places, name)[0]
    remedy = {
        "answer": tr('correct them, or leave that column out with COLUMNS="answer="'),
        "missing": tr("fill that column, or name another one with COLUMNS="),
        "kind": tr("put text there, or name another column with COLUMNS="),
        "tools": tr('correct them, or leave that column out with COLUMNS="tools="'),
        "called": tr('end them with an answer, or leave answers out with COLUMNS="answer="'),
    }.get(first.fault.code, tr("correct them"))
    raise TutorialError(
        tr(
            "{count} of the {sampled} rows sampled for {set} cannot be used, and at most {most} "
            "may be (the first: {first}): {remedy}.",
            count=count,
            sampled=len(places),
            set=name,
            most=int(MOST_UNUSABLE * len(places)),
            first=first.words(),
            remedy=remedy,
        )
    )


def _check_leaked(drawn: Drawn, leaked: Sequence[tuple[int, int]], held_out: int) -> None:
    if len(leaked) <= MOST_LEAKED * held_out:
        return
    (file, row), (other, first) = (drawn.where(place) for place in leaked[0])
    raise TutorialError(
        tr(
            "{count} of {held_out} held-out problems ({share:.1f} %) stand in the training set as "
            "well, and at most {most:.0f} % may (the first: row {row} of {file} is row {first} of "
            "{other}), for a score would tell what was learnt by heart: have each problem stand "
            "once, or all of its kind among the first 90 % of the rows.",
            count=len(leaked),
            held_out=held_out,
            share=100 * len(leaked) / held_out,
            most=100 * MOST_LEAKED,
            row=row,
            file=file,
            first=first,
            other=other,
        )
    )


def _register(folder: Path, written: dict[str, _Written]) -> None:
    """Write the file by which LLaMA-Factory finds the sets."""
    entries = {
        name: conversations.registered(f"{name}.json", each.formatting, each.more)
        for name, each in written.items()
    }
    write_json(folder / _REGISTRATION, entries)


def _curve(folder: Path, wanted: DataSettings, held_out: _Written) -> _Written | None:
    """Write the first held-out problems once more, as a set of their own, if they are asked for."""
    if wanted.curve is None:
        return None
    first = [row for _, row in islice(json_rows.of_list(folder / f"{EVAL}.json"), wanted.curve)]
    write_json(folder / f"{CURVE}.json", first)
    return held_out.model_copy(
        update={
            "count": len(first),
            "more": {name for name in held_out.more if any(name in row for row in first)},
        }
    )


def _make(obtained: Obtained, source_sha256: str, wanted: DataSettings, folder: Path) -> DataFacts:
    """Write both sets, the third if it is asked for, and what they are."""
    from helpers.inputs.drawn import Drawn

    looked_through = [readers.examined(file, obtained.fetched) for file in obtained.files]
    source_rows = sum(each.rows for each in looked_through)
    samples = rows.split_indices(source_rows, wanted.train, wanted.eval)
    train = range(wanted.train)
    held_out = range(wanted.train, wanted.train + wanted.eval)
    folder.mkdir(parents=True, exist_ok=True)
    with readers.explained(obtained.files[0], obtained.ours):
        layout = rows.layout(looked_through, wanted.columns)
        with Drawn(looked_through, layout, samples[0] + samples[1], folder) as drawn:
            scoring = "column" if obtained.ours else drawn.survey.scoring()
            written = {
                name: _write_set(folder / f"{name}.json", drawn, places, scoring)
                for name, places in ((TRAIN, train), (EVAL, held_out))
            }
            leaked = drawn.leaked(train, held_out)
            if not obtained.ours:  # the article's split is what it is
                _check_leaked(drawn, leaked, written[EVAL].count)
            unusable = _unusable(drawn, train, TRAIN) + _unusable(drawn, held_out, EVAL)
            repeated = drawn.repeated(train)
    curve = _curve(folder, wanted, written[EVAL])
    _register(folder, written | ({CURVE: curve} if curve else {}))
    facts = DataFacts(
        source=obtained.source,
        name=obtained.name,
        source_rows=source_rows,
        source_sha256=source_sha256,
        train=written[TRAIN].count,
        eval=written[EVAL].count,
        train_sha256=sha256_file(folder / f"{TRAIN}.json"),
        eval_sha256=sha256_file(folder / f"{EVAL}.json"),
        unusable=unusable,
        curve=curve.count if curve else None,
        kind=looked_through[0].kind,
        files=len(looked_through),
        form=layout.form,
        columns=layout.columns,
        scored=scoring != "none",
        answers=dict(written[TRAIN].ways + written[EVAL].ways),
        repeated=repeated,
        leaked=len(leaked),
        with_tools=written[TRAIN].with_tools + written[EVAL].with_tools,
    )
    write_json(folder / _ABOUT, facts.model_dump())
    return facts


def prepare(settings: Settings, say: Callable[[str], None] = print) -> DataFacts:
    """Make the train and eval sets of a run and register them for LLaMA-Factory.

    Writes math_train.json, math_eval.json, math_curve.json if the profile asks for it,
    dataset_info.json and about.json into the run's data folder, unless they are there and nothing
    they depend on has changed.

    Raises:
        TutorialError: the source is missing or damaged, too short, has too many unusable rows, or
            holds its held-out problems among those for training.
    """
    wanted = settings.profile.data
    obtained = sources.obtain(wanted.source, settings.run, say)
    source_sha256 = obtained.sha256()

    def make(making: Making) -> None:
        _tell(_make(obtained, source_sha256, wanted, making.place(settings.run.data)), say)

    inputs: dict[str, Any] = {"source": source_sha256, "name": obtained.name, "form": FORM}
    inputs |= wanted.model_dump(include={"train", "eval", "curve", "columns"}) | {"seed": rows.SEED}
    steps.done_once(settings.run, "data", inputs, settings.run.data, make, say)
    return facts_of(settings.run)


def _tell(facts: DataFacts, say: Callable[[str], None]) -> None:
    """Say what a reader would not expect of the data."""
    if not facts.scored:
        say(
            tr(
                "The problems have no answers that can be scored, numbers or letters: held-out "
                "losses and texts are compared, and accuracy is left out."
            )
        )
    elif not facts.answers.keys() <= {"column"}:
        say(tr("Where the answers come from: {ways}.", ways=ways_named(facts.answers)))
    if facts.leaked:
        say(
            tr(
                "{count} of {held_out} held-out problems stand in the training set as well.",
                count=facts.leaked,
                held_out=facts.eval,
            )
        )


def ways_named(ways: dict[Way, int]) -> str:
    """Return where answers come from, and how many from each place, in words."""
    names: dict[Way, str] = {
        "column": tr("the column answer"),
        "mark": tr("what follows ####"),
        "boxed": tr("\\boxed{{}}"),
        "last_number": tr("the last number of the output"),
    }
    return series(
        tr("{what} ({detail})", what=names[way], detail=f"{count:,}") for way, count in ways.items()
    )


def examples(folder: Path, name: str) -> Iterator[dict[str, Any]]:
    """Give the examples of one prepared set, in Alpaca form, one at a time.

    Raises:
        TutorialError: the set is missing or damaged.
    """
    file = folder / f"{name}.json"
    try:
        for _, row in json_rows.of_list(file):
            yield conversations.as_alpaca(row) if "conversations" in row else row
    except (OSError, ValueError, TutorialError) as error:
        raise TutorialError(
            tr(
                "{path} is missing or damaged: run the notebook 02_data again.",
                path=paths.shown(file),
            )
        ) from error


def load(folder: Path, name: str) -> list[dict[str, Any]]:
    """Return the examples of one prepared set, in Alpaca form, all at once."""
    return list(examples(folder, name))


def registration_file(run: paths.RunFolder) -> Path:
    """Return the file in which LLaMA-Factory finds the sets."""
    return run.data / _REGISTRATION


def facts_of(run: paths.RunFolder) -> DataFacts:
    """Return what the run's prepared data are.

    Raises:
        TutorialError: 02_data has not prepared them.
    """
    file = run.data / _ABOUT
    if not file.is_file():
        raise TutorialError(
            tr(
                "The data of run {run!r} are not prepared yet: run the notebook 02_data first.",
                run=run.name,
            )
        )
    return read_json(file, DataFacts, tr("run the notebook 02_data again"))
