"""Looking into what was trained: one linear layer with its adapter, one block of 4-bit weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from helpers.calls import factory, training
from helpers.ground.errors import TutorialError
from helpers.ground.files import write_json
from helpers.ground.paths import in_recipe
from helpers.ground.words import tr
from helpers.inputs import models, recipes
from helpers.inputs.settings import Settings
from helpers.programs import steps
from helpers.programs.making import Making
from helpers.records import schema
from helpers.records.inside import Block, Layer
from helpers.records.versions import code, versions


def _look(
    what: Literal["layer", "block"], method: str, settings: Settings, say: Callable[[str], None]
) -> Path:
    """Have a process of its own look into a method's adapter; return the file of its findings."""
    run = settings.run
    trained = training.read(method, settings)
    used = recipes.stored(recipes.for_training(method, settings), run, method)
    file = run.inside / f"{method}_{what}.json"
    inputs = {
        "form": schema.FORM,
        "recipe": recipes.without_places(used),
        "model": models.sha256(settings.model.path),
        "adapter": trained.adapter_sha256,
        "versions": versions(),
        "code": code("worker/inside.py"),
    }
    plan = {
        "what": what,
        "result": in_recipe(file),
        "recipe": used,
        "adapter": in_recipe(run.adapter(method)),
    }

    def action(making: Making) -> None:
        factory.call("helpers.worker.inside", f"{method}_{what}", plan, settings, making=making)
        found = making.place(file)
        origin = schema.origin(run.name).model_dump(mode="json")
        write_json(found, json.loads(found.read_text("utf-8")) | {"origin": origin})

    steps.done_once(run, f"{method}_{what}", inputs, file, action, say)
    return file


def layer(method: str, settings: Settings, say: Callable[[str], None] = print) -> Layer:
    """Look into one linear layer after training: the frozen weight, and what stands beside it.

    Args:
        method: one of the run's; its adapter must be there.
        settings: the run's settings.
        say: takes the lines that tell what happens.

    Raises:
        TutorialError: the adapter is missing (with the notebook that makes it), or the call failed.
    """
    return Layer.model_validate_json(_look("layer", method, settings, say).read_bytes())


def block(method: str, settings: Settings, say: Callable[[str], None] = print) -> Block:
    """Take one block of 64 weights of the same layer through a method's quantisation and back.

    Args:
        method: one of the run's that holds its base model in 4 bits; its adapter must be there.
        settings: the run's settings.
        say: takes the lines that tell what happens.

    Raises:
        TutorialError: as for `layer`; or the method holds its base model otherwise.
    """
    used = recipes.stored(recipes.for_training(method, settings), settings.run, method)
    if used.get("quantization_bit") != 4 or used.get("quantization_method", "bnb") != "bnb":
        raise TutorialError(
            tr(
                "{method} does not hold its base model in 4 bits of bitsandbytes: choose a method "
                "whose recipe has quantization_bit: 4 and quantization_method: bnb.",
                method=settings.subject(method).label,
            )
        )
    return Block.model_validate_json(_look("block", method, settings, say).read_bytes())
