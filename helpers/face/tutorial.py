"""The one class that notebooks, commands and readers' scripts use.

It binds the settings of a run and delegates. Verbs (`train`, `answer`, `compare`) do a step, or
re-use it where nothing it depends on has changed; nouns (`training`, `answers`, `recipe`) only
read. Everything returned holds its facts and shows itself. What a step needs is loaded with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from helpers.face.boundary import bounded
from helpers.face.method import MethodFace, SubjectFace
from helpers.face.operations import Operations
from helpers.face.outcomes import ComparisonView, Judged, MergesView, ReportView, SavingView
from helpers.face.views import Findings, MachineView, ModelView, PlansView, Problems
from helpers.ground import catalogues
from helpers.ground.errors import TutorialError
from helpers.ground.shown import Code, Dialogue, Several, Shown
from helpers.ground.words import tr
from helpers.inputs.settings import AUTO, Settings, resolve

if TYPE_CHECKING:
    from helpers.results.checks import Conclusion


def _check_text(**given: object) -> None:
    """Check that a notebook's parameters are text, where they have to be.

    Raises:
        TutorialError: one is not; the sentence names it.
    """
    for name, value in given.items():
        if not isinstance(value, str):
            raise TutorialError(
                tr('{name}={value!r} must be text in quotation marks, or "auto".',
                   name=name, value=value)
            )  # fmt: skip


def _joined(names: object) -> object:
    """Return names in one text; what is no list of texts as it is."""
    if isinstance(names, list | tuple) and all(isinstance(name, str) for name in names):
        return " ".join(names)
    return names


@bounded
class Tutorial(Operations):
    """One run: a model, its data, and the methods that are compared on them.

    Args:
        profile: smoke, cpu, cuda, npu, or "auto": what the hardware calls for.
        model: a name of configs/models.yaml, a ModelScope id, a folder, or "auto": the profile's.
        run: the name of the folder under runs/, or "auto": the profile's name.
        data: math10k, generated, the path of a file (parquet, JSON, JSON Lines, CSV) or of a folder
            of them, a ModelScope id, or "auto": the profile's.
        overrides: recipe keys to set for every training, as LLaMA-Factory spells them.
        tuned: yes, no, or "auto": what the profile does by default.
        seeds: how often each method is trained, with another seed each time; "auto": once.
        methods: names of recipes in configs/, in one string or a list; "auto": those of
            configs/tutorial.yaml.
        train: how many rows to train on, or "auto": the profile's.
        evaluate: how many rows to hold out, or "auto": the profile's.
        columns: what the data call their columns, as in "instruction=question output=solution".
        cards: on how many one training runs; all: those that are visible; "auto": one.
        sharded: yes: these shard the model (FSDP2); no or "auto": each holds all of it.
        language: en or zh, for all that this process shows from here on; "auto": the one that is
            set, else that of the edition in whose folder this works, else the locale's.
        say: takes the lines that tell what happens.

    Raises:
        TutorialError: a setting that cannot be; the sentence says what would be right.
    """

    def __init__(
        self,
        profile: str = AUTO,
        model: str = AUTO,
        run: str = AUTO,
        data: str = AUTO,
        overrides: Mapping[str, Any] | None = None,
        tuned: str = AUTO,
        seeds: str | int = AUTO,
        methods: str | Sequence[str] = AUTO,
        train: str | int = AUTO,
        evaluate: str | int = AUTO,
        columns: str | Mapping[str, str] = AUTO,
        cards: str | int = AUTO,
        sharded: str = AUTO,
        *,
        language: str = AUTO,
        say: Callable[[str], None] = print,
    ) -> None:
        _check_text(language=language)
        catalogues.choose(language)
        _check_text(profile=profile, model=model, run=run, data=data, tuned=tuned)
        _check_text(sharded=sharded)
        _check_text(methods=methods if isinstance(methods, str) else _joined(methods))
        if overrides is not None and not isinstance(overrides, Mapping):
            raise TutorialError(
                tr("overrides={value!r} must name keys and values: {{'lora_rank': 16}}, say.",
                   value=overrides)
            )  # fmt: skip
        self.settings: Settings = resolve(
            profile, model, run, data, overrides, tuned, seeds, methods, train, evaluate, columns,
            cards, sharded,
        )  # fmt: skip
        self.say = say

    def shown(self) -> Shown:
        return self.settings.table()

    # ---- the machine, the model, the data -------------------------------------------------------

    @property
    def machine(self) -> MachineView:
        """What this machine is, as the operating system and the drivers tell."""
        from helpers.machine import hardware

        return MachineView(hardware.describe())

    def examine(self) -> Findings:
        """Check whether this machine is fit for the run (5 to 15 s: it imports torch elsewhere)."""
        from helpers.doctor import examination

        return Findings(examination.examine(self.settings))

    def obtain(self) -> ModelView:
        """Bring the base model to this machine, unless it is here.

        Raises:
            TutorialError: no network, a wrong hash, a full disk, or a folder that is no model; or,
                before that, an override that LLaMA-Factory would refuse, or data that are not here.
        """
        from helpers.doctor import beforehand
        from helpers.inputs import models, sources

        sources.check(self.settings.profile.data.source)
        beforehand.check(self.settings)
        log = self.settings.run.logs / "model.log"
        return ModelView(self.settings.model, models.obtain(self.settings.model, log))

    def prepare(self) -> Problems:
        """Make the training and the held-out problems, unless they are there.

        Raises:
            TutorialError: the source is missing, damaged, too short, or has too many bad rows.
        """
        from helpers.inputs import data

        return Problems(data.prepare(self.settings, self.say), self.settings)

    # ---- what is compared -----------------------------------------------------------------------

    @property
    def base(self) -> SubjectFace:
        """The base model."""
        from helpers.inputs.subjects import BASE

        return SubjectFace(self, self.settings.subject(BASE))

    def method(self, name: str) -> MethodFace:
        """Return one of the run's methods.

        Raises:
            TutorialError: the run does not compare it.
        """
        self.settings.method(name)
        return MethodFace(self, self.settings.subject(name))

    def subject(self, name: str) -> SubjectFace:
        """Return the base model, a method, or a merged model of the run.

        Raises:
            TutorialError: the run has nothing of that name.
        """
        found = self.settings.subject(name)
        kind = MethodFace if found.kind == "adapter" else SubjectFace
        return kind(self, found)

    @property
    def methods(self) -> list[MethodFace]:
        """All methods of the run, in order."""
        return [self.method(method.name) for method in self.settings.methods]

    def plan(self, method: str, card_gib: float | None = None) -> Shown:
        """Plan a method's training: `method(...).plan()`."""
        return self.method(method).plan(card_gib)

    def plans(self, card_gib: float | None = None, card: str = "", price: str = "") -> PlansView:
        """Plan every method's training before there is a model, data, or a card.

        Args:
            card_gib: the memory of the card in GiB; None: of the card that is named or here, and
                without one the tutorial's 64 GB card.
            card: a name of configs/cards.yaml; "": the card that is here, or the tutorial's.
            price: what an hour of it costs, for the cost; "": none.

        Raises:
            TutorialError: nothing says how large the card is, nothing is known of the model, or
                the card or the price cannot be.
        """
        from concurrent.futures import ThreadPoolExecutor

        from helpers.planning import cards, estimate, planner

        settings, hourly = self.settings, estimate.price(price)
        where = estimate.place(settings.profile.device, card)
        if card_gib is None and card and where and where.card:
            card_gib = cards.catalogue().cards[where.card].gib
        room = planner.capacity(settings.profile.device, card_gib)
        with ThreadPoolExecutor(1) as aside:
            counting = aside.submit(estimate.count, settings, where) if where else None
            plans = planner.beforehand(settings, room)
            counted = counting.result() if counting else None
        times = estimate.beforehand(counted, settings) if counted else {}
        return PlansView(plans, room, settings, times, where, hourly)

    def train(self, method: str) -> Shown:
        """Train with a method: `method(...).train()`."""
        return self.method(method).train()

    def measure_saving(self) -> SavingView:
        """Measure what the methods take with the article's settings, beside this run's.

        A few real steps of each; nothing is done where the run has these settings. What METHODS
        names beyond the methods that the notebooks tell of need not be trained yet.

        Raises:
            TutorialError: a training is missing (with the notebook that makes it), or a step
                failed.
        """
        from helpers.calls import article_memory, training
        from helpers.inputs import methods
        from helpers.planning import planner

        settings, told = self.settings, methods.default()
        return SavingView(
            planner.for_run(settings, lambda line: None),
            planner.article_settings(settings, lambda line: None),
            {
                each.name: training.read(each.name, settings)
                for each in settings.methods
                if each.name in told or training.is_there(each.name, settings)
            },
            article_memory.measure(settings, self.say),
            settings,
        )

    def answer(self, subject: str) -> Shown:
        """Have a subject answer the held-out problems: `subject(...).answer()`."""
        return self.subject(subject).answer()

    def further(self) -> Shown:
        """Train, and ask, each method that METHODS names beyond those the notebooks tell of.

        Returns:
            What each came to; nothing where there is none.
        """
        from helpers.inputs import methods

        told = methods.default()
        rest = [method for method in self.methods if method.name not in told]
        return Several([part for method in rest for part in method.whole()])

    # ---- merging, talking -----------------------------------------------------------------------

    def verify_merges(self) -> MergesView:
        """Have every merged model answer, and measure how far it lies from base + adapter.

        What is not merged yet is merged first.

        Raises:
            TutorialError: an adapter or its answers are missing, or a call failed.
        """
        from helpers.calls import merging

        return MergesView(merging.measure(self.settings, self.say), self.settings)

    def chat(self, question: str, *subjects: str) -> Dialogue:
        """Put a question to some subjects, one after the other, each served while it is asked.

        Args:
            question: what to ask; what was asked before is not asked twice.
            subjects: base, a method, a merged model, ...
        """
        from helpers.calls import serving
        from helpers.results import tables

        said = {
            self.settings.subject(name).label: serving.chat(
                name, [question], self.settings, self.say
            )
            for name in subjects
        }
        return tables.chat(said)

    def commands(self) -> Code:
        """Return the commands that open a chat with this run's models, on this machine only."""
        from helpers.calls import serving

        return Code(serving.commands(self.settings), "bash")

    @property
    def dashboard(self) -> Code:
        """The command that opens SwanLab's dashboard over this run, on this machine only."""
        from helpers.calls import serving

        return Code(serving.dashboard_command(self.settings), "bash")

    # ---- the comparison -------------------------------------------------------------------------

    def compare(self) -> ComparisonView:
        """Compare all that the run has measured, and write comparison.json.

        Raises:
            TutorialError: a record is missing, or they differ in more than the method.
        """
        from helpers.results import comparison

        return ComparisonView(comparison.compare(self.settings), self.settings)

    @property
    def comparison(self) -> ComparisonView:
        """The comparison that the run has written.

        Raises:
            TutorialError: there is none yet.
        """
        from helpers.results import comparison

        return ComparisonView(comparison.read(self.settings.run.comparison), self.settings)

    def report(self) -> ReportView:
        """Write the run's report, one page to hand around, and return where it lies.

        It tells of the study of the same name, too, where there is one.

        Raises:
            TutorialError: there is neither a comparison nor a study yet.
        """
        from helpers.face import study_view
        from helpers.results import run_report

        return ReportView(run_report.write(self.settings.run, study_view.reported))

    def judge(
        self,
        ask: bool = True,
        subjects: Sequence[str] = (),
        benchmark: str = AUTO,
        limit: int = 20,
    ) -> Judged:
        """Have evalscope, a second judge, put problems to some of the run's models.

        Args:
            ask: False only shows what it has found so far.
            subjects: which models; none: the base model and the first method.
            benchmark: gsm8k, held_out, or auto.
            limit: how many problems.
        """
        from helpers.calls import evalscope

        asked = subjects or ("base", self.settings.methods[0].name)
        if ask:
            evalscope.evaluate(asked, self.settings, benchmark, limit, self.say)
        return Judged(evalscope.read(self.settings), self.settings)

    def conclude(self, *results: Findings | ModelView) -> Conclusion:
        """Show the checks of several results as one list.

        Raises:
            TutorialError: one of them does not hold.
        """
        from helpers.results import checks

        return checks.conclude(check for result in results for check in result.checks())
