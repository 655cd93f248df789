"""study.json: where every trial of a study is, and what they came to, in figures and codes."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel

from helpers.ground import paths
from helpers.ground.files import read_json, write_bytes
from helpers.ground.words import tr
from helpers.records.schema import Origin
from helpers.results.schema import Verdict
from helpers.study.asked import Asked, Trial

State = Literal["refused", "waiting", "running", "done", "failed"]


class Refusal(BaseModel):
    """Why a trial does not fit, and what would."""

    needed_bytes: int
    usable_bytes: int
    micro_batch: int  # the largest that fits; 0: none does
    methods: list[str]  # of the same model that fit


class Row(BaseModel):
    """A trial: what was planned for it, and where it is."""

    trial: Trial
    made_from: str  # a hash over all that decides it
    state: State = "waiting"
    planned_bytes: int | None = None
    load: float = 0.0  # how much there is to do, for the order
    refusal: Refusal | None = None
    sentence_of: str = ""  # the file whose last line says what is wrong
    attempts: int = 0
    where: str = ""  # the card or cores of the last attempt
    seconds: float | None = None  # of the attempt that was done


class Outcome(BaseModel):
    """What the trials of a model with a method came to that are done, a figure a seed."""

    model: str  # as MODEL= names it
    label: str
    parameters: int | None  # None: not known
    method: str
    seeds: list[int]
    exact_match: list[float | None]  # a share; None: the data do not say what is right
    held_out_loss: list[float]  # nats per token
    planned_bytes: int  # of tensors, at the worst moment
    measured_bytes: list[float | None]  # the same, measured; None: not measured
    longest: bool = True  # whether the longest example, for which it was planned, was in that
    seconds: list[float]  # training and answers
    cost: float | None  # of a trial, the mean; None: no price was said
    origin: Origin  # of the first


class Study(BaseModel):
    """The whole file."""

    name: str
    asked: Asked
    workers: int
    rows: list[Row]
    price: float | None = None  # of an hour of a card
    outcomes: list[Outcome] = []  # in the order of what was asked for
    verdicts: dict[str, Verdict] = {}  # over the seeds, by model

    def row(self, run: str) -> Row:
        return next(each for each in self.rows if each.trial.run == run)

    def count(self, *states: State) -> int:
        return sum(each.state in states for each in self.rows)


def file_of(name: str) -> Path:
    """Return where a study's file lies."""
    return paths.RunFolder(name).root / "study.json"


def write(study: Study) -> None:
    """Write study.json."""
    write_bytes(file_of(study.name), (study.model_dump_json(indent=1) + "\n").encode())


def read(name: str) -> Study | None:
    """Return what a study has come to; None where there is none.

    Raises:
        TutorialError: it cannot be read.
    """
    file = file_of(name)
    again = tr("run 'make study' again with another RUN=")
    return read_json(file, Study, again) if file.is_file() else None


def last_line(file: Path) -> str:
    """Return the last line of a log that says something; "" where there is none."""
    try:
        with file.open("rb") as log:
            log.seek(max(0, file.stat().st_size - 4096))
            lines = log.read().decode("utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
