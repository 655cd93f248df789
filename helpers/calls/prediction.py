"""Answering the held-out problems: LLaMA-Factory's do_predict, scored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from helpers.calls import factory, training
from helpers.ground.files import read_json, read_yaml, write_bytes
from helpers.ground.words import tr
from helpers.inputs import data, models, recipes
from helpers.inputs.settings import Settings
from helpers.machine import hardware
from helpers.programs import steps
from helpers.records import schema, store
from helpers.records.schema import Answers, Merge, Record
from helpers.records.scoring import read_predictions
from helpers.records.versions import recorded, versions


def answer(subject: str, settings: Settings, say: Callable[[str], None] = print) -> Answers:
    """Have one subject answer the held-out problems, unless it has done so from the same inputs.

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
    folder = run.answers(subject)
    summary = folder / "answers.json"
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
            origin=schema.origin(run.name),
        )
        write_bytes(summary, scored.model_dump_json(indent=1).encode())

    steps.done_once(run, f"{subject}_answers", inputs, [folder], action, say)
    again = tr("run the notebook {notebook} again", notebook=asked.made_by)
    return read_json(summary, Answers, again)


def record(
    subject: str, settings: Settings, answers: Answers, merge: Merge | None = None
) -> Record:
    """Gather everything known of a subject into its record, write it, and return it.

    The recipes are those that the steps wrote when they ran, not those of today's settings.

    Args:
        subject: the name of one of the run's subjects.
        settings: the run's settings.
        answers: the subject's.
        merge: what merging gave, of a merged model.
    """
    run = settings.run
    trained = settings.subject(subject).kind == "adapter"
    names = {"predict": f"{subject}_answers"}
    if trained:
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
        versions=recorded(),
        hardware=hardware.describe(),
        training=training.read(subject, settings) if trained else None,
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
