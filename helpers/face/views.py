"""What the face returns: facts that show themselves, with what else can be asked of them.

No figure is computed here: that is results/, planning/ and inputs/.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from helpers.face.boundary import bounded
from helpers.ground.shown import (
    Code,
    Dialogue,
    Picture,
    Sentence,
    Several,
    Shown,
    Table,
    View,
)
from helpers.inputs.methods import Method
from helpers.inputs.models import Model
from helpers.inputs.settings import Settings
from helpers.inputs.subjects import Subject

if TYPE_CHECKING:
    from helpers.doctor.host import Check as Finding
    from helpers.inputs.data import DataFacts
    from helpers.machine.hardware import Hardware
    from helpers.planning.estimate import Estimate, Place
    from helpers.planning.plan import Capacity, Plan
    from helpers.records.inside import Block, Layer
    from helpers.records.schema import Answers, Training
    from helpers.results.checks import Check, Conclusion


@bounded
@dataclass(frozen=True)
class MachineView(View):
    """What this machine is."""

    facts: Hardware

    def shown(self) -> Shown:
        return self.facts.table()


@bounded
@dataclass(frozen=True)
class Findings(View):
    """What the doctor found."""

    found: Sequence[Finding]

    def shown(self) -> Shown:
        from helpers.doctor import findings

        return findings.table(self.found)

    @property
    def failed(self) -> bool:
        """Whether something keeps a run from working."""
        from helpers.doctor import host

        return host.failed(list(self.found))

    def checks(self) -> list[Check]:
        from helpers.results import checks

        return checks.of_doctor(self.found)


@bounded
@dataclass(frozen=True)
class ModelView(View):
    """The base model, in its folder."""

    model: Model
    folder: Path

    def shown(self) -> Shown:
        from helpers.inputs import models

        return models.table(self.model, self.folder)

    def checks(self) -> list[Check]:
        from helpers.results import checks

        return checks.of_model(self.folder)


@bounded
@dataclass(frozen=True)
class Problems(View):
    """The prepared data of a run."""

    facts: DataFacts
    settings: Settings

    def shown(self) -> Shown:
        from helpers.inputs import data_tables

        return data_tables.facts_table(self.facts)

    def examples(self, count: int = 3) -> Table:
        """Return the first training problems with what the model should write."""
        from helpers.inputs import data_tables

        return data_tables.examples_table(self.settings.run, count)

    def lengths(self) -> Picture:
        """Draw how long problems and worked solutions are."""
        from helpers.results import figures

        return figures.data_overview(self.facts, self.settings.run)

    def answers(self) -> Table:
        """Return what kind of answers there are, and what is wrong with them."""
        from helpers.inputs import data_tables

        return data_tables.answers_table(self.settings.run)

    def registration(self) -> Code:
        """Return how LLaMA-Factory finds the two sets."""
        from helpers.inputs import data_tables

        return data_tables.registration(self.settings.run)

    def check(self) -> Conclusion:
        """Show the checks of the data.

        Raises:
            TutorialError: one does not hold.
        """
        from helpers.results import checks

        return checks.conclude(checks.of_data(self.settings))


@bounded
@dataclass(frozen=True)
class RecipeView(View):
    """A method's recipe: as it stands in configs/, and as a run composes it."""

    method: Method
    settings: Settings

    def shown(self) -> Shown:
        return Code(self.method.file.read_text("utf-8"), "yaml")

    @property
    def here(self) -> dict[str, object]:
        """The recipe with which this run trains."""
        from helpers.inputs import recipes

        return recipes.for_training(self.method.name, self.settings)

    def changes(self) -> Table:
        """Return what this run changes of the recipe."""
        from helpers.results import tables

        return tables.recipe_changes(self.method.recipe, self.here)

    def against(self, other: RecipeView) -> Table:
        """Return the lines in which another method's recipe differs from this one's."""
        from helpers.results import tables

        return tables.recipe_differences(self.method, other.method)


@bounded
@dataclass(frozen=True)
class PlanView(View):
    """What a method's training will take, and whether it fits."""

    plans: Mapping[str, Plan]  # of all methods of the run
    subject: Subject
    room: Capacity
    settings: Settings

    @property
    def plan(self) -> Plan:
        return self.plans[self.subject.name]

    def shown(self) -> Shown:
        from helpers.planning import report

        label = self.subject.label
        return Several(
            [
                report.table({label: self.plan}),
                Sentence(report.verdict(label, self.plan, self.room)),
            ]
        )

    def beside_the_others(self) -> Shown:
        """Return the peaks of all methods of the run, and whether this one fits."""
        from helpers.planning import report

        subjects = self.settings.subjects
        peaks = {subjects[name].label: plan.peak for name, plan in self.plans.items()}
        verdict = report.verdict(self.subject.label, self.plan, self.room)
        return Several([report.phases(peaks), Sentence(verdict)])

    def against(self, *trainings: TrainingView) -> Picture:
        """Draw what was planned beside what trainings took."""
        from helpers.results import memory_figures

        return memory_figures.planned_and_measured(
            {view.subject.name: (self.plans[view.subject.name], view.facts) for view in trainings},
            self.settings,
            f"{self.subject.name}_plan",
        )


@bounded
@dataclass(frozen=True)
class PlansView(View):
    """What the trainings of all methods will take: memory, time, and cost."""

    plans: Mapping[str, Plan]
    room: Capacity
    settings: Settings
    times: Mapping[str, Estimate]  # none where nothing is known of the card
    where: Place | None
    price: float | None  # of an hour

    def shown(self) -> Shown:
        from helpers.planning import report, time_report

        subjects = self.settings.subjects
        plans = {subjects[name].label: plan for name, plan in self.plans.items()}
        verdicts = [Sentence(report.verdict(name, plan, self.room)) for name, plan in plans.items()]
        times = {subjects[name].label: each for name, each in self.times.items()}
        long = [time_report.table(times, self.where, self.price)] if times and self.where else []
        basis = Sentence(time_report.basis(times, self.where))
        return Several([report.table(plans), *verdicts, *long, basis])

    @property
    def fits(self) -> bool:
        """Whether one of them fits."""
        usable = self.room.usable_bytes
        return any(plan.peak.peak_bytes <= usable for plan in self.plans.values())


@bounded
@dataclass(frozen=True)
class TrainingView(View):
    """What a training did."""

    facts: Training
    subject: Subject
    settings: Settings

    def shown(self) -> Shown:
        from helpers.results import tables

        return tables.trainings({self.subject.label: self.facts})

    def beside(self, *others: TrainingView) -> Table:
        """Return what trainings did, a column each, the others first."""
        from helpers.results import tables

        return tables.trainings({view.subject.label: view.facts for view in (*others, self)})

    def curves(self, *others: TrainingView) -> Picture:
        """Draw losses and memory over time, the others' first."""
        from helpers.results import figures

        return figures.training_curves(
            {view.subject.name: view.facts for view in (*others, self)},
            self.settings,
            f"{self.subject.name}_curves",
        )


@bounded
@dataclass(frozen=True)
class AnswersView(View):
    """A subject's answers to the held-out problems, scored."""

    facts: Answers
    subject: Subject

    def shown(self) -> Shown:
        from helpers.results import tables

        return tables.answers({self.subject.label: self.facts})

    def beside(self, *others: AnswersView) -> Table:
        """Return the counts of right answers, a column a subject, the others first."""
        from helpers.results import tables

        return tables.answers({view.subject.label: view.facts for view in (*others, self)})

    def examples(self, *others: AnswersView, count: int = 3) -> Dialogue:
        """Return the first problems with what each subject wrote."""
        from helpers.results import pairs, tables

        views = {view.subject.label: view.facts for view in (*others, self)}
        origins = [answers.origin for answers in views.values()]
        return tables.examples(pairs.examples(views, count), origins=origins)


@bounded
@dataclass(frozen=True)
class LayerView(View):
    """One linear layer after training: the frozen weight, and what was trained beside it."""

    facts: Layer
    settings: Settings

    def shown(self) -> Shown:
        from helpers.results import tables

        return tables.layer(self.facts)

    def picture(self) -> Picture:
        """Draw the two thin matrices, and their product beside the frozen weight."""
        from helpers.results import mechanism

        return mechanism.layer_picture(self.facts, self.settings.run)


@bounded
@dataclass(frozen=True)
class BlockView(View):
    """One block of a real weight before and after quantisation."""

    facts: Block
    settings: Settings

    def shown(self) -> Shown:
        from helpers.results import tables

        return tables.block(self.facts)

    def picture(self) -> Picture:
        """Draw the codes, the weights before and after, and the error."""
        from helpers.results import mechanism

        return mechanism.block_picture(self.facts, self.settings.run)
