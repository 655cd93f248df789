"""Recipes: model + method + profile + overrides, as one YAML that llamafactory-cli takes."""

from __future__ import annotations

import os
import shlex
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from helpers.ground import paths
from helpers.ground.errors import TutorialError
from helpers.ground.files import read_yaml, write_yaml
from helpers.ground.words import tr
from helpers.inputs import data, keys, methods, models, sharing
from helpers.inputs.methods import Method, Recipe
from helpers.inputs.settings import Settings
from helpers.programs import steps

# Overrides that decide how much a model reads and answers, in training and in prediction.
PREDICTION_KEYS = ("cutoff_len", "max_samples", "max_new_tokens")
# In which numbers it computes.
PRECISION_KEYS = ("bf16", "fp16")
# What decides how a problem is put to a model, and what model it is put to: from its training on,
# a method keeps these wherever its adapter is.
READING_KEYS = (
    "template", "default_system", "enable_thinking", "preserve_thinking", "tool_format",
    "use_fast_tokenizer", "split_special_tokens", "add_tokens", "add_special_tokens",
    "init_special_tokens", "new_special_tokens_config", "resize_vocab", "rope_scaling",
    "mixture_of_depths", "model_revision", "trust_remote_code",
)  # fmt: skip
# Where a run lies; they decide nothing about its figures.
PLACE_KEYS = ("model_name_or_path", "adapter_name_or_path", "dataset_dir", "output_dir",
              "export_dir", "swanlab_logdir", "swanlab_run_name", "swanlab_mode")  # fmt: skip


def article(method: str) -> Recipe:
    """Return the article's recipe for a method, as it stands in configs/.

    Raises:
        TutorialError: there is no such method, or its file is no recipe.
    """
    return methods.load(method).recipe


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Return (key, value in first, value in second) for every key that differs, in order.

    A key that one of the two lacks has the value None there.
    """
    rows = [(key, first.get(key), second.get(key)) for key in dict.fromkeys([*first, *second])]
    return [row for row in rows if row[1] != row[2]]


def _base_model(settings: Settings, planned: bool = False) -> Recipe:
    path = settings.model.path
    if not planned and not settings.model.is_here:
        raise TutorialError(
            tr(
                "The model {model} is not on this machine yet: run the notebook 01_env first.",
                model=settings.model.name,
            )
        )
    # An override replaces a template that cannot be guessed.
    template = settings.overrides.get("template") or models.template(settings.model)
    return {"model_name_or_path": paths.in_recipe(path), "template": template}


def _changes(method: Method, settings: Settings) -> Recipe:
    """Return what a run sets in a method's recipe.

    How a base model is quantised is a matter of quantised methods only: set for all of them, it
    would turn the others into quantised ones.
    """
    return {
        key: value
        for key, value in settings.changes.items()
        if method.quantised or key not in keys.quantisation()
    }


def for_training(method: str, settings: Settings, planned: bool = False) -> Recipe:
    """Return the recipe of one training: the method's, then what the model, the run folder, the
    profile, its tuning and the overrides say, each replacing what stood before; and of that, the
    part of one card where there are several.

    Args:
        method: one of the run's methods. An override of a quantisation key holds for those that
            quantise.
        settings: the run's settings; its model must lie in its folder.
        planned: the training is only planned, so the model need not be here.

    Raises:
        TutorialError: the run has no such method, the model is missing, or its cards cannot share
            the batch.
    """
    run, chosen = settings.run, settings.method(method)
    followed = {"eval_dataset": data.CURVE} if settings.profile.data.curve else {}
    whole = (
        chosen.recipe
        | followed
        | _base_model(settings, planned)
        | {
            "dataset_dir": paths.in_recipe(run.data),
            "output_dir": paths.in_recipe(run.adapter(method)),
            "swanlab_logdir": paths.in_recipe(run.swanlab),
            "swanlab_run_name": f"{run.name}-{method}",
            "swanlab_mode": "cloud" if os.environ.get("SWANLAB_API_KEY") else "local",
        }
        | _changes(chosen, settings)
    )
    return sharing.shared(whole, settings.cards, settings.sharded)


def stored(used: Recipe, run: paths.RunFolder, step: str) -> Recipe:
    """Return the recipe with which a step was done, as its marker keeps it.

    Args:
        used: the recipe that the step would have today: what it says of places is taken, and all
            of it where the step was not done.
        run: the run's folder.
        step: the step's name: a method's is that of its training.
    """
    done = steps.inputs_of(run, step)
    if done is None:
        return used
    places = {key: value for key, value in used.items() if key in PLACE_KEYS}
    return {**done["recipe"], **places}


def _as_trained(method: str, settings: Settings, wanted: Collection[str]) -> Recipe:
    """Return some keys of a method's training: of the one that was done, if there was one."""
    trained = stored(for_training(method, settings), settings.run, method)
    return {key: value for key, value in trained.items() if key in wanted}


def for_prediction(subject: str, settings: Settings) -> Recipe:
    """Return the recipe that has one subject answer the held-out problems.

    How the base model of an adapter is held and how a problem is put to it is as in the training
    that was done, whatever the settings say today.

    Args:
        subject: the base model; a method (the base model as it was trained with, in 4 bits for a
            quantised one, and the adapter); or a merged model.
        settings: the run's settings.

    Raises:
        TutorialError: the run has no such subject, or the model is missing.
    """
    run, found = settings.run, settings.subject(subject)
    recipe = read_yaml(paths.CONFIGS / "predict.yaml") | _base_model(settings)
    held: set[str] = {*READING_KEYS, *PRECISION_KEYS}
    if found.kind == "merged":
        recipe["model_name_or_path"] = paths.in_recipe(run.merged(subject))
        if settings.profile.data.merged:
            recipe["max_samples"] = settings.profile.data.merged
    elif found.method is not None:
        recipe["adapter_name_or_path"] = paths.in_recipe(run.adapter(subject))
        held |= keys.quantisation()
    recipe |= {
        "dataset_dir": paths.in_recipe(run.data),
        "eval_dataset": data.EVAL,
        "output_dir": paths.in_recipe(run.answers(subject)),
        **settings.profile.predict,
        **{key: settings.overrides[key] for key in PREDICTION_KEYS if key in settings.overrides},
    }
    if found.method is not None:
        return recipe | _as_trained(found.method.name, settings, held)
    return recipe | {key: settings.changes[key] for key in held if key in settings.changes}


def for_export(subject: str, settings: Settings) -> Recipe:
    """Return the recipe that merges an adapter.

    Args:
        subject: a merged model. One on dequantised weights is for
            helpers/worker/dequantised_merge.py: its recipe has the adapter answer beside its
            quantised base model. One on the original weights is for llamafactory-cli export.
        settings: the run's settings.

    Raises:
        TutorialError: the run has no such subject, or the model is missing.
        ValueError: the subject is no merged model.
    """
    run, found = settings.run, settings.subject(subject)
    if found.kind != "merged" or found.method is None:
        raise ValueError(f"{subject} is no merged model")
    target = {"export_dir": paths.in_recipe(run.merged(subject))}
    if found.weights == "dequantised":
        return for_prediction(found.method.name, settings) | target
    return (
        _base_model(settings)
        | {"adapter_name_or_path": paths.in_recipe(run.adapter(found.method.name))}
        | _as_trained(found.method.name, settings, READING_KEYS)
        | read_yaml(paths.CONFIGS / "export.yaml")
        | target
    )


def without_places(recipe: Recipe) -> Recipe:
    """Return the keys of a recipe that decide its figures, without those that say where it lies."""
    return {key: value for key, value in recipe.items() if key not in PLACE_KEYS}


def write(recipe: Recipe, command: str, file: Path, *, named: Path | None = None) -> Path:
    """Write a recipe as the YAML that reproduces its step, and return the file.

    Args:
        recipe: what to write.
        command: what takes it: "llamafactory-cli train", say.
        file: where.
        named: where it will lie when it is read; None: it stays where it is written.
    """
    again = f"{command} {shlex.quote(paths.in_recipe(named or file))}"
    header = tr("What this step used. To repeat it, from the repository:")
    write_yaml(file, recipe, f"{header}\n  {again}")
    return file
