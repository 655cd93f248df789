"""What real LLaMA-Factory trainings take, as the allocator tells it: `python -m allocator_truth`.

Reads [{"recipe": ..., ...}] from standard input and writes, to the file that its argument names,
for each the peak bytes of an optimizer step and of an evaluation, on a CPU or the simulated NPU.
helpers/worker/allocator.py measures; when, is said here: always the same step, and the whole
evaluation that is forced after it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from helpers.worker.allocator import Meter

STEP = 3  # measured: the optimizer's state exists, the first steps are over


class Watch(TrainerCallback):
    """Measures one optimizer step, and the evaluation after it."""

    def __init__(self) -> None:
        self.meter = Meter("npu" if hasattr(torch, "npu") else "cpu")
        self.peaks: dict[str, int] = {}

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == STEP - 1:
            self.meter.begin(kwargs["model"], kwargs["optimizer"])

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == STEP:
            self.peaks["training"] = self.meter.end()
            self.meter.begin(kwargs["model"], kwargs["optimizer"])
            control.should_evaluate = True

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if "evaluation" not in self.peaks:
            self.peaks["evaluation"] = self.meter.end()


def main() -> None:
    from llamafactory.train.tuner import run_exp

    found = []
    for question in json.load(sys.stdin):
        watch = Watch()
        run_exp(question["recipe"], [watch])
        found.append(watch.peaks)
    Path(sys.argv[1]).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
