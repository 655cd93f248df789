"""The notebooks' checks: each is shown to fail on a planted fault."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import DIGEST, make_answers, make_training
from results import made

from helpers.doctor import host
from helpers.ground.errors import TutorialError
from helpers.inputs import data
from helpers.inputs.settings import Settings
from helpers.machine.memory import MemoryTrace
from helpers.records.schema import LossPoint, Peaks
from helpers.results import checks, comparison, saving

BEFORE, AFTER = make_answers([False] * 4, "before"), make_answers([True] * 4, "after")


def test_a_sound_training_passes_and_shows_no_figures() -> None:
    shown = checks.conclude(checks.of_training(make_training(), BEFORE, AFTER))
    assert shown.plain().count("OK: ") == shown.markdown().count("- OK: ") == 5
    assert not any(character.isdigit() for character in shown.plain())
    assert len(shown.checks) == 5


RISING = [LossPoint(step=i, loss=float(i)) for i in range(1, 9)]
LEVEL = [LossPoint(step=i, loss=0.0) for i in range(1, 9)]
BROKEN = [*RISING[::-1], LossPoint(step=9, loss=float("nan"))]


@pytest.mark.parametrize(
    ("planted", "words"),
    [
        ({"loss": RISING}, "the training loss fell: from 1.500 to 7.500"),
        ({"loss": LEVEL}, "finite and above zero"),
        ({"loss": BROKEN}, "finite and above zero"),
        ({"loss": RISING[:1]}, "the training loss fell: 1 loss was logged.*lower logging_steps"),
        ({"loss": []}, "the training loss fell: 0 losses were logged"),
        # learning_rate=0: the training losses fall by the problems of the steps alone
        ({"eval_loss": [LossPoint(step=4, loss=0.5), LossPoint(step=8, loss=0.5)]},
         "the training loss fell: the held-out loss never moved"),
        ({"memory": MemoryTrace(measure="resident")}, "memory was sampled"),
        # planted in a real training by tests/worker
        ({"frozen_weights": {"before": DIGEST,
                             "after": DIGEST | {"digest": "fedcba9876543210"}}},
         "same bits as before: digest 0123456789ab of 2 tensors before, fedcba987654 of 2 after"),
    ],
)  # fmt: skip
def test_a_planted_fault_fails(planted: dict[str, object], words: str) -> None:
    with pytest.raises(TutorialError, match=words):
        checks.conclude(checks.of_training(make_training(**planted), BEFORE, AFTER))


def test_answers_that_training_did_not_change_fail() -> None:
    with pytest.raises(TutorialError, match="training changed the answers: 0 of 4 differ"):
        checks.conclude(checks.of_training(make_training(), BEFORE, BEFORE))


def test_all_that_fails_is_named() -> None:
    planted = make_training(loss=RISING, memory=MemoryTrace(measure="resident"))
    with pytest.raises(TutorialError, match=r"loss fell: .*; memory was sampled .*: no samples\."):
        checks.conclude(checks.of_training(planted, BEFORE, AFTER))


# ---- memory -------------------------------------------------------------------------------------

PLAN = made.plan(training_bytes=100 * 2**20, evaluation_bytes=80 * 2**20)


LONGEST = {"training_longest": True, "evaluation_longest": True}


def of_memory(*article: saving.Step, **measured: Any) -> checks.Check:
    """Return the check of a training with these peaks; None leaves one out."""
    sound = {"training": 100 * 2**20, "evaluation": 80 * 2**20}
    training = make_training(peaks=Peaks.model_validate(sound | measured))
    [check] = checks.of_memory("cpu", PLAN, training, article)
    return check


def test_memory_that_took_what_was_planned_passes() -> None:
    assert of_memory(training=101 * 2**20, evaluation=79 * 2**20, **LONGEST).holds


@pytest.mark.parametrize(
    ("measured", "words"),
    [
        ({"training": 103 * 2**20}, "a training step took 0.101 GiB .* 100.00 MiB were planned"),
        ({"training": 97 * 2**20}, "a training step took 97.00 MiB"),
        ({"training": 100 * 2**20, "evaluation": 83 * 2**20}, "an evaluation took 83.00 MiB"),
        ({"training": 100 * 2**20, "evaluation": 77 * 2**20}, "an evaluation took 77.00 MiB"),
        # a worker that told nothing, or a part of it
        (
            {"training": None, "evaluation": None},
            "a training step was not measured, the peak of an",
        ),
        ({"training": None}, "far from its plan: the peak of a training step was not measured"),
        ({"evaluation": None}, "the peak of an evaluation was not measured"),
    ],
)
def test_memory_that_is_far_from_its_plan_or_was_not_measured_fails(
    measured: dict[str, Any], words: str
) -> None:
    with pytest.raises(TutorialError, match=words):
        checks.conclude([of_memory(**measured | LONGEST)])
    # A card's allocator rounds, so more is allowed there.
    planted = make_training(peaks=Peaks.model_validate(measured | LONGEST))
    assert checks.of_memory("npu", PLAN, planted) == []


@pytest.mark.parametrize(("mebibytes", "holds"), [(99, True), (97, False), (103, False)])
def test_steps_with_the_articles_settings_are_held_to_their_plan_too(
    mebibytes: int, holds: bool
) -> None:
    step = saving.Step("QLoRA", "article", PLAN.training, mebibytes * 2**20)
    check = of_memory(step)
    assert check.holds == holds
    assert "a training step of QLoRA with the article's settings took" in check.figures


def test_memory_that_was_measured_without_the_longest_example_may_be_less() -> None:
    """The plan is made for it; more than the plan it must not be."""
    assert of_memory(training=60 * 2**20).holds
    assert not of_memory(training=103 * 2**20).holds


def test_a_part_of_a_model_takes_at_most_what_was_planned() -> None:
    plan = PLAN.model_copy(update={"question": PLAN.question.model_copy(update={"sharded": True})})
    for mebibytes, holds in ((60, True), (101, True), (103, False)):
        taken = Peaks(training=mebibytes * 2**20, evaluation=1, **LONGEST)
        [check] = checks.of_memory("cpu", plan, make_training(peaks=taken))
        assert check.holds == holds
    assert "of tensors and at most 100.00 MiB were planned" in check.figures


@pytest.mark.parametrize(("resumed_at", "holds"), [([8], True), ([3, 8], True), ([7], False)])
def test_a_training_that_had_no_step_left_says_why_it_has_no_peak(
    resumed_at: list[int], holds: bool
) -> None:
    """Of 8 optimizer steps: one that went on from the last had none to measure."""
    training = make_training(peaks=Peaks(), resumed_at=resumed_at)
    [check] = checks.of_memory("cpu", PLAN, training)
    assert check.holds == holds
    assert ("for it went on from after its last step" in check.statement) == holds
    # The article's steps were taken all the same.
    lie = saving.Step("QLoRA", "article", PLAN.training, 97 * 2**20)
    assert not checks.of_memory("cpu", PLAN, training, [lie])[0].holds


# ---- the machine, the model, the data -----------------------------------------------------------


def test_a_finding_of_the_doctor_that_fails_is_named() -> None:
    sound = [host.ok("Python", "3.11"), host.warn("disk", "little", "delete something")]
    checks.conclude(checks.of_doctor(sound))
    with pytest.raises(TutorialError, match="no check of the doctor fails: driver"):
        checks.conclude(checks.of_doctor([*sound, host.fail("driver", "none", "install it")]))


def test_a_model_without_weights_fails(tmp_path: Path) -> None:
    with pytest.raises(TutorialError, match="as safetensors: no weights were found"):
        checks.conclude(checks.of_model(tmp_path))
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    checks.conclude(checks.of_model(tmp_path))


@pytest.fixture
def prepared(runs: object) -> Settings:
    """A run whose profile asks for three problems, and has them."""
    chosen = made.chosen()
    folder = chosen.run.data
    folder.mkdir(parents=True)
    row = {"instruction": "How many?", "input": "", "output": "2 + 2 = 4\n#### 4"}
    (folder / f"{data.TRAIN}.json").write_text(json.dumps([row, row]))
    (folder / f"{data.EVAL}.json").write_text(json.dumps([row]))
    (folder / "dataset_info.json").write_text(json.dumps({data.TRAIN: {}, data.EVAL: {}}))
    about = made.record(chosen, "base").data.model_copy(update={"train": 2, "eval": 1})
    (folder / "about.json").write_text(about.model_dump_json())
    asked_for = chosen.profile.data.model_copy(update={"train": 2, "eval": 1})
    return replace(chosen, profile=chosen.profile.model_copy(update={"data": asked_for}))


def test_sound_data_pass(prepared: Settings) -> None:
    assert len(checks.conclude(checks.of_data(prepared)).checks) == 3


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        (f"{data.EVAL}.json", [], "have the size asked for: 2 of 3 problems, 0 unusable"),
        (f"{data.EVAL}.json", [{"instruction": "?", "input": "", "output": "4"}],
         "answer after ####: 1 do not"),
        ("dataset_info.json", {"other": {}}, "registered for LLaMA-Factory: other"),
    ],
)  # fmt: skip
def test_unsound_data_fail(prepared: Settings, name: str, content: Any, words: str) -> None:
    (prepared.run.data / name).write_text(json.dumps(content))
    with pytest.raises(TutorialError, match=words):
        checks.conclude(checks.of_data(prepared))


# ---- the comparison -----------------------------------------------------------------------------


def test_a_sound_comparison_passes(runs: object) -> None:
    chosen = made.chosen("lora qlora dora")
    made.write(chosen)
    found = comparison.compare(chosen)
    assert len(checks.conclude(checks.of_comparison(found)).checks) == 3
    found.accuracy = {}
    assert len(checks.conclude(checks.of_comparison(found)).checks) == 1


def test_a_comparison_of_more_than_methods_fails(runs: object) -> None:
    chosen = made.chosen()
    made.write(chosen)
    found = comparison.compare(chosen)
    found.differences[0].key = "learning_rate"
    with pytest.raises(TutorialError, match="makes the method: learning_rate"):
        checks.conclude(checks.of_comparison(found))


def test_a_model_that_training_made_worse_is_named(runs: object) -> None:
    chosen = made.chosen()
    made.write(chosen, qlora={"answers": make_answers([False] * 4)})
    found = comparison.compare(chosen)
    with pytest.raises(TutorialError, match="fewer problems than the base model: QLoRA"):
        checks.conclude(checks.of_comparison(found))


def test_an_adapter_that_was_asked_fewer_problems_is_named(runs: object) -> None:
    chosen = made.chosen()
    made.write(chosen, qlora={"answers": make_answers([True] * 3)})
    found = comparison.compare(chosen)
    with pytest.raises(TutorialError, match="every held-out problem: QLoRA: 3"):
        checks.conclude(checks.of_comparison(found))


def test_merged_models_may_be_asked_fewer(runs: object) -> None:
    chosen = made.chosen()
    made.write(chosen, qlora_merged={"answers": make_answers([False] * 3)})
    checks.conclude(checks.of_comparison(comparison.compare(chosen)))
