"""Merging adapters into full weights, and measuring whether the merged models are what was trained.

QLoRA's adapter is merged twice: into the original 16-bit weights, as llamafactory-cli export does
it, and into the 4-bit weights that it was trained beside, expanded to 16 bits.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from helpers import data, factory, models, paths, prediction, recipe, records, steps, training
from helpers.files import folder_aside
from helpers.paths import in_recipe
from helpers.records import Answers, Divergence, Merge, Record
from helpers.settings import Settings
from helpers.steps import Done


def agreement(first: Answers, second: Answers) -> tuple[int, int]:
    """Return on how many problems two subjects give the same answer, and the same text."""
    pairs = list(zip(first.items, second.items, strict=True))
    answers = sum(a.given == b.given and bool(a.given or a.text == b.text) for a, b in pairs)
    return answers, sum(a.text == b.text for a, b in pairs)


def merge(subject: str, settings: Settings, say: Callable[[str], None] = print) -> Done:
    """Merge an adapter, unless it was done from the same inputs.

    Args:
        subject: one of paths.MERGED, which says whose adapter; "dequantised" is merged into the
            4-bit weights, the others into the original 16-bit ones.
        settings: the run's settings; the adapter must be there.
        say: takes the lines that tell what happens.

    Raises:
        TutorialError: the adapter is missing (with the notebook that makes it), or the call failed.
    """
    run = settings.run
    trained = training.read(paths.MERGED[subject], settings)
    used = recipe.for_export(subject, settings)
    folder = run.merged(subject)
    command = "helpers.dequantised_merge" if recipe.dequantised(subject) else "export"
    inputs = {
        "recipe": recipe.without_places(used),
        "model": models.sha256(settings.model.path),
        "adapter": trained.adapter_sha256,
        "versions": records.versions(),
    }

    def action() -> None:
        with folder_aside(folder) as aside:
            factory.call(command, subject, used | {"export_dir": in_recipe(aside)}, settings)
        recipe.write(used, factory.words(command), run.recipes / f"{subject}.yaml")

    return steps.done_once(run, subject, inputs, [folder], action, say)


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
    pairs = {
        subject: {
            "reference": recipe.for_prediction(method, settings),
            "other": recipe.for_prediction(subject, settings),
        }
        for subject, method in paths.MERGED.items()
    }
    plan = {"result": in_recipe(run.divergence), "pairs": pairs}
    inputs: dict[str, Any] = {
        "recipes": {
            subject: {name: recipe.without_places(used) for name, used in pair.items()}
            for subject, pair in pairs.items()
        },
        "models": {subject: models.sha256(run.merged(subject)) for subject in pairs},
        "model": models.sha256(settings.model.path),
        "adapters": {m: training.read(m, settings).adapter_sha256 for m in recipe.METHODS},
        "data": data.facts_of(run).eval_sha256,
        "device": settings.profile.device,
        "versions": records.versions(),
    }

    def action() -> None:
        factory.call("helpers.divergence", "divergence", plan, settings)

    steps.done_once(run, "divergence", inputs, [run.divergence], action, say)
    found = json.loads(run.divergence.read_text("utf-8"))
    return {subject: Divergence.model_validate(found[subject]) for subject in pairs}


def measure(settings: Settings, say: Callable[[str], None] = print) -> dict[str, Record]:
    """Have every merged model answer, compare it with base + adapter, and write its record.

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
    before = {method: records.read(run, method).answers for method in recipe.METHODS}
    # Merged a moment ago, most likely: that they are used again is no news.
    done = {subject: merge(subject, settings, lambda line: None) for subject in paths.MERGED}
    divergences = diverge(settings, say)
    found = {}
    for subject, method in paths.MERGED.items():
        after = prediction.answer(subject, settings, say)
        same_answer, same_text = agreement(before[method], after)
        folder = run.merged(subject)
        merged = Merge(
            base="dequantised 4-bit" if recipe.dequantised(subject) else "original 16-bit",
            seconds=done[subject].seconds,
            bytes_on_disk=sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()),
            model_sha256=models.sha256(folder),
            same_answer=same_answer,
            same_text=same_text,
            n=after.n,
            divergence=divergences[subject],
        )
        found[subject] = prediction.record(subject, settings, after, merged)
    return found
