"""What each of several cards does of one training: its part of the batch of an optimizer step.

The batch of a step stays what it is on one card, and holds the same problems: accelerate deals the
micro-batches out in turn, in the order in which one card would take them.
"""

from __future__ import annotations

import math

from helpers.ground.errors import TutorialError
from helpers.ground.words import tr
from helpers.inputs.methods import Recipe

ROWS, MICRO_BATCHES = "per_device_train_batch_size", "gradient_accumulation_steps"
EVALUATED = "per_device_eval_batch_size"


def _count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def shared(recipe: Recipe, cards: int, sharded: bool = False) -> Recipe:
    """Return the recipe that each of several cards takes, so that a step's batch stays the same.

    Micro-batches are shared out first; where there are too few, the examples of one as well. So are
    those of an evaluation's batch, if they divide: its loss is averaged over the batches, and
    transformers takes what all cards have read at a time for one.

    Args:
        recipe: of a training on one card.
        cards: how many there are; with one, the recipe stays as it is.
        sharded: whether they shard the model, too, which one card cannot.

    Raises:
        TutorialError: the batch of a step does not divide by the cards, or there is one alone to
            shard the model over.
    """
    if cards == 1 and sharded:
        raise TutorialError(
            tr(
                "SHARDED=yes shards a model over several cards: say how many with CARDS=, as in "
                "CARDS=2, or leave out SHARDED=."
            )
        )
    if cards == 1:
        return recipe
    rows, micro_batches = recipe.get(ROWS, 8), recipe.get(MICRO_BATCHES, 1)
    if not _count(rows) or not _count(micro_batches):
        return recipe  # refused where such values are refused for one card
    common = math.gcd(micro_batches, cards)
    each, left = divmod(rows, cards // common)
    if left:
        raise TutorialError(
            tr(
                "A batch of {batch} examples a step ({micro_batches} micro-batches of {rows}) "
                "does not divide by {cards} cards: choose another CARDS=, or other values of "
                "gradient_accumulation_steps and per_device_train_batch_size with OVERRIDES=.",
                batch=rows * micro_batches,
                micro_batches=micro_batches,
                rows=rows,
                cards=cards,
            )
        )
    evaluated = recipe.get(EVALUATED, 8)
    if _count(evaluated) and evaluated % cards == 0:
        evaluated //= cards
    return recipe | {ROWS: each, MICRO_BATCHES: micro_batches // common, EVALUATED: evaluated}


def between(cards: int, device: str) -> Recipe:
    """Return what a recipe needs besides, so that the processes of a training speak to each other.

    Whoever looks at one process alone, as a plan does, must do without it.

    Args:
        cards: how many there are.
        device: npu, cuda or cpu. A card's own way is accelerate's to choose.
    """
    return {"ddp_backend": "gloo"} if cards > 1 and device == "cpu" else {}
