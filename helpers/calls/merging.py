"""Merging adapters into full weights, and measuring whether the merged models are what was trained.

The adapter of a quantised method is merged twice: into the original 16-bit weights, as
llamafactory-cli export does it, and into the 4-bit weights that it was trained beside, expanded to
16 bits.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from helpers.calls import factory, prediction, training
from helpers.ground.errors import TutorialError
from helpers.ground.paths import in_recipe
from helpers.ground.words import series, tr
from helpers.inputs import data, models, recipes
from helpers.inputs.methods import Method
from helpers.inputs.settings import Settings
from helpers.inputs.subjects import Weights
from helpers.programs import steps
from helpers.programs.making import Making
from helpers.programs.steps import Done
from helpers.records import schema, store
from helpers.records.schema import Answers, Divergence, Merge, Record
from helpers.records.versions import code, versions

# What of this project decides their figures.
_MERGE = ("worker/dequantised_merge.py", "worker/loaded.py")
_DIVERGENCE = ("worker/divergence.py", "worker/loaded.py", "worker/callback.py")


def _merged(settings: Settings) -> dict[str, tuple[Method, Weights]]:
    """Return the run's merged models: whose adapter is in each, and what it is merged into."""
    found = {}
    for name, subject in settings.subjects.items():
        if subject.method and subject.weights:
            found[name] = (subject.method, subject.weights)
    return found


@dataclass(frozen=True)
class Agreement:
    """How far two subjects answer alike."""

    n: int  # problems that both were asked
    answers: int  # of these, with the same final answer
    texts: int  # ... with the same text to the letter


def agreement(first: Answers, second: Answers) -> Agreement:
    """Compare two subjects' answers to the problems that both were asked.

    One of them may have been asked the first ones only.

    Raises:
        ValueError: they were not asked the same problems.
    """
    pairs = list(zip(first.items, second.items, strict=False))
    if any(a.problem != b.problem for a, b in pairs):
        raise ValueError("the two subjects were asked different problems")
    return Agreement(
        n=len(pairs),
        answers=sum(a.given == b.given and bool(a.given or a.text == b.text) for a, b in pairs),
        texts=sum(a.text == b.text for a, b in pairs),
    )


def merge(subject: str, settings: Settings, say: Callable[[str], None] = print) -> Done:
    """Merge an adapter, unless it was done from the same inputs.

    Args:
        subject: the name of one of the run's merged models, which says whose adapter is merged
            into which weights.
        settings: the run's settings; the adapter must be there.
        say: takes the lines that tell what happens.

    Raises:
        TutorialError: the run has no such merged model, the adapter is missing (with the notebook
            that makes it), or the call failed.
    """
    run = settings.run
    wanted = settings.subject(subject)
    if wanted.method is None or wanted.weights is None:
        names = series(_merged(settings))
        raise TutorialError(
            tr("{name} is no merged model: choose of {names}.", name=subject, names=names)
        )
    trained = training.read(wanted.method.name, settings)
    used = recipes.for_export(subject, settings)
    dequantised = wanted.weights == "dequantised"
    command = "helpers.worker.dequantised_merge" if dequantised else "export"
    inputs: dict[str, Any] = {
        "form": schema.FORM,
        "recipe": recipes.without_places(used),
        "model": models.sha256(settings.model.path),
        "adapter": trained.adapter_sha256,
        "versions": versions(),
    }
    if dequantised:
        inputs["code"] = code(*_MERGE)

    def action(making: Making) -> None:
        factory.call(command, subject, used, settings, making=making)

    return steps.done_once(run, subject, inputs, run.merged(subject), action, say)


def diverge(settings: Settings, say: Callable[[str], None] = print) -> dict[str, Divergence]:
    """Return how far each merged model lies from base + adapter, unmerged, on the held-out set.

    One process does it for all: starting one costs more than the work with a small model.

    Args:
        settings: the run's settings; all merged models must be there.
        say: takes the lines that tell what happens.

    Raises:
        TutorialError: an adapter is missing, or the call failed.
    """
    run = settings.run
    merged = _merged(settings)
    few = settings.profile.data.divergence
    part = {"max_samples": few} if few else {}
    pairs = {
        subject: {
            "reference": recipes.for_prediction(method.name, settings) | part,
            "other": recipes.for_prediction(subject, settings) | part,
        }
        for subject, (method, _) in merged.items()
    }
    plan = {"result": in_recipe(run.divergence), "pairs": pairs}
    inputs: dict[str, Any] = {
        "form": schema.FORM,
        "recipes": {
            subject: {name: recipes.without_places(used) for name, used in pair.items()}
            for subject, pair in pairs.items()
        },
        "models": {subject: models.sha256(run.merged(subject)) for subject in pairs},
        "model": models.sha256(settings.model.path),
        "adapters": {
            method.name: training.read(method.name, settings).adapter_sha256
            for method, _ in merged.values()
        },
        "data": data.facts_of(run).eval_sha256,
        "device": settings.profile.device,
        "versions": versions(),
        "code": code(*_DIVERGENCE),
    }

    def action(making: Making) -> None:
        factory.call("helpers.worker.divergence", "divergence", plan, settings, making=making)

    steps.done_once(run, "divergence", inputs, run.divergence, action, say)
    found = json.loads(run.divergence.read_text("utf-8"))
    return {subject: Divergence.model_validate(found[subject]) for subject in pairs}


def measure(settings: Settings, say: Callable[[str], None] = print) -> dict[str, Record]:
    """Have every merged model answer, compare it with base + adapter, and write its record.

    One whose weights are those that base + adapter answered from, bit for bit, is not asked again:
    its answers are known.

    Args:
        settings: the run's settings; the adapters and their answers must be there. A model that is
            not merged yet is merged first.
        say: takes the lines that tell what happens.

    Returns:
        The records of the merged models by subject.

    Raises:
        TutorialError: an input is missing (with the notebook that makes it), or a call failed.
    """
    run = settings.run
    merged = _merged(settings)
    before = {
        method.name: store.read(run, settings.subject(method.name)).answers
        for method, _ in merged.values()
    }
    # Merged a moment ago, most likely: that they are used again is no news.
    done = {subject: merge(subject, settings, lambda line: None) for subject in merged}
    divergences = diverge(settings, say)
    found = {}
    for subject, (method, weights) in merged.items():
        asked = subject
        if divergences[subject].same_weights:
            asked, after = method.name, before[method.name]
            say(
                tr(
                    "{merged} is not asked: its weights are those that {method} answered from, bit "
                    "for bit, so its answers are known.",
                    merged=settings.subject(subject).label,
                    method=method.label,
                )
            )
        else:
            after = prediction.answer(subject, settings, say)
        same = agreement(before[method.name], after)
        folder = run.merged(subject)
        facts = Merge(
            weights=weights,
            seconds=done[subject].seconds,
            bytes_on_disk=sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()),
            model_sha256=models.sha256(folder),
            same_answer=same.answers,
            same_text=same.texts,
            n=same.n,
            divergence=divergences[subject],
            origin=after.origin,
        )
        found[subject] = prediction.record(subject, settings, after, facts, asked)
    return found
