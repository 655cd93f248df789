"""The recipes: what the two may differ in, what replaces what, and keys that do not exist."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from helpers import data, paths, recipe, settings
from helpers.errors import TutorialError

OUTPUT_NAMES = {"output_dir", "swanlab_run_name"}


@pytest.fixture
def with_model(smoke: settings.Settings) -> settings.Settings:
    smoke.model.path.mkdir(parents=True)
    (smoke.model.path / "config.json").write_text(json.dumps({"model_type": "qwen2"}))
    return smoke


def test_the_two_recipes_differ_in_the_quantisation_and_output_names_only() -> None:
    rows = recipe.differences(recipe.article("lora"), recipe.article("qlora"))
    assert {row[0] for row in rows} == set(recipe.QUANTISATION_KEYS) | OUTPUT_NAMES
    assert recipe.article("qlora")["quantization_bit"] == 4
    assert recipe.article("qlora")["quantization_method"] == "bnb"
    assert recipe.article("qlora")["double_quantization"] is False


def test_the_recipe_is_the_articles() -> None:
    wanted = {
        "stage": "sft", "lora_rank": 8, "lora_target": "all", "template": "qwen",
        "cutoff_len": 2048, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 8,
        "learning_rate": 1e-4, "lr_scheduler_type": "cosine", "warmup_ratio": 0.1,
        "num_train_epochs": 1.0, "bf16": True, "eval_steps": 20, "logging_steps": 5,
        "report_to": "none", "use_swanlab": True,
    }  # fmt: skip
    used = recipe.article("lora")
    assert {key: used.get(key) for key in wanted} == wanted


def test_no_shipped_recipe_runs_remote_code_and_every_key_is_known() -> None:
    files = [*paths.CONFIGS.glob("*.yaml"), *paths.PROFILES.glob("*.yaml")]
    for file in files:
        text = file.read_text()
        assert "trust_remote_code" not in text, file
    for name in ("lora", "qlora", "predict", "export"):
        recipe.check_keys(yaml.safe_load((paths.CONFIGS / f"{name}.yaml").read_text()))
    for name in settings.profile_names():
        profile = settings.load_profile(name)
        recipe.check_keys([*profile.recipe, *profile.predict])


def test_an_unknown_key_is_refused_with_the_nearest_one(with_model: settings.Settings) -> None:
    with_model.overrides["lerning_rate"] = 1
    with pytest.raises(TutorialError, match=r"'lerning_rate': did you mean learning_rate\?"):
        recipe.for_training("lora", with_model)


def test_overrides_replace_the_profile_which_replaces_the_article(
    with_model: settings.Settings,
) -> None:
    with_model.overrides["eval_steps"] = 3
    used = recipe.for_training("lora", with_model)
    assert used["lora_rank"] == recipe.article("lora")["lora_rank"]
    assert used["learning_rate"] == with_model.profile.recipe["learning_rate"]
    assert used["eval_steps"] == 3 != with_model.profile.recipe["eval_steps"]


def test_the_same_overrides_keep_the_comparison_fair(with_model: settings.Settings) -> None:
    with_model.overrides["lora_rank"] = 4
    lora, qlora = (recipe.for_training(method, with_model) for method in recipe.METHODS)
    rows = recipe.differences(recipe.without_places(lora), recipe.without_places(qlora))
    assert {row[0] for row in rows} == set(recipe.QUANTISATION_KEYS)


def test_each_subject_answers_as_what_it_is(with_model: settings.Settings) -> None:
    def used(subject: str) -> recipe.Recipe:
        return recipe.for_prediction(subject, with_model)

    assert "adapter_name_or_path" not in used("base")
    assert used("lora")["adapter_name_or_path"].endswith("/lora")
    assert "quantization_bit" not in used("lora")
    assert used("qlora")["quantization_bit"] == 4
    assert used("qlora_merged")["model_name_or_path"].endswith("/qlora_merged")
    assert "quantization_bit" not in used("qlora_merged")
    dequantised = used("qlora_merged_dequantised")
    assert dequantised["model_name_or_path"].endswith("/qlora_merged_dequantised")
    assert "quantization_bit" not in dequantised
    assert used("base")["eval_dataset"] == data.EVAL
    outputs = [used(s)["output_dir"] for s in ("base", "lora", "qlora", "lora_merged")]
    assert len(set(outputs)) == 4


def test_each_merge_is_of_its_adapter_into_its_base(with_model: settings.Settings) -> None:
    for subject, method in paths.MERGED.items():
        used = recipe.for_export(subject, with_model)
        assert used["adapter_name_or_path"].endswith(f"/{method}")
        assert used["export_dir"].endswith(f"/{subject}")
        assert ("quantization_bit" in used) == (subject == "qlora_merged_dequantised")


def test_a_written_recipe_is_the_recipe_and_says_how_to_repeat_it(
    with_model: settings.Settings, tmp_path: Path
) -> None:
    used = recipe.for_training("qlora", with_model)
    file = recipe.write(used, "llamafactory-cli train", tmp_path / "qlora.yaml")
    assert yaml.safe_load(file.read_text()) == used
    assert f"llamafactory-cli train {file}" in file.read_text()


def test_a_missing_model_names_its_notebook(smoke: settings.Settings) -> None:
    with pytest.raises(TutorialError, match="01_env"):
        recipe.for_training("lora", smoke)


def test_a_cloud_key_switches_swanlab_and_is_not_in_the_recipe(
    with_model: settings.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert recipe.for_training("lora", with_model)["swanlab_mode"] == "local"
    monkeypatch.setenv("SWANLAB_API_KEY", "not-a-real-key")
    used = recipe.for_training("lora", with_model)
    assert used["swanlab_mode"] == "cloud"
    assert "not-a-real-key" not in json.dumps(used)


def test_overrides_that_shape_answers_reach_prediction(with_model: settings.Settings) -> None:
    with_model.overrides.update(max_samples=3, lora_rank=4)
    used = recipe.for_prediction("base", with_model)
    assert used["max_samples"] == 3
    assert "lora_rank" not in used


# What the tuned settings may touch: how the work is laid out, never which work it is.
SPEED_KEYS = {
    "disable_gradient_checkpointing", "per_device_train_batch_size", "gradient_accumulation_steps",
    "flash_attn", "dataloader_num_workers", "use_v1_kernels", "per_device_eval_batch_size",
}  # fmt: skip


@pytest.mark.parametrize("profile", ["cpu", "cuda", "npu"])
def test_the_tuned_recipe_is_the_same_work(
    profile: str, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, tuned = (
        recipe.for_training("lora", settings.resolve(profile, tuned=name), planned=True)
        for name in ("no", "yes")
    )
    touched = {row[0] for row in recipe.differences(plain, tuned)}
    assert touched
    assert touched <= SPEED_KEYS
    effective = [
        used["per_device_train_batch_size"] * used["gradient_accumulation_steps"]
        for used in (plain, tuned)
    ]
    assert effective[0] == effective[1]
    recipe.check_keys(tuned)


def test_who_gets_the_tuned_recipe_without_asking(runs: Path) -> None:
    chosen = {name: settings.resolve(name).tuned for name in ("smoke", "cpu", "cuda", "npu")}
    assert chosen == {"smoke": False, "cpu": True, "cuda": True, "npu": False}
    assert settings.resolve("npu", tuned="yes").environment["TASK_QUEUE_ENABLE"] == "2"
    assert "TASK_QUEUE_ENABLE" not in settings.resolve("npu").environment


@pytest.mark.parametrize(
    ("profile", "wanted", "words"),
    [("cpu", "maybe", "say yes or no"), ("smoke", "yes", "has no tuned settings")],
)
def test_tuned_that_makes_no_sense(profile: str, wanted: str, words: str, runs: Path) -> None:
    with pytest.raises(TutorialError, match=words):
        settings.resolve(profile, tuned=wanted)
