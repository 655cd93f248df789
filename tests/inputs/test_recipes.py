"""The recipes: what the two may differ in, what replaces what, and what stays as it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from helpers.ground import paths
from helpers.ground.errors import TutorialError
from helpers.inputs import data, keys, recipes, settings
from helpers.inputs.settings import Settings
from helpers.machine import hardware
from helpers.programs import steps
from helpers.programs.making import Making

OUTPUT_NAMES = {"output_dir", "swanlab_run_name"}
QUANTISATION = {"quantization_bit", "quantization_method", "double_quantization"}


def put_model(chosen: Settings) -> Settings:
    chosen.model.path.mkdir(parents=True, exist_ok=True)
    (chosen.model.path / "config.json").write_text(json.dumps({"model_type": "qwen2"}))
    return chosen


@pytest.fixture
def with_model(smoke: Settings) -> Settings:
    return put_model(smoke)


def resolved(profile: str = "smoke", **more: Any) -> Settings:
    return put_model(settings.resolve(profile, run="test", **more))


def test_the_two_recipes_differ_in_the_quantisation_and_output_names_only() -> None:
    rows = recipes.differences(recipes.article("lora"), recipes.article("qlora"))
    assert {row[0] for row in rows} == QUANTISATION | OUTPUT_NAMES
    assert recipes.article("qlora")["quantization_bit"] == 4
    assert recipes.article("qlora")["quantization_method"] == "bnb"
    assert recipes.article("qlora")["double_quantization"] is False


def test_the_recipe_is_the_articles() -> None:
    wanted = {
        "stage": "sft", "lora_rank": 8, "lora_target": "all", "template": "qwen",
        "cutoff_len": 2048, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 8,
        "learning_rate": 1e-4, "lr_scheduler_type": "cosine", "warmup_ratio": 0.1,
        "num_train_epochs": 1.0, "bf16": True, "eval_steps": 20, "logging_steps": 5,
        "report_to": "none", "use_swanlab": True,
    }  # fmt: skip
    used = recipes.article("lora")
    assert {key: used.get(key) for key in wanted} == wanted


def test_no_shipped_recipe_runs_remote_code_and_every_key_is_known() -> None:
    files = [*paths.CONFIGS.glob("*.yaml"), *paths.PROFILES.glob("*.yaml")]
    for file in files:
        text = file.read_text()
        assert "trust_remote_code" not in text, file
    for name in ("lora", "qlora", "dora", "predict", "export"):
        keys.check(yaml.safe_load((paths.CONFIGS / f"{name}.yaml").read_text()), name)
    for name in settings.profile_names():
        profile = settings.load_profile(name)
        without = profile.without_bf16
        keys.check([*profile.recipe, *profile.predict], name)
        keys.check([*without.recipe, *without.predict] if without else [], name)


# ---- as they were -------------------------------------------------------------------------------

TRAIN = {
    "stage": "sft", "do_train": True, "finetuning_type": "lora", "lora_rank": 8,
    "lora_target": "all", "dataset": "math_train", "eval_dataset": "math_eval",
    "overwrite_cache": True, "preprocessing_num_workers": 1, "overwrite_output_dir": True,
    "save_total_limit": 1, "report_to": "none", "use_swanlab": True,
    "swanlab_project": "lora-against-qlora", "num_train_epochs": 1.0,
    "lr_scheduler_type": "cosine", "warmup_ratio": 0.1, "bf16": True, "seed": 42, "do_eval": True,
    "eval_strategy": "steps",
}  # fmt: skip
TRAIN_ON = {
    "cpu": TRAIN | {
        "template": "smollm2", "cutoff_len": 512, "logging_steps": 1, "save_steps": 5,
        "per_device_train_batch_size": 8, "gradient_accumulation_steps": 1, "learning_rate": 2e-3,
        "per_device_eval_batch_size": 5, "eval_steps": 5, "use_cpu": True,
        "eval_dataset": "math_curve",
        "disable_gradient_checkpointing": True, "flash_attn": "disabled",
    },
    "npu": TRAIN | {
        "template": "qwen", "cutoff_len": 2048, "logging_steps": 5, "save_steps": 100,
        "per_device_train_batch_size": 2, "gradient_accumulation_steps": 8, "learning_rate": 1e-4,
        "per_device_eval_batch_size": 2, "eval_steps": 20,
    },
}  # fmt: skip
PREDICT = {
    "stage": "sft", "do_predict": True, "predict_with_generate": True, "finetuning_type": "lora",
    "eval_dataset": "math_eval", "overwrite_cache": True, "preprocessing_num_workers": 1,
    "overwrite_output_dir": True, "report_to": "none", "do_sample": False, "bf16": True, "seed": 42,
}  # fmt: skip
PREDICT_ON = {
    "cpu": PREDICT | {
        "template": "smollm2", "cutoff_len": 512, "per_device_eval_batch_size": 200,
        "flash_attn": "disabled",
        "max_new_tokens": 96, "use_cpu": True,
    },
    "npu": PREDICT | {
        "template": "qwen", "cutoff_len": 2048, "per_device_eval_batch_size": 16,
        "max_new_tokens": 256,
    },
}  # fmt: skip
QLORA = {"quantization_bit": 4, "quantization_method": "bnb", "double_quantization": False}


@pytest.mark.parametrize("profile", ["cpu", "npu"])
def test_the_recipes_stay_as_they_are_in_every_key_and_value(
    profile: str, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "has_bf16", lambda: True)
    chosen = resolved(profile)
    run, model = chosen.run.root, str(chosen.model.path)
    for method, own in (("lora", {}), ("qlora", QLORA)):
        places = {
            "model_name_or_path": model, "dataset_dir": f"{run}/data",
            "output_dir": f"{run}/{method}", "swanlab_mode": "local",
            "swanlab_run_name": f"test-{method}", "swanlab_logdir": f"{run}/swanlab",
        }  # fmt: skip
        assert recipes.for_training(method, chosen) == TRAIN_ON[profile] | own | places
        answering = {
            "model_name_or_path": model, "adapter_name_or_path": f"{run}/{method}",
            "dataset_dir": f"{run}/data", "output_dir": f"{run}/answers/{method}",
        }  # fmt: skip
        assert recipes.for_prediction(method, chosen) == PREDICT_ON[profile] | own | answering
        assert recipes.for_export(f"{method}_merged", chosen) == {
            "model_name_or_path": model, "template": TRAIN_ON[profile]["template"],
            "adapter_name_or_path": f"{run}/{method}", "finetuning_type": "lora",
            "export_device": "cpu", "export_size": 5, "export_legacy_format": False,
            "export_dir": f"{run}/{method}_merged",
        }  # fmt: skip


# ---- what replaces what -------------------------------------------------------------------------


def test_an_unknown_key_is_refused_with_the_nearest_one(runs: Path) -> None:
    with pytest.raises(TutorialError, match=r"'lerning_rate': did you mean learning_rate\?"):
        settings.resolve("smoke", overrides={"lerning_rate": 1})
    assert not runs.exists()


def test_overrides_replace_the_profile_which_replaces_the_article(
    with_model: Settings,
) -> None:
    with_model.overrides["eval_steps"] = 3
    used = recipes.for_training("lora", with_model)
    assert used["lora_rank"] == recipes.article("lora")["lora_rank"]
    assert used["learning_rate"] == with_model.profile.recipe["learning_rate"]
    assert used["eval_steps"] == 3 != with_model.profile.recipe["eval_steps"]


def test_the_same_overrides_keep_the_comparison_fair(with_model: Settings) -> None:
    with_model.overrides["lora_rank"] = 4
    lora, qlora = (recipes.for_training(method, with_model) for method in ("lora", "qlora"))
    rows = recipes.differences(recipes.without_places(lora), recipes.without_places(qlora))
    assert {row[0] for row in rows} == QUANTISATION


def test_another_method_differs_in_its_own_keys_only(runs: Path) -> None:
    chosen = resolved(methods="lora dora")
    first, other = (recipes.for_training(name, chosen) for name in ("lora", "dora"))
    rows = recipes.differences(recipes.without_places(first), recipes.without_places(other))
    assert rows == [("use_dora", None, True)]
    assert recipes.for_prediction("dora", chosen)["adapter_name_or_path"].endswith("/dora")
    with pytest.raises(TutorialError, match="has no 'qlora': it has base, lora, dora"):
        recipes.for_training("qlora", chosen)


@pytest.mark.parametrize(
    ("key", "value"), [("double_quantization", True), ("quantization_type", "fp4")]
)
def test_an_override_of_the_quantisation_holds_wherever_the_adapter_is(
    runs: Path, key: str, value: object
) -> None:
    chosen = resolved(overrides={key: value})
    quantised = [
        recipes.for_training("qlora", chosen),
        recipes.for_prediction("qlora", chosen),
        recipes.for_export("qlora_merged_dequantised", chosen),
    ]
    assert [used[key] for used in quantised] == [value] * 3
    others = [recipes.for_training("lora", chosen), recipes.for_export("qlora_merged", chosen)]
    others += [recipes.for_prediction(name, chosen) for name in ("base", "lora", "qlora_merged")]
    assert all(key not in used for used in others)


def trained_with(chosen: Settings, method: str, recipe: recipes.Recipe) -> None:
    """Leave the marker of a training that was done with a recipe."""

    def action(making: Making) -> None:
        making.place(chosen.run.adapter(method)).write_text("adapter")

    inputs = {"recipe": recipes.without_places(recipe)}
    steps.done_once(chosen.run, method, inputs, chosen.run.adapter(method), action, print)


def test_what_follows_a_training_is_as_that_was_whatever_the_settings_say_today(
    runs: Path,
) -> None:
    told = {"double_quantization": True, "default_system": "Answer.", "enable_thinking": False}
    then, now = resolved(overrides=told), resolved(overrides={"default_system": "Other."})
    for method in ("lora", "qlora"):
        trained_with(then, method, recipes.for_training(method, then))
    shared = {"default_system": "Answer.", "enable_thinking": False}
    for name, used in {
        "lora": recipes.for_prediction("lora", now),
        "qlora": recipes.for_prediction("qlora", now),
        "qlora_merged": recipes.for_prediction("qlora_merged", now),
        "qlora, exported": recipes.for_export("qlora_merged", now),
        "qlora, merged": recipes.for_export("qlora_merged_dequantised", now),
    }.items():
        assert {key: used.get(key) for key in shared} == shared, name
    assert recipes.for_prediction("qlora", now)["double_quantization"] is True
    assert recipes.for_export("qlora_merged_dequantised", now)["double_quantization"] is True
    assert "double_quantization" not in recipes.for_prediction("lora", now)
    # The base model has no training; what is trained next is as the settings say today.
    assert recipes.for_prediction("base", now)["default_system"] == "Other."
    assert recipes.for_training("qlora", now)["double_quantization"] is False
    now.run.adapter("lora").unlink()
    assert recipes.for_prediction("lora", now)["default_system"] == "Other."


@pytest.mark.parametrize("key", ["default_system", "template", "fp16"])
def test_an_override_of_how_a_problem_is_read_holds_for_all(runs: Path, key: str) -> None:
    chosen = resolved(overrides={key: "llama3"})
    for subject in chosen.subjects:
        assert recipes.for_prediction(subject, chosen)[key] == "llama3"
    assert ("fp16" in recipes.for_export("lora_merged", chosen)) is False


def test_a_recipe_names_where_it_will_lie(tmp_path: Path) -> None:
    file = recipes.write({}, "train", tmp_path / "made.yaml", named=tmp_path / "final.yaml")
    assert f"train {tmp_path / 'final.yaml'}" in file.read_text()


def test_an_override_quantises_nothing_that_is_not(runs: Path) -> None:
    chosen = resolved(overrides={"quantization_bit": 8})
    assert recipes.for_training("qlora", chosen)["quantization_bit"] == 8
    assert recipes.for_prediction("qlora", chosen)["quantization_bit"] == 8
    assert "quantization_bit" not in recipes.for_training("lora", chosen)
    assert "quantization_bit" not in recipes.for_prediction("lora", chosen)


def test_each_subject_answers_as_what_it_is(with_model: Settings) -> None:
    def used(subject: str) -> recipes.Recipe:
        return recipes.for_prediction(subject, with_model)

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


def test_each_merge_is_of_its_adapter_into_its_base(with_model: Settings) -> None:
    merged = [each for each in with_model.subjects.values() if each.kind == "merged"]
    assert len(merged) == 3
    for subject in merged:
        assert subject.method
        used = recipes.for_export(subject.name, with_model)
        assert used["adapter_name_or_path"].endswith(f"/{subject.method.name}")
        assert used["export_dir"].endswith(f"/{subject.name}")
        assert ("quantization_bit" in used) == (subject.weights == "dequantised")
    with pytest.raises(ValueError, match="no merged model"):
        recipes.for_export("lora", with_model)


def test_a_written_recipe_is_the_recipe_and_says_how_to_repeat_it(
    with_model: Settings, tmp_path: Path
) -> None:
    used = recipes.for_training("qlora", with_model)
    file = recipes.write(used, "llamafactory-cli train", tmp_path / "qlora.yaml")
    assert yaml.safe_load(file.read_text()) == used
    assert f"llamafactory-cli train {file}" in file.read_text()


def test_a_missing_model_names_its_notebook(smoke: Settings) -> None:
    with pytest.raises(TutorialError, match="01_env"):
        recipes.for_training("lora", smoke)


def test_a_cloud_key_switches_swanlab_and_is_not_in_the_recipe(
    with_model: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert recipes.for_training("lora", with_model)["swanlab_mode"] == "local"
    monkeypatch.setenv("SWANLAB_API_KEY", "not-a-real-key")
    used = recipes.for_training("lora", with_model)
    assert used["swanlab_mode"] == "cloud"
    assert "not-a-real-key" not in json.dumps(used)


def test_overrides_that_shape_answers_reach_prediction(with_model: Settings) -> None:
    with_model.overrides.update(max_samples=3, lora_rank=4)
    used = recipes.for_prediction("base", with_model)
    assert used["max_samples"] == 3
    assert "lora_rank" not in used


# ---- a processor without bf16 -------------------------------------------------------------------


def test_a_cpu_without_bf16_computes_in_float32(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "has_bf16", lambda: False)
    chosen = resolved("cpu")
    assert chosen.precision == "float32"
    for method, own in (("lora", {}), ("qlora", QLORA)):
        for used, before in (
            (recipes.for_training(method, chosen), TRAIN_ON["cpu"]),
            (recipes.for_prediction(method, chosen), PREDICT_ON["cpu"]),
        ):
            assert recipes.without_places(used) == before | own | {"bf16": False}
    assert resolved("cpu", overrides={"bf16": True}).precision == "bf16"


@pytest.mark.parametrize("profile", ["npu", "cuda", "smoke"])
def test_what_the_cpu_lacks_is_no_matter_elsewhere(
    profile: str, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "has_bf16", lambda: False)
    chosen = resolved(profile)
    assert chosen.precision == "bf16"
    assert recipes.for_training("lora", chosen)["bf16"] is True


# ---- the tuned settings -------------------------------------------------------------------------

# What the tuned settings may touch: how the work is laid out, never which work it is.
SPEED_KEYS = {
    "disable_gradient_checkpointing", "per_device_train_batch_size", "gradient_accumulation_steps",
    "flash_attn", "dataloader_num_workers", "use_v1_kernels", "per_device_eval_batch_size",
}  # fmt: skip


@pytest.mark.parametrize("profile", ["cpu", "cuda", "npu"])
def test_the_tuned_recipe_is_the_same_work(profile: str, runs: Path) -> None:
    plain, tuned = (
        recipes.for_training("lora", settings.resolve(profile, tuned=name), planned=True)
        for name in ("no", "yes")
    )
    touched = {row[0] for row in recipes.differences(plain, tuned)}
    assert touched
    assert touched <= SPEED_KEYS
    effective = [
        used["per_device_train_batch_size"] * used["gradient_accumulation_steps"]
        for used in (plain, tuned)
    ]
    assert effective[0] == effective[1]
    keys.check(tuned, profile)


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
