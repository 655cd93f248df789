"""Merging an adapter into full weights, and checking that the merged model answers alike."""

from __future__ import annotations

from collections.abc import Callable

from helpers import factory, models, prediction, recipe, records, steps, training
from helpers.files import folder_aside
from helpers.paths import in_recipe
from helpers.records import Answers, Merge, Record
from helpers.settings import Settings


def agreement(first: Answers, second: Answers) -> tuple[int, int]:
    """Return on how many problems two subjects give the same answer, and the same text."""
    pairs = list(zip(first.items, second.items, strict=True))
    answers = sum(a.given == b.given and bool(a.given or a.text == b.text) for a, b in pairs)
    return answers, sum(a.text == b.text for a, b in pairs)


def merge(method: str, settings: Settings, say: Callable[[str], None] = print) -> Record:
    """Merge a method's adapter into the original 16-bit weights and have the result answer.

    Args:
        method: lora or qlora. QLoRA's adapter was trained on 4-bit weights and is merged into
            16-bit ones, as LLaMA-Factory does it: the merged model is not quite what was trained.
        settings: the run's settings; the adapter and its answers must be there.
        say: takes the lines that tell what happens.

    Returns:
        The record of the merged model, with how often it answers as base + adapter did.

    Raises:
        TutorialError: the adapter is missing (with the notebook that makes it), or a call failed.
    """
    run = settings.run
    subject = f"{method}_merged"
    trained = training.read(method, settings)
    before = records.read(run, method).answers
    used = recipe.for_export(method, settings)
    folder = run.merged(method)
    inputs = {
        "recipe": recipe.without_places(used),
        "model": models.sha256(settings.model.path),
        "adapter": trained.adapter_sha256,
        "versions": records.versions(),
    }

    def action() -> None:
        with folder_aside(folder) as aside:
            factory.call("export", subject, used | {"export_dir": in_recipe(aside)}, settings)
        recipe.write(used, "export", run.recipes / f"{subject}.yaml")

    done = steps.done_once(run, subject, inputs, [folder], action, say)
    after = prediction.answer(subject, settings, say)
    same_answer, same_text = agreement(before, after)
    merged = Merge(
        seconds=done.seconds,
        bytes_on_disk=sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()),
        model_sha256=models.sha256(folder),
        same_answer=same_answer,
        same_text=same_text,
        n=after.n,
    )
    return prediction.record(subject, settings, after, merged)
