"""A study before anything of it starts: which trials fit, and in what order they are done."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from helpers.ground import paths
from helpers.ground.errors import TutorialError
from helpers.ground.files import sha256_json
from helpers.ground.words import tr
from helpers.inputs import data, models, recipes
from helpers.inputs.settings import Settings
from helpers.machine import hardware
from helpers.planning import asking, estimate, planner
from helpers.planning.plan import Capacity, Plan
from helpers.planning.work import Operators, Work, WorkQuestion
from helpers.records.versions import versions
from helpers.study import record
from helpers.study.asked import Asked, settings_of, trials
from helpers.study.record import Refusal, Row, Study

MOST_WORKERS = 8
Kind = tuple[str, str]  # a model and a method
# Of no machine in particular: what weighs is the order.
PRODUCTS, BYTES = 1e13, 1e11


def cards_here(device: str) -> int:
    """Return how many cards a study can use.

    Raises:
        TutorialError: the profile asks for a card, and there is none.
    """
    if device == "cpu":
        return 0
    seen = hardware.visible_cards(device)
    if not seen:
        raise TutorialError(
            tr(
                "There is no card for PROFILE={profile} here: a study on this processor is "
                "PROFILE=cpu.",
                profile=device,
            )
        )
    return len(seen)


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


def _alone(peaks: Iterable[int], room: Capacity, workers: int) -> int:
    """Return how many trials may run beside each other on a processor."""
    fitting = [peak for peak in peaks if peak <= room.usable_bytes]
    while workers > 1 and any(room.usable_bytes // workers < peak for peak in fitting):
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
        if each.model.config is None and not each.model.is_here:
            models.obtain(each.model, each.run.logs / "model.log")
    room = planner.capacity(device)
    before = record.read(name)
    rows = [Row(trial=each, made_from=_made_from(settings[each.run])) for each in every]
    rows = [_as_before(row, before, room) for row in rows]
    # Seeds change nothing of what a trial takes.
    unknown = {_kind(row): settings[row.trial.run] for row in rows if row.planned_bytes is None}
    plans: dict[Kind, Plan] = {}
    if unknown:
        new = [row for row in rows if row.planned_bytes is None]
        say(tr("Planning {n} trials ...", n=len(new)))
        for each in unknown.values():
            if each.model.is_here:  # then its tokenizer tells how long the examples are
                data.prepare(each, say=lambda line: None)
        plans, loads = _plan(unknown, room, paths.RunFolder(name).logs / "plan.log")
        for row in new:
            kind = _kind(row)
            row.planned_bytes, row.load = plans[kind].peak.peak_bytes, loads[kind]
    peaks = {_kind(row): row.planned_bytes or 0 for row in rows}
    for row in rows:
        if row.state != "done" and peaks[_kind(row)] > room.usable_bytes:
            row.state, row.refusal = "refused", _refusal(row, plans[_kind(row)], peaks, room)
    return Study(
        name=name,
        asked=wanted,
        workers=workers if cards_seen else _alone(peaks.values(), room, workers),
        rows=rows,
        price=before.price if before else None,
    )


def _kind(row: Row) -> Kind:
    return row.trial.model, row.trial.method


def _plan(
    kinds: dict[Kind, Settings], room: Capacity, log: Path
) -> tuple[dict[Kind, Plan], dict[Kind, float]]:
    """Return the plan of each model with each method, and how much there is to do."""
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
    return plans, {
        kind: load_of(works[kind], asked[kind].recipe, of.profile.data.train)
        for kind, of in kinds.items()
    }


def _lengths(length: int | None) -> dict[str, int]:
    return {} if length is None else dict.fromkeys(("length", "eval_length"), min(length, 200))


def _refusal(row: Row, plan: Plan, peaks: dict[Kind, int], room: Capacity) -> Refusal:
    return Refusal(
        needed_bytes=plan.peak.peak_bytes,
        usable_bytes=room.usable_bytes,
        micro_batch=plan.largest_micro_batch or 0,
        methods=[
            method
            for (model, method), peak in peaks.items()
            if model == row.trial.model and peak <= room.usable_bytes
        ],
    )


def _as_before(row: Row, before: Study | None, room: Capacity) -> Row:
    """Return a row with what was done of it, or planned, where it is made from the same.

    What does not fit is planned anew: what would fit depends on what is free.
    """
    for old in before.rows if before else ():
        if old.trial == row.trial and old.made_from == row.made_from:
            if old.state == "done":
                return old
            if old.planned_bytes is not None and old.planned_bytes <= room.usable_bytes:
                known = {"planned_bytes": old.planned_bytes, "load": old.load}
                return row.model_copy(update=known)
    return row


def order(study: Study) -> list[Row]:
    """Return the rows that are to be done, the longest first."""
    left = [row for row in study.rows if row.state not in ("refused", "done")]
    return sorted(left, key=lambda row: -row.load)
