"""What concerns a run as a whole rather than what is compared in it: the notebooks, a card."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from helpers.face.boundary import bounded
from helpers.face.card_view import CardView
from helpers.ground.shown import Code, Sentence, Several, Table, View

if TYPE_CHECKING:
    from pathlib import Path

    from helpers.face.study_view import StudyView
    from helpers.inputs.settings import Settings


@bounded
class Operations(View):
    """A run's operations: `Tutorial` has them all."""

    settings: Settings
    say: Callable[[str], None]

    # ---- a card ---------------------------------------------------------------------------------

    def try_card(self, folder: Path | None = None, what: Path | None = None) -> CardView:
        """Find out in ten minutes what the card that is here does with kernels and recipes.

        Args:
            folder: takes a JSON and a page; None: benchmarks/results/cards.
            what: what to do; None: configs/card.yaml.

        Raises:
            TutorialError: the profile's device is no card, there is none, or nothing runs on it.
        """
        from helpers.calls import card
        from helpers.ground import paths

        return CardView(
            card.visit(self.settings, what or paths.CONFIGS / "card.yaml", self.say),
            folder or paths.CARDS,
        )

    # ---- a study --------------------------------------------------------------------------------

    def study(
        self, models: str, methods: str = "", seeds: str = "", *, workers: int = 0, price: str = ""
    ) -> StudyView:
        """Do a study of the run's name, as `make study` does, or go on with it.

        In a notebook a table tells where each trial is, and is kept up to date.

        Args:
            models: what MODEL= takes, several by spaces.
            methods: names of recipes in configs/, by spaces; "": those of configs/tutorial.yaml.
            seeds: how many trainings of each; "": one.
            workers: trials beside each other; 0: one a card, or one a core.
            price: what an hour of a card costs; "": what was said of this study before.

        Raises:
            TutorialError: what is asked for cannot be, or Ray is not installed.
        """
        from helpers.calls import progress
        from helpers.face import study_view

        return study_view.run(
            "", models, methods, seeds, self.settings.profile.name, self.settings.run.name,
            workers=workers, price=price, say=self.say, in_notebook=not progress.is_headless(),
        )  # fmt: skip

    # ---- several machines -----------------------------------------------------------------------

    def node_commands(self, nodes: str, address: str, port: str = "") -> Several:
        """Write the recipes of trainings on several machines; return each machine's commands.

        Args:
            nodes: how many machines.
            address: under which they reach the first one.
            port: of the first one; "": torchrun's own.

        Raises:
            TutorialError: one of these cannot be, the model is missing, or the cards of all
                machines cannot share the batch.
        """
        from helpers.calls import nodes as machines

        typed = machines.commands(self.settings, nodes, address, port)
        return Several([Code(typed, "bash"), Sentence(machines.needed(self.settings))])

    # ---- the notebooks --------------------------------------------------------------------------

    def run_notebooks(self, parameters: Mapping[str, Any]) -> None:
        """Execute the six notebooks headless, into the run folder: those in the reader's language.

        Args:
            parameters: what goes into each notebook's `parameters` cell.

        Raises:
            TutorialError: a notebook failed, or another run is at work in the folder; or, before
                anything starts, an override, a folder or missing data that would end it.
        """
        from helpers.calls import notebooks
        from helpers.doctor import beforehand
        from helpers.inputs import sources

        sources.check(self.settings.profile.data.source)
        beforehand.check(self.settings)
        notebooks.run_notebooks(self.settings, dict(parameters), self.say)

    @property
    def runs(self) -> Table:
        """All runs on this machine: what is at work in each, and what is finished."""
        from helpers.calls import running

        return running.overview()

    def stop(self) -> list[str]:
        """Stop the trainings that notebooks of this run have started, with a checkpoint.

        Returns:
            The names of the methods whose training has ended.

        Raises:
            TutorialError: none is running.
        """
        from helpers.calls import running

        return running.stop(self.settings.run, self.say)

    def publish(self) -> list[Path]:
        """Take over the executed notebooks of the run into notebooks/, in all languages.

        An edition that was not executed since the run's last step is executed first, which re-uses
        all that is done.
        """
        from helpers.calls import publishing

        return publishing.publish(self.settings, self.say)
