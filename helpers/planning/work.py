"""What a training has to do, counted: operators with their arithmetic and the bytes they move."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel

from helpers.planning.plan import Question

LAYERS = "num_hidden_layers"  # in a config.json
# What limits an operator: the matrix units, the memory, or nothing (a view: it is only called).
Kind = Literal["matrix", "attention", "vector", "view"]


class Operators(BaseModel):
    """Operators of one kind and size.

    A part of a model that is repeated is counted from two traces, so `calls` can be negative where
    an operator of one size takes the place of one of another; sums are right.
    """

    kind: Kind
    calls: int
    flops: int  # of one
    bytes: int  # that one reads and writes
    form: str = ""  # the operator and its arguments as JSON, where they are asked for


class Work(BaseModel):
    """What the phases of a training take, each once."""

    length: int  # tokens of a training example, as batches have it on average
    eval_length: int
    micro_batch: list[Operators]  # forward and backward
    update: list[Operators]  # clipping, and the optimizer's step
    evaluation: list[Operators]  # a batch of held-out problems, forward
    token: list[Operators]  # one more token of every answer of a batch


class WorkQuestion(Question):
    """Whose work is to be counted; `length` and `eval_length` are those of an average batch."""

    answer_rows: int = 1  # problems that are answered in one batch
    forms: bool = False  # keep what is needed to do each operator once, for real


def of_layers(config: Mapping[str, Any], layers: int) -> dict[str, Any]:
    """Return the config.json of the same model with another number of layers."""
    return {key: value for key, value in config.items() if key != "layer_types"} | {LAYERS: layers}
