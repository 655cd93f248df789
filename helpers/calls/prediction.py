"""Answering the held-out problems: LLaMA-Factory's do_predict, scored."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from helpers.calls import factory, training
from helpers.ground.files import read_json, write_bytes
from helpers.ground.words import tr
from helpers.inputs import data, models, recipes
from helpers.inputs.recipes import Recipe
from helpers.inputs.settings import Settings
from helpers.programs import steps
from helpers.programs.making import Making
from helpers.records import schema, store
from helpers.records.schema import Answers, Merge, Origin, Record
from helpers.records.scoring import read_predictions
from helpers.records.versions import recorded, versions

_SUMMARY = "answers.json"  # beside the texts: what they came to, and where and when


def _scored(
    folder: Path, used: Recipe, settings: Settings, seconds: float, origin: Origin
) -> Answers:
    """Score what a prediction left in its folder.

    Args:
        folder: where it left it.
        used: its recipe.
        settings: the run's settings.
        seconds: what the whole call took.
        origin: where and when it was made.
    """
    problems = data.load(settings.run.data, data.EVAL)[: used.get("max_samples")]
    items = read_predictions(folder, problems, data.facts_of(settings.run).scored)
    return Answers(
        n=len(items),
        correct=sum(item.correct for item in items),
        correct_without_mark=sum(item.correct_without_mark for item in items),
        seconds=round(seconds, 2),
        items=items,
        origin=origin,
    )


def answer(subject: str, settings: Settings, say: Callable[[str], None] = print) -> Answers:
    """Have one subject answer the held-out problems, unless it has done so from the same inputs.

    Texts are used again; they are scored every time, so that a score is of today's scoring.

    Args:
        subject: the name of one of the run's subjects.
        settings: the run's settings.
        say: takes the lines that tell what happens.

    Raises:
        TutorialError: an input is missing (with the notebook that makes it), or the call failed.
    """
    run, asked = settings.run, settings.subject(subject)
    facts = data.facts_of(run)
    used = recipes.for_prediction(subject, settings)
    final = run.answers(subject)
    weights = run.merged(subject) if asked.kind == "merged" else settings.model.path
    inputs: dict[str, Any] = {
        "form": schema.FORM,
        "recipe": recipes.without_places(used),
        "data": facts.eval_sha256,
        "device": settings.profile.device,
        "versions": versions(),
        "model": models.sha256(weights),
    }
    if asked.kind == "adapter":
        inputs["adapter"] = training.read(subject, settings).adapter_sha256

    def action(making: Making) -> None:
        call = factory.call("train", f"{subject}_answers", used, settings, making=making)
        folder = making.place(final)
        origin = schema.origin(run.name, settings.environment)
        found = _scored(folder, used, settings, call.seconds, origin)
        write_bytes(folder / _SUMMARY, found.model_dump_json(indent=1).encode())

    steps.done_once(run, f"{subject}_answers", inputs, final, action, say)
    again = tr("run the notebook {notebook} again", notebook=asked.made_by)
    kept = read_json(final / _SUMMARY, Answers, again)
    return _scored(final, used, settings, kept.seconds, kept.origin)


def record(
    subject: str,
    settings: Settings,
    answers: Answers,
    merge: Merge | None = None,
    asked: str | None = None,
) -> Record:
    """Gather everything known of a subject into its record, write it, and return it.

    Recipes, versions and the machine are those of the steps when they were done, not today's.

    Args:
        subject: the name of one of the run's subjects.
        settings: the run's settings.
        answers: the subject's.
        merge: what merging gave, of a merged model.
        asked: the name of who gave the answers, where that is another one of the same weights.
    """
    run, asked = settings.run, asked or subject
    made = steps.inputs_of(run, f"{asked}_answers") or {}
    known = {name: version for name, version in made.get("versions", {}).items() if version}
    trained = None
    used = {"predict": (f"{asked}_answers", recipes.for_prediction(asked, settings))}
    if settings.subject(subject).kind == "adapter":
        trained = training.read(subject, settings)
        used["train"] = (subject, recipes.for_training(subject, settings))
    if merge:
        used["export"] = (subject, recipes.for_export(subject, settings))
    gathered = Record(
        subject=subject,
        profile=settings.profile.name,
        device=settings.profile.device,
        model=settings.model.name,
        model_source=settings.model.source,
        model_sha256=models.sha256(settings.model.path),
        data=data.facts_of(run),
        overrides=settings.overrides,
        recipes={what: recipes.stored(today, run, step) for what, (step, today) in used.items()},
        versions=recorded() | known,
        hardware=(trained or answers).origin.machine,
        training=trained,
        merge=merge,
        answers=answers,
    )
    store.write(run, gathered)
    return gathered


def answered(subject: str, settings: Settings, say: Callable[[str], None] = print) -> Record:
    """Have the base model or an adapter answer the held-out problems, and write its record.

    Args:
        subject: base, or one of the run's methods. helpers/calls/merging.py does it for merged
            models, with what merging gave.
        settings: the run's settings.
        say: takes the lines that tell what happens.

    Raises:
        TutorialError: as for `answer`.
    """
    return record(subject, settings, answer(subject, settings, say))
