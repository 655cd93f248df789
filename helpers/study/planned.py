"""A study before anything of it starts: which trials fit, and in what order they are done."""

from __future__ import annotations

import os
from collections.abc import Callable

from helpers.ground import paths
from helpers.ground.errors import TutorialError
from helpers.ground.files import sha256_json
from helpers.ground.words import tr
from helpers.inputs import models, recipes
from helpers.inputs.settings import Settings
from helpers.machine import cards, hardware
from helpers.planning import asking, estimate, planner
from helpers.planning.plan import Capacity, Plan
from helpers.planning.work import Operators, Work, WorkQuestion
from helpers.records.versions import versions
from helpers.study import record
from helpers.study.asked import Asked, Trial, settings_of, trials
from helpers.study.record import Refusal, Row, Study

MOST_WORKERS = 8
# Of no machine in particular: what weighs is the order.
PRODUCTS, BYTES = 1e13, 1e11


def cards_here(device: str) -> int:
    """Return how many cards a study can use.

    Raises:
        TutorialError: the profile asks for a card, and there is none.
    """
    if device == "cpu":
        return 0
    machine = hardware.describe()
    if machine.device != device or not machine.accelerators:
        raise TutorialError(
            tr(
                "There is no card for PROFILE={profile} here: a study on this processor is "
                "PROFILE=cpu.",
                profile=device,
            )
        )
    shown = os.environ.get(cards.VARIABLES[device])
    return len(machine.accelerators) if shown is None else len(shown.split(","))


def _made_from(settings: Settings) -> str:
    used = recipes.for_training(settings.methods[0].name, settings, planned=True)
    data = settings.profile.data.model_dump()
    return sha256_json([recipes.without_places(used), data, settings.profile.device, versions()])


def load_of(work: Work, recipe: dict[str, object], problems: int) -> float:
    """Return how much there is to do in a training, to compare it with others."""

    def seconds(operators: list[Operators]) -> float:
        return sum(
            each.calls * max(each.flops / PRODUCTS, each.bytes / BYTES) for each in operators
        )

    micro_batches = int(str(recipe.get("gradient_accumulation_steps", 1)))
    steps = estimate.steps_of(recipe, problems)
    return steps * (micro_batches * seconds(work.micro_batch) + seconds(work.update))


def _alone(plans: dict[tuple[str, str], Plan], room: Capacity, workers: int) -> int:
    """Return how many trials may run beside each other on a processor."""
    while workers > 1 and any(
        room.usable_bytes // workers < plan.peak.peak_bytes <= room.usable_bytes
        for plan in plans.values()
    ):
        workers -= 1
    return workers


def make(name: str, wanted: Asked, workers: int, say: Callable[[str], None]) -> Study:
    """Return a study that is planned, with what was done of it before.

    Args:
        name: the study's.
        wanted: what to combine.
        workers: trials beside each other; 0: one a card, or one a core.
        say: takes the lines that tell what happens.

    Raises:
        TutorialError: what is asked for cannot be, there is no card, or a recipe cannot be traced.
    """
    every = trials(name, wanted)
    settings = {each.run: settings_of(each, wanted) for each in every}
    device = settings[every[0].run].profile.device
    cards_seen = cards_here(device)
    most = cards_seen or min(MOST_WORKERS, hardware.usable_cores())
    workers = min(workers or most, most, len(every))
    for each in settings.values():
        if each.model.config is None and not (each.model.path / "config.json").is_file():
            models.obtain(each.model, each.run.logs / "model.log")
    # Seeds change nothing of what a trial takes.
    kinds = {(each.model, each.method): settings[each.run] for each in every}
    room = planner.capacity(device)
    say(tr("Planning {n} trials ...", n=len(every)))
    log = paths.RunFolder(name).logs / "plan.log"
    asked = {
        kind: planner.question(kind[1], of, budget_bytes=room.usable_bytes)
        for kind, of in kinds.items()
    }
    plans = dict(zip(asked, planner.ask(list(asked.values()), log), strict=True))
    counted = [
        WorkQuestion.model_validate(each.model_dump() | _lengths(each.length))
        for each in asked.values()
    ]
    answers = asking.ask("traced_work", counted, log)
    works = {kind: Work.model_validate(each) for kind, each in zip(asked, answers, strict=True)}
    before = record.read(name)
    rows = []
    for trial in every:
        kind = (trial.model, trial.method)
        plan, of = plans[kind], settings[trial.run]
        row = Row(
            trial=trial,
            made_from=_made_from(of),
            planned_bytes=plan.peak.peak_bytes,
            load=load_of(works[kind], asked[kind].recipe, of.profile.data.train),
            refusal=_refusal(trial, plans, room),
        )
        if row.refusal:
            row.state = "refused"
        rows.append(_as_before(row, before))
    return Study(
        name=name,
        asked=wanted,
        workers=workers if cards_seen else _alone(plans, room, workers),
        rows=rows,
    )


def _lengths(length: int | None) -> dict[str, int]:
    return {} if length is None else dict.fromkeys(("length", "eval_length"), min(length, 200))


def _refusal(trial: Trial, plans: dict[tuple[str, str], Plan], room: Capacity) -> Refusal | None:
    plan = plans[trial.model, trial.method]
    if plan.peak.peak_bytes <= room.usable_bytes:
        return None
    return Refusal(
        needed_bytes=plan.peak.peak_bytes,
        usable_bytes=room.usable_bytes,
        micro_batch=plan.largest_micro_batch or 0,
        methods=[
            method
            for (model, method), other in plans.items()
            if model == trial.model and other.peak.peak_bytes <= room.usable_bytes
        ],
    )


def _as_before(row: Row, before: Study | None) -> Row:
    """Return a row that is done where it was done from the same."""
    for old in before.rows if before else ():
        same = old.trial == row.trial and old.made_from == row.made_from
        if same and old.state == "done" and row.state == "waiting":
            return old
    return row


def order(study: Study) -> list[Row]:
    """Return the rows that are to be done, the longest first."""
    left = [row for row in study.rows if row.state not in ("refused", "done")]
    return sorted(left, key=lambda row: -row.load)
