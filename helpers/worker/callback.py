"""What happens inside a training or a prediction, told by the process that does it.

llamafactory-cli has no option for a callback. So bitsandbytes loads `register`, through the
entry-point group `bitsandbytes.backends`, in every process that imports it (peft does, for LoRA as
well). It does nothing unless TUTORIAL_EVENTS names a file, as helpers/calls/factory.py has it;
then transformers' Trainer gets a callback that appends events to that file
(helpers/worker/events.py says which).

In a training it looks, and spares an evaluation that would be made twice: adapters are bit for bit
those that are trained without it. In a prediction it also closes the gaps in what the output layer
takes (helpers/worker/prefill.py).
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from helpers.worker import events, ranks, stopping

# On a CPU two optimizer steps are measured at most: the third of a part, when the optimizer's state
# exists and the first steps are over, and the one with the longest example, which is what a plan is
# made for; and so many batches of the first evaluation after that.
STEP = 3
BATCHES = 32
PADDING = 8  # LLaMA-Factory's collator pads a training batch to a multiple of it
PROGRESS_SECONDS = 0.5  # at most one event on an evaluation's progress in that time


def whole_digest(model: Any) -> dict[str, Any]:
    """Return the digest of a model's frozen weights, as all processes of a training hold them.

    Where each holds the same, it is that of one. Where they share the model out it is that of the
    first: before that it alone has read the weights, after it all have gathered the same.
    """
    import xxhash

    found = ranks.gathered(digest(model))
    if not ranks.is_sharded() and any(each != found[0] for each in found):
        found[0]["digest"] = xxhash.xxh3_128_hexdigest(
            repr([each["digest"] for each in found]).encode()
        )
    return found[0]


def digest(model: Any) -> dict[str, Any]:
    """Return one digest over everything in a model that training must not change.

    A file on disk says nothing about the weights in memory, which are what is trained beside. That
    is every parameter that takes no gradient, every buffer, and of 4-bit weights the scales and
    code tables as well: names, types, shapes and all bytes, copied to the host one tensor at a
    time and hashed with XXH3 (128 bits), which is as fast as the copy.

    Args:
        model: a torch module.

    Returns:
        digest (32 hex digits), tensors, bytes.
    """
    import torch
    import xxhash

    tensors: dict[str, torch.Tensor] = dict(model.named_buffers())
    rest: list[tuple[str, Any]] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            continue
        tensors[name] = parameter.data
        state = ranks.quant_state(model, name)
        for key, value in state.as_dict().items() if state else ():
            if isinstance(value, torch.Tensor):
                tensors[f"{name}.{key}"] = value
            else:
                rest.append((f"{name}.{key}", value))
    hashed = xxhash.xxh3_128(repr(sorted(rest)).encode())
    size = 0
    for name, tensor in sorted(tensors.items()):
        content = (
            ranks.whole(tensor.detach()).cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        )
        hashed.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        hashed.update(content.data)
        size += content.nbytes
    return {"digest": hashed.hexdigest(), "tensors": len(tensors), "bytes": size}


class _Peaks:
    """The peaks of steps and evaluations: of all where that costs nothing, of a few on a CPU.

    Made once the model is loaded: what that took is the first of them.
    """

    def __init__(self, device: str, model: Any) -> None:
        from helpers.worker import allocator

        self.wanted = events.UNMEASURED not in os.environ
        self.meter = allocator.Meter(device)
        self.measured: Literal["training", "evaluation"] | None = None
        self.found: dict[str, int] = {}
        self.seconds = 0.0  # that measuring has taken
        with self.timed():
            recorded = allocator.loaded(model)
        if loading := self.meter.until_now() or recorded:
            self.found["loading"] = loading
        # Whether the longest example was in what was measured.
        self.longest = {"training": not self.meter.costly, "evaluation": not self.meter.costly}

    @contextmanager
    def timed(self) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - began

    def begin(self, what: Literal["training", "evaluation"], rest: dict[str, Any]) -> None:
        self.measured = what
        with self.timed():
            self.meter.begin(rest["model"], rest.get("optimizer"))

    def end(self, what: str) -> None:
        if self.measured == what:
            self.measured = None
            with self.timed():
                self.found[what] = max(self.found.get(what, 0), self.meter.end())

    def wants_step(self, step: int, first: int, last: int) -> bool:
        return self.wanted and (not self.meter.costly or step == min(first + STEP, last))

    def watch(self, dataloader: Any, rest: dict[str, Any], state: Any, first: int) -> Any:
        """Measure the step whose batch has the longest example, beginning before its forward."""
        if not self.meter.costly or not self.wanted:
            return None
        longest = -(-max(map(len, dataloader.dataset["input_ids"])) // PADDING) * PADDING

        def look(model: Any, args: Any, kwargs: Any) -> None:
            ids = kwargs.get("input_ids")
            # Before the first step has ended there is no state of the optimizer.
            if not model.training or ids is None or state.global_step == first:
                return
            if ids.shape[1] >= longest and not self.longest["training"]:
                self.longest["training"] = True
                if self.measured is None:
                    self.begin("training", rest)

        return rest["model"].register_forward_pre_hook(look, with_kwargs=True)

    def wants_evaluation(self) -> bool:
        return self.wanted and (
            not self.meter.costly or ("training" in self.found and "evaluation" not in self.found)
        )


def _callback() -> type[Any]:
    from transformers import TrainerCallback

    from helpers.worker.losses import ProblemLosses

    class Events(TrainerCallback):
        """Appends what happens to the file that is named for it: of several processes, one does."""

        def __init__(self) -> None:
            file = Path(os.environ[events.VARIABLE])
            file.parent.mkdir(parents=True, exist_ok=True)
            self.file = file.open("a", encoding="utf-8") if ranks.is_first() else None
            self.ended = False
            self.first_step = 0
            self.batches = 0
            self.told_at = 0.0
            self.told_peaks: dict[str, int] = {}
            self.losses: ProblemLosses | None = None

        def tell(self, event: events.Name, **values: Any) -> None:
            if self.file:
                self.file.write(json.dumps({"event": event, "at": time.time(), **values}) + "\n")
                self.file.flush()

        def tell_peaks(self) -> None:
            everywhere = ranks.gathered((self.peaks.found, self.peaks.longest))
            found: dict[str, int] = {}
            for taken, _ in everywhere:
                found |= {what: max(found.get(what, 0), size) for what, size in taken.items()}
            for what, size in found.items():
                if self.told_peaks.get(what) != size:
                    longest = any(seen.get(what) for taken, seen in everywhere if what in taken)
                    self.tell("peak", of=what, bytes=size, longest=longest)
            self.told_peaks = found
            self.tell("measuring", seconds=round(self.peaks.seconds, 4))

        def on_init_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            self.peaks = _Peaks(args.device.type, rest["model"])
            self.tell("loaded", **(whole_digest(rest["model"]) if args.do_train else {}))
            if not args.do_train:
                from helpers.worker import prefill

                prefill.close_gaps(rest["model"])
                self.tell("answering", done=0)

        def on_train_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            self.first_step = state.global_step
            self.tell(
                "train_begin",
                step=state.global_step,
                total=state.max_steps,
                sharded=ranks.shares(rest["model"]),
            )
            self.hook = self.peaks.watch(rest["train_dataloader"], rest, state, self.first_step)

        def on_step_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            if self.peaks.wants_step(state.global_step + 1, self.first_step, state.max_steps):
                self.peaks.begin("training", rest)

        def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            self.peaks.end("training")
            self.tell("step", step=state.global_step)
            self.expect_evaluation(args, state, control, rest)

        def on_epoch_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            self.expect_evaluation(args, state, control, rest)

        def expect_evaluation(self, args: Any, state: Any, control: Any, rest: Any) -> None:
            last = state.global_step >= state.max_steps
            # `do_eval` evaluates the same weights a moment later; the choice of a best checkpoint
            # alone cannot wait for that.
            if last and args.do_eval and not args.load_best_model_at_end:
                control.should_evaluate = False
            if control.should_evaluate:
                self.tell("evaluating", step=state.global_step, done=0)
                if self.peaks.wants_evaluation():
                    self.peaks.begin("evaluation", rest)

        def on_log(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            logs = rest.get("logs") or {}
            if "loss" in logs:
                self.tell("log", step=state.global_step, loss=logs["loss"])

        def on_prediction_step(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            self.batches += 1
            if self.peaks.meter.costly and self.batches == BATCHES:
                self.peaks.end("evaluation")
            total = len(rest["eval_dataloader"])
            if total <= BATCHES:
                self.peaks.longest["evaluation"] = True
            now = time.monotonic()
            if now - self.told_at >= PROGRESS_SECONDS or self.batches == total:
                self.told_at = now
                what: events.Name = "evaluating" if args.do_train else "answering"
                self.tell(what, step=state.global_step, done=self.batches, total=total)

        def on_evaluate(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            self.peaks.end("evaluation")
            self.batches = 0
            metrics = rest.get("metrics") or {}
            self.tell(
                "evaluated",
                step=state.global_step,
                loss=metrics.get("eval_loss"),
                seconds=metrics.get("eval_runtime"),
            )
            if self.ended:
                if self.losses:
                    problems = len(rest["eval_dataloader"].dataset)
                    self.tell("losses", step=state.global_step, **self.losses.end(problems))
                self.tell("digest", **whole_digest(rest["model"]))
                self.tell_peaks()

        def on_predict(
            self, args: Any, state: Any, control: Any, metrics: Any, **rest: Any
        ) -> None:
            self.batches = 0

        def on_train_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            self.ended = True
            if self.hook:
                self.hook.remove()
            self.tell("train_end", step=state.global_step)
            self.tell("digest", **whole_digest(rest["model"]))
            self.tell_peaks()
            if args.do_eval:
                self.losses = ProblemLosses(rest["model"])
                if self.peaks.wants_evaluation():
                    self.peaks.begin("evaluation", rest)

    return Events


_registered = False


def register() -> None:
    """Add the callback to every Trainer of this process, once, if a file is named for it."""
    global _registered
    if not _registered and ranks.is_sharded():  # a recipe that a reader repeats needs it as well
        ranks.mend_sharding()
    if os.environ.get(events.VARIABLE) and not _registered:
        from transformers import trainer

        ranks.mend_resuming()
        ranks.mend_ending()
        if events.UNMEASURED not in os.environ:
            from helpers.worker import allocator

            allocator.watch_loading()
        trainer.DEFAULT_CALLBACKS.append(_callback())  # type: ignore[arg-type]
        if os.environ.get(stopping.VARIABLE):
            trainer.DEFAULT_CALLBACKS.append(stopping.callback())  # type: ignore[arg-type]
        _registered = True
