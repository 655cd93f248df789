"""Training with one method: llamafactory-cli train, and the facts of what it did."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

from helpers import data, factory, faults, frozen_weights, models, paths, recipe, records, steps
from helpers.checkpoints import Attempt, Parts, joined
from helpers.errors import TutorialError
from helpers.files import read_json, sha256_file, write_bytes
from helpers.records import FrozenWeights, LossPoint, Training
from helpers.settings import Settings


def _facts(
    method: str, settings: Settings, used: recipe.Recipe, call: factory.Call, before: Parts
) -> Training:
    """Read what a finished training left in its output folder.

    The losses are those of trainer_state.json, which goes through checkpoints whole.
    """
    folder = settings.run.adapter(method)
    results = json.loads((folder / "all_results.json").read_text())
    state = json.loads((folder / "trainer_state.json").read_text())
    optimizer_steps, rows = state["global_step"], state["log_history"]
    train_seconds = before.train_seconds + results["train_runtime"]
    examples = min(data.facts_of(settings.run).train, used.get("max_samples", 10**12))
    batch = used["per_device_train_batch_size"] * used.get("gradient_accumulation_steps", 1)
    # The last batch of an epoch can be a part of one.
    samples = min(optimizer_steps * batch, round(examples * used["num_train_epochs"]))
    adapter = folder / "adapter_model.safetensors"
    evaluations = [
        LossPoint(step=row["step"], loss=row["eval_loss"]) for row in rows if "eval_loss" in row
    ]
    return Training(
        loss=[LossPoint(step=row["step"], loss=row["loss"]) for row in rows if "loss" in row],
        eval_loss=evaluations,
        final_eval_loss=results["eval_loss"],
        optimizer_steps=optimizer_steps,
        samples=samples,
        train_seconds=round(train_seconds, 4),
        call_seconds=round(before.seconds + call.seconds, 2),
        samples_per_second=round(samples / train_seconds, 4),
        resumed_at=before.resumed_at,
        memory=joined(before.memory, call.memory, before.seconds),
        frozen_weights=FrozenWeights.model_validate_json(
            (folder / frozen_weights.FILE).read_text("utf-8")
        ),
        adapter_bytes=adapter.stat().st_size,
        adapter_sha256=sha256_file(adapter),
    )


def train(method: str, settings: Settings, say: Callable[[str], None] = print) -> Training:
    """Train an adapter, unless the run has one that was trained from the same inputs.

    A training with the same inputs that was interrupted goes on from its last whole checkpoint.

    Args:
        method: lora or qlora.
        settings: the run's settings; the model and the data must be there.
        say: takes the lines that tell what happens.

    Returns:
        The facts of the training.

    Raises:
        TutorialError: an input is missing (with the notebook that makes it), or training failed.
    """
    run = settings.run
    facts = data.facts_of(run)
    used = recipe.for_training(method, settings)
    folder = run.adapter(method)
    summary = folder / "training.json"
    inputs = {
        "recipe": recipe.without_places(used),
        "model": models.sha256(settings.model.path),
        "data": [facts.train_sha256, facts.eval_sha256],
        "device": settings.profile.device,
        "versions": records.versions(),
    }

    def action() -> None:
        attempt = Attempt(folder, inputs, say)
        try:
            call = factory.call(
                "train", method, used, settings, arguments=attempt.arguments, on_tick=attempt.keep
            )
        except TutorialError as error:
            if attempt.checkpoint:
                error.message += (
                    f" (This training went on from {attempt.checkpoint.name}; to start it anew, "
                    f"delete {paths.shown(folder)}.)"
                )
            raise
        if not (folder / "adapter_model.safetensors").is_file():
            raise TutorialError(
                "The training ended without an adapter: look into its log.", log=call.log
            )
        if not (folder / frozen_weights.FILE).is_file():
            raise TutorialError(
                "The training did not tell whether its frozen weights stayed as they were, for "
                "this .venv is older than the tutorial: run 'make setup', then this again.",
                log=call.log,
            )
        operators = faults.cpu_fallbacks(call.log.read_text("utf-8", "replace"))
        if operators:
            say(
                f"WARNING: the NPU has no kernel for {', '.join(operators)}, which ran on the CPU: "
                "the times of this training are longer than they need be."
            )
        trained = _facts(method, settings, used, call, attempt.parts)
        # The evaluations tell: transformers logs a training loss that is NaN as 0.
        losses = [point.loss for point in trained.loss + trained.eval_loss]
        if not all(map(math.isfinite, [*losses, trained.final_eval_loss])):
            sentence = faults.explain("'eval_loss': nan", "llamafactory-cli train", 1)
            raise TutorialError(sentence, log=call.log)
        write_bytes(summary, trained.model_dump_json().encode())

    steps.done_once(run, method, inputs, [folder], action, say)
    return read(method, settings)


def read(method: str, settings: Settings) -> Training:
    """Return the facts of a finished training.

    Raises:
        TutorialError: it has not been done, with the notebook that does it.
    """
    file = settings.run.adapter(method) / "training.json"
    notebook = {"lora": "03_lora", "qlora": "04_qlora"}[method]
    if not file.is_file():
        raise TutorialError(
            f"Run {settings.run.name!r} has no {method} adapter yet: run the notebook {notebook} "
            "first."
        )
    return read_json(file, Training, f"run the notebook {notebook} again")
