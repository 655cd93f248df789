"""The keys that LLaMA-Factory takes in a recipe, read from its source.

Importing its argument classes would take ten seconds and a gigabyte.
"""

from __future__ import annotations

import ast
import difflib
import importlib.util
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from helpers.ground.errors import TutorialError
from helpers.ground.words import tr


@cache
def by_class() -> dict[str, frozenset[str]]:
    """Return the fields of LLaMA-Factory's argument classes and of transformers' TrainingArguments.

    Raises:
        TutorialError: one of the two is not installed.
    """
    files: list[Path] = []
    for package, pattern in (
        ("llamafactory", "hparams/*_args.py"),
        ("transformers", "training_args*.py"),
    ):
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            raise TutorialError(
                tr("{package} is not installed: run 'make setup' in the repository.",
                   package=package)
            )  # fmt: skip
        files += Path(spec.origin).parent.glob(pattern)
    fields: dict[str, frozenset[str]] = {}
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef):
                own = frozenset(
                    item.target.id
                    for item in node.body
                    if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
                )
                fields[node.name] = fields.get(node.name, frozenset()) | own
    return fields


@cache
def known() -> frozenset[str]:
    """Return every recipe key that the installed LLaMA-Factory takes."""
    return frozenset().union(*by_class().values())


@cache
def quantisation() -> frozenset[str]:
    """Return the keys that decide in how many bits a base model is held, and how."""
    return by_class()["QuantizationArguments"]


@cache
def of_a_method() -> frozenset[str]:
    """Return the keys in which two methods may differ and still be compared fairly.

    They are what makes a method: LLaMA-Factory's arguments of LoRA, and of quantisation.
    """
    return by_class()["LoraArguments"] | quantisation()


def check(keys: Iterable[str], where: str = "") -> None:
    """Check recipe keys against what LLaMA-Factory takes.

    Args:
        keys: the keys.
        where: the file that they stand in; "" for overrides.

    Raises:
        TutorialError: a key is unknown; the sentence names the nearest known one.
    """
    for key in keys:
        if key in known():
            continue
        near = difflib.get_close_matches(str(key), known(), n=1)
        hint = tr("did you mean {near}?", near=near[0]) if near else tr("correct or remove it.")
        what = tr("LLaMA-Factory does not know the recipe key {key!r}: {hint}", key=key, hint=hint)
        raise TutorialError(f"{where}: {what}" if where else what)
