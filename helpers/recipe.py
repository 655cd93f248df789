"""Recipes: model + method + profile + overrides, as one YAML that llamafactory-cli takes."""

from __future__ import annotations

import ast
import difflib
import importlib.util
import os
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from helpers import data, models, paths
from helpers.errors import TutorialError
from helpers.files import read_yaml, write_yaml
from helpers.settings import Settings

Recipe = dict[str, Any]
METHODS = ("lora", "qlora")
QUANTISATION_KEYS = ("quantization_bit", "quantization_method", "double_quantization")
# Overrides that decide how a model reads a problem and answers it, in training and in prediction.
PREDICTION_KEYS = ("template", "cutoff_len", "max_samples", "max_new_tokens", "bf16", "fp16")
# Where a run lies; they decide nothing about its figures.
PLACE_KEYS = ("model_name_or_path", "adapter_name_or_path", "dataset_dir", "output_dir",
              "export_dir", "swanlab_logdir", "swanlab_run_name", "swanlab_mode")  # fmt: skip


@cache
def known_keys() -> frozenset[str]:
    """Return every recipe key that the installed LLaMA-Factory takes.

    They are the fields of its argument classes and of transformers' TrainingArguments, read from
    the source: importing them would take ten seconds and a gigabyte.
    """
    files: list[Path] = []
    for package, pattern in (
        ("llamafactory", "hparams/*_args.py"),
        ("transformers", "training_args*.py"),
    ):
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            raise TutorialError(f"{package} is not installed: run 'make setup' in the repository.")
        files += Path(spec.origin).parent.glob(pattern)
    fields = set()
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                fields |= {
                    item.target.id
                    for item in node.body
                    if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
                }
    return frozenset(fields)


def check_keys(keys: Iterable[str]) -> None:
    """Check recipe keys against what LLaMA-Factory takes.

    Raises:
        TutorialError: a key is unknown; the sentence names the nearest known one.
    """
    for key in keys:
        if key not in known_keys():
            near = difflib.get_close_matches(key, known_keys(), n=1)
            hint = f"did you mean {near[0]}?" if near else "correct or remove it."
            raise TutorialError(f"LLaMA-Factory does not know the recipe key {key!r}: {hint}")


def article(method: str) -> Recipe:
    """Return the article's recipe for a method, as it stands in configs/."""
    return read_yaml(paths.CONFIGS / f"{method}.yaml")


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Return (key, value in first, value in second) for every key that differs, in order.

    A key that one of the two lacks has the value None there.
    """
    keys = list(dict.fromkeys([*first, *second]))
    rows = [(key, first.get(key), second.get(key)) for key in keys]
    return [row for row in rows if row[1] != row[2]]


def _base_model(settings: Settings, planned: bool = False) -> Recipe:
    path = settings.model.path
    if not planned and not (path / "config.json").is_file():
        raise TutorialError(
            f"The model {settings.model.name} is not on this machine yet: run the notebook 01_env "
            "first."
        )
    # An override replaces a template that cannot be guessed.
    template = settings.overrides.get("template") or models.template(settings.model)
    return {"model_name_or_path": paths.in_recipe(path), "template": template}


def for_training(method: str, settings: Settings, planned: bool = False) -> Recipe:
    """Return the recipe of one training: the article's, then what the model, the run folder, the
    profile, its tuning and the overrides say, each replacing what stood before.

    Args:
        method: lora or qlora.
        settings: the run's settings; its model must lie in its folder.
        planned: the training is only planned, so the model need not be here.

    Raises:
        TutorialError: an override is no recipe key, or the model is missing.
    """
    check_keys(settings.overrides)
    run = settings.run
    return (
        article(method)
        | _base_model(settings, planned)
        | {
            "dataset_dir": paths.in_recipe(run.data),
            "output_dir": paths.in_recipe(run.adapter(method)),
            "swanlab_logdir": paths.in_recipe(run.swanlab),
            "swanlab_run_name": f"{run.name}-{method}",
            "swanlab_mode": "cloud" if os.environ.get("SWANLAB_API_KEY") else "local",
        }
        | settings.profile.recipe
        | (settings.profile.tuned.recipe if settings.tuned and settings.profile.tuned else {})
        | settings.overrides
    )


def for_prediction(subject: str, settings: Settings) -> Recipe:
    """Return the recipe that has one subject answer the held-out problems.

    Args:
        subject: base; lora or qlora (the base model with that adapter, in 4 bits for qlora, as it
            was trained); or one of paths.MERGED (that 16-bit model).
        settings: the run's settings.
    """
    run = settings.run
    recipe = read_yaml(paths.CONFIGS / "predict.yaml") | _base_model(settings)
    if subject in paths.MERGED:
        recipe["model_name_or_path"] = paths.in_recipe(run.merged(subject))
    elif subject in METHODS:
        recipe["adapter_name_or_path"] = paths.in_recipe(run.adapter(subject))
        trained = article(subject)
        recipe |= {key: trained[key] for key in QUANTISATION_KEYS if key in trained}
    return recipe | {
        "dataset_dir": paths.in_recipe(run.data),
        "eval_dataset": data.EVAL,
        "output_dir": paths.in_recipe(run.answers(subject)),
        **settings.profile.predict,
        **{key: settings.overrides[key] for key in PREDICTION_KEYS if key in settings.overrides},
    }


def dequantised(subject: str) -> bool:
    """Return whether a merged model stands on the 4-bit weights, expanded, and not the original."""
    return subject.endswith("_dequantised")


def for_export(subject: str, settings: Settings) -> Recipe:
    """Return the recipe that merges an adapter.

    Args:
        subject: one of paths.MERGED. A dequantised one's is for helpers/dequantised_merge.py: it
            has the adapter answer beside its 4-bit base model. The others' are for
            llamafactory-cli export, which merges into the original 16-bit weights.
        settings: the run's settings.
    """
    run = settings.run
    method = paths.MERGED[subject]
    target = {"export_dir": paths.in_recipe(run.merged(subject))}
    if dequantised(subject):
        return for_prediction(method, settings) | target
    return (
        _base_model(settings)
        | {"adapter_name_or_path": paths.in_recipe(run.adapter(method))}
        | read_yaml(paths.CONFIGS / "export.yaml")
        | target
    )


def without_places(recipe: Recipe) -> Recipe:
    """Return the keys of a recipe that decide its figures, without those that say where it lies."""
    return {key: value for key, value in recipe.items() if key not in PLACE_KEYS}


def write(recipe: Recipe, command: str, file: Path) -> Path:
    """Write a recipe as the YAML that reproduces its step, and return the file.

    Args:
        recipe: what to write.
        command: what takes it: "llamafactory-cli train", say.
        file: where.
    """
    again = f"{command} {paths.in_recipe(file)}"
    write_yaml(file, recipe, f"What this step used. To repeat it, from the repository:\n  {again}")
    return file
