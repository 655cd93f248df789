"""Settings: what is chosen where nobody says, and names that do not exist."""

from __future__ import annotations

import os
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
        ({"profile": "smoke", "model": "/no/such/folder"}, "no model"),
        ({"profile": "smoke", "run": "../elsewhere"}, "cannot name a folder"),
        ({"profile": "smoke", "run": "a b"}, "cannot name a folder"),
    ],
)
def test_a_wrong_name_is_one_sentence(runs: Path, arguments: dict[str, str], words: str) -> None:
    with pytest.raises(TutorialError, match=words) as caught:
        settings.resolve(**arguments)
    assert "\n" not in str(caught.value)


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
