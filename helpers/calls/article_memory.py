"""What the same trainings take with the article's settings, where a run is tuned for speed.

A small micro-batch and checkpointing are the settings in which one uses QLoRA: without them the
activations hide what it saves.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from helpers.calls import factory
from helpers.ground.files import read_json, write_bytes
from helpers.ground.paths import NOTEBOOK_NAMES, RunFolder, in_recipe
from helpers.ground.words import tr
from helpers.inputs import data, models, recipes
from helpers.inputs.settings import Settings
from helpers.planning.planner import untuned
from helpers.programs import steps
from helpers.programs.making import Making
from helpers.records import schema
from helpers.records.schema import ArticleMemory
from helpers.records.versions import versions


def _kept(run: RunFolder) -> Path:
    return run.root / "article_memory.json"


def kept(run: RunFolder) -> ArticleMemory | None:
    """Return what a run has measured; None where it measured nothing.

    Raises:
        TutorialError: it cannot be read.
    """
    file = _kept(run)
    again = tr("run the notebook {notebook} again", notebook=NOTEBOOK_NAMES[3])
    return read_json(file, ArticleMemory, again) if file.is_file() else None


def _inputs(settings: Settings, used: Mapping[str, recipes.Recipe]) -> dict[str, Any]:
    """Return what the peaks depend on."""
    return {
        "form": schema.FORM,
        "recipes": {name: recipes.without_places(recipe) for name, recipe in used.items()},
        "model": models.sha256(settings.model.path),
        "data": data.facts_of(settings.run).train_sha256,
        "device": settings.profile.device,
        "versions": versions(),
    }


def _recipes(settings: Settings) -> dict[str, recipes.Recipe]:
    plain = untuned(settings)
    return {method.name: recipes.for_training(method.name, plain) for method in plain.methods}


def standing(settings: Settings) -> ArticleMemory | None:
    """Return what was measured; None where that was not done, or not with these settings.

    Args:
        settings: the run's settings; the model and the data must be there.

    Raises:
        TutorialError: an input is missing, with the notebook that makes it.
    """
    if not settings.tuned or not (file := _kept(settings.run)).is_file():
        return None
    inputs = _inputs(settings, _recipes(settings))
    done = steps.is_done(settings.run, "article_memory", inputs, file)
    return kept(settings.run) if done else None


def measure(settings: Settings, say: Callable[[str], None] = print) -> ArticleMemory | None:
    """Take a few real steps with the article's settings, and return the peaks of their tensors.

    Args:
        settings: the run's settings; the model and the data must be there.
        say: takes the lines that tell what happens.

    Returns:
        None where the run itself has the article's settings.

    Raises:
        TutorialError: an input is missing (with the notebook that makes it), or a step failed.
    """
    if not settings.tuned:
        return None
    run, plain = settings.run, untuned(settings)
    file, used = _kept(run), _recipes(settings)

    def action(making: Making) -> None:
        folder = making.folder / "short"
        folder.mkdir(parents=True)
        plan = {
            "result": in_recipe(file),
            "data": in_recipe(run.data / f"{data.TRAIN}.json"),
            "folder": in_recipe(folder),
            "recipes": used,
        }
        factory.call("helpers.worker.short_training", "article_memory", plan, plain, making=making)
        peaks = json.loads(making.place(file).read_text("utf-8"))
        found = ArticleMemory(training=peaks, origin=schema.origin(run.name))
        write_bytes(making.place(file), found.model_dump_json(indent=1).encode())

    steps.done_once(run, "article_memory", _inputs(settings, used), file, action, say)
    return ArticleMemory.model_validate_json(file.read_bytes())
