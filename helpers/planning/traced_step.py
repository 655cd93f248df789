"""Trace one optimizer step on fake tensors: `python -m helpers.planning.traced_step`.

Takes a file of questions (helpers/planning/plan.py), one JSON list, and the file for the answers.
Runs in a process of its own, because it loads torch and changes libraries for the time it lives.
What it builds is LLaMA-Factory's (building.py), with accelerate's mixed precision and transformers'
choice of optimizer. Only the weights are fake.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

os.environ["CUDA_VISIBLE_DEVICES"] = os.environ["ASCEND_RT_VISIBLE_DEVICES"] = ""

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel

from helpers.planning.building import Arguments, build, optimizer_of, precision_of
from helpers.planning.ledger import Ledger
from helpers.planning.plan import PARTS, Phase, Plan, Question

PADDING = 8  # LLaMA-Factory's collator pads a training batch to a multiple of it


def make_fake(model: torch.nn.Module) -> list[torch.Tensor]:
    """Swap every parameter and buffer for a FakeTensor on the cpu; call under a FakeTensorMode.

    Ties are kept. A Params4bit cannot wrap a FakeTensor, but all that Linear4bit asks of it is its
    quant_state.

    Returns:
        The tensors of the 4-bit layers' quant states.
    """
    made: dict[int, torch.Tensor] = {}
    originals: list[torch.Tensor] = []  # kept, so that no id is given twice
    states: list[torch.Tensor] = []

    def fake(tensor: torch.Tensor) -> torch.Tensor:
        if id(tensor) not in made:
            originals.append(tensor)
            made[id(tensor)] = torch.empty_strided(
                tensor.shape, tensor.stride(), dtype=tensor.dtype, device="cpu"
            )
        return made[id(tensor)]

    parameters: dict[int, torch.nn.Parameter] = {}
    for module in model.modules():
        for name, old in list(module._parameters.items()):
            if old is None:
                continue
            if id(old) not in parameters:
                new: Any = torch.nn.Parameter(fake(old), requires_grad=old.requires_grad)
                state = getattr(old, "quant_state", None)
                if state is not None:
                    new.quant_state = state
                    for holder in (state, state.state2) if state.nested else (state,):
                        holder.absmax, holder.code = fake(holder.absmax), fake(holder.code)
                        states += [holder.absmax, holder.code]
                    if state.nested:
                        state.offset = fake(state.offset)
                        states.append(state.offset)
                parameters[id(old)] = new
                originals.append(old)
            module._parameters[name] = parameters[id(old)]
        for name, buffer in list(module._buffers.items()):
            if buffer is not None:
                module._buffers[name] = fake(buffer)
        for name, value in list(vars(module).items()):
            if isinstance(value, torch.Tensor):  # rotary embeddings keep a second reference
                setattr(module, name, fake(value))
    return states


def bodies(device: str) -> dict[Any, Callable[..., Any]]:
    """Return the bodies of the operators that need room for a moment on a device.

    Dequantisation: on cuda a kernel of its own writes the result and nothing else, as the fake
    kernel has it; on a cpu the kernel that is registered for it does it, on an npu
    helpers/worker/npu_4bit.py, which is registered for both where bitsandbytes has none. The
    softmax of attention without a fused kernel compares its whole input.
    """

    def as_on_cpu(operator: Any) -> Callable[..., Any]:
        cpu = torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)
        return lambda *args, **kwargs: operator.redispatch(cpu, *args, **kwargs)

    ours: dict[Any, Callable[..., Any]] = {}
    if device == "npu":
        from helpers.worker import npu_4bit

        ours = {
            torch.ops.bitsandbytes.dequantize_4bit.default: npu_4bit.dequantize_4bit,
            torch.ops.bitsandbytes.dequantize_blockwise.default: npu_4bit.dequantize_blockwise,
        }
    composed = [torch.ops.aten._safe_softmax.default]
    if device == "cpu":
        composed.append(torch.ops.bitsandbytes.dequantize_4bit.default)
    return ours | {operator: as_on_cpu(operator) for operator in composed}


def padded_length(length: int) -> int:
    """Return the length to which LLaMA-Factory's collator pads a training batch."""
    return -(-length // PADDING) * PADDING


def token_counts(args: Arguments) -> tuple[list[int], list[int]]:
    """Return the tokens of each training and each held-out example, as LLaMA-Factory prepares
    them."""
    from llamafactory.data import get_dataset, get_template_and_fix_tokenizer
    from llamafactory.model import load_tokenizer

    tokenizer = load_tokenizer(args.model)
    template = get_template_and_fix_tokenizer(tokenizer["tokenizer"], args.data)
    sets = get_dataset(template, args.model, args.data, args.training, "sft", **tokenizer)
    train = [len(ids) for ids in sets["train_dataset"]["input_ids"]]
    held_out = [len(ids) for ids in sets["eval_dataset"]["input_ids"]]
    return train, held_out


def gathered(model: torch.nn.Module, args: Arguments) -> list[torch.Tensor]:
    """Return tensors as large as what FSDP2 gathers of a model that cards share out.

    All that lies outside the layers stays gathered for a whole pass; of the layers, one is in use,
    and the next one on its way. This is all there at once only while layers are passed through, so
    at other moments a plan with it is too high. Weights are gathered in the numbers that are
    computed in; packed 4-bit weights as they are, and their scales are whole on each card anyway.
    """
    kinds = set(model._no_split_modules or ())  # type: ignore[arg-type]
    layers = [module for module in model.modules() if type(module).__name__ in kinds]
    itemsize = 4 if precision_of(args) == "no" else 2

    def size(parameters: Iterable[torch.nn.Parameter]) -> int:
        return sum(p.numel() * min(p.itemsize, itemsize) for p in parameters)

    inside = [size(layer.parameters()) for layer in layers]
    outside, largest = size(model.parameters()) - sum(inside), max(inside, default=0)
    return [torch.empty(each, dtype=torch.uint8) for each in (outside, largest, largest)]


class Step:
    """A model that is ready to take steps on fake tensors."""

    def __init__(self, question: Question, args: Arguments, model: Any) -> None:
        from accelerate import Accelerator

        assert question.length is not None
        assert question.eval_length is not None
        self.question, self.args = question, args
        self.length, self.eval_length = question.length, question.eval_length
        self.vocabulary = model.config.vocab_size
        self.states = make_fake(model)
        accelerator = Accelerator(
            mixed_precision=precision_of(args), cpu=True, device_placement=False
        )
        self.model = accelerator.prepare_model(model)
        self.trainable = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = optimizer_of(args, model)
        for parameter in self.trainable:  # the state exists from the second step on
            parameter.grad = torch.zeros_like(parameter)
        self.optimizer.step()
        self.optimizer.zero_grad()
        # DDP keeps room of its own for what cards exchange, as large as all gradients.
        shared = self.trainable if question.cards > 1 and not question.sharded else []
        self.buckets = [torch.empty_like(parameter) for parameter in shared]
        self.gathered = gathered(model, args) if question.sharded else []

    def ledger(self) -> Ledger:
        """Return a ledger that holds what lives from step to step."""
        rounding = 512 if self.question.device != "cpu" else 1  # what device allocators hand out
        ledger = Ledger(self.vocabulary, bodies(self.question.device), rounding)
        cards = self.question.cards if self.question.sharded else 1
        for parameter in self.model.parameters():
            ledger.add([parameter], "adapter" if parameter.requires_grad else "weights", cards)
        ledger.add(self.model.buffers(), "weights")
        ledger.add([*self.states, *self.gathered], "weights")
        for state in self.optimizer.state.values():
            tensors = [value for value in state.values() if isinstance(value, torch.Tensor)]
            ledger.add(tensors, "optimizer", cards)
        ledger.add(self.buckets, "gradients")
        return ledger

    def batch(self, rows: int, length: int) -> dict[str, torch.Tensor | None]:
        """Return a batch of fake examples, padded if the question says so."""
        shape = (rows, length)
        padded = self.question.padded and rows > 1
        return {
            "input_ids": torch.zeros(shape, dtype=torch.long),
            "attention_mask": torch.ones(shape, dtype=torch.long) if padded else None,
            "labels": torch.zeros(shape, dtype=torch.long),
        }

    def forward_backward(self, batch: dict[str, torch.Tensor | None], rows: int) -> None:
        """Take a micro-batch, as transformers' Trainer does."""
        items = torch.tensor(rows * self.length)
        output = self.model(**batch, num_items_in_batch=items)
        loss = output["loss"] if isinstance(output, dict) else output[0]
        # The trainer lets go of the outputs, logits and all, before it goes backward.
        del output
        loss.backward()

    def update(self) -> None:
        """Take the optimizer's step with the gradients that are there."""
        torch.nn.utils.clip_grad_norm_(self.trainable, self.args.training.max_grad_norm)
        self.optimizer.step()

    def train(self, rows: int) -> Phase:
        """Trace the last micro-batch of an optimizer step, and the step."""
        ledger = self.ledger()
        hooks = [
            p.register_post_accumulate_grad_hook(lambda p: ledger.rename(p.grad, "gradients"))
            for p in self.trainable
        ]
        if self.args.training.gradient_accumulation_steps > 1:
            for parameter in self.trainable:
                parameter.grad = torch.zeros_like(parameter)
            ledger.add([p.grad for p in self.trainable], "gradients")
        batch = self.batch(rows, padded_length(self.length))
        self._enter(ledger, batch)
        self.model.train()
        with ledger:
            self.forward_backward(batch, rows)
            self.update()
        self.optimizer.zero_grad()
        for hook in hooks:
            hook.remove()
        return phase(ledger, rows, self.length)

    def evaluate(self, rows: int) -> Phase:
        """Trace one batch of an evaluation between two optimizer steps."""
        ledger = self.ledger()
        batch = self.batch(rows, padded_length(self.eval_length))
        self._enter(ledger, batch)
        self.model.eval()
        with torch.no_grad(), ledger:
            output = self.model(**batch)
            del output
        return phase(ledger, rows, self.eval_length)

    @staticmethod
    def _enter(ledger: Ledger, batch: dict[str, torch.Tensor | None]) -> None:
        ledger.add(batch.values(), "activations")
        ids = batch["input_ids"]
        if batch["attention_mask"] is None and ids is not None:
            # The collator makes a mask even where nothing is padded.
            ledger.add([torch.ones_like(ids)], "activations")


def phase(ledger: Ledger, rows: int, length: int) -> Phase:
    """Return what a ledger saw."""
    return Phase(
        rows=rows,
        length=length,
        peak_bytes=ledger.peak,
        parts={part: ledger.at_peak.get(part, 0) for part in PARTS},
    )


@contextlib.contextmanager
def as_on_the_device(question: Question) -> Iterator[None]:
    """Take the branches that real data on the real device would take.

    transformers looks into a batch for packed examples, which fake data cannot be asked for;
    packed or not decides the mask, and our recipes do not pack.
    """
    from transformers import masking_utils

    before = masking_utils.find_packed_sequence_indices
    masking_utils.find_packed_sequence_indices = lambda position_ids: None
    math = question.attention == "math"
    try:
        with sdpa_kernel(SDPBackend.MATH) if math else contextlib.nullcontext():
            yield
    finally:
        masking_utils.find_packed_sequence_indices = before


def largest(step: Step, known: Phase, budget: int) -> int:
    """Return the largest micro-batch whose peak stays within `budget` bytes; 0 if none does.

    The peak grows by the same amount with every further example (a line through two traces), save
    for roundings, so the estimate is traced and, if need be, taken back.
    """
    peaks = {known.rows: known.peak_bytes}

    def peak(rows: int) -> int:
        if rows not in peaks:
            peaks[rows] = step.train(rows).peak_bytes
        return peaks[rows]

    each = peak(3) - peak(2)
    rows = max(1, 2 + (budget - peak(2)) // max(1, each))
    while rows > 0 and peak(rows) > budget:
        rows -= 1
    return rows


def answer(question: Question) -> Plan:
    """Plan one training."""
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        args = Arguments(question.recipe, question.config, Path(folder), planned=True)
        if question.length is None:
            train, held_out = token_counts(args)
            padded = min(train) < max(train)
            found = {"length": max(train), "eval_length": max(held_out), "padded": padded}
            question = question.model_copy(update=found)
        model = build(args)
    rows = args.training.per_device_train_batch_size
    with FakeTensorMode(allow_non_fake_inputs=True), as_on_the_device(question):
        step = Step(question, args, model)
        training = step.train(rows)
        evaluation = step.evaluate(args.training.per_device_eval_batch_size)
        most = largest(step, training, question.budget_bytes) if question.budget_bytes else None
    del step, model
    gc.collect()
    return Plan(
        question=question,
        training=training,
        evaluation=evaluation,
        largest_micro_batch=most,
        seconds=round(time.monotonic() - begin, 2),
    )


def main() -> None:
    """Answer the questions in the first file, into the second."""
    questions = [
        Question.model_validate(each) for each in json.loads(Path(sys.argv[1]).read_text())
    ]
    plans = [answer(question).model_dump() for question in questions]
    Path(sys.argv[2]).write_text(json.dumps(plans))


if __name__ == "__main__":
    main()
