"""What a run found, as it is stored: facts and codes, never a sentence of one language."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import date
from typing import Any, Literal

from pydantic import BaseModel

from helpers.ground.words import tr
from helpers.inputs.data import DataFacts
from helpers.inputs.recipes import Recipe
from helpers.inputs.subjects import Weights
from helpers.machine import hardware
from helpers.machine.hardware import Hardware
from helpers.machine.memory import MemoryTrace
from helpers.records.scoring import Answer

# What is stored has this form. A step whose facts have another is done again.
FORM = 2
# Variables that decide figures in every process: threads, and who hands out memory.
ENVIRONMENT = (
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "GLIBC_TUNABLES", "LD_PRELOAD",
    "PYTORCH_NPU_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF", "TASK_QUEUE_ENABLE",
)  # fmt: skip


class Origin(BaseModel):
    """Where and when something was measured; it stays with a result that is used again."""

    machine: Hardware
    run: str
    day: date
    environment: dict[str, str] | None = None  # variables of the call that decide its figures;
    # None: not recorded

    def note(self) -> str:
        """Return it as the line that stands below what was measured."""
        return tr(
            "Measured on {machine}; run {run}, {day}.",
            machine=self.machine.sentence(),
            run=self.run,
            day=self.day.isoformat(),
        )


def origin(run: str, environment: Mapping[str, str] | None = None) -> Origin:
    """Return the origin of what is measured here and now, in a run of this name.

    Args:
        run: the run's name.
        environment: what the settings add to the call's environment; the reader's own wins.
    """
    asked = dict(environment or {})
    own = {name: os.environ[name] for name in (*asked, *ENVIRONMENT) if name in os.environ}
    return Origin(machine=hardware.describe(), run=run, day=date.today(), environment=asked | own)


class Peaks(BaseModel):
    """The most bytes that tensors took at one moment, as the allocator counts them.

    None where it was not measured.
    """

    training: int | None = None  # of an optimizer step
    evaluation: int | None = None
    # Until the model was ready. On a CPU 16-bit weights count from the beginning, and those that
    # are mapped from their file in order to be quantised do not.
    loading: int | None = None
    # Whether the longest example was in what was measured, which is what a plan is made for.
    training_longest: bool = False
    evaluation_longest: bool = False


class ArticleMemory(BaseModel):
    """The peaks of a few steps with the article's settings, beside those of a tuned run."""

    training: dict[str, int]  # bytes of tensors, by method
    origin: Origin


class LossPoint(BaseModel):
    """A loss at an optimizer step: for training the mean since the last logged step."""

    step: int
    loss: float


class Digest(BaseModel):
    """A digest of frozen weights, as helpers/worker/callback.py takes it, and of how much."""

    digest: str
    tensors: int
    bytes: int


class FrozenWeights(BaseModel):
    """The frozen weights in memory before training, and after it and its last evaluation."""

    before: Digest
    after: Digest


class ProblemLoss(BaseModel):
    """The loss of one held-out problem."""

    nats: float  # summed over the tokens of its expected solution
    tokens: int


class Training(BaseModel):
    """What one `llamafactory-cli train` call did."""

    loss: list[LossPoint]
    eval_loss: list[LossPoint]  # during training, and last of all right after it
    final_eval_loss: float  # of the evaluation right after training
    optimizer_steps: int
    samples: int  # training examples seen
    train_seconds: float  # the training loop, its evaluations included
    evaluation_seconds: float  # of these, the evaluations
    call_seconds: float  # the whole call: imports, loading, training, the last evaluation
    samples_per_second: float  # samples / (train_seconds - evaluation_seconds)
    resumed_at: list[int] = []  # steps from which it went on after an interruption; what was lost
    # in between is done once more and counted once, starting and loading count every time
    memory: MemoryTrace
    peaks: Peaks  # with several cards, of the one that took most
    frozen_weights: FrozenWeights
    adapter_bytes: int
    adapter_sha256: str
    origin: Origin
    # At the evaluation after training, in the order of the set that it evaluated.
    problem_losses: list[ProblemLoss] = []
    cards: int = 1  # on which it ran, with a process for each
    sharded: bool = False  # whether these sharded the model, instead of holding it whole each


class SeedResult(BaseModel):
    """What one training came to: the seed decides the adapter's first values and the order."""

    method: str
    seed: int
    held_out_loss: float
    correct: int
    n: int
    scored: bool = True  # whether the data say what is right; else correct and right say nothing
    right: list[bool] = []  # of each held-out problem, in their order
    losses: list[ProblemLoss] = []  # of each problem that the last evaluation took, in their order
    call_seconds: float = 0
    tensors: int | None = None  # the most bytes of them at one moment; None: not measured


class Answers(BaseModel):
    """One subject's answers for the held-out problems."""

    n: int
    correct: int
    correct_without_mark: int
    seconds: float  # the whole predict call
    items: list[Answer]
    origin: Origin

    @property
    def accuracy(self) -> float:
        return self.correct / self.n

    @property
    def scored(self) -> bool:
        """Whether the data say what is right: without that, `correct` says nothing."""
        return any(item.expected for item in self.items)


Benchmark = Literal["held_out", "gsm8k"]  # the run's own problems, or GSM8K's


class Score(BaseModel):
    """What evalscope found of one subject."""

    subject: str
    benchmark: Benchmark
    n: int
    share: float  # answered right, by evalscope's own reading of the texts
    seconds: float  # evalscope's run, without the start of the server
    evalscope: str  # its version
    ours: int | None  # right on the same problems, "####" not demanded; None for GSM8K

    @property
    def correct(self) -> int:
        return round(self.share * self.n)


class Divergence(BaseModel):
    """How far a merged model lies from base + adapter (helpers/worker/divergence.py)."""

    kl: float  # mean over the answer tokens of the held-out set, in nats
    same_token: float  # share of these tokens at which both think the same token likeliest
    tokens: int
    # Whether base + adapter answers from the merged model's own weights, bit for bit, because
    # LLaMA-Factory merges an adapter into 16-bit weights while it loads them.
    same_weights: bool = False


class Merge(BaseModel):
    """What merging an adapter gave."""

    weights: Weights  # what it was merged into
    seconds: float
    bytes_on_disk: int
    model_sha256: str
    same_answer: int  # held-out problems with the same final answer as base + adapter
    same_text: int  # ... with the same text to the letter
    n: int
    divergence: Divergence
    origin: Origin


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
