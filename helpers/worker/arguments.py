"""Reads recipes as llamafactory-cli would: `python -m helpers.worker.arguments FOUND RECIPE ...`.

In a process of its own, because it loads torch. FOUND takes the first thing that is wrong with a
recipe, as JSON: its file, the key if it is about one, and the reason.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import typing
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.errors import PydanticUserError

_FINITE = ConfigDict(allow_inf_nan=False)


def _wrong_type(recipe: dict[str, Any], classes: list[Any]) -> tuple[str, str] | None:
    """Return the first key whose value is none of its argument's type, and why.

    LLaMA-Factory hands a recipe's values to its dataclasses as they are, so that a wrong one is
    met wherever it is used first.
    """
    for kind in classes:
        hints = typing.get_type_hints(kind)
        for field in dataclasses.fields(kind):
            if field.name not in recipe:
                continue
            try:
                kept = TypeAdapter(hints[field.name], config=_FINITE)
                kept.validate_python(recipe[field.name])
            except ValidationError as error:
                return field.name, error.errors()[0]["msg"]
            except PydanticUserError:  # a type that only its own library can make
                continue
    return None


def check(file: str) -> dict[str, str] | None:
    """Return what is wrong with a recipe, as LLaMA-Factory reads it; None where nothing is."""
    from llamafactory.data.template import TEMPLATES
    from llamafactory.hparams import get_train_args
    from llamafactory.hparams.parser import _TRAIN_ARGS, read_args

    sys.argv = [sys.argv[0], file]
    try:
        recipe = read_args()
        assert isinstance(recipe, dict)
        if found := _wrong_type(recipe, _TRAIN_ARGS):
            return {"file": file, "key": found[0], "reason": found[1]}
        if recipe.get("template", "empty") not in TEMPLATES:
            return {"file": file, "key": "template", "reason": "there is no template of that name"}
        get_train_args(recipe)
    except Exception as error:  # whatever the libraries say of it
        reason = " ".join(str(error).split()) or type(error).__name__
        return {"file": file, "key": "", "reason": reason}
    return None


def main(found: str, files: list[str]) -> None:
    """Check recipes, up to the first that is wrong.

    Args:
        found: the file that takes what is wrong; "null" stands in it where nothing is.
        files: the recipes.
    """
    wrong = next((each for each in map(check, files) if each), None)
    Path(found).write_text(json.dumps(wrong), "utf-8")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
