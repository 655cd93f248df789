"""The records that a run leaves: one JSON a method, read back by the comparison."""

from __future__ import annotations

import subprocess
from contextlib import suppress
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from helpers import cann, hardware, npu_smi, paths
from helpers.answers import Answer
from helpers.data import DataFacts
from helpers.errors import TutorialError
from helpers.files import write_bytes
from helpers.hardware import Hardware
from helpers.memory import MemoryTrace
from helpers.recipe import Recipe

PACKAGES = ("llamafactory", "transformers", "peft", "accelerate", "bitsandbytes", "torch",
            "torch-npu", "swanlab", "modelscope")  # fmt: skip


class LossPoint(BaseModel):
    """A loss at an optimizer step: for training the mean since the last logged step."""

    step: int
    loss: float


class Digest(BaseModel):
    """A digest of frozen weights, as helpers/frozen_weights.py takes it, and of how much."""

    digest: str
    tensors: int
    bytes: int


class FrozenWeights(BaseModel):
    """The frozen weights in memory before training, and after it and its last evaluation."""

    before: Digest
    after: Digest


class Training(BaseModel):
    """What one `llamafactory-cli train` call did."""

    loss: list[LossPoint]
    eval_loss: list[LossPoint]  # during training
    final_eval_loss: float  # of the evaluation right after training
    optimizer_steps: int
    samples: int  # training examples seen
    train_seconds: float  # the training loop, its evaluations included
    call_seconds: float  # the whole call: imports, loading, training, the last evaluation
    samples_per_second: float  # samples / train_seconds
    resumed_at: list[int] = []  # steps from which it went on after an interruption; what was lost
    # in between is done once more and counted once, starting and loading count every time
    memory: MemoryTrace
    frozen_weights: FrozenWeights
    adapter_bytes: int
    adapter_sha256: str


class Answers(BaseModel):
    """One subject's answers for the held-out problems."""

    n: int
    correct: int
    correct_without_mark: int
    seconds: float  # the whole predict call
    items: list[Answer]

    @property
    def accuracy(self) -> float:
        return self.correct / self.n


def paired_counts(first: Answers, second: Answers) -> tuple[int, int, int, int]:
    """Return how many problems both solved, only the first, only the second, and neither.

    Raises:
        ValueError: the two did not answer the same problems.
    """
    if [item.problem for item in first.items] != [item.problem for item in second.items]:
        raise ValueError("the two did not answer the same problems")
    pairs = [(a.correct, b.correct) for a, b in zip(first.items, second.items, strict=True)]
    outcomes = ((True, True), (True, False), (False, True), (False, False))
    both, only_first, only_second, neither = (pairs.count(outcome) for outcome in outcomes)
    return both, only_first, only_second, neither


class Example(BaseModel):
    """One held-out problem with what several subjects wrote, by their names."""

    problem: str
    expected: str
    answers: dict[str, tuple[str, bool]]  # text, and whether it is right


def examples(answers: dict[str, Answers], count: int) -> list[Example]:
    """Return the first problems with every subject's answer.

    Args:
        answers: the answers by the name to show.
        count: how many problems.
    """
    first = next(iter(answers.values()))
    return [
        Example(
            problem=item.problem,
            expected=item.expected,
            answers={
                name: (found.items[index].text, found.items[index].correct)
                for name, found in answers.items()
            },
        )
        for index, item in enumerate(first.items[:count])
    ]


class Divergence(BaseModel):
    """How far a merged model lies from base + adapter (helpers/divergence.py)."""

    kl: float  # mean over the answer tokens of the held-out set, in nats
    same_token: float  # share of these tokens at which both think the same token likeliest
    tokens: int


class Merge(BaseModel):
    """What merging an adapter gave."""

    base: str  # the weights it was merged into
    seconds: float
    bytes_on_disk: int
    model_sha256: str
    same_answer: int  # held-out problems with the same final answer as base + adapter
    same_text: int  # ... with the same text to the letter
    n: int
    divergence: Divergence


class Record(BaseModel):
    """Everything known of one subject: base, lora, qlora or a merged model."""

    subject: str
    profile: str
    device: str
    model: str
    model_source: str
    model_sha256: str
    data: DataFacts
    overrides: dict[str, Any]
    recipes: dict[str, Recipe]  # by step: train, export, predict
    versions: dict[str, str]
    hardware: Hardware
    training: Training | None = None
    merge: Merge | None = None
    answers: Answers


@cache
def versions() -> dict[str, str]:
    """Return the versions of what decides the figures: packages and, on an NPU, CANN and driver."""
    found = {}
    for package in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    if hardware.detect_device() == "npu":
        found["CANN"] = next(iter(cann.installations(Path("/")).values()), "not found")
        found["driver"] = cann.driver_version(Path("/")) or "not found"
        with suppress(OSError, npu_smi.UnreadableOutput, subprocess.TimeoutExpired):
            found["npu-smi"] = npu_smi.query().version
    return found


def file_of(run: paths.RunFolder, subject: str) -> Path:
    """Return the file that holds a subject's record."""
    return run.results / f"{subject}.json"


def write(run: paths.RunFolder, record: Record) -> Path:
    """Write a record into the run's results folder and return its file."""
    file = file_of(run, record.subject)
    write_bytes(file, (record.model_dump_json(indent=1) + "\n").encode())
    return file


_MADE_BY = {
    "base": "03_lora",
    "lora": "03_lora",
    "qlora": "04_qlora",
    **dict.fromkeys(paths.MERGED, "05_merge"),
}


def read(run: paths.RunFolder, subject: str) -> Record:
    """Return a subject's record.

    Raises:
        TutorialError: there is none yet, with the notebook that makes it, or it cannot be read.
    """
    file = file_of(run, subject)
    if not file.is_file():
        raise TutorialError(
            f"Run {run.name!r} has no results for {subject} yet: run the notebook "
            f"{_MADE_BY[subject]} first."
        )
    try:
        return Record.model_validate_json(file.read_bytes())
    except ValidationError as error:
        raise TutorialError(
            f"{paths.shown(file)} was written by another version of this tutorial: delete it and "
            f"run the notebook {_MADE_BY[subject]} again."
        ) from error
