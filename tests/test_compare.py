"""The comparison: a verdict that follows from the figures, and what it refuses to compare."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from conftest import make_answers, make_merge, make_training

from helpers import compare, paths, records
from helpers.errors import TutorialError
from helpers.memory import MemoryTrace

MakeRecord = Callable[..., records.Record]


def training(seconds: float, gigabytes: float) -> records.Training:
    used = int(gigabytes * 1e9)
    trace = MemoryTrace(measure="memory", seconds=[1.0], bytes_used=[used])
    return make_training(call_seconds=seconds, memory=trace)


def written(make_record: MakeRecord, **changed: dict[str, object]) -> paths.RunFolder:
    """Write the records of a run, some of them with changes, and return the run."""
    run = paths.RunFolder("test")
    for subject in compare.LABELS:
        records.write(run, make_record(subject, **changed.get(subject, {})))
    return run


def test_interval_is_wilsons() -> None:
    # By hand from Wilson's formula with z = 1.95996: 25 of 40.
    score = compare.accuracy(make_answers([True] * 25 + [False] * 15))
    assert (score.low, score.high) == (0.4703, 0.7578)
    none = compare.accuracy(make_answers([False] * 40))
    assert none.low == 0
    assert none.high > 0.05


def test_pairs_are_counted_and_tested() -> None:
    lora = make_answers([True] * 10 + [False] * 2)
    qlora = make_answers([False] * 8 + [True] * 3 + [False])
    pair = compare.paired(lora, qlora)
    assert (pair.both, pair.only_lora, pair.only_qlora, pair.neither) == (2, 8, 1, 1)
    assert pair.p == round(20 / 512, 4)  # 2 * (1 + 9) / 2^9


def test_other_problems_cannot_be_paired() -> None:
    other = make_answers([True, True])
    other.items[0].problem = "another"
    with pytest.raises(ValueError, match="same problems"):
        compare.paired(make_answers([True, True]), other)


SAME = compare.Paired(both=40, only_lora=5, only_qlora=5, neither=50, p=1.0)
LORA_BETTER = compare.Paired(both=40, only_lora=20, only_qlora=2, neither=38, p=0.0001)
QLORA_BETTER = compare.Paired(both=40, only_lora=2, only_qlora=20, neither=38, p=0.0001)


@pytest.mark.parametrize(
    ("pair", "seconds", "gigabytes", "words"),
    [
        (SAME, 200, 5, ["no difference at this n", "100 % more time", "50 % less memory",
                        "Use QLoRA where memory is short"]),
        (SAME, 200, 10, ["as much memory", "Use LoRA here: QLoRA costs time and saves no"]),
        (SAME, 100, 10, ["about as much time", "Use either here"]),
        (LORA_BETTER, 200, 10, ["a real difference", "Use LoRA here."]),
        (LORA_BETTER, 200, 5, ["Use LoRA here unless only QLoRA fits"]),
        (QLORA_BETTER, 200, 10, ["Use QLoRA here."]),
    ],
)  # fmt: skip
def test_the_verdict_follows_from_the_figures(
    pair: compare.Paired, seconds: float, gigabytes: float, words: list[str]
) -> None:
    said = compare.verdict(pair, training(100, 10), training(seconds, gigabytes))
    for word in words:
        assert word in said


def test_a_comparison_is_written_and_read_back(runs: object, make_record: MakeRecord) -> None:
    run = written(make_record)
    result = compare.compare(run)
    assert compare.read(run.comparison) == result
    assert result.accuracy["lora"].correct == 2
    assert result.recipe_differences == [
        ("quantization_bit", None, 4), ("quantization_method", None, "bnb")
    ]  # fmt: skip
    header, rows = compare.table(result)
    assert [len(row) for row in rows] == [len(header)] * len(compare.LABELS) == [len(header)] * 6


def test_every_subject_is_shown_side_by_side(runs: object, make_record: MakeRecord) -> None:
    for example in compare.compare(written(make_record)).examples:
        assert list(example.answers) == list(compare.LABELS.values())


def test_the_table_of_merges(runs: object, make_record: MakeRecord) -> None:
    run = written(make_record)
    subject = "qlora_merged_dequantised"
    merged = make_record(subject, merge=make_merge(same_answer=3, kl=2.9e-5))
    header, rows = compare.merge_table({subject: merged}, run)
    cells = dict(zip(header, rows[0], strict=True))
    assert cells["merged model"] == "QLoRA, merged (dequantised base)"
    assert (cells["same final answer"], cells["KL (nats/token)"]) == ("3/4", "2.9e-05")
    assert (cells["exact match before"], cells["after"]) == ("2", "2")


@pytest.mark.parametrize(
    ("subject", "change", "words"),
    [
        ("qlora", {"model_sha256": "other"}, "another model"),
        ("lora_merged", {"versions": {"torch": "2.9"}}, "another software versions"),
        ("base", {"profile": "cpu"}, "another profile"),
        ("qlora", {"recipes": {"train": {"lora_rank": 16, "learning_rate": 1e-4}}},
         "another lora_rank"),
    ],
)  # fmt: skip
def test_what_is_not_comparable_is_refused(
    runs: object, make_record: MakeRecord, subject: str, change: dict[str, object], words: str
) -> None:
    run = written(make_record, **{subject: change})
    with pytest.raises(TutorialError, match=words):
        compare.compare(run)
    assert not run.comparison.exists()


@pytest.mark.parametrize(
    ("subject", "notebook"),
    [("base", "03_lora"), ("qlora", "04_qlora"), ("qlora_merged", "05_merge")],
)
def test_a_missing_record_names_the_notebook_that_makes_it(
    runs: object, make_record: MakeRecord, subject: str, notebook: str
) -> None:
    run = written(make_record)
    records.file_of(run, subject).unlink()
    with pytest.raises(TutorialError, match=notebook):
        compare.compare(run)


def test_a_record_of_another_shape_is_one_sentence(runs: object, make_record: MakeRecord) -> None:
    run = written(make_record)
    records.file_of(run, "lora").write_text('{"subject": "lora"}')
    with pytest.raises(TutorialError, match="delete it and run the notebook 03_lora"):
        compare.compare(run)
