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
    """A method and the first one on the same problems.

    `p` is McNemar's exact test on where they differ, `p_adjusted` the same, corrected for the
    number of such pairs (Holm).
    """

    both: int
    only_first: int
    only_other: int
    neither: int
    p: float
    p_adjusted: float

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


class Judgement(BaseModel):
    """A method against the first one."""

    better: Literal["first", "other"] | None  # None: no difference at this n
    time_ratio: float  # the other's training call over the first's
    time: Amount
    memory_ratio: float | None  # of the peaks; None: not measured alike
    memory: Amount | None
    advice: Advice


class Verdict(BaseModel):
    """What the figures say on which method to use."""

    measure: PeakMeasure  # which memory was compared
    judgements: dict[str, Judgement]  # by the further methods


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
    accuracy: dict[str, Accuracy]  # by subject
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
