"""The verdict follows from the figures, for two methods and for several."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from conftest import make_training
from results import made

from helpers.inputs import settings
from helpers.machine.memory import MemoryTrace
from helpers.records.schema import Peaks, Training
from helpers.results import comparison, verdict
from helpers.results.schema import Comparison, Paired


def paired(both: int, only_first: int, only_other: int, neither: int, p: float) -> Paired:
    return Paired(both=both, only_first=only_first, only_other=only_other, neither=neither,
                  p=p, p_adjusted=p)  # fmt: skip


SAME = paired(40, 5, 5, 50, 1.0)
FIRST_BETTER = paired(40, 20, 2, 38, 0.0001)
OTHER_BETTER = paired(40, 2, 20, 38, 0.0001)


@pytest.fixture
def said(runs: object) -> object:
    """Give what is said of further methods against the first."""

    def sentence(pairs: Mapping[str, Paired], first: Training, **others: Training) -> str:
        chosen: settings.Settings = made.chosen(" ".join(["lora", *others]))
        made.write(chosen)
        found: Comparison = comparison.compare(chosen)
        found.pairs = dict(pairs)
        found.training = {"lora": first, **others}
        found.verdict = verdict.decide(found.pairs, found.training)
        return verdict.sentence(found)

    return sentence


@pytest.mark.parametrize(
    ("pair", "seconds", "gigabytes", "words"),
    [
        (SAME, 200, 5, ["no difference at this n", "100 % more time", "50 % less memory",
                        "Use QLoRA where memory is short, and LoRA where it is not."]),
        (SAME, 100, 5, ["Use QLoRA where memory is short, and either where it is not."]),
        (SAME, 200, 10, ["as much memory", "Use LoRA here: QLoRA costs time and saves no"]),
        (SAME, 100, 10, ["about as much time", "Use either here"]),
        (SAME, 100, 20, ["100 % more memory", "Use LoRA here: QLoRA costs memory and saves no"]),
        (SAME, 50, 20, ["50 % less time", "Use LoRA where memory is short, and QLoRA where"]),
        (FIRST_BETTER, 200, 10, ["LoRA answered 60 and QLoRA 42 of 100 held-out problems",
                                 "a real difference (p = 0.000)", "Use LoRA here."]),
        (FIRST_BETTER, 200, 5, ["Use LoRA here unless only QLoRA fits"]),
        (OTHER_BETTER, 200, 10, ["Use QLoRA here."]),
        (OTHER_BETTER, 200, 20, ["Use QLoRA here unless only LoRA fits"]),
    ],
)  # fmt: skip
def test_the_verdict_follows_from_the_figures(
    said: object, pair: Paired, seconds: float, gigabytes: float, words: list[str]
) -> None:
    text = said({"qlora": pair}, made.cost(100, 10), qlora=made.cost(seconds, gigabytes))
    for word in words:
        assert word in text
    assert "Holm" not in text


def test_memory_is_what_the_allocator_counted_where_all_were_asked(said: object) -> None:
    """Resident memory says the opposite here, and is not what decides."""
    pumped_up = MemoryTrace(measure="resident", seconds=[1.0], bytes_used=[10**12])
    other = made.cost(100, 5).model_copy(update={"memory": pumped_up})
    text = said({"qlora": SAME}, made.cost(100, 10), qlora=other)
    assert "50 % less memory than LoRA (tensors, as the allocator counts them)" in text


def test_an_evaluation_that_takes_more_than_training_is_the_peak(said: object) -> None:
    peaks = Peaks(training=5 * 10**9, evaluation=20 * 10**9)
    other = made.cost(100, 5).model_copy(update={"peaks": peaks})
    assert "100 % more memory" in said({"qlora": SAME}, made.cost(100, 10), qlora=other)


def test_memory_is_what_was_sampled_where_one_was_not_asked(said: object) -> None:
    first, other = make_training(peaks={}), made.cost(20, 1)
    half = MemoryTrace(measure="resident", seconds=[1.0], bytes_used=[5 * 10**8])
    text = said({"qlora": SAME}, first, qlora=other.model_copy(update={"memory": half}))
    assert "50 % less memory than LoRA (resident memory of the training process)" in text


def test_memory_that_was_not_measured_alike_is_not_compared(said: object) -> None:
    card = MemoryTrace(measure="npu_smi", seconds=[1.0], bytes_used=[10])
    other = make_training(peaks={}, memory=card)
    text = said({"qlora": SAME}, make_training(peaks={}), qlora=other)
    assert "was not measured alike, and is not compared" in text
    assert "Use either here." in text


def test_each_further_method_is_judged_against_the_first(said: object) -> None:
    text = said(
        {"qlora": SAME, "dora": OTHER_BETTER},
        made.cost(100, 10),
        qlora=made.cost(200, 5),
        dora=made.cost(200, 10),
    )
    assert "Use QLoRA where memory is short, and LoRA where it is not." in text
    assert "LoRA answered 42 and DoRA 60 of 100 held-out problems, a real difference" in text
    assert "Use DoRA here." in text
    assert text.endswith("The p-values are corrected for 2 comparisons (Holm).")


def test_a_difference_that_the_correction_takes_away_is_none(said: object) -> None:
    weak = OTHER_BETTER.model_copy(update={"p": 0.03, "p_adjusted": 0.06})
    text = said(
        {"qlora": weak, "dora": SAME},
        made.cost(100, 10), qlora=made.cost(100, 10), dora=made.cost(100, 10),
    )  # fmt: skip
    assert "QLoRA 60 of 100 held-out problems: no difference at this n (p = 0.06)" in text


def test_one_method_alone_is_compared_with_nothing(said: object) -> None:
    assert said({}, made.cost(100, 10)).startswith("Only LoRA was trained")
