"""Methods are files: which ones are taken, and what is said of those that are not."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from helpers.ground import paths
from helpers.ground.errors import TutorialError
from helpers.inputs import keys, methods, settings

SOUND = "stage: sft\ndo_train: true\nfinetuning_type: lora\n"


@pytest.fixture
def configs(tmp_path: Path, runs: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of configs/ that a test may add to."""
    folder = tmp_path / "configs"
    shutil.copytree(paths.CONFIGS, folder)
    monkeypatch.setattr(paths, "CONFIGS", folder)
    return folder


def test_the_shipped_methods() -> None:
    lora, qlora, dora = methods.named(["lora", "qlora", "dora"])
    assert [each.label for each in (lora, qlora, dora)] == ["LoRA", "QLoRA", "DoRA"]
    assert [each.quantised for each in (lora, qlora, dora)] == [False, True, False]
    assert dora.recipe["use_dora"] is True
    assert methods.default() == ("lora", "qlora")


def test_a_file_that_a_reader_adds_is_a_method(configs: Path) -> None:
    (configs / "rank64.yml").write_text(f"# Rank 64: a try\n{SOUND}lora_rank: 64\n")
    (configs / "plain-one.yaml").write_text(SOUND)
    chosen = settings.resolve("smoke", methods="lora rank64,plain-one")
    assert [each.label for each in chosen.methods] == ["LoRA", "Rank 64", "plain-one"]
    assert list(chosen.subjects) == [
        "base", "lora", "rank64", "plain-one", "lora_merged", "rank64_merged", "plain-one_merged",
    ]  # fmt: skip
    assert chosen.subject("rank64").label == "Rank 64"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "must hold 'key: value' lines"),
        ("- a\n- b\n", "must hold 'key: value' lines"),
        ("stage: [sft\n", "is not valid YAML"),
        ("stage: sft\n\x00", "is not valid YAML"),
        ("model: tiny\n", "is no recipe of a training"),
        (SOUND.replace("sft", "dpo"), "is no recipe of a training"),
        (SOUND.replace("true", "false"), "is no recipe of a training"),
        (SOUND.replace("finetuning_type: lora\n", ""), "needs 'finetuning_type: lora'"),
        (SOUND.replace("type: lora", "type: full"), "needs 'finetuning_type: lora'"),
        (SOUND + "lora_rnak: 8\n", r"mine.yaml: .*'lora_rnak': did you mean lora_rank\?"),
        (SOUND + "1: 8\n", "does not know the recipe key 1: correct or remove it"),
    ],
)
def test_a_file_that_is_no_method_is_one_sentence(configs: Path, text: str, words: str) -> None:
    (configs / "mine.yaml").write_text(text)
    with pytest.raises(TutorialError, match=words) as caught:
        settings.resolve("smoke", methods="lora mine")
    assert "\n" not in str(caught.value)
    assert not paths.RUNS.exists()  # before anything starts


def test_bytes_that_are_no_text_are_one_sentence(configs: Path) -> None:
    (configs / "mine.yaml").write_bytes(b"# caf\xe9\n" + SOUND.encode())
    with pytest.raises(TutorialError, match="is not valid YAML"):
        methods.load("mine")


def test_the_files_beside_the_recipes_are_no_methods() -> None:
    for name in ("models", "predict", "export", "tutorial"):
        with pytest.raises(TutorialError, match="is no recipe of a training"):
            methods.load(name)


def test_two_files_of_one_name(configs: Path) -> None:
    for suffix in ("yaml", "yml"):
        (configs / f"mine.{suffix}").write_text(SOUND)
    with pytest.raises(TutorialError, match=r"Two files are the method mine, .*yaml and .*yml"):
        settings.resolve("smoke", methods="lora mine")


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        ("lora nothing", "There is no method nothing"),
        ("lora lora", "must name each method once"),
        ("lora qlora lora", "must name each method once"),
        ([], "must name each method once"),
        (" , ", "must name each method once"),
        ("data", "cannot name a method"),
        ("base", "cannot name a method"),
        ("logs", "cannot name a method"),
        ("lora_merged", "cannot name a method"),
        ("plan", "cannot name a method"),
        ("lora_answers", "cannot name a method"),
        ("../lora", "cannot name a method"),
        ("LoRA", "cannot name a method"),
    ],
)
def test_names_that_cannot_be_are_one_sentence(
    configs: Path, wanted: str | list[str], words: str
) -> None:
    for name in ("data", "base", "logs", "lora_merged", "plan", "lora_answers"):
        (configs / f"{name}.yaml").write_text(SOUND)
    with pytest.raises(TutorialError, match=words) as caught:
        settings.resolve("smoke", methods=wanted)
    assert "\n" not in str(caught.value)
    assert not paths.RUNS.exists()


def test_every_folder_of_a_run_is_a_name_that_is_taken() -> None:
    run = paths.RunFolder("test")
    kinds = (name for name, value in vars(paths.RunFolder).items() if isinstance(value, property))
    folders = [getattr(run, name) for name in kinds]
    names = {folder.name for folder in folders if folder.parent == run.root and not folder.suffix}
    assert names
    for name in names | {run.answers("x").parent.name}:
        with pytest.raises(TutorialError, match="cannot name a method"):
            methods.load(name)


def test_defaults_that_name_nothing(configs: Path) -> None:
    for text in ("methods: []\n", "other: 1\n", "methods: lora\n"):
        (configs / "tutorial.yaml").write_text(text)
        with pytest.raises(TutorialError, match=re.escape("must hold 'methods: [...]'")):
            methods.default()


def test_the_keys_are_those_of_the_installed_llamafactory() -> None:
    assert {"lora_rank", "learning_rate", "use_swanlab", "cutoff_len"} <= keys.known()
    assert keys.quantisation() == {
        "quantization_bit", "quantization_method", "quantization_type", "double_quantization",
        "quantization_device_map",
    }  # fmt: skip
    assert "use_dora" in keys.of_a_method()
    assert "learning_rate" not in keys.of_a_method()
