"""A study: done, and shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from helpers.face.boundary import bounded
from helpers.ground.shown import Picture, Shown, View
from helpers.ground.words import tr
from helpers.inputs.settings import AUTO

if TYPE_CHECKING:
    from rich.console import Console

    from helpers.study.record import Row, Study

NAME = "study"


@bounded
@dataclass(frozen=True)
class StudyView(View):
    """What a study has come to."""

    study: Study
    price: float | None = None  # of an hour of a card

    def shown(self) -> Shown:
        from helpers.study import outcome

        return outcome.shown(self.study, self.price)

    def figure(self) -> Picture:
        """Draw what the methods come to against the size of the model."""
        from helpers.study import outcome

        return outcome.figure(self.study, outcome.found(self.study))

    @property
    def complete(self) -> bool:
        """Whether every trial that fits is done."""
        return self.study.count("done", "refused") == len(self.study.rows)


def read(name: str = NAME) -> StudyView | None:
    """Return a study as far as it has come; None where there is none.

    Raises:
        TutorialError: it cannot be read.
    """
    from helpers.study import record

    found = record.read(name)
    return StudyView(found) if found else None


def run(
    study: str = "",
    models: str = "",
    methods: str = "",
    seeds: str = "",
    profile: str = AUTO,
    name: str = AUTO,
    *,
    workers: int = 0,
    price: str = "",
    say: Callable[[str], None] = print,
    console: Console | None = None,
) -> StudyView:
    """Do a study, or go on with it: what is done is not done again.

    Args:
        study: the name of a file under configs/studies; "" for none.
        models: what MODEL= takes, several by spaces.
        methods: names of recipes in configs/, by spaces.
        seeds: how many trainings of each.
        profile: as for a run.
        name: its folder under runs/, with which the names of its runs begin.
        workers: trials beside each other; 0: one a card, or one a core.
        price: what an hour of a card costs.
        say: takes the lines that tell what happens.
        console: where a table of the trials is kept up to date; None says what changes.

    Raises:
        TutorialError: what is asked for cannot be; before anything starts.
    """
    from helpers.planning import estimate
    from helpers.study import asked, planned, scheduling

    hourly = estimate.price(price)
    chosen = asked.check_name(NAME if name == AUTO else name)
    wanted = asked.asked(study, models, methods, seeds, profile)
    made = planned.make(chosen, wanted, workers, say)
    if console is not None and console.is_terminal:
        _live(made, console)
    else:
        scheduling.run(made, lambda now, changed: _told(changed, say))
    view = StudyView(made, hourly)
    if made.count("done"):
        view.figure()
    return view


def _told(changed: list[Row], say: Callable[[str], None]) -> None:
    from helpers.study import scheduling

    names = scheduling.state_names()
    for row in changed:
        say(tr("{trial}: {state}", trial=row.trial.run, state=names[row.state]))


def _live(made: Study, console: Console) -> None:
    """Do a study under a table that is kept up to date."""
    from rich.live import Live

    from helpers.study import outcome, scheduling

    with Live(console=console, auto_refresh=False) as live:
        scheduling.run(
            made, lambda now, changed: live.update(outcome.board(now).rich(), refresh=True)
        )
