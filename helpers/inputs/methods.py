"""Methods: each is a LLaMA-Factory recipe, a file `configs/NAME.yaml` that anyone can add.

What readers know a method by is what its file's first comment begins with ("# QLoRA: ...").
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helpers.ground import paths
from helpers.ground.errors import TutorialError
from helpers.ground.files import read_yaml
from helpers.ground.words import tr
from helpers.inputs import keys

Recipe = dict[str, Any]
# What a run folder holds besides, and its steps: an adapter's folder and its step are called as its
# method.
_TAKEN = ("base", "data", "results", "recipes", "logs", "figures", "notebooks", "steps", "swanlab",
          "cache", "answers", "evalscope", "bench", "source", "making", "inside", "running", "plan",
          "divergence", "article_memory")  # fmt: skip
# How the names of a method's further steps end.
_FURTHER = ("_answers", "_layer", "_block", "_chat", "_evalscope")


def _can_name(name: str) -> bool:
    short = re.fullmatch(r"[a-z][a-z0-9_-]{0,30}", name) is not None
    return short and name not in _TAKEN and "_merged" not in name and not name.endswith(_FURTHER)


@dataclass(frozen=True)
class Method:
    """One way to fine-tune: `recipe` is its file, as it stands."""

    name: str
    label: str
    file: Path
    recipe: Recipe

    @property
    def quantised(self) -> bool:
        """Whether its base model is held in fewer bits than it was trained with."""
        return "quantization_bit" in self.recipe


def _label(file: Path, name: str) -> str:
    first = file.read_text("utf-8").partition("\n")[0]
    match = re.match(r"#\s*([\w+. -]{1,24}):", first)
    return match[1].strip() if match else name


def load(name: str) -> Method:
    """Return the method of the file configs/NAME.yaml (or .yml).

    Raises:
        TutorialError: the name cannot name an adapter's folder; there is no such file, or there
            are two; or it is no recipe of a LoRA training that the installed LLaMA-Factory takes.
    """
    if not _can_name(name):
        raise TutorialError(
            tr(
                "METHODS={name!r} cannot name a method: use a short name in small letters that no "
                "folder of a run has already.",
                name=name[:60],
            )
        )
    files = [paths.CONFIGS / f"{name}{suffix}" for suffix in (".yaml", ".yml")]
    there = [file for file in files if file.is_file()]
    if not there:
        raise TutorialError(
            tr(
                "There is no method {name}: METHODS= takes the names of recipes in configs/, and "
                "{file} is not there.",
                name=name,
                file=paths.shown(files[0]),
            )
        )
    if len(there) > 1:
        raise TutorialError(
            tr(
                "Two files are the method {name}, {first} and {second}: rename one of them.",
                name=name,
                first=paths.shown(there[0]),
                second=paths.shown(there[1]),
            )
        )
    file = there[0]
    recipe = read_yaml(file)
    if recipe.get("stage") != "sft" or recipe.get("do_train") is not True:
        raise TutorialError(
            tr(
                "{file} is no recipe of a training: it needs 'stage: sft' and 'do_train: true', as "
                "in configs/lora.yaml.",
                file=paths.shown(file),
            )
        )
    if recipe.get("finetuning_type") != "lora":
        raise TutorialError(
            tr(
                "{file} trains no adapter: it needs 'finetuning_type: lora'.",
                file=paths.shown(file),
            )
        )
    keys.check(recipe, paths.shown(file))
    return Method(name, _label(file, name), file, recipe)


def beyond_the_method(first: Method, other: Method, differing: Iterable[str]) -> list[str]:
    """Return the keys in which two recipes differ, and which make no method.

    A key is the method's own if it can be one, and the files in configs/ differ in it: a rank that
    only one of the two was given by an override makes no method.

    Args:
        first: what the other is compared with.
        other: the other method.
        differing: the keys in which their recipes, as they are used, differ.
    """
    names = first.recipe | other.recipe
    own = {key for key in names if first.recipe.get(key) != other.recipe.get(key)}
    return [key for key in differing if key not in own & keys.of_a_method()]


def default() -> tuple[str, ...]:
    """Return the names of configs/tutorial.yaml: what notebooks 3 and 4 tell of.

    Raises:
        TutorialError: the file names none.
    """
    file = paths.CONFIGS / "tutorial.yaml"
    names = read_yaml(file).get("methods")
    if not isinstance(names, list) or not names:
        raise TutorialError(
            tr("{file} must hold 'methods: [...]' with at least one name.", file=paths.shown(file))
        )
    return tuple(map(str, names))


def named(names: Sequence[str]) -> tuple[Method, ...]:
    """Return the methods of these names, in this order.

    Raises:
        TutorialError: as `load`; or none is named, or one twice.
    """
    twice = [name for name in names if list(names).count(name) > 1]
    if twice or not names:
        raise TutorialError(
            tr(
                "METHODS={names!r} must name each method once, as in METHODS='lora qlora'.",
                names=" ".join(names),
            )
        )
    return tuple(load(name) for name in names)
