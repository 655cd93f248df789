"""Answering and merging, whatever the methods are called: which steps depend on what."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import make_answers, make_training

from helpers.calls import factory, merging, prediction
from helpers.ground import paths
from helpers.ground.errors import TutorialError
from helpers.ground.files import write_json
from helpers.inputs import data, recipes, settings
from helpers.machine import hardware
from helpers.machine.memory import MemoryTrace
from helpers.programs.making import Making
from helpers.records import schema, scoring, store

DIVERGENCE = {"kl": 0.001, "same_token": 0.99, "tokens": 7}


@pytest.fixture
def chosen(runs: Path) -> settings.Settings:
    """A run of three methods with data, a model folder, and adapters that were never trained."""
    found = settings.resolve("smoke", run="test", methods="lora qlora dora")
    found.model.path.mkdir(parents=True)
    (found.model.path / "config.json").write_text('{"model_type": "qwen2"}')
    (found.model.path / "model.safetensors").write_text("weights")
    data.prepare(found, say=lambda line: None)
    for method in found.methods:
        trained = make_training(adapter_sha256=f"of {method.name}").model_dump(mode="json")
        write_json(found.run.adapter(method.name) / "training.json", trained)
        recipes.write(method.recipe, "train", found.run.recipes / f"{method.name}.yaml")
    return found


@pytest.fixture
def called(chosen: settings.Settings, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """llamafactory-cli's calls leave what real ones leave; the list tells which there were."""
    calls: list[tuple[str, str]] = []

    def call(
        command: str, name: str, recipe: dict[str, Any], of: settings.Settings, making: Making
    ) -> factory.Call:
        calls.append((command, name))
        if "export_dir" in recipe:
            out = making.place(paths.ROOT / recipe["export_dir"])
            out.mkdir()
            (out / "model.safetensors").write_text(name)
        elif recipe.get("do_predict"):
            rows = [
                {"label": row["output"], "predict": row["output"] if name > "l" else "none"}
                for row in data.load(of.run.data, data.EVAL)
            ]
            out = making.place(paths.ROOT / recipe["output_dir"])
            out.mkdir(parents=True, exist_ok=True)
            lines = "".join(json.dumps(row) + "\n" for row in rows)
            (out / "generated_predictions.jsonl").write_text(lines)
        else:
            result = making.place(paths.ROOT / recipe["result"])
            write_json(result, dict.fromkeys(recipe["pairs"], DIVERGENCE))
        return factory.Call(3.0, MemoryTrace(measure="resident"), of.run.logs / "none")

    monkeypatch.setattr(factory, "call", call)
    return calls


def test_base_and_adapters_answer_and_have_a_record(
    chosen: settings.Settings, called: list[tuple[str, str]]
) -> None:
    said: list[str] = []
    for name in ("base", "lora", "qlora", "dora"):
        found = prediction.answered(name, chosen, said.append)
        assert store.read(chosen.run, chosen.subject(name)) == found
        assert found.answers.origin.run == "test"
        assert (found.training is None, "train" in found.recipes) == (
            name == "base",
            name != "base",
        )
    assert store.read(chosen.run, chosen.subject("dora")).training == make_training(
        adapter_sha256="of dora"
    )
    assert called == [("train", f"{name}_answers") for name in ("base", "lora", "qlora", "dora")]
    prediction.answered("dora", chosen, said.append)
    assert len(called) == 4
    assert said[-1].startswith("Re-using dora_answers")


@pytest.mark.parametrize(("what", "again"), [("adapter", True), ("form", True), ("nothing", False)])
def test_answers_depend_on_the_adapter_and_on_the_form_of_facts(
    chosen: settings.Settings,
    called: list[tuple[str, str]],
    monkeypatch: pytest.MonkeyPatch,
    what: str,
    again: bool,
) -> None:
    prediction.answered("dora", chosen, lambda line: None)
    if what == "adapter":
        other = make_training(adapter_sha256="another").model_dump(mode="json")
        write_json(chosen.run.adapter("dora") / "training.json", other)
    if what == "form":
        monkeypatch.setattr(schema, "FORM", schema.FORM + 1)
    prediction.answered("dora", chosen, lambda line: None)
    assert len(called) == 1 + again


def test_texts_are_used_again_and_scored_anew(
    chosen: settings.Settings,
    called: list[tuple[str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = prediction.answered("lora", chosen, lambda line: None)
    assert first.answers.correct == first.answers.n
    monkeypatch.setattr(scoring, "same", lambda expected, given: False)
    again = prediction.answered("lora", chosen, lambda line: None)
    assert (again.answers.correct, len(called)) == (0, 1)
    assert again.answers.origin == first.answers.origin


def test_a_record_that_is_made_again_keeps_machine_versions_and_recipes(
    chosen: settings.Settings,
    called: list[tuple[str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = prediction.answered("base", chosen, lambda line: None)
    here = before.hardware
    other = here.model_copy(update={"cpu": "another"})
    monkeypatch.setattr(hardware, "describe", lambda: other)
    monkeypatch.setattr(prediction, "recorded", lambda: before.versions | {"npu-smi": "1"})
    (chosen.run.recipes / "base_answers.yaml").write_text("altered by hand")
    again = prediction.answered("base", chosen, lambda line: None)
    assert len(called) == 1
    assert (again.hardware, again.answers.origin.machine) == (here, here)
    assert again.versions == before.versions | {"npu-smi": "1"}
    assert again.recipes == before.recipes


def test_answers_agree_on_the_problems_that_both_were_asked() -> None:
    first, second = make_answers([True, True, False, True]), make_answers([True, False])
    found = merging.agreement(first, second)
    assert (found.n, found.answers, found.texts) == (2, 1, 1)
    assert merging.agreement(second, first) == found
    other = first.model_copy(update={"items": first.items[1:]})
    with pytest.raises(ValueError, match="different problems"):
        merging.agreement(first, other)


def test_a_merge_and_its_divergence_depend_on_the_code_that_decides_them(
    chosen: settings.Settings,
    called: list[tuple[str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for method in chosen.methods:
        prediction.answered(method.name, chosen, lambda line: None)
    merging.measure(chosen, lambda line: None)
    called.clear()
    monkeypatch.setattr(merging, "code", lambda *modules: f"other {modules}")
    merging.measure(chosen, lambda line: None)
    assert called == [
        ("helpers.worker.dequantised_merge", "qlora_merged_dequantised"),
        ("helpers.worker.divergence", "divergence"),
    ]


def test_every_method_is_merged_and_a_quantised_one_twice(
    chosen: settings.Settings, called: list[tuple[str, str]]
) -> None:
    for method in chosen.methods:
        prediction.answered(method.name, chosen, lambda line: None)
    called.clear()
    found = merging.measure(chosen, lambda line: None)
    weights = {name: record.merge.weights for name, record in found.items() if record.merge}
    assert weights == {
        "lora_merged": "original",
        "qlora_merged": "original",
        "qlora_merged_dequantised": "dequantised",
        "dora_merged": "original",
    }
    assert [command for command, name in called if name in weights] == [
        "export", "export", "helpers.worker.dequantised_merge", "export",
    ]  # fmt: skip
    for name, record in found.items():
        assert record.merge
        assert record.merge.divergence.kl == 0.001
        assert record.merge.same_text == record.merge.n == 12
        assert record == store.read(chosen.run, chosen.subject(name))
    assert [command for command, _ in called].count("helpers.worker.divergence") == 1
    before = len(called)
    assert merging.measure(chosen, lambda line: None).keys() == found.keys()
    assert len(called) == before


def test_a_merged_model_whose_answers_are_known_is_not_asked(
    chosen: settings.Settings, called: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """LoRA's and DoRA's own weights, say; QLoRA's adapter stays beside its 4-bit ones."""
    real, said = factory.call, []

    def call(command: str, name: str, recipe: dict[str, Any], *rest: Any, making: Making) -> Any:
        done = real(command, name, recipe, *rest, making=making)
        if "pairs" in recipe:
            found = {
                pair: DIVERGENCE | {"same_weights": not pair.startswith("qlora")}
                for pair in recipe["pairs"]
            }
            write_json(making.place(paths.ROOT / recipe["result"]), found)
        return done

    monkeypatch.setattr(factory, "call", call)
    for name in ("lora", "qlora", "dora"):
        prediction.answered(name, chosen, lambda line: None)
    found = merging.measure(chosen, said.append)
    asked = [name for command, name in called if command == "train"]
    assert asked[3:] == ["qlora_merged_answers", "qlora_merged_dequantised_answers"]
    for name in ("lora", "dora"):
        before = store.read(chosen.run, chosen.subject(name))
        merged = found[f"{name}_merged"]
        assert merged.answers == before.answers
        assert merged.recipes["predict"] == before.recipes["predict"]
        assert merged.merge
        assert merged.merge.same_text == merged.merge.n == 12
    assert (
        "LoRA, merged is not asked: its weights are those that LoRA answered from, bit for bit, so "
        "its answers are known." in said
    )


def test_what_is_no_merged_model_is_one_sentence(chosen: settings.Settings) -> None:
    with pytest.raises(TutorialError, match=r"lora is no merged model: choose of lora_merged, "):
        merging.merge("lora", chosen)
    with pytest.raises(TutorialError, match="This run has no 'lora_mergd'"):
        merging.merge("lora_mergd", chosen)


def test_an_adapter_that_is_missing_names_its_notebook(runs: Path) -> None:
    bare = settings.resolve("smoke", run="test", methods="lora qlora dora")
    for name, notebook in (("lora", "03_lora"), ("qlora", "04_qlora"), ("dora", "04_qlora")):
        with pytest.raises(TutorialError, match=f"run the notebook {notebook} first"):
            merging.merge(f"{name}_merged", bare)
