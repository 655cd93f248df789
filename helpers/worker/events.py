"""What happens inside a training or a prediction, told as it happens: one line of JSON an event.

The process that trains writes them (helpers/worker/callback.py); whoever started it reads them.
Only the standard library is imported.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, Required, TypedDict

VARIABLE = "TUTORIAL_EVENTS"  # names the environment variable that names the file
FILE = "events.jsonl"  # in the output folder of the call
# Names the environment variable that has no memory measured: of a prediction nobody asks it, and a
# benchmark looks what measuring costs.
UNMEASURED = "TUTORIAL_UNMEASURED"

Name = Literal[
    "loaded",  # the model is ready; digest, tensors and bytes are of its frozen weights
    "train_begin",  # step: where this part begins; total: optimizer steps in all; sharded: whether
    # the processes share the model out
    "step",  # an optimizer step is done
    "log",  # loss: the mean since the last logged step
    "evaluating",  # done, total: batches of the evaluation at this step
    "evaluated",  # loss: on the held-out set; seconds: what the evaluation took
    "answering",  # done, total: batches of the prediction
    "losses",  # nats, tokens: of each held-out problem, at the evaluation after training
    "train_end",  # the training loop is over
    "digest",  # digest, tensors, bytes of the frozen weights, after training
    "peak",  # of: loading, training or evaluation; bytes: the most that tensors took; longest:
    # whether the longest example was in what was measured
    "measuring",  # seconds: that measuring memory has taken of the call so far
]


class Event(TypedDict, total=False):
    """One event; which fields there are depends on its name."""

    event: Required[Name]
    at: Required[float]  # seconds since 1970
    step: int
    total: int
    done: int
    loss: float
    seconds: float
    digest: str
    tensors: int
    bytes: int
    longest: bool
    sharded: bool
    nats: list[float]
    tokens: list[int]
    of: Literal["loading", "training", "evaluation"]


def parse(lines: Iterable[str]) -> list[Event]:
    """Return the events of some lines, up to the first that is not whole."""
    found = []
    for line in lines:
        try:
            event: Event = json.loads(line)
        except ValueError:
            break
        found.append(event)
    return found


def read(file: Path) -> list[Event]:
    """Return the events of a file; none where there is no file."""
    try:
        return parse(file.read_text("utf-8").splitlines())
    except OSError:
        return []


def until(events: Iterable[Event], step: int) -> list[Event]:
    """Return what a training did before it was interrupted, up to an optimizer step."""
    kept = []
    for event in events:
        if event["event"] == "train_end" or event.get("step", 0) > step:
            break
        kept.append(event)
    return kept


_IN_THE_LOOP = ("step", "log", "evaluating", "evaluated")


def loop_seconds(events: Iterable[Event]) -> float:
    """Return how long the training loops of all parts took, each up to its last event."""
    total = 0.0
    before: float | None = None  # the time of the event before, inside a loop
    for event in events:
        if event["event"] in _IN_THE_LOOP and before is not None:
            total += event["at"] - before
            before = event["at"]
        elif event["event"] == "train_begin":
            before = event["at"]
        elif event["event"] in ("loaded", "train_end"):
            before = None
    return round(total, 4)
