"""What a method saves in two settings: figures as they were measured, and the reason."""

from __future__ import annotations

from conftest import ORIGIN, make_training
from results import made

from helpers.inputs.settings import Settings
from helpers.planning.plan import Plan
from helpers.records.schema import ArticleMemory
from helpers.results import saving

GIB = 2**30


def planned(weights: int, peak: int) -> Plan:
    plan = made.plan(peak)
    plan.training.parts["weights"] = weights
    return plan


ARTICLE = {"lora": planned(GIB, 4 * GIB), "qlora": planned(GIB // 4, 3 * GIB)}
TUNED = {"lora": planned(GIB, 20 * GIB), "qlora": planned(GIB // 4, 19 * GIB)}
MEASURED = ArticleMemory(training={"lora": 4 * GIB, "qlora": 3 * GIB}, origin=ORIGIN)


def test_each_setting_has_a_row_a_method_planned_and_measured(runs: object) -> None:
    chosen = made.chosen("lora qlora")
    trainings = {
        "lora": make_training(peaks={"training": 20 * GIB}),
        "qlora": make_training(peaks={"training": 18 * GIB}),
    }
    rows = saving.table(TUNED, trainings, ARTICLE, MEASURED, chosen).rows
    assert [(row[0], row[1]) for row in rows] == [
        ("LoRA", "the article's"),
        ("QLoRA", "the article's"),
        ("LoRA", "tuned for speed"),
        ("QLoRA", "tuned for speed"),
    ]
    assert [row[-1] for row in rows] == ["4.000 GiB", "3.000 GiB", "20.000 GiB", "18.000 GiB"]
    said = saving.why(trainings, ARTICLE, MEASURED, chosen).plain()
    assert "25 % less than LoRA with the article's settings, and 10 % less" in said
    assert "weights are 0.750 GiB smaller" in said
    assert "a part of 20.000 GiB instead of 4.000 GiB" in said


def test_a_method_that_is_trained_later_has_its_place(runs: object) -> None:
    """Notebook 4 shows this before it trains what METHODS names besides."""
    chosen = made.chosen("lora qlora dora")
    trainings = {name: make_training(peaks={"training": 20 * GIB}) for name in ARTICLE}
    article, tuned = ARTICLE | {"dora": ARTICLE["lora"]}, TUNED | {"dora": TUNED["lora"]}
    measured = MEASURED.model_copy(update={"training": MEASURED.training | {"dora": 5 * GIB}})
    rows = saving.table(tuned, trainings, article, measured, chosen).rows
    assert [(row[0], row[-1]) for row in rows if row[0] == "DoRA"] == [
        ("DoRA", "5.000 GiB"),
        ("DoRA", "-"),
    ]
    # It saves nothing, and nothing is said of it.
    said = saving.why(trainings, article, measured, chosen).plain()
    assert said == saving.why(trainings, ARTICLE, MEASURED, chosen).plain()
    # ... and one that the run compares only since has none yet.
    rows = saving.table(tuned, trainings, article, MEASURED, chosen).rows
    assert [row[-1] for row in rows if row[0] == "DoRA"] == ["-"]


def test_what_the_training_did_not_measure_is_not_claimed(runs: object) -> None:
    chosen: Settings = made.chosen("lora qlora")
    trainings = {name: make_training(peaks={}) for name in ARTICLE}
    assert saving.table(TUNED, trainings, ARTICLE, MEASURED, chosen).rows[2][-1] == "-"
    said = saving.why(trainings, ARTICLE, MEASURED, chosen).plain()
    assert "25 % less than LoRA" in said
    assert "tuned" not in said
