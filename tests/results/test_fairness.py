"""What was not made alike is not compared; one sentence names what differs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from conftest import make_answers, make_training
from results import made

from helpers.calls import repeats
from helpers.ground.errors import TutorialError
from helpers.inputs import methods, settings
from helpers.records import store
from helpers.records.schema import Origin, Record
from helpers.results import comparison


def trained_with(name: str, **changes: Any) -> dict[str, Any]:
    """Return the change of a record whose method was trained with other values."""
    asked = made.asked(made.chosen("lora qlora dora").subject(name))
    return {"recipes": {"train": dict(methods.load(name).recipe) | changes, "predict": asked}}


def asked_with(name: str, **changes: Any) -> dict[str, Any]:
    """Return the change of a record whose subject was asked with other values."""
    found = made.record(made.chosen("lora qlora dora"), name)
    predict = found.recipes["predict"] | changes
    return {"recipes": found.recipes | {"predict": predict}}


@pytest.mark.parametrize(
    ("subject", "change", "words"),
    [
        ("qlora", {"model_sha256": "other"}, "another model"),
        ("lora_merged", {"versions": {"torch": "2.9"}}, "other versions of the software"),
        ("base", {"profile": "cpu"}, "another profile"),
        ("qlora", trained_with("qlora", lora_rank=16), "another lora_rank"),
        ("qlora", trained_with("qlora", learning_rate=1.0), "another learning_rate"),
        ("dora", trained_with("dora", learning_rate=1.0, num_train_epochs=9),
         "another num_train_epochs, learning_rate|another learning_rate, num_train_epochs"),
        ("qlora", asked_with("qlora", max_new_tokens=32), "QLoRA .* asked with another max_new_"),
        ("lora", asked_with("lora", quantization_bit=4), "LoRA .* another quantization_bit"),
        ("lora", asked_with("lora", max_samples=2), "LoRA .* another max_samples"),
        ("qlora_merged", asked_with("qlora_merged", do_sample=True), "another do_sample"),
    ],
)  # fmt: skip
def test_what_is_not_comparable_is_refused(
    runs: object, subject: str, change: dict[str, object], words: str
) -> None:
    chosen = made.chosen("lora qlora dora")
    made.write(chosen, **{subject: change})
    with pytest.raises(TutorialError, match=words):
        comparison.compare(chosen)
    assert not chosen.run.comparison.exists()


def test_other_data_are_refused(runs: object) -> None:
    chosen = made.chosen()
    data = made.record(chosen, "base").data.model_copy(update={"train_sha256": "other"})
    made.write(chosen, base={"data": data})
    with pytest.raises(TutorialError, match="another data set"):
        comparison.compare(chosen)


def test_merged_models_may_be_asked_fewer_problems(runs: object) -> None:
    chosen = made.chosen()
    fewer = {"answers": make_answers([True, False])} | asked_with("qlora_merged", max_samples=2)
    made.write(chosen, qlora_merged=fewer)
    assert comparison.compare(chosen).accuracy["qlora_merged"].n == 2


# ---- machine and environment --------------------------------------------------------------------


def elsewhere(origin: Origin, **changes: Any) -> Origin:
    machine = origin.machine.model_copy(update=changes)
    return origin.model_copy(update={"machine": machine})


def environed(origin: Origin, **changes: str) -> Origin:
    return origin.model_copy(update={"environment": changes})


@pytest.mark.parametrize(
    ("moved", "words"),
    [
        (lambda origin: elsewhere(origin, cpu="A-1"), r"other machines.*processor \(A-1, there "),
        (lambda origin: elsewhere(origin, cores=96), r"usable cores \(96, there "),
        (lambda origin: elsewhere(origin, accelerators=["X-1"]), r"accelerator \(X-1, there none"),
        (lambda origin: environed(origin, OMP_NUM_THREADS="1"), "OMP_NUM_THREADS differ"),
    ],
)
@pytest.mark.parametrize("part", ["training", "answers"])
def test_other_machines_and_environments_are_refused(
    runs: object, moved: Callable[[Origin], Origin], words: str, part: str
) -> None:
    chosen = made.chosen()
    facts = make_training() if part == "training" else make_answers([True, True, False, False])
    changed = facts.model_copy(update={"origin": moved(facts.origin)})
    made.write(chosen, qlora={part: changed})
    with pytest.raises(TutorialError, match=f"qlora and lora .*{words}"):
        comparison.compare(chosen)


def test_a_result_that_is_used_again_keeps_the_machine_that_made_it(runs: object) -> None:
    """All were measured there, and the record was written here: there is nothing to refuse."""
    chosen = made.chosen()
    training, answers = make_training(), make_answers([True, True, False, False])
    there = {
        "training": training.model_copy(update={"origin": elsewhere(training.origin, cpu="A-1")}),
        "answers": answers.model_copy(update={"origin": elsewhere(answers.origin, cpu="A-1")}),
    }
    changes = {name: dict(there) for name in chosen.subjects}
    for name, subject in chosen.subjects.items():
        if subject.kind != "adapter":
            del changes[name]["training"]
    made.write(chosen, **changes)
    assert comparison.compare(chosen).origin.machine.cpu == "A-1"


# ---- cards --------------------------------------------------------------------------------------


def test_trainings_on_another_number_of_cards_are_refused(runs: object) -> None:
    chosen = made.chosen()
    made.write(chosen, qlora={"training": make_training(cards=2)})
    with pytest.raises(TutorialError, match=r"qlora was trained on 2 and lora on 1 cards"):
        comparison.compare(chosen)
    both = {"training": make_training(cards=2)}
    made.write(chosen, lora=both, qlora=both)
    assert {each.cards for each in comparison.compare(chosen).training.values()} == {2}


def test_cards_that_share_the_model_are_not_compared_with_cards_that_hold_it(runs: object) -> None:
    chosen = made.chosen()
    whole, part = (make_training(cards=2, sharded=each) for each in (False, True))
    made.write(chosen, lora={"training": whole}, qlora={"training": part})
    with pytest.raises(TutorialError, match=r"One of qlora and lora .* with the same SHARDED="):
        comparison.compare(chosen)
    made.write(chosen, lora={"training": part}, qlora={"training": part})
    assert all(each.sharded for each in comparison.compare(chosen).training.values())


# ---- seeds --------------------------------------------------------------------------------------


def repeated(**changes: Any) -> tuple[settings.Settings, list[Record]]:
    """Write a run with two seeds a method, and return it with the records of the second."""
    chosen = settings.resolve("smoke", run="test", methods="lora qlora", seeds=2)
    made.write(chosen)
    [other] = repeats.others(chosen)
    records = []
    for method in chosen.methods:
        recipes = trained_with(method.name, seed=43, **changes)
        records.append(made.record(chosen, method.name, **recipes))
        store.write(other.run, records[-1])
    return chosen, records


def test_trainings_that_differ_in_their_seed_are_taken_together(runs: object) -> None:
    chosen, _ = repeated()
    found = comparison.compare(chosen)
    assert [(each.method, each.seed) for each in found.seeds] == [
        ("lora", 42), ("lora", 43), ("qlora", 42), ("qlora", 43)
    ]  # fmt: skip
    assert found.verdict.seeds == 2


def test_trainings_that_differ_in_more_than_their_seed_are_refused(runs: object) -> None:
    chosen, _ = repeated(learning_rate=9.0)
    with pytest.raises(TutorialError, match=r"LoRA was trained or asked again .*learning_rate"):
        comparison.compare(chosen)


def test_a_seed_of_another_machine_is_refused(runs: object) -> None:
    chosen, [record, _] = repeated()
    [other] = repeats.others(chosen)
    assert record.training is not None
    record.training.origin = elsewhere(record.training.origin, cpu="A-1")
    store.write(other.run, record)
    with pytest.raises(TutorialError, match="other machines"):
        comparison.compare(chosen)


def test_a_seed_on_another_number_of_cards_is_refused(runs: object) -> None:
    chosen, [record, _] = repeated()
    [other] = repeats.others(chosen)
    assert record.training is not None
    record.training.cards = 4
    store.write(other.run, record)
    with pytest.raises(TutorialError, match="lora was trained on 4 and lora on 1 cards"):
        comparison.compare(chosen)
