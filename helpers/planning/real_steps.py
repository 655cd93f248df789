"""Optimizer steps on a card, with random weights: `python -m helpers.planning.real_steps PLAN`.

PLAN is a JSON: `device`, `kernels` (matrices whose dequantisation is timed), `cases` (see `Case`),
`until` (seconds since 1970, after which no further case begins), and `result`, the JSON file that
is written anew after each case, so that what was found stays where the process dies.

The model is built as training would (building.py), so what is allocated can be held against a plan
of the same question; nothing is downloaded, and nothing learns. Loads torch.
"""

from __future__ import annotations

import gc
import json
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel

from helpers.ground.files import write_json
from helpers.planning.building import Arguments, build, optimizer_of, precision_of
from helpers.worker import kernel_timing, operator_profile
from helpers.worker.allocator import Meter

WARM_UP = 2  # steps before those that are timed: the optimizer's state is there, tables are made


class Case(BaseModel):
    """A training whose steps are taken."""

    key: str
    recipe: dict[str, Any]
    config: dict[str, Any]
    length: int  # tokens of the longest example, a multiple of 8
    steps: int  # that are timed
    profile: bool = False  # list the operators of one more step


def wait(device: str) -> None:
    """Wait until a device's queue is empty."""
    torch.get_device_module(device).synchronize()


def batch(rows: int, length: int, vocabulary: int, device: str) -> dict[str, torch.Tensor]:
    """Return random examples: the first of full length, the others of half of it, padded."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, vocabulary, (rows, length), generator=generator)
    mask = torch.ones_like(ids)
    mask[1:, length // 2 :] = 0
    labels = ids.masked_fill(mask == 0, -100)
    made = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    return {name: tensor.to(device) for name, tensor in made.items()}


class Training:
    """A model on the device that is ready to take steps."""

    def __init__(self, case: Case, device: str) -> None:
        from accelerate import Accelerator

        self.device = device
        with tempfile.TemporaryDirectory() as folder:
            self.args = Arguments(case.recipe, case.config, Path(folder), planned=False)
            torch.manual_seed(0)
            begin = time.perf_counter()
            model = build(self.args, device)
            wait(device)
            self.loading = time.perf_counter() - begin
        accelerator = Accelerator(mixed_precision=precision_of(self.args))
        self.model: Any = accelerator.prepare_model(model)
        self.trained = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = optimizer_of(self.args, self.model)
        self.rows = self.args.training.per_device_train_batch_size
        self.micro_batches = self.args.training.gradient_accumulation_steps
        self.batch = batch(self.rows, case.length, model.config.vocab_size, device)  # type: ignore
        self.items = (self.batch["labels"] != -100).sum() * self.micro_batches

    def step(self) -> None:
        """Take an optimizer step, as transformers' Trainer does."""
        for _ in range(self.micro_batches):
            output = self.model(**self.batch, num_items_in_batch=self.items)
            loss = output["loss"] if isinstance(output, dict) else output[0]
            del output
            loss.backward()
            del loss
        torch.nn.utils.clip_grad_norm_(self.trained, self.args.training.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def timed(self) -> float:
        """Take a step and return its seconds, from an empty queue to an empty queue."""
        wait(self.device)
        begin = time.perf_counter()
        self.step()
        wait(self.device)
        return time.perf_counter() - begin


def take(case: Case, device: str) -> dict[str, Any]:
    """Return what the steps of a case took."""
    training = Training(case, device)
    for _ in range(WARM_UP):
        training.step()
    meter = Meter(device)
    meter.begin(training.model, training.optimizer)
    seconds = [training.timed() for _ in range(case.steps)]
    allocated = meter.end()
    return {
        "seconds": seconds,
        "loading_seconds": training.loading,
        "allocated_bytes": allocated,
        "tokens": int(training.rows * training.micro_batches * case.length),
        "micro_batch": training.rows,
        "micro_batches": training.micro_batches,
        "operators": operator_profile.of(training.step, device) if case.profile else [],
    }


def tried(case: Case, device: str) -> dict[str, Any]:
    """Return what the steps of a case took, or why there were none."""
    try:
        found = take(case, device)
    except Exception as error:  # whatever a card's libraries raise: the other cases go on
        traceback.print_exc()
        out_of_memory = "out of memory" in str(error).lower()
        found = {"fault": "out of memory" if out_of_memory else type(error).__name__}
    gc.collect()
    torch.get_device_module(device).empty_cache()
    return {"key": case.key, **found}


def main() -> None:
    """Take the steps of the plan that the command line names."""
    plan = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    device, result = plan["device"], Path(plan["result"])
    module = torch.get_device_module(device)
    found: dict[str, Any] = {
        "name": module.get_device_name(0),
        "total_bytes": module.mem_get_info(0)[1],
        "cases": [],
    }
    if plan["kernels"]:
        found["choice"], found["kernels"] = kernel_timing.compare(plan["kernels"], device)
        write_json(result, found)
    for case in map(Case.model_validate, plan["cases"]):
        late = time.time() > plan["until"]
        found["cases"].append({"key": case.key, "fault": "late"} if late else tried(case, device))
        write_json(result, found)


if __name__ == "__main__":
    main()
