"""Settings: what is chosen where nobody says, and names that do not exist."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from helpers.ground import paths
from helpers.ground.errors import TutorialError
from helpers.inputs import methods, settings
from helpers.machine import hardware


@pytest.mark.parametrize("device", ["npu", "cuda", "cpu"])
def test_the_hardware_picks_the_profile(
    runs: Path, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    monkeypatch.setattr(hardware, "detect_device", lambda: device)
    chosen = settings.resolve()
    assert chosen.profile.name == chosen.profile.device == device
    assert chosen.run.name == device


def test_npu_is_seen_by_its_driver_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "npu-smi"
    tool.write_text("#!/bin/sh\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert hardware.detect_device() == "npu"


def test_parameters_win_over_the_environment(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUTORIAL_PROFILE", "smoke")
    monkeypatch.setenv("TUTORIAL_RUN", "from-environment")
    monkeypatch.setenv("TUTORIAL_OVERRIDES", "learning_rate=5.0e-5 lora_target=q_proj,v_proj")
    chosen = settings.resolve()
    assert (chosen.profile.name, chosen.run.name) == ("smoke", "from-environment")
    assert chosen.overrides == {"learning_rate": 5e-5, "lora_target": "q_proj,v_proj"}
    chosen = settings.resolve("cpu", run="mine", overrides={"lora_rank": 4})
    assert (chosen.profile.name, chosen.run.name) == ("cpu", "mine")
    assert chosen.overrides == {"lora_rank": 4}


def test_another_model_gets_a_run_folder_of_its_own(runs: Path) -> None:
    assert settings.resolve("npu", model="Qwen2-7B").run.name == "npu-Qwen2-7B"
    assert settings.resolve("npu", model="Qwen/Qwen3-0.6B").run.name == "npu-Qwen3-0.6B"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"profile": "gpu"}, "no profile 'gpu': choose one of cpu, cuda, npu, smoke"),
        ({"profile": "smoke", "model": "Qwen2-05B"}, "did you mean Qwen2-0.5B"),
        ({"profile": "smoke", "model": "/no/such/folder"}, "no folder"),
        ({"profile": "smoke", "run": "../elsewhere"}, "cannot name a folder"),
        ({"profile": "smoke", "run": "a b"}, "cannot name a folder"),
        ({"profile": "smoke", "train": "many"}, "TRAIN='many' is not understood"),
        ({"profile": "smoke", "train": 0}, "TRAIN='0' is not understood"),
        ({"profile": "smoke", "evaluate": "-5"}, "EVAL='-5' is not understood"),
        ({"profile": "smoke", "evaluate": "9" * 5000}, "from 1 to 10000000"),
        ({"profile": "smoke", "columns": "question"}, "not understood at 'question'"),
        ({"profile": "smoke", "columns": "input=a input=b"}, "not understood at 'input=b'"),
        ({"profile": "smoke", "columns": "question=instruction"}, "names 'question' on the left"),
        ({"profile": "smoke", "columns": "input='a"}, "a quote that is not closed"),
    ],
)
def test_a_wrong_name_is_one_sentence(runs: Path, arguments: dict[str, object], words: str) -> None:
    with pytest.raises(TutorialError, match=words) as caught:
        settings.resolve(**arguments)
    assert "\n" not in str(caught.value)


def test_rows_and_columns_come_from_parameters_and_the_environment(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = settings.resolve("smoke").profile.data
    assert (plain.train, plain.eval, plain.columns) == (48, 12, {})
    for name, value in (("TRAIN", "30"), ("EVAL", "7"), ("COLUMNS", "input='my text' output=b")):
        monkeypatch.setenv(f"TUTORIAL_{name}", value)
    wanted = settings.resolve("smoke").profile.data
    assert (wanted.train, wanted.eval) == (30, 7)
    assert wanted.columns == {"input": "my text", "output": "b"}
    chosen = settings.resolve("smoke", train=5, evaluate="2", columns={"answer": ""})
    wanted = chosen.profile.data
    assert (wanted.train, wanted.eval, wanted.columns) == (5, 2, {"answer": ""})
    assert dict(chosen.table().rows)["columns"] == "answer="


def test_a_terminals_width_is_no_columns() -> None:
    """COLUMNS is what shells call it; `make` takes it from its own command line alone."""
    show = ["make", "--eval", "show: ; @echo $$TUTORIAL_COLUMNS", "-s", "show"]
    for words, shown in (([], ""), (["COLUMNS=input=a"], "input=a")):
        done = subprocess.run(
            [*show, *words], cwd=paths.ROOT, env=os.environ | {"COLUMNS": "80"},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert done.stdout.strip() == shown


def test_who_is_compared(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def names(**more: object) -> list[str]:
        return [each.name for each in settings.resolve("smoke", **more).methods]

    assert names() == ["lora", "qlora"]
    assert names(methods="qlora lora") == names(methods=["qlora", "lora"]) == ["qlora", "lora"]
    monkeypatch.setenv("TUTORIAL_METHODS", "lora dora")
    assert names() == ["lora", "dora"]
    assert names(methods="qlora") == ["qlora"]  # the parameters win


def test_what_a_run_does_not_compare_is_one_sentence(smoke: settings.Settings) -> None:
    assert smoke.method("lora").label == "LoRA"
    with pytest.raises(TutorialError, match="has no 'dora': it has base, lora, qlora, lora_merged"):
        smoke.method("dora")
    for name in ("base", "lora_merged"):
        with pytest.raises(TutorialError, match="no method of this run"):
            smoke.method(name)


def test_the_table_says_what_decides(runs: Path) -> None:
    rows = dict(settings.resolve("smoke", run="mine", overrides={"lora_rank": 4}).table().rows)
    assert rows["methods"] == "LoRA, QLoRA"
    assert rows["precision"] == "bf16"
    assert rows["overrides"] == "{lora_rank: 4}"
    assert rows["run folder"] == "runs/mine"


def test_the_precision_is_that_of_the_recipe(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for here, precision in ((True, "bf16"), (False, "float32")):
        monkeypatch.setattr(hardware, "has_bf16", lambda here=here: here)
        assert dict(settings.resolve("cpu").table().rows)["precision"] == precision
    asked = {"bf16": False, "fp16": True}
    assert settings.resolve("npu", overrides=asked).precision == "fp16"


@pytest.mark.parametrize("text", ["learning_rate", "=5", "a=[1"])
def test_overrides_must_be_key_value(text: str) -> None:
    with pytest.raises(TutorialError, match="override"):
        settings.parse_overrides(text)


def test_a_profile_with_a_key_that_profiles_do_not_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "PROFILES", tmp_path)
    (tmp_path / "odd.yaml").write_text("model: x\ndata: {source: generated, train: 1, eval: 0}\n")
    with pytest.raises(TutorialError, match=r"data\.eval"):
        settings.load_profile("odd")
    (tmp_path / "odd.yaml").write_text("model: [x\n")
    with pytest.raises(TutorialError, match="not valid YAML"):
        settings.load_profile("odd")


def test_profiles_hold_only_what_differs() -> None:
    article = methods.load("lora").recipe
    for name in settings.profile_names():
        profile = settings.load_profile(name)
        same = [key for key, value in profile.recipe.items() if article.get(key) == value]
        assert not same, f"{name} repeats the recipe's {same}"
    assert settings.load_profile("npu").recipe == {}


def test_cards_come_from_a_parameter_or_the_environment(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert settings.resolve("smoke").cards == 1
    assert not any("cards" in str(row[0]) for row in settings.resolve("smoke").table().rows)
    monkeypatch.setenv("TUTORIAL_CARDS", "2")
    assert settings.resolve("smoke").cards == 2
    assert any("cards" in str(row[0]) for row in settings.resolve("smoke").table().rows)
    assert settings.resolve("smoke", cards=4).cards == 4
    monkeypatch.setattr(hardware, "visible_cards", lambda device: ["910B2"] * 8)
    assert settings.resolve("npu", cards="all").cards == 8


@pytest.mark.parametrize("asked", ["two", "0", "-1", "1.5", "2048", "9" * 5000])
def test_cards_that_are_no_number_are_one_sentence(runs: Path, asked: str) -> None:
    with pytest.raises(TutorialError, match=r"CARDS=.* is not understood: say a number, or all"):
        settings.resolve("smoke", cards=asked)


def test_the_model_is_sharded_by_a_parameter_or_the_environment(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not settings.resolve("smoke", cards=2).sharded
    assert settings.resolve("smoke", cards=2, sharded="yes").sharded
    monkeypatch.setenv("TUTORIAL_SHARDED", "yes")
    chosen = settings.resolve("smoke", cards=2)
    assert chosen.sharded
    assert any("sharded over" in str(row[1]) for row in chosen.table().rows)
    assert not settings.resolve("smoke", cards=2, sharded="no").sharded
    with pytest.raises(TutorialError, match="SHARDED='half' is not understood: say yes or no"):
        settings.resolve("smoke", sharded="half")
