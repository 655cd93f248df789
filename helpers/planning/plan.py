"""What is asked of a plan of memory, and what it says: facts and codes."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel

GIB = 2**30
# What takes the room, as the ledger names it.
Part = Literal["weights", "adapter", "gradients", "optimizer", "activations", "logits"]
PARTS: tuple[Part, ...] = (
    "weights", "adapter", "gradients", "optimizer", "activations", "logits",
)  # fmt: skip
# Whose memory it is: the card that CARD_GIB= names, this machine's, its container's, the first
# visible card's, or the tutorial's own card's.
Whose = Literal["named", "machine", "container", "card", "article"]


class Question(BaseModel):
    """What to plan: a recipe on a model and a device."""

    recipe: dict[str, Any]
    config: dict[str, Any] | None = None  # the model's; None: it lies where the recipe says
    device: str  # npu, cuda or cpu
    attention: str = "fused"  # "math": what a device without a fused kernel runs
    # Tokens of the longest example; None: that of the data set which the recipe names.
    length: int | None = None
    eval_length: int | None = None
    padded: bool = True  # examples of a batch differ in length
    cards: int = 1  # that train together, of which this is one
    sharded: bool = False  # whether they shard the model (FSDP2), or hold it whole each (DDP)
    budget_bytes: int | None = None  # given: the largest micro-batch within it is looked for


class Phase(BaseModel):
    """The peak of a training step or of an evaluation."""

    rows: int  # examples in the batch: the micro-batch
    length: int  # tokens of its longest example
    peak_bytes: int
    parts: dict[str, int]  # bytes at the peak, by PARTS


class Plan(BaseModel):
    """What a training will take."""

    question: Question
    training: Phase
    evaluation: Phase
    largest_micro_batch: int | None  # within the budget; 0: not even one example fits
    seconds: float

    @property
    def peak(self) -> Phase:
        """The larger of the two."""
        return max(self.training, self.evaluation, key=lambda phase: phase.peak_bytes)


class RunPlans(BaseModel):
    """The plans of a run's trainings, by method."""

    run: dict[str, Plan]
    article: dict[str, Plan]  # with the article's settings; none where the run has these


class Capacity(BaseModel):
    """The memory that a training may take."""

    total_bytes: int
    reserve_bytes: int
    of: Whose

    @property
    def usable_bytes(self) -> int:
        return self.total_bytes - self.reserve_bytes


class ArticlePlans(BaseModel):
    """The article's recipes, planned for three models and two lengths on an Ascend card."""

    made_from: str  # a hash over recipes, models, versions and the planner's code
    plans: dict[str, Plan]  # by "MODEL METHOD LENGTH"
