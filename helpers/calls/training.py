"""Training with one method: llamafactory-cli train, and the facts of what it did."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

from helpers.calls import attached, factory
from helpers.calls.checkpoints import Attempt, Parts, joined
from helpers.ground import paths
from helpers.ground.errors import TutorialError
from helpers.ground.files import read_json, sha256_file, write_bytes
from helpers.ground.words import sentences, series, tr
from helpers.inputs import data, models, recipes, sharing
from helpers.inputs.recipes import Recipe
from helpers.inputs.settings import Settings
from helpers.programs import faults, steps
from helpers.programs.making import Making
from helpers.records import schema
from helpers.records.schema import (
    Digest,
    FrozenWeights,
    LossPoint,
    Peaks,
    ProblemLoss,
    Training,
)
from helpers.records.versions import versions
from helpers.worker import events


def frozen_weights(told: Sequence[events.Event]) -> FrozenWeights | None:
    """Return what a training's process told of its frozen weights; None where it told nothing."""
    before = [event for event in told if event["event"] == "loaded"]
    after = [event for event in told if event["event"] == "digest"]
    if not before or not after:
        return None
    return FrozenWeights(
        before=Digest.model_validate(before[-1]), after=Digest.model_validate(after[-1])
    )


def peaks(told: Sequence[events.Event]) -> Peaks:
    """Return the most bytes of tensors that a training's process told of."""
    found: dict[str, int] = {}
    for event in told:
        if event["event"] == "peak":
            of = event["of"]
            found[of] = max(found.get(of, 0), event["bytes"])
            found[f"{of}_longest"] = found.get(f"{of}_longest", False) or event["longest"]
    return Peaks.model_validate(found)


def problem_losses(told: Sequence[events.Event]) -> list[ProblemLoss]:
    """Return the losses of the held-out problems at the last evaluation that told of them."""
    for event in reversed(told):
        if event["event"] == "losses":
            pairs = zip(event["nats"], event["tokens"], strict=True)
            return [ProblemLoss(nats=nats, tokens=tokens) for nats, tokens in pairs]
    return []


def samples_seen(optimizer_steps: int, examples: int, used: Recipe, cards: int = 1) -> int:
    """Return how many examples a training saw, each as often as it was seen.

    Args:
        optimizer_steps: how many it took, whatever ended it: epochs, or `max_steps`.
        examples: of the training set, those that it was given.
        used: its recipe.
        cards: on which it ran.
    """
    batch = used["per_device_train_batch_size"] * used.get("gradient_accumulation_steps", 1) * cards
    # The last step of an epoch takes what is left of it.
    epochs, more = divmod(optimizer_steps, -(-examples // batch))
    return epochs * examples + min(more * batch, examples)


def _facts(
    settings: Settings,
    folder: Path,
    used: Recipe,
    call: factory.Call,
    before: Parts,
    told: Sequence[events.Event],
    frozen: FrozenWeights,
) -> Training:
    """Read what a finished training left in its output folder.

    The losses are those of trainer_state.json, which goes through checkpoints whole.
    """
    results = json.loads((folder / "all_results.json").read_text())
    state = json.loads((folder / "trainer_state.json").read_text())
    optimizer_steps, rows = state["global_step"], state["log_history"]
    evaluations = [row for row in rows if "eval_loss" in row]
    train_seconds = before.train_seconds + results["train_runtime"]
    # The last evaluation, after the loop, is in none of these rows.
    evaluation_seconds = sum(row["eval_runtime"] for row in evaluations)
    followed = [LossPoint(step=row["step"], loss=row["eval_loss"]) for row in evaluations]
    if not followed or followed[-1].step < optimizer_steps:
        followed.append(LossPoint(step=optimizer_steps, loss=results["eval_loss"]))
    examples = min(data.facts_of(settings.run).train, used.get("max_samples", 10**12))
    samples = samples_seen(optimizer_steps, examples, used, settings.cards)
    adapter = folder / "adapter_model.safetensors"
    return Training(
        loss=[LossPoint(step=row["step"], loss=row["loss"]) for row in rows if "loss" in row],
        eval_loss=followed,
        final_eval_loss=results["eval_loss"],
        optimizer_steps=optimizer_steps,
        samples=samples,
        train_seconds=round(train_seconds, 4),
        evaluation_seconds=round(evaluation_seconds, 4),
        call_seconds=round(before.seconds + call.seconds, 2),
        samples_per_second=round(samples / (train_seconds - evaluation_seconds), 4),
        resumed_at=before.resumed_at,
        memory=joined(before.memory, call.memory, before.seconds),
        peaks=peaks(told),
        frozen_weights=frozen,
        problem_losses=problem_losses(told),
        cards=settings.cards,
        sharded=settings.sharded,
        adapter_bytes=adapter.stat().st_size,
        adapter_sha256=sha256_file(adapter),
        origin=schema.origin(settings.run.name, settings.environment),
    )


def _call(
    method: str, settings: Settings, used: Recipe, making: Making, attempt: Attempt
) -> factory.Call:
    try:
        return factory.call(
            "train", method, used, settings,
            making=making, arguments=attempt.arguments, on_tick=attempt.keep,
            cards=settings.cards,
        )  # fmt: skip
    except TutorialError as error:
        if attempt.checkpoint:
            went_on = tr(
                "(This training went on from {checkpoint}; to start it anew, move {folder} away.)",
                checkpoint=attempt.checkpoint.name,
                folder=paths.shown(making.folder),
            )
            error.message = sentences([error.message, went_on])
        raise


def train(method: str, settings: Settings, say: Callable[[str], None] = print) -> Training:
    """Train an adapter, unless the run has one that was trained from the same inputs.

    A training with the same inputs that was interrupted goes on from its last whole checkpoint.
    One that a notebook starts runs in a process of its own (helpers/calls/attached.py).

    Args:
        method: one of the run's.
        settings: the run's settings; the model and the data must be there.
        say: takes the lines that tell what happens.

    Returns:
        The facts of the training.

    Raises:
        TutorialError: an input is missing (with the notebook that makes it), or training failed.
    """
    run = settings.run
    facts = data.facts_of(run)
    used = recipes.for_training(method, settings)
    used |= sharing.between(settings.cards, settings.profile.device)
    final = run.adapter(method)
    inputs = {
        "form": schema.FORM,
        "recipe": recipes.without_places(used),
        "model": models.sha256(settings.model.path),
        "data": [facts.train_sha256, facts.eval_sha256],
        "device": settings.profile.device,
        "versions": versions(),
    }
    if settings.cards > 1:  # a recipe does not say it
        inputs["cards"] = settings.cards
    if settings.sharded:
        inputs["sharded"] = True

    def action(making: Making) -> None:
        folder = making.place(final)
        attempt = Attempt(folder, inputs, making.discard, say)
        call = _call(method, settings, used, making, attempt)
        if not (folder / "adapter_model.safetensors").is_file():
            raise TutorialError(
                tr("The training ended without an adapter: look into its log."), log=call.log
            )
        told = events.read(folder / events.FILE)
        frozen = frozen_weights(told)
        if frozen is None:
            raise TutorialError(
                tr(
                    "The training did not tell whether its frozen weights stayed as they were, for "
                    "this .venv is older than the tutorial: run 'make setup', then this again."
                ),
                log=call.log,
            )
        begun = [event for event in told if event["event"] == "train_begin"]
        if settings.sharded and not all(event.get("sharded") for event in begun):
            raise TutorialError(
                tr(
                    "Each card held the whole model, although SHARDED=yes shards it: the packages "
                    "of this .venv are not the tutorial's, so run 'make setup', then this again."
                ),
                log=call.log,
            )
        operators = faults.cpu_fallbacks(call.log.read_text("utf-8", "replace"))
        if operators:
            say(
                tr(
                    "WARNING: the NPU has no kernel for {operators}, which ran on the CPU: the "
                    "times of this training are longer than they need be.",
                    operators=series(operators),
                )
            )
        trained = _facts(settings, folder, used, call, attempt.parts, told, frozen)
        # The evaluations tell: transformers logs a training loss that is NaN as 0.
        losses = [point.loss for point in trained.loss + trained.eval_loss]
        if not all(map(math.isfinite, [*losses, trained.final_eval_loss])):
            raise TutorialError(faults.sentence("loss is not a number"), log=call.log)
        write_bytes(folder / "training.json", trained.model_dump_json().encode())

    if attached.wanted() and not steps.is_done(run, method, inputs, final):
        attached.train(method, settings, inputs, say)
    else:
        steps.done_once(run, method, inputs, final, action, say, goes_on=True)
    return read(method, settings)


def _facts_file(method: str, settings: Settings) -> Path:
    return settings.run.adapter(method) / "training.json"


def is_there(method: str, settings: Settings) -> bool:
    """Return whether a method of the run has a finished training."""
    return _facts_file(method, settings).is_file()


def read(method: str, settings: Settings) -> Training:
    """Return the facts of a finished training.

    Raises:
        TutorialError: it has not been done, with the notebook that does it.
    """
    subject = settings.subject(method)
    file = _facts_file(method, settings)
    if not file.is_file():
        raise TutorialError(
            tr(
                "Run {run!r} has no {method} adapter yet: run the notebook {notebook} first.",
                run=settings.run.name,
                method=subject.label,
                notebook=subject.made_by,
            )
        )
    return read_json(
        file, Training, tr("run the notebook {notebook} again", notebook=subject.made_by)
    )
