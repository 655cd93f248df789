"""What the last notebooks show: merged models, the comparison, a second judge.

Facts that show themselves, as in views.py; no figure is computed here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from helpers.face.boundary import bounded
from helpers.ground import paths
from helpers.ground.shown import (
    Dialogue,
    Link,
    Picture,
    Sentence,
    Several,
    Shown,
    Table,
    View,
    facts,
)
from helpers.ground.words import language, tr
from helpers.inputs.settings import Settings
from helpers.inputs.subjects import Subject

if TYPE_CHECKING:
    from pathlib import Path

    from helpers.planning.plan import Plan
    from helpers.records.schema import ArticleMemory, Record, Score, Training
    from helpers.results.checks import Conclusion
    from helpers.results.comparison import Comparison


@bounded
@dataclass(frozen=True)
class SavingView(View):
    """What the further methods save of memory, with the article's settings and with the run's."""

    plans: Mapping[str, Plan]
    article: Mapping[str, Plan]
    trainings: Mapping[str, Training]
    measured: ArticleMemory | None  # None: the run has the article's settings
    settings: Settings

    def shown(self) -> Shown:
        from helpers.results import saving

        if self.measured is None:
            return Sentence(
                tr("This run trains with the article's settings: what was saved stands above.")
            )
        found = (self.trainings, self.article, self.measured, self.settings)
        return Several([saving.table(self.plans, *found), saving.why(*found)])

    def picture(self) -> Picture:
        """Draw training steps in both settings, planned and measured."""
        from helpers.results import memory_figures

        if self.measured is None:
            pairs = {name: (self.plans[name], each) for name, each in self.trainings.items()}
            return memory_figures.planned_and_measured(pairs, self.settings, "both_settings")
        return memory_figures.both_settings(
            self.plans, self.trainings, self.article, self.measured, self.settings
        )


@bounded
@dataclass(frozen=True)
class MergedView(View):
    """The merged models of one method, in their folders."""

    subjects: Sequence[Subject]
    settings: Settings

    def shown(self) -> Shown:
        from helpers.results import tables

        return tables.merged_folders(self.subjects, self.settings.run)


@bounded
@dataclass(frozen=True)
class MergesView(View):
    """All merged models, measured against base + adapter."""

    records: Mapping[str, Record]
    settings: Settings

    def shown(self) -> Shown:
        from helpers.results import tables

        return tables.merges(self.records, self.settings)

    def picture(self) -> Picture:
        """Draw how far each merged model lies from base + adapter."""
        from helpers.results import figures

        merges = {name: record.merge for name, record in self.records.items() if record.merge}
        scored = all(record.data.scored for record in self.records.values())
        return figures.merge_bars(merges, self.settings, "merges", scored)

    def check(self) -> Conclusion:
        """Show the checks of the merged models.

        Raises:
            TutorialError: one does not hold.
        """
        from helpers.results import checks, merge_checks

        return checks.conclude(merge_checks.of_merges(self.records, self.settings))


@bounded
@dataclass(frozen=True)
class ComparisonView(View):
    """The comparison: everything in it is drawn from comparison.json alone."""

    facts: Comparison
    settings: Settings

    def shown(self) -> Shown:
        from helpers.face import study_view
        from helpers.results import comparison_tables

        table = comparison_tables.comparison(self.facts)
        study = study_view.read(self.settings.run.name)
        return Several([table, study]) if study else table

    def conditions(self) -> Table:
        """Return what was compared under which conditions."""
        from helpers.results import comparison_tables

        return comparison_tables.conditions(self.facts)

    def curves(self) -> Picture:
        """Draw losses and memory of all methods."""
        from helpers.results import figures

        return figures.comparison_curves(self.facts, self.settings.run)

    def costs(self) -> Picture:
        """Draw what each method cost."""
        from helpers.results import figures

        return figures.cost_bars(self.facts, self.settings.run)

    def plans(self) -> Picture:
        """Draw this run's planned peaks, and the article's recipes' on an Ascend card."""
        from helpers.planning import planner
        from helpers.results import memory_figures

        log = self.settings.run.logs / "article_plans.log"
        return memory_figures.all_plans(
            planner.for_run(self.settings, lambda line: None),
            planner.article_plans(log),
            self.settings,
        )

    def accuracy(self) -> Shown:
        """Draw the share of held-out problems that each subject answered, where that is known."""
        from helpers.results import figures

        return figures.accuracy_bars(self.facts, self.settings.run)

    def pairs(self) -> Shown:
        """Return how the methods did on the same problems."""
        from helpers.results import comparison_tables

        return comparison_tables.pairs(self.facts)

    def evidence(self) -> Table:
        """Return the figures that the verdict weighs, and where each is from."""
        from helpers.results import comparison_tables

        return comparison_tables.evidence(self.facts)

    @property
    def verdict(self) -> Sentence:
        """Which method to use here, from the figures alone."""
        from helpers.results import verdict

        return Sentence(verdict.sentence(self.facts), self.facts.origin.note())

    def seeds(self) -> Table:
        """Return the results of all seeds."""
        from helpers.results import comparison_tables

        facts = self.facts
        return comparison_tables.seeds(facts.seeds, facts.subjects, [facts.origin])

    def examples(self) -> Dialogue:
        """Return a few held-out problems with what each subject wrote."""
        from helpers.results import tables

        return tables.examples(self.facts.examples, self.facts)

    def places(self) -> Table:
        """Return where the results lie."""
        run = self.settings.run
        rows = {
            tr("executed notebooks"): paths.shown(paths.edition(run.notebooks, language())),
            tr("figures"): paths.shown(run.figures),
            tr("comparison"): paths.shown(run.comparison),
            tr("report"): paths.shown(run.report),
        }
        return facts(rows, [tr("what"), tr("where")])

    def check(self) -> Conclusion:
        """Show the checks of the comparison.

        Raises:
            TutorialError: one does not hold.
        """
        from helpers.results import checks

        return checks.conclude(checks.of_comparison(self.facts))


@bounded
@dataclass(frozen=True)
class ReportView(View):
    """The report, one page, and the way to it."""

    file: Path

    def shown(self) -> Shown:
        # Executed headless, this is read in other folders, where the report lies elsewhere.
        reached = "" if os.environ.get("TUTORIAL_HEADLESS") else os.path.relpath(self.file)
        return Link(tr("The report, one page to hand around:"), paths.shown(self.file), reached)


@bounded
@dataclass(frozen=True)
class Judged(View):
    """What evalscope has found so far."""

    scores: Sequence[Score]
    settings: Settings

    def shown(self) -> Shown:
        from helpers.results import tables

        return tables.scores(self.scores, self.settings.subjects)

    @property
    def folder(self) -> str:
        """Where evalscope's reports lie, as readers type it."""
        return paths.shown(self.settings.run.root / "evalscope")
