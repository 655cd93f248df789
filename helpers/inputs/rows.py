"""One problem as it comes from a file: its columns found, its values made text, looked at.

Two forms are taken, as LLaMA-Factory takes both: Alpaca columns, and messages (conversations.py).
The draw of rows is the article's: the first 90 % of the rows
and the last 10 %, `random.seed(42)`, then a sample from the first for training and one from the
second for evaluation.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel

from helpers.ground import paths
from helpers.ground.errors import TutorialError
from helpers.ground.words import series, tr
from helpers.inputs import conversations
from helpers.inputs.conversations import Formatting
from helpers.inputs.readers import Source, listed
from helpers.inputs.values import MOST_CHARACTERS, Fault, text_of

# What COLUMNS= can give another name.
COLUMNS = ("instruction", "input", "output", "answer", "system", "history", "tools", "messages")
MESSAGES = ("messages", "conversations")
SEED = 42
# What other data sets call these columns: a sentence can then say what COLUMNS= would be.
_LIKELY = {
    "instruction": ("question", "prompt", "problem", "query", "text", "user", "input"),
    "output": ("solution", "response", "completion", "answer", "chosen", "assistant", "target"),
}

Form = Literal["alpaca", "messages"]


@dataclass(frozen=True)
class Row:
    """A problem in LLaMA-Factory's terms; `answer` is the column's, None where it is empty."""

    instruction: str
    input: str
    output: str
    answer: str | None = None
    system: str = ""
    history: list[list[str]] = field(default_factory=list)  # [question, answer] of earlier turns
    tools: str = ""  # a JSON list of those that may be called
    # Places of the turns, from 0 and the last two included, at which a tool is called or answers.
    of_tools: list[int] = field(default_factory=list)

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

    @property
    def ends_in_call(self) -> bool:
        """Whether what the model should write is a call of a function."""
        return 2 * len(self.history) + 1 in self.of_tools

    def example(self, output: str, formatting: Formatting) -> dict[str, Any]:
        """Return it for LLaMA-Factory with this output.

        Args:
            output: what the model should write.
            formatting: that of its set; a row with turns of tools has its place in sharegpt alone.

        Returns:
            Its columns; `system`, `history` and `tools` where it has them.
        """
        more = {name: text for name in ("system", "tools") if (text := getattr(self, name))}
        if formatting == "sharegpt":
            texts = [text for turn in self.history for text in turn]
            asked = "\n".join(part for part in (self.instruction, self.input) if part)
            said = conversations.sharegpt([*texts, asked, output], self.of_tools)
            return {"conversations": said} | more
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
        kept = {name: columns[name] for name in ("answer", "system", "tools") if name in columns}
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
        spoken = conversations.turns(given["messages"])
        if isinstance(spoken, Fault):
            return spoken
        given |= {key: value for key, value in spoken.items() if value or key != "system"}
    texts: dict[str, str | None] = {}
    for name in ("instruction", "input", "output", "answer", "system"):
        text = text_of(given.get(name), name, numbers=name not in ("instruction", "system"))
        if isinstance(text, Fault):
            return text
        if text is None and name in ("instruction", "output"):
            return Fault(code="missing", column=name)
        texts[name] = text
    history = _history(given.get("history"))
    if isinstance(history, Fault):
        return history
    tools = conversations.tools(given.get("tools"))
    if isinstance(tools, Fault):
        return tools
    of_tools: list[int] = given.get("of_tools") or []
    length = len(tools) + sum(len(text or "") for text in texts.values())
    length += sum(len(text) for turn in history for text in turn)
    if length > MOST_CHARACTERS:
        return Fault(code="long", detail=str(length))
    # A tool may have nothing to say.
    if not (texts["instruction"] or "").strip() and 2 * len(history) not in of_tools:
        return Fault(code="empty", column="instruction")
    return Row(
        instruction=texts["instruction"] or "",
        input=texts["input"] or "",
        output=texts["output"] or "",
        answer=texts["answer"],
        system=texts["system"] or "",
        history=history,
        tools=tools,
        of_tools=of_tools,
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
            text = text_of(part, "history")
            if isinstance(text, Fault):
                return text
            texts.append(text or "")
        turns.append(texts)
    return turns


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
                "problems, as the former come from the first nine tenths and the latter from the "
                "last one: use a larger file, or ask for fewer with TRAIN={most_train} "
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
