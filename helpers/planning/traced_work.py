"""Count a training's operators on fake tensors: `python -m helpers.planning.traced_work`.

Takes a file of questions (helpers/planning/work.py), one JSON list, and the file for the answers.
The steps are those that plan memory (traced_step.py), of a model with one layer and of one with
two: all layers do the same.
"""

from __future__ import annotations

import gc
import json
import random
import sys
import tempfile
from collections import Counter as Counts
from pathlib import Path
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from helpers.planning.building import Arguments, build
from helpers.planning.counter import Counter, Key, extrapolated
from helpers.planning.traced_step import (
    Step,
    as_on_the_device,
    bodies,
    padded_length,
    token_counts,
)
from helpers.planning.work import LAYERS, Work, WorkQuestion, of_layers

Phases = dict[str, Counts[Key]]


def average(lengths: list[int], rows: int, shuffled: bool) -> int:
    """Return the tokens of a batch's longest example, as batches have it on average.

    Args:
        lengths: of all examples.
        rows: examples in a batch.
        shuffled: in training; an evaluation takes them in order.
    """
    order = list(lengths)
    if shuffled:
        random.Random(0).shuffle(order)
    longest = [padded_length(max(order[i : i + rows])) for i in range(0, len(order), rows)]
    return round(sum(longest) / len(longest))


def with_lengths(question: WorkQuestion) -> WorkQuestion:
    """Return a question with the lengths of its data, as LLaMA-Factory prepares them."""
    with tempfile.TemporaryDirectory() as folder:
        args = Arguments(question.recipe, None, Path(folder), planned=True)
        train, held_out = token_counts(args)
        rows = args.training.per_device_train_batch_size
        found = {
            "length": average(train, rows, shuffled=True),
            "eval_length": average(
                held_out, args.training.per_device_eval_batch_size, shuffled=False
            ),
            "padded": min(train) < max(train),
        }
    return question.model_copy(update=found)


def count(question: WorkQuestion, config: dict[str, Any]) -> Phases:
    """Count the phases of a training of a model with this config."""
    with tempfile.TemporaryDirectory() as folder:
        args = Arguments(question.recipe, config, Path(folder), planned=True)
        model = build(args)
    # On a CPU the operator itself is timed; on an NPU a body of ours is what runs.
    replaced = bodies("npu") if question.device == "npu" else {}
    replaced = {func: body for func, body in replaced.items() if "bitsandbytes" in str(func)}
    counter = Counter(replaced, question.forms)
    found: Phases = {}
    with FakeTensorMode(allow_non_fake_inputs=True), as_on_the_device(question):
        step = Step(question, args, model)
        assert question.length is not None
        assert question.eval_length is not None
        rows = args.training.per_device_train_batch_size
        with counter:
            batch = step.batch(rows, padded_length(question.length))
            counter.take()
            step.forward_backward(batch, rows)
            found["micro_batch"] = counter.take()
            step.update()
            found["update"] = counter.take()
        step.optimizer.zero_grad()
        step.model.eval()
        held_out = step.batch(
            args.training.per_device_eval_batch_size, padded_length(question.eval_length)
        )
        one_more = step.batch(question.answer_rows, 1)
        del one_more["labels"], held_out["labels"]
        with torch.no_grad(), counter:
            counter.take()
            step.model(**held_out)
            found["evaluation"] = counter.take()
            step.model(**one_more)
            found["token"] = counter.take()
    del step, model
    gc.collect()
    return found


def answer(question: WorkQuestion) -> Work:
    """Count the work of one training."""
    if question.length is None:
        question = with_lengths(question)
    folder = Path(question.recipe["model_name_or_path"])
    config = question.config or json.loads((folder / "config.json").read_text("utf-8"))
    layers = config.get(LAYERS) or config["n_layer"]
    one, two = (count(question, of_layers(config, n)) for n in (1, 2))
    return Work.model_validate(
        {"length": question.length, "eval_length": question.eval_length}
        | {phase: extrapolated(one[phase], two[phase], layers) for phase in one}
    )


def main() -> None:
    """Answer the questions in the first file, into the second."""
    questions = [
        WorkQuestion.model_validate(each) for each in json.loads(Path(sys.argv[1]).read_text())
    ]
    Path(sys.argv[2]).write_text(json.dumps([answer(each).model_dump() for each in questions]))


if __name__ == "__main__":
    main()
