"""One problem as it comes from a file: its columns found, its values made text, looked at.

Two forms are taken, as LLaMA-Factory takes both: Alpaca columns, and messages (OpenAI's role and
content, ShareGPT's from and value). The draw of rows is the article's: the first 90 % of the rows
and the last 10 %, `random.seed(42)`, then a sample from the first for training and one from the
second for evaluation.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal

from pydantic import BaseModel

from helpers.ground import paths
from helpers.ground.errors import TutorialError
from helpers.ground.words import series, tr
from helpers.inputs.readers import Source, listed

# What COLUMNS= can give another name.
COLUMNS = ("instruction", "input", "output", "answer", "system", "history", "messages")
MESSAGES = ("messages", "conversations")
SEED = 42
# A longer text than this is no school problem, and more than cutoff_len (2048) tokens can hold:
# LLaMA-Factory would cut its answer off without a word.
MOST_CHARACTERS = 8_000

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")  # all but tab and line ends
# What other data sets call these columns: a sentence can then say what COLUMNS= would be.
_LIKELY = {
    "instruction": ("question", "prompt", "problem", "query", "text", "user", "input"),
    "output": ("solution", "response", "completion", "answer", "chosen", "assistant", "target"),
}
_SPEAKERS = {"system": "system", "human": "user", "user": "user", "gpt": "assistant",
             "assistant": "assistant"}  # fmt: skip

Form = Literal["alpaca", "messages"]
Code = Literal[
    "missing", "not_utf8", "control", "mark", "long", "empty", "answer", "no_answer", "kind",
    "turns",
]  # fmt: skip


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
            "no_answer": tr("{column} holds no answer that can be scored", column=self.column),
            "kind": tr(
                "{column} holds {detail}, where text belongs",
                column=self.column,
                detail=_kind_named(self.detail),
            ),
            "turns": tr(
                "turn {detail} of {column} is not whose turn it is: user and assistant take "
                "turns, after one system text at most, and the assistant ends",
                column=self.column,
                detail=self.detail,
            ),
        }[self.code]


def _kind_named(code: str) -> str:
    return {
        "list": tr("a list"),
        "dict": tr("an object"),
        "bool": tr("true or false"),
        "int": tr("a number"),
        "float": tr("a number"),
        "Decimal": tr("a number"),
        "text": tr("text that is no list of turns"),
    }.get(code, code)


@dataclass(frozen=True)
class Row:
    """A problem in LLaMA-Factory's terms; `answer` is the column's, None where it is empty."""

    instruction: str
    input: str
    output: str
    answer: str | None = None
    system: str = ""
    history: list[list[str]] = field(default_factory=list)  # [question, answer] of earlier turns

    def packed(self) -> bytes:
        """Return it as one line."""
        return json.dumps(vars(self)).encode() + b"\n"

    @staticmethod
    def unpacked(line: bytes) -> Row:
        """Return what `packed` packed."""
        return Row(**json.loads(line))

    @property
    def problem(self) -> str:
        """What is asked, whatever its case and white space: two of the same are one problem."""
        earlier = [text for turn in self.history for text in turn]
        return " ".join("\n".join([*earlier, self.instruction, self.input]).split()).casefold()

    def alpaca(self, output: str) -> dict[str, Any]:
        """Return it in Alpaca form with this output; `system` and `history` where it has them."""
        more = {"system": self.system} if self.system else {}
        turns = {"history": self.history} if self.history else {}
        problem = {"instruction": self.instruction, "input": self.input, "output": output}
        return problem | more | turns


# ---- columns ------------------------------------------------------------------------------------


class Layout(BaseModel):
    """Which columns of a file are what."""

    form: Form
    columns: dict[str, str]  # one of COLUMNS: the file's own name of it


def layout(sources: Sequence[Source], renamed: Mapping[str, str]) -> Layout:
    """Find out which columns of some files are what.

    Args:
        sources: the files, looked through.
        renamed: what COLUMNS= says: one of `COLUMNS`, and the files' name of it, "" for none.

    Raises:
        TutorialError: a column is missing; the sentence says what COLUMNS= would be.
    """
    columns = tuple(dict.fromkeys(name for source in sources for name in source.columns))
    found = _layout(columns, paths.shown(sources[0].file), renamed)
    needed = ("messages",) if found.form == "messages" else ("instruction", "output")
    for source in sources:
        lacking = [
            found.columns[name] for name in needed if found.columns[name] not in source.columns
        ]
        if lacking:
            raise TutorialError(
                tr(
                    "{file} has no column {missing}, which other files beside it have: it has "
                    "{found}; name one of them with DATA=, or a folder of files with the same "
                    "columns.",
                    file=paths.shown(source.file),
                    missing=listed(lacking),
                    found=listed(source.columns),
                )
            )
    return found


def _layout(found: Sequence[str], file: str, renamed: Mapping[str, str]) -> Layout:
    for ours, theirs in renamed.items():
        if theirs and theirs not in found:
            raise TutorialError(
                tr(
                    "COLUMNS= says {ours}={theirs}, and {file} has no column {theirs}: it has "
                    "{found}.",
                    ours=ours,
                    theirs=theirs[:40],
                    file=file,
                    found=listed(found),
                )
            )
    columns = {ours: theirs for ours, theirs in renamed.items() if theirs}
    taken = set(columns.values())
    for name in COLUMNS[:-1]:
        if name in found and name not in taken and name not in renamed:
            columns[name] = name
    asked = {"instruction", "output"} & renamed.keys()
    spoken = next((name for name in MESSAGES if name in found and not asked), None)
    spoken = renamed.get("messages", spoken)
    if spoken and ("messages" in renamed or not {"instruction", "output"} <= columns.keys()):
        kept = {name: columns[name] for name in ("answer", "system") if name in columns}
        return Layout(form="messages", columns={"messages": spoken} | kept)
    missing = [name for name in ("instruction", "output") if name not in columns]
    if not missing:
        return Layout(form="alpaca", columns=columns)
    raise TutorialError(
        tr(
            "{file} has no column {missing}, and has {found}: say which it is with "
            'COLUMNS="{said}", or use a file with instruction and output, or with messages.',
            file=file,
            missing=series(missing),
            found=listed(found),
            said=_likely(missing, [name for name in found if name not in renamed.values()]),
        )
    )


def _likely(missing: Sequence[str], free: Sequence[str]) -> str:
    """Return what COLUMNS= would say, by what others call these columns."""
    guesses: dict[str, str] = {}
    for name in missing:
        likely = (each for each in _LIKELY[name] if each in free and each not in guesses.values())
        guesses[name] = next(likely, "...")
    return " ".join(f"{name}={guess}" for name, guess in guesses.items())


# ---- values -------------------------------------------------------------------------------------


def _number(value: float | Decimal) -> str:
    """Return a number as text that is a plain number, if it is finite: 1e3 is "1000.0"."""
    exact = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    return f"{exact:f}" if exact.is_finite() and abs(exact.adjusted()) < 30 else str(value)


def _text(value: Any, column: str, numbers: bool = True) -> str | Fault | None:
    """Return a value as text, None where there is none, or what is wrong with it."""
    if value is None:
        return None
    if isinstance(value, bytes):
        return Fault(code="not_utf8", column=column)
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool) and numbers:
        return str(value) if isinstance(value, int) else _number(value)
    if not isinstance(value, str):
        return Fault(code="kind", column=column, detail=type(value).__name__)
    control = _CONTROL.search(value)
    if control:
        return Fault(code="control", column=column, detail=repr(control[0]))
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:  # half of a pair, as "\ud83d" in JSON
            return Fault(code="not_utf8", column=column)
    return value


def row_of(values: Mapping[str, Any], found: Layout) -> Row | Fault:
    """Return a row as a problem, or why it is none.

    An empty output is no reason: some rows of Math10K have no worked steps, and the article trains
    on them.

    Args:
        values: by the file's columns, as helpers/inputs/readers.py gives them.
        found: which of them are what.
    """
    given = {name: values.get(theirs) for name, theirs in found.columns.items()}
    if found.form == "messages":
        spoken = _turns(given["messages"])
        if isinstance(spoken, Fault):
            return spoken
        given |= {key: value for key, value in spoken.items() if value or key != "system"}
    texts: dict[str, str | None] = {}
    for name in ("instruction", "input", "output", "answer", "system"):
        text = _text(given.get(name), name, numbers=name not in ("instruction", "system"))
        if isinstance(text, Fault):
            return text
        if text is None and name in ("instruction", "output"):
            return Fault(code="missing", column=name)
        texts[name] = text
    history = _history(given.get("history"))
    if isinstance(history, Fault):
        return history
    length = sum(len(text or "") for text in texts.values())
    length += sum(len(text) for turn in history for text in turn)
    if length > MOST_CHARACTERS:
        return Fault(code="long", detail=str(length))
    if not (texts["instruction"] or "").strip():
        return Fault(code="empty", column="instruction")
    return Row(
        instruction=texts["instruction"] or "",
        input=texts["input"] or "",
        output=texts["output"] or "",
        answer=texts["answer"],
        system=texts["system"] or "",
        history=history,
    )


def _history(value: Any) -> list[list[str]] | Fault:
    if value is None or value == "":
        return []
    if not isinstance(value, list):
        return Fault(code="kind", column="history", detail=type(value).__name__)
    turns = []
    for turn in value:
        if not isinstance(turn, list) or len(turn) != 2:
            return Fault(code="kind", column="history", detail=type(turn).__name__)
        texts = []
        for part in turn:
            text = _text(part, "history")
            if isinstance(text, Fault):
                return text
            texts.append(text or "")
        turns.append(texts)
    return turns


def _turns(value: Any) -> dict[str, Any] | Fault:
    """Return messages in Alpaca's terms: the last question and answer, and what was before them."""
    column = "messages"
    if value is None:
        return Fault(code="missing", column=column)
    if not isinstance(value, list):
        kind = "text" if isinstance(value, str) else type(value).__name__
        return Fault(code="kind", column=column, detail=kind)
    system = ""
    texts: list[str] = []
    for number, turn in enumerate(value, 1):
        if not isinstance(turn, dict):
            return Fault(code="kind", column=column, detail=type(turn).__name__)
        speaker = turn.get("role") or turn.get("from")
        speaker = _SPEAKERS.get(speaker) if isinstance(speaker, str) else None
        text = _text(turn.get("content", turn.get("value")), column, numbers=False)
        if isinstance(text, Fault):
            return text
        if speaker == "system" and number == 1:
            system = text or ""
            continue
        if speaker != ("user", "assistant")[len(texts) % 2]:
            return Fault(code="turns", column=column, detail=str(number))
        texts.append(text or "")
    if not texts or len(texts) % 2:
        return Fault(code="turns", column=column, detail=str(len(value) + 1))
    pairs = [texts[at : at + 2] for at in range(0, len(texts), 2)]
    question, answer = pairs.pop()
    return {"instruction": question, "output": answer, "system": system, "history": pairs}


# ---- the draw -----------------------------------------------------------------------------------


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
                "problems: use a larger file, or ask for fewer with TRAIN={most_train} "
                "EVAL={most_held_out}, the most that it has.",
                rows=rows,
                train=train,
                held_out=held_out,
                most_train=min(train, cut),
                most_held_out=min(held_out, rows - cut),
            )
            if cut
            else tr(
                "The data have {rows} row, and a training and a held-out problem are needed at "
                "the least: use a larger file.",
                rows=rows,
            )
        )
    draw = random.Random(SEED)
    return draw.sample(range(cut), train), draw.sample(range(cut, rows), held_out)
