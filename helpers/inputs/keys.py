"""The keys that LLaMA-Factory takes in a recipe, read from its source.

Importing its argument classes would take ten seconds and a gigabyte.
"""

from __future__ import annotations

import ast
import difflib
import importlib.util
import re
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


# Keys that decide what a run is and where it lies, and the setting that decides it instead.
_BY_SETTING = {
    "MODEL": ("model_name_or_path", "cache_dir"),
    "DATA": ("dataset", "eval_dataset", "dataset_dir", "media_dir", "tokenized_path", "val_size"),
    "RUN": ("output_dir", "logging_dir", "swanlab_logdir", "swanlab_run_name", "export_dir"),
    "PROFILE": ("use_cpu",),
    "METHODS": ("stage", "finetuning_type", "adapter_name_or_path"),
}
# What makes a run's calls what they are: they train, evaluate, and go on where they were.
_ALWAYS = frozenset(
    ("do_train", "do_eval", "do_predict", "predict_with_generate", "resume_from_checkpoint",
     "overwrite_output_dir", "push_to_hub", "save_safetensors", "export_device", "export_size",
     "export_legacy_format", "export_hub_model_id", "export_quantization_bit")
)  # fmt: skip
# Recipes are kept and shown, so a secret has no place in them.
_SECRET = re.compile(r"_(token|api_key|secret|webhook_url)$")


def _refuse_override(key: str) -> None:
    setting = next((name for name, keys in _BY_SETTING.items() if key in keys), "")
    if setting:
        raise TutorialError(
            tr(
                "{key} takes no override, for {setting}= decides it in this tutorial: leave out "
                "{key}, and set {setting}= where it should differ.",
                key=key,
                setting=setting,
            )
        )
    if key in _ALWAYS:
        raise TutorialError(
            tr(
                "{key} takes no override: a run decides it for each of its calls, which train, "
                "answer and go on where they were; leave {key} out.",
                key=key,
            )
        )
    if _SECRET.search(key):
        raise TutorialError(
            tr(
                "{key} takes no override, for recipes are kept and shown, and secrets should not "
                "be: leave {key} out, and set the environment variable of that service.",
                key=key,
            )
        )


def check(keys: Iterable[str], where: str = "") -> None:
    """Check recipe keys against what LLaMA-Factory takes.

    Args:
        keys: the keys.
        where: the file that they stand in; "" for overrides, of which those are refused that a run
            decides by itself.

    Raises:
        TutorialError: a key is unknown; the sentence names the nearest known one. Or it is not an
            override's to set; the sentence says what sets it.
    """
    for key in keys:
        if key in known():
            if not where:
                _refuse_override(key)
            continue
        near = difflib.get_close_matches(str(key), known(), n=1)
        hint = tr("did you mean {near}?", near=near[0]) if near else tr("correct or remove it.")
        what = tr("LLaMA-Factory does not know the recipe key {key!r}: {hint}", key=key, hint=hint)
        raise TutorialError(f"{where}: {what}" if where else what)
