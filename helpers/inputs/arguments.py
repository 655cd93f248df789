"""Whether LLaMA-Factory takes a run's overrides: looked at before anything starts.

Their ranges here, where LLaMA-Factory's own classes leave them open; their types and what goes
together by those classes themselves, in a process of its own (helpers/worker/arguments.py).
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
from pathlib import Path

from helpers.ground import paths
from helpers.ground.errors import TutorialError
from helpers.ground.files import sha256_json, write_json
from helpers.ground.words import tr
from helpers.inputs import recipes
from helpers.inputs.settings import Settings
from helpers.programs import process

_MOST = 400  # characters of what LLaMA-Factory says
# The least and the most that make sense, and whether the least itself does.
_RANGES: dict[str, tuple[float, float, bool]] = {
    "lora_rank": (1, 100_000, True),
    "lora_alpha": (0, math.inf, False),
    "lora_dropout": (0, 0.99, True),
    "cutoff_len": (1, math.inf, True),
    "max_samples": (1, math.inf, True),
    "max_new_tokens": (1, math.inf, True),
    "per_device_train_batch_size": (1, math.inf, True),
    "per_device_eval_batch_size": (1, math.inf, True),
    "gradient_accumulation_steps": (1, math.inf, True),
    "preprocessing_num_workers": (1, 4096, True),
    "num_train_epochs": (0, math.inf, False),
    "learning_rate": (0, math.inf, True),
    "weight_decay": (0, math.inf, True),
    "max_grad_norm": (0, math.inf, True),
    "warmup_ratio": (0, 1, True),
    "logging_steps": (0, math.inf, False),
    "eval_steps": (0, math.inf, False),
    "save_steps": (0, math.inf, False),
    "seed": (0, 2**32 - 1, True),
}


def _check_range(key: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return  # a type is LLaMA-Factory's to judge
    least, most, included = _RANGES.get(key, (-math.inf, math.inf, True))
    if math.isfinite(value) and least <= value <= most and (included or value > least):
        return
    bounds = tr("a finite number") if key not in _RANGES else (
        tr("a number from {least} to {most}", least=least, most=most) if math.isfinite(most)
        else tr("a number not below {least}", least=least) if included
        else tr("a number above {least}", least=least)
    )  # fmt: skip
    raise TutorialError(
        tr(
            "The override {key}={value} is out of range: it must be {bounds}.",
            key=key,
            value=value,
            bounds=bounds,
        )
    )


def check(settings: Settings) -> None:
    """Check the overrides of a run, unless the same ones were found good before.

    It takes about 10 s where there are any; what was found good is kept in the run's folder.

    Args:
        settings: the run's settings; the model need not be here yet.

    Raises:
        TutorialError: LLaMA-Factory would refuse them; the sentence names the key or the reason.
    """
    if not settings.overrides:
        return
    for key, value in settings.overrides.items():
        _check_range(key, value)
    run, model = settings.run, settings.model
    named = model.template or settings.overrides.get("template")
    if not named and not model.is_here:
        return  # its template is known once it is here, and this is asked again before a training
    used = {
        method.name: recipes.for_training(method.name, settings, planned=True)
        for method in settings.methods
    }
    made_from = sha256_json([recipes.without_places(recipe) for recipe in used.values()])
    kept = run.cache / "arguments.json"
    try:
        if json.loads(kept.read_text("utf-8")) == made_from:
            return
    except (OSError, ValueError):
        pass
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "found.json"
        files = [
            recipes.write(recipe, "llamafactory-cli train", Path(folder) / f"{name}.yaml")
            for name, recipe in used.items()
        ]
        command = [sys.executable, "-m", "helpers.worker.arguments", str(found)]
        env = process.environment(settings.profile.device, run.cache, settings.environment)
        process.run([*command, *map(str, files)], run.logs / "arguments.log", env=env)
        wrong = _told(found, run.logs / "arguments.log")
    if wrong:
        raise _refused(wrong["key"], wrong["reason"], Path(wrong["file"]).stem, settings)
    write_json(kept, made_from)


def _told(found: Path, log: Path) -> dict[str, str] | None:
    """Read what the process found."""
    try:
        told: dict[str, str] | None = json.loads(found.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise TutorialError(
            tr("The overrides could not be checked: look into the log, and run this again."),
            log=log,
        ) from error
    return told


def _refused(key: str, reason: str, method: str, settings: Settings) -> TutorialError:
    log = settings.run.logs / "arguments.log"
    reason = reason[:_MOST].rstrip(".")
    if key in settings.overrides:
        return TutorialError(
            tr(
                "LLaMA-Factory does not take the override {key}={value!r} ({reason}): correct it.",
                key=key,
                value=settings.overrides[key],
                reason=reason,
            ),
            log=log,
        )
    return TutorialError(
        tr(
            "LLaMA-Factory does not take the recipe of {method} with these overrides ({reason}): "
            "correct {overrides}, or {file}.",
            method=settings.subject(method).label,
            reason=reason,
            overrides=" ".join(f"{name}={value}" for name, value in settings.overrides.items()),
            file=paths.shown(settings.method(method).file),
        ),
        log=log,
    )
