"""A study: done, and shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from helpers.face.boundary import bounded
from helpers.ground import paths
from helpers.ground.shown import Picture, Shown, View
from helpers.ground.words import tr
from helpers.inputs.settings import AUTO

if TYPE_CHECKING:
    from rich.console import Console

    from helpers.results.run_report import Section
    from helpers.study.record import Row, Study

NAME = "study"


@bounded
@dataclass(frozen=True)
class StudyView(View):
    """What a study has come to."""

    study: Study

    def shown(self) -> Shown:
        from helpers.study import outcome

        return outcome.shown(self.study)

    def figure(self, run: paths.RunFolder | None = None) -> Picture:
        """Draw what the methods come to against the size of the model.

        Args:
            run: keeps the figure; None: the study's own folder.
        """
        from helpers.study import outcome

        return outcome.figure(self.study, run or paths.RunFolder(self.study.name))

    @property
    def complete(self) -> bool:
        """Whether every trial that fits is done."""
        return self.study.count("done", "refused") == len(self.study.rows)


def reported(run: paths.RunFolder) -> list[Section]:
    """Return what a run's report tells of the study of its name; nothing where there is none."""
    from helpers.results.run_report import Section

    view = read(run.name)
    if view is None:
        return []
    drawn = [view.figure(run)] if view.study.outcomes else []
    return [Section(tr("The study"), [*drawn, view.shown()])]


def read(name: str = NAME) -> StudyView | None:
    """Return a study as far as it has come; None where there is none.

    Raises:
        TutorialError: it cannot be read, or its trials were not made alike.
    """
    from helpers.study import outcome, record

    found = record.read(name)
    if found is None:
        return None
    outcome.gather(found)
    return StudyView(found)


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
    address: str = "",
    say: Callable[[str], None] = print,
    console: Console | None = None,
    in_notebook: bool = False,
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
        price: what an hour of a card costs; "": what was said of this study before.
        address: of a cluster on which Ray runs; "" for this machine alone.
        say: takes the lines that tell what happens.
        console: where a table of the trials is kept up to date; None says what changes.
        in_notebook: the table is kept up to date in the cell's output.

    Raises:
        TutorialError: what is asked for cannot be; before anything starts.
    """
    from helpers.planning import estimate
    from helpers.study import asked, clusters, outcome, planned, record, scheduling

    cluster = clusters.check(address)
    hourly = estimate.price(price)
    chosen = asked.check_name(NAME if name == AUTO else name)
    wanted = asked.asked(study, models, methods, seeds, profile)
    made = planned.make(chosen, wanted, workers, say)
    if price:
        made.price = hourly
    if in_notebook:
        _in_page(made, cluster)
    elif console is not None and console.is_terminal:
        _live(made, console, cluster)
    else:
        scheduling.run(made, lambda now, changed: _told(changed, say), cluster)
    outcome.gather(made)
    record.write(made)
    view = StudyView(made)
    if made.outcomes:
        view.figure()
    return view


def _told(changed: list[Row], say: Callable[[str], None]) -> None:
    from helpers.study import scheduling

    names = scheduling.state_names()
    for row in changed:
        say(tr("{trial}: {state}", trial=row.trial.run, state=names[row.state]))


def _live(made: Study, console: Console, cluster: str) -> None:
    """Do a study under a table that is kept up to date."""
    from rich.live import Live

    from helpers.study import outcome, scheduling

    with Live(console=console, auto_refresh=False) as live:
        scheduling.run(
            made, lambda now, changed: live.update(outcome.board(now).rich(), refresh=True), cluster
        )


def _in_page(made: Study, cluster: str) -> None:
    """Do a study under a table in a notebook, which is written anew when it says something new."""
    from helpers.calls import live
    from helpers.study import outcome, scheduling

    place, before = live.Place(""), ""

    def show(now: Study, changed: list[Row]) -> None:
        nonlocal before
        board = outcome.board(now)
        if (said := board.plain()) != before:
            place.put(board)
            before = said

    scheduling.run(made, show, cluster)
