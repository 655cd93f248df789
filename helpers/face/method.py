"""A subject of the comparison, and a method, as the face shows them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from helpers.face.boundary import bounded
from helpers.face.outcomes import MergedView
from helpers.face.views import (
    AnswersView,
    BlockView,
    LayerView,
    PlanView,
    RecipeView,
    TrainingView,
)
from helpers.ground.shown import Dialogue, Shown, Table
from helpers.inputs.subjects import BASE, Subject

if TYPE_CHECKING:
    from helpers.face.tutorial import Tutorial
    from helpers.results.checks import Conclusion


@bounded
@dataclass(frozen=True)
class SubjectFace:
    """The base model, or a merged one: it answers."""

    tutorial: Tutorial
    subject: Subject

    @property
    def name(self) -> str:
        return self.subject.name

    def answer(self) -> AnswersView:
        """Have it answer the held-out problems, unless it has.

        Raises:
            TutorialError: an input is missing (with the notebook that makes it), or a call failed.
        """
        from helpers.calls import prediction

        prediction.answered(self.name, self.tutorial.settings, self.tutorial.say)
        return self.answers

    @property
    def answers(self) -> AnswersView:
        """Its answers.

        Raises:
            TutorialError: it has not been asked yet.
        """
        from helpers.records import store

        record = store.read(self.tutorial.settings.run, self.subject)
        return AnswersView(record.answers, self.subject)

    def chat(self, question: str) -> Dialogue:
        """Put one question to it."""
        return self.tutorial.chat(question, self.name)


@bounded
@dataclass(frozen=True)
class MethodFace(SubjectFace):
    """A method: its recipe, its plan, its training, its adapter."""

    @property
    def recipe(self) -> RecipeView:
        """The recipe as it stands in configs/, and what this run makes of it."""
        assert self.subject.method
        return RecipeView(self.subject.method, self.tutorial.settings)

    def plan(self, card_gib: float | None = None) -> PlanView:
        """Plan what the training will take, and refuse what cannot run.

        Args:
            card_gib: the memory of the card in GiB; None: of the card that is here.

        Raises:
            TutorialError: the plan is beyond what the device has.
        """
        from helpers.planning import planner, report

        settings = self.tutorial.settings
        plans = planner.for_run(settings, self.tutorial.say)
        room = planner.capacity(settings.profile.device, card_gib)
        report.refuse(self.subject.label, plans[self.name], room)
        return PlanView(plans, self.subject, room, settings)

    def train(self) -> TrainingView:
        """Train the adapter, unless it was trained from the same inputs.

        Raises:
            TutorialError: an input is missing (with the notebook that makes it), or it failed.
        """
        from helpers.calls import training
        from helpers.doctor import beforehand

        settings = self.tutorial.settings
        beforehand.check(settings)
        facts = training.train(self.name, settings, self.tutorial.say)
        return TrainingView(facts, self.subject, settings)

    @property
    def training(self) -> TrainingView:
        """What the training did.

        Raises:
            TutorialError: there was none yet.
        """
        from helpers.calls import training

        settings = self.tutorial.settings
        return TrainingView(training.read(self.name, settings), self.subject, settings)

    def layer(self) -> LayerView:
        """Look into one linear layer: the two thin matrices, their product, the frozen weight."""
        from helpers.calls import inside

        settings = self.tutorial.settings
        return LayerView(inside.layer(self.name, settings, self.tutorial.say), settings)

    def block(self) -> BlockView:
        """Take one block of a real weight through this method's quantisation and back."""
        from helpers.calls import inside

        settings = self.tutorial.settings
        return BlockView(inside.block(self.name, settings, self.tutorial.say), settings)

    def repeat(self) -> Table:
        """Train and ask it once more for each further seed that the run wants."""
        from helpers.calls import repeats
        from helpers.results import comparison_tables

        settings = self.tutorial.settings
        results = repeats.repeat(self.name, settings, self.tutorial.say)
        measured = repeats.records(self.name, settings)
        origins = [record.answers.origin for record in measured]
        return comparison_tables.seeds(results, settings.subjects, origins)

    def merge(self) -> MergedView:
        """Merge the adapter into each base that the registry knows for it.

        Raises:
            TutorialError: the adapter is missing, or the call failed.
        """
        from helpers.calls import merging

        settings = self.tutorial.settings
        mine = [
            subject
            for subject in settings.subjects.values()
            if subject.kind == "merged" and subject.method == self.subject.method
        ]
        for subject in mine:
            merging.merge(subject.name, settings, self.tutorial.say)
        return MergedView(mine, settings)

    def whole(self) -> list[Shown]:
        """Plan, train and ask, and return what came of it: a method in one line."""
        plan = self.plan()
        training = self.train()
        answers = self.answer()
        base = self.tutorial.subject(BASE).answers
        repeated = self.repeat()
        self.check()
        return [plan, training, answers.beside(base), repeated]

    def check(self) -> Conclusion:
        """Show the checks that the training did what it says.

        Raises:
            TutorialError: one of them does not hold.
        """
        from helpers.calls import article_memory
        from helpers.planning import planner
        from helpers.results import checks, saving

        base = self.tutorial.subject(BASE).answers.facts
        settings = self.tutorial.settings
        facts = self.training.facts
        plan = planner.for_run(settings, lambda line: None)[self.name]
        article = saving.article_steps(
            planner.article_settings(settings, lambda line: None),
            article_memory.standing(settings),
            settings,
        )
        return checks.conclude(
            [
                *checks.of_training(facts, base, self.answers.facts),
                *checks.of_memory(settings.profile.device, plan, facts, article),
            ]
        )
