"""What real LLaMA-Factory trainings take, as the allocator tells it: `python -m allocator_truth`.

Reads [{"recipe": ..., ...}] from standard input and writes, to the file that its argument names,
for each the peak bytes of an optimizer step and of an evaluation. On a CPU the allocator's events
come from torch.profiler, and what was allocated before is counted from the tensors themselves; on
the simulated NPU the device's own counters tell both.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

STEP = 3  # measured: the optimizer's state exists, the first steps are over


def tensors_of(model: torch.nn.Module, optimizer: Any) -> Iterator[torch.Tensor]:
    """Yield everything that lives from step to step."""
    for parameter in model.parameters():
        yield parameter
        if parameter.grad is not None:
            yield parameter.grad
        state = getattr(parameter, "quant_state", None)
        while state is not None:
            yield from (state.absmax, state.code)
            if state.nested:
                yield state.offset
            state = state.state2
    yield from model.buffers()
    for state in optimizer.state.values():
        yield from (value for value in state.values() if isinstance(value, torch.Tensor))


def bytes_of(tensors: Iterable[torch.Tensor]) -> int:
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())


class Meter:
    """The peak between begin() and end(), on the device that is there."""

    def begin(self, before: int) -> None:
        self.before = before
        if hasattr(torch, "npu"):
            torch.npu.reset_peak_memory_stats()
        else:
            activities = [torch.profiler.ProfilerActivity.CPU]
            self.profile = torch.profiler.profile(activities=activities, profile_memory=True)
            self.profile.__enter__()

    def end(self) -> int:
        if hasattr(torch, "npu"):
            return int(torch.npu.max_memory_allocated())
        self.profile.__exit__(None, None, None)
        events = [
            e for e in self.profile.profiler.kineto_results.events() if e.name() == "[memory]"
        ]
        now = peak = self.before
        for event in sorted(events, key=lambda e: e.start_ns()):
            now += event.nbytes()
            peak = max(peak, now)
        return peak


class Watch(TrainerCallback):
    """Measures one optimizer step, and the evaluation after the last one."""

    def __init__(self) -> None:
        self.meter = Meter()
        self.peaks: dict[str, int] = {}

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == STEP - 1:
            self.meter.begin(bytes_of(tensors_of(kwargs["model"], kwargs["optimizer"])))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == STEP:
            self.peaks["training"] = self.meter.end()
            self.meter.begin(bytes_of(tensors_of(kwargs["model"], kwargs["optimizer"])))
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
