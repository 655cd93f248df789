"""What comparison.json holds: facts and codes, from which everything in 06_compare is drawn."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel

from helpers.ground import paths
from helpers.inputs import subjects
from helpers.inputs.data import DataFacts
from helpers.inputs.methods import Method
from helpers.inputs.recipes import Recipe
from helpers.inputs.subjects import Subject
from helpers.machine.memory import Measure
from helpers.records.schema import Merge, Origin, SeedResult, Training

# Bytes of tensors as the allocator counts them, or what was sampled from outside; "mixed": the
# trainings were not all measured in one way, and cannot be compared in it.
PeakMeasure = Literal["allocator", "mixed"] | Measure
Amount = Literal["less", "about", "more"]
Advice = Literal[
    "first",  # it answers more
    "first_unless_memory",  # the same, but the other needs less memory
    "other",
    "other_unless_memory",
    "other_if_short",  # no difference in answers; the other saves memory and costs time
    "other_if_short_else_either",  # it saves memory and costs no time
    "first_if_short",  # the other costs memory and saves time
    "first_saves_time",  # the other costs time and saves no memory
    "first_saves_memory",  # the other costs memory and saves no time
    "either",
]


class MethodFacts(BaseModel):
    """A method as it was compared."""

    name: str
    label: str
    recipe: Recipe  # with which it was trained, without the keys that say where a run lies


class Difference(BaseModel):
    """A key in which a method's training differs from the first one's; None: not set."""

    method: str
    key: str
    first: Any
    other: Any


class Accuracy(BaseModel):
    """Exact match on the held-out problems, with its Wilson interval."""

    correct: int
    n: int
    share: float
    low: float  # 95 % interval
    high: float
    correct_without_mark: int


class Paired(BaseModel):
    """A method and the first one, one adapter of each, on the same problems.

    `p` is McNemar's exact test on where they differ.
    """

    both: int
    only_first: int
    only_other: int
    neither: int
    p: float

    @property
    def n(self) -> int:
        return self.both + self.only_first + self.only_other + self.neither

    @property
    def first_right(self) -> int:
        return self.both + self.only_first

    @property
    def other_right(self) -> int:
        return self.both + self.only_other


class Example(BaseModel):
    """One held-out problem with what several wrote, by their names."""

    problem: str
    expected: str
    answers: dict[str, tuple[str, bool]]  # text, and whether it is right


class Effect(BaseModel):
    """How far a method lies from the first one in what it learned.

    In shares of right answers, or in nats per token. With one training of each it is about the two
    adapters, with several about the methods.
    """

    first: float
    other: float
    difference: float  # other - first
    low: float  # 95 % interval of the difference, for itself alone
    high: float
    p: float
    p_adjusted: float  # corrected for the number of tests in the verdict (Holm)
    missed: float  # a true difference so large would have been claimed in 80 % of such studies
    n: int  # problems
    better: Literal["first", "other"] | None  # None: no difference is claimed


class Judgement(BaseModel):
    """A method against the first one."""

    answers: Effect | None  # None: the data do not say what is right
    loss: Effect | None  # None: it was not recorded problem by problem
    better: Literal["first", "other"] | None  # None: none is claimed to be, or the two contradict
    time_ratio: float  # the other's training call over the first's, means over the seeds
    time: Amount
    memory_ratio: float | None  # of the peaks; None: not measured alike
    memory: Amount | None
    advice: Advice


class Allowance(BaseModel):
    """How far two calls of one recipe lie apart: less than that is "about as much"."""

    share: float  # the largest of a method's calls over its smallest, less one
    measured: Literal["here", "before"]  # by this run's own repeats, or see configs/tutorial.yaml


class Planned(BaseModel):
    """Planned peaks of the article's recipes on an Ascend card."""

    model: str
    length: int  # tokens of the longest text
    rows: int  # micro-batch
    peak_bytes: dict[str, int]  # by method


class Verdict(BaseModel):
    """What the figures say on which method to use."""

    seeds: int  # trainings of each method
    tests: int  # for so many the p-values are corrected
    seconds: dict[str, float]  # of a method's training call, the mean over its seeds
    measure: PeakMeasure  # which memory was compared
    memory_bytes: dict[str, float]  # its peak, the mean over a method's seeds
    time_allowance: Allowance
    memory_allowance: Allowance
    judgements: dict[str, Judgement]  # by the further methods
    planned: list[Planned]  # of the largest model that plans are kept of; none for that model


class Comparison(BaseModel):
    """Everything that 06_compare shows."""

    run: str
    profile: str
    device: str
    origin: Origin  # of the first training
    model: str
    data: DataFacts
    versions: dict[str, str]
    methods: list[MethodFacts]  # the first is what the others are compared with
    differences: list[Difference]
    accuracy: dict[str, Accuracy]  # by subject; none where the data do not say what is right
    training: dict[str, Training]  # by method
    merges: dict[str, Merge]  # by merged model
    pairs: dict[str, Paired]  # by the further methods
    examples: list[Example]
    seeds: list[SeedResult] = []
    verdict: Verdict

    @property
    def subjects(self) -> dict[str, Subject]:
        """What is compared, by name: labels and colours are made from the methods."""
        return subjects.of(
            [
                Method(each.name, each.label, paths.CONFIGS / f"{each.name}.yaml", each.recipe)
                for each in self.methods
            ]
        )
