"""Answering the held-out problems: LLaMA-Factory's do_predict, scored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from helpers import data, factory, hardware, models, paths, recipe, records, steps, training
from helpers.answers import read_predictions
from helpers.files import read_yaml, write_bytes
from helpers.records import Answers, Merge, Record
from helpers.settings import Settings


def answer(subject: str, settings: Settings, say: Callable[[str], None] = print) -> Answers:
    """Have one subject answer the held-out problems, unless it has done so from the same inputs.

    Args:
        subject: base, lora, qlora, or one of paths.MERGED.
        settings: the run's settings.
        say: takes the lines that tell what happens.

    Raises:
        TutorialError: an input is missing (with the notebook that makes it), or the call failed.
    """
    run = settings.run
    facts = data.facts_of(run)
    used = recipe.for_prediction(subject, settings)
    folder = run.answers(subject)
    summary = folder / "answers.json"
    inputs: dict[str, Any] = {
        "recipe": recipe.without_places(used),
        "data": facts.eval_sha256,
        "device": settings.profile.device,
        "versions": records.versions(),
    }
    if subject in paths.MERGED:
        inputs["model"] = models.sha256(run.merged(subject))
    else:
        inputs["model"] = models.sha256(settings.model.path)
    if subject in recipe.METHODS:
        inputs["adapter"] = training.read(subject, settings).adapter_sha256

    def action() -> None:
        call = factory.call("train", f"{subject}_answers", used, settings)
        problems = data.load(run.data, data.EVAL)[: used.get("max_samples")]
        items = read_predictions(folder, problems)
        scored = Answers(
            n=len(items),
            correct=sum(item.correct for item in items),
            correct_without_mark=sum(item.correct_without_mark for item in items),
            seconds=round(call.seconds, 2),
            items=items,
        )
        write_bytes(summary, scored.model_dump_json(indent=1).encode())

    steps.done_once(run, f"{subject}_answers", inputs, [folder], action, say)
    return Answers.model_validate_json(summary.read_text("utf-8"))


def record(
    subject: str, settings: Settings, answers: Answers, merge: Merge | None = None
) -> Record:
    """Gather everything known of a subject into its record, write it, and return it.

    The recipes are those that the steps wrote when they ran, not those of today's settings.
    """
    run = settings.run
    names = {"predict": f"{subject}_answers"}
    if subject in recipe.METHODS:
        names["train"] = subject
    if merge:
        names["export"] = subject
    gathered = Record(
        subject=subject,
        profile=settings.profile.name,
        device=settings.profile.device,
        model=settings.model.name,
        model_source=settings.model.source,
        model_sha256=models.sha256(settings.model.path),
        data=data.facts_of(run),
        overrides=settings.overrides,
        recipes={step: read_yaml(run.recipes / f"{name}.yaml") for step, name in names.items()},
        versions=records.versions(),
        hardware=hardware.describe(),
        training=training.read(subject, settings) if subject in recipe.METHODS else None,
        merge=merge,
        answers=answers,
    )
    records.write(run, gathered)
    return gathered
