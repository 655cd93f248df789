"""The comparison: what it holds, and what it refuses to compare."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from conftest import ORIGIN, make_answers
from results import made

from helpers.ground import paths
from helpers.ground.errors import TutorialError
from helpers.records import store
from helpers.results import comparison, comparison_tables


def test_interval_is_wilsons() -> None:
    # By hand from Wilson's formula with z = 1.95996: 25 of 40.
    score = comparison.accuracy(make_answers([True] * 25 + [False] * 15))
    assert (score.low, score.high) == (0.4703, 0.7578)
    none = comparison.accuracy(make_answers([False] * 40))
    assert none.low == 0
    assert none.high > 0.05


def test_a_comparison_is_written_and_read_back(runs: object) -> None:
    chosen = made.chosen()
    made.write(chosen)
    result = comparison.compare(chosen)
    assert comparison.read(chosen.run.comparison) == result
    assert result.accuracy["lora"].correct == 2
    assert [(d.method, d.key, d.first, d.other) for d in result.differences] == [
        ("qlora", "quantization_bit", None, 4),
        ("qlora", "quantization_method", None, "bnb"),
        ("qlora", "double_quantization", None, False),
    ]
    assert [each.name for each in result.methods] == ["lora", "qlora"]
    table = comparison_tables.comparison(result)
    assert [len(row) for row in table.rows] == [len(table.header)] * len(chosen.subjects)
    assert len(chosen.subjects) == 6
    assert ORIGIN.note() in table.note


def test_three_methods_are_each_compared_with_the_first(runs: object) -> None:
    chosen = made.chosen("lora qlora dora")
    made.write(chosen)
    result = comparison.compare(chosen)
    assert list(result.pairs) == list(result.verdict.judgements) == ["qlora", "dora"]
    assert [d.key for d in result.differences if d.method == "dora"] == ["use_dora"]
    assert list(result.merges) == [
        "lora_merged", "qlora_merged", "qlora_merged_dequantised", "dora_merged"
    ]  # fmt: skip


def test_the_first_method_is_the_one_that_is_named_first(runs: object) -> None:
    chosen = made.chosen("qlora lora")
    made.write(chosen)
    result = comparison.compare(chosen)
    assert list(result.pairs) == ["lora"]
    assert result.differences[0].first == 4
    assert result.differences[0].other is None


def test_what_is_compared_is_known_from_the_file_alone(runs: object) -> None:
    """Labels and colours too, in a run that was opened with other methods."""
    chosen = made.chosen("qlora dora")
    made.write(chosen)
    comparison.compare(chosen)
    found = comparison.read(chosen.run.comparison)
    assert list(found.subjects) == list(chosen.subjects)
    for name, subject in chosen.subjects.items():
        assert found.subjects[name].label == subject.label
        assert found.subjects[name].colour == subject.colour


def test_it_holds_codes_and_figures_and_no_sentence(runs: object) -> None:
    chosen = made.chosen()
    made.write(chosen)
    comparison.compare(chosen)
    found = json.loads(chosen.run.comparison.read_text("utf-8"))
    judgement = found["verdict"]["judgements"]["qlora"]
    assert judgement.pop("answers")["p"] == 1.0
    assert judgement == {
        "loss": None, "better": None, "time_ratio": 1.0, "time": "about", "memory_ratio": 1.0,
        "memory": "about", "advice": "either",
    }  # fmt: skip
    assert found["verdict"]["measure"] == "allocator"
    for example in found["examples"]:
        assert list(example["answers"]) == list(chosen.subjects)


def put_beside_lora(folder: Path, monkeypatch: pytest.MonkeyPatch, line: str, other: str) -> None:
    """Add a method "Mine", which is lora with another line."""
    configs = folder / "configs"
    shutil.copytree(paths.CONFIGS, configs)
    lora = (configs / "lora.yaml").read_text("utf-8")
    (configs / "mine.yaml").write_text(lora.replace("# LoRA:", "# Mine:").replace(line, other))
    monkeypatch.setattr(paths, "CONFIGS", configs)


def test_a_method_may_have_its_own_keys(
    runs: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_beside_lora(tmp_path, monkeypatch, "lora_rank: 8", "lora_rank: 64\nuse_rslora: true")
    chosen = made.chosen("lora mine")
    made.write(chosen)
    differences = comparison.compare(chosen).differences
    assert [(d.method, d.key, d.first, d.other) for d in differences] == [
        ("mine", "lora_rank", 8, 64), ("mine", "use_rslora", None, True)
    ]  # fmt: skip


def test_a_method_with_another_learning_rate_is_no_fair_one(
    runs: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_beside_lora(tmp_path, monkeypatch, "learning_rate: 1.0e-4", "learning_rate: 5.0e-4")
    chosen = made.chosen("lora mine")
    made.write(chosen)
    with pytest.raises(TutorialError, match=r"LoRA and Mine .* another learning_rate"):
        comparison.compare(chosen)


@pytest.mark.parametrize(
    ("subject", "notebook"),
    [("base", "03_lora"), ("qlora", "04_qlora"), ("qlora_merged", "05_merge")],
)
def test_a_missing_record_names_the_notebook_that_makes_it(
    runs: object, subject: str, notebook: str
) -> None:
    chosen = made.chosen()
    made.write(chosen)
    store.file_of(chosen.run, subject).unlink()
    with pytest.raises(TutorialError, match=notebook):
        comparison.compare(chosen)


def test_a_record_of_another_shape_is_one_sentence(runs: object) -> None:
    chosen = made.chosen()
    made.write(chosen)
    store.file_of(chosen.run, "lora").write_text('{"subject": "lora"}')
    with pytest.raises(TutorialError, match="run the notebook 03_lora again"):
        comparison.compare(chosen)


def test_a_comparison_of_another_version_is_one_sentence(runs: object) -> None:
    chosen = made.chosen()
    chosen.run.root.mkdir(parents=True)
    chosen.run.comparison.write_text('{"run": "test"}')
    with pytest.raises(TutorialError, match="run the notebook 06_compare again"):
        comparison.read(chosen.run.comparison)


def test_data_that_do_not_say_what_is_right_have_no_accuracy(runs: object) -> None:
    chosen = made.chosen()
    data = made.record(chosen, "base").data.model_copy(update={"scored": False})
    made.write(chosen, **{name: {"data": data} for name in chosen.subjects})
    found = comparison.compare(chosen)
    assert found.accuracy == found.pairs == {}
    assert found.verdict.judgements["qlora"].answers is None
    assert not any(each.scored for each in found.seeds)
    assert comparison.read(chosen.run.comparison) == found
