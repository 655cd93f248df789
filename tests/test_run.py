"""`make run` from end to end on the smoke profile: all six notebooks, twice, and when it fails.

The run folder is runs/test of the repository; `make test` lets nbval go over the notebooks with the
same folder afterwards, so that each training is done once.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from helpers.ground import paths, words
from helpers.inputs import methods, subjects
from helpers.records import store
from helpers.results import comparison as compare
from helpers.results import verdict

RUN = paths.RunFolder("test")
SUBJECTS = subjects.of(methods.named(("lora", "qlora")))
SECRETS = {"SWANLAB_API_KEY": "swan-key-0123456789", "MODELSCOPE_API_TOKEN": "ms-token-0123456789"}
STEPS = ("source", "data", "plan", "base_answers", "lora", "lora_layer", "lora_answers", "qlora",
         "qlora_block", "qlora_answers",
         "lora_merged", "qlora_merged", "qlora_merged_answers",
         "qlora_merged_dequantised", "qlora_merged_dequantised_answers",
         "divergence")  # fmt: skip


def run_command(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("TUTORIAL_")}
    return subprocess.run(
        [sys.executable, "-m", "helpers", "run", "--profile", "smoke", *arguments],
        env=clean | {"JUPYTER_PREFER_ENV_PATH": "1", "COLUMNS": "150"} | env,
        cwd=paths.ROOT, capture_output=True, text=True, timeout=900,
    )  # fmt: skip


@pytest.fixture(scope="module")
def first() -> subprocess.CompletedProcess[str]:
    shutil.rmtree(RUN.root, ignore_errors=True)
    # With a key in the environment SwanLab would go to its cloud; here it must stay local.
    return run_command("--run", RUN.name, TUTORIAL_OVERRIDES="swanlab_mode=local", **SECRETS)


def test_it_ends_with_the_comparison_and_where_all_lies(
    first: subprocess.CompletedProcess[str],
) -> None:
    assert first.returncode == 0, first.stdout[-3000:] + first.stderr[-3000:]
    comparison = compare.read(RUN.comparison)
    # The table wraps lines, so the words are looked for one by one.
    words = set(first.stdout.split())
    assert set(verdict.sentence(comparison).split()) <= words
    assert "exact match" in first.stdout
    for place in ("runs/test/notebooks", "runs/test/figures", "runs/test/comparison.json"):
        assert place in first.stdout
        assert (paths.ROOT / place).exists()


def test_every_method_leaves_a_whole_record(first: subprocess.CompletedProcess[str]) -> None:
    assert len(SUBJECTS) == 6
    for subject in SUBJECTS.values():
        record = store.read(RUN, subject)
        assert record.answers.n == 12
        assert record.versions["llamafactory"] == "0.9.5"
    for method in ("lora", "qlora"):
        record = store.read(RUN, SUBJECTS[method])
        trained = record.training
        assert trained is not None
        assert trained.optimizer_steps == 12
        assert trained.loss[-1].loss < trained.loss[0].loss
        assert len(trained.memory.bytes_used) > 5
        assert record.recipes["train"]["output_dir"] == f"runs/test/{method}"


def test_swanlab_recorded_both_runs_locally(first: subprocess.CompletedProcess[str]) -> None:
    recorded = list(RUN.swanlab.glob("run-*"))
    assert len(recorded) == 2
    assert all(any(file.stat().st_size for file in run.rglob("*")) for run in recorded)
    assert "swanlab_mode: local" in (RUN.recipes / "lora.yaml").read_text()


def test_no_secret_is_in_anything_that_the_run_wrote(
    first: subprocess.CompletedProcess[str],
) -> None:
    files = [file for file in RUN.root.rglob("*") if file.is_file()]
    assert len(files) > 100
    searched = {file.relative_to(RUN.root).parts[0] for file in files}
    assert {"notebooks", "recipes", "logs", "results", "steps", "figures", "swanlab"} <= searched
    pictures = [file for file in files if file.suffix == ".png"]
    assert pictures
    # A picture's texts can be compressed; Pillow unpacks them.
    texts = "".join(str(Image.open(file).info) for file in pictures)
    assert not any(secret in texts for secret in SECRETS.values())
    for file in files:
        content = file.read_bytes()
        for secret in SECRETS.values():
            assert secret.encode() not in content, file
    for secret in SECRETS.values():
        assert secret not in first.stdout + first.stderr


def test_headless_progress_is_plain_lines(first: subprocess.CompletedProcess[str]) -> None:
    lines = [line for line in first.stdout.splitlines() if "step 12/12" in line]
    assert lines
    assert all("\r" not in line for line in lines)


def test_the_second_run_uses_everything_again(first: subprocess.CompletedProcess[str]) -> None:
    logs = {file: file.stat().st_mtime_ns for file in RUN.logs.iterdir()}
    second = run_command("--run", RUN.name)
    assert second.returncode == 0, second.stdout[-3000:]
    for step in STEPS:
        assert f"Re-using {step} from" in second.stdout
    assert {file: file.stat().st_mtime_ns for file in RUN.logs.iterdir()} == logs


CHINESE = re.compile("[\u4e00-\u9fff]")


def test_the_chinese_edition_re_uses_everything_and_leaves_no_chinese_in_records(
    first: subprocess.CompletedProcess[str],
) -> None:
    logs = {file: file.stat().st_mtime_ns for file in RUN.logs.iterdir()}
    chinese = run_command("--run", RUN.name, TUTORIAL_LANGUAGE="zh")
    assert chinese.returncode == 0, chinese.stdout[-3000:]
    assert {file: file.stat().st_mtime_ns for file in RUN.logs.iterdir()} == logs
    with words.spoken("zh"):
        said = verdict.sentence(compare.read(RUN.comparison))
        assert RUN.figures.is_dir()
    assert CHINESE.search(said)
    shown = re.sub(r"\s", "", chinese.stdout)  # the terminal's lines break anywhere
    assert re.sub(r"\s", "", said) in shown
    assert "runs/test/notebooks/zh" in chinese.stdout
    for name in paths.NOTEBOOK_NAMES:
        notebook = json.loads((RUN.notebooks / "zh" / f"{name}.ipynb").read_text("utf-8"))
        assert all(cell.get("execution_count", 1) for cell in notebook["cells"])
        assert CHINESE.search(json.dumps(notebook["cells"][-2]["outputs"], ensure_ascii=False))
    for file in [RUN.comparison, *RUN.root.glob("*/*.json"), *RUN.root.glob("*.json")]:
        if file.parent not in (RUN.notebooks, RUN.running):
            assert not CHINESE.search(file.read_text("utf-8")), file


def one_sentence(failed: subprocess.CompletedProcess[str]) -> str:
    """Return what a failed command says, once it is known to be no traceback."""
    assert failed.returncode == 1
    assert "Traceback" not in failed.stdout + failed.stderr
    return failed.stderr


def copy_of_prepared_run(name: str) -> paths.RunFolder:
    """Return a run folder with what the first run had before it trained."""
    run = paths.RunFolder(name)
    shutil.rmtree(run.root, ignore_errors=True)
    run.steps.mkdir(parents=True)
    shutil.copytree(RUN.data, run.data)
    shutil.copy2(RUN.root / "source.parquet", run.root)
    shutil.copytree(RUN.answers("base"), run.answers("base"))
    run.recipes.mkdir()
    shutil.copy2(RUN.recipes / "base_answers.yaml", run.recipes)
    for step in ("source", "data", "base_answers"):
        shutil.copy2(RUN.steps / f"{step}.json", run.steps)
    return run


def test_a_failing_training_says_why_and_keeps_what_is_done(
    first: subprocess.CompletedProcess[str],
) -> None:
    run = copy_of_prepared_run("test-fails")
    try:
        # Nothing is wrong with this recipe until it trains.
        failed = run_command("--run", run.name, TUTORIAL_OVERRIDES="learning_rate=1.0e+30")
        said = one_sentence(failed)
        assert "03_lora" in said
        assert "learning_rate" in said
        assert "Log: " in said
        assert "lora.log" in said
        assert "Re-using base_answers" in failed.stdout
        assert (run.steps / "data.json").is_file()
        assert not (run.steps / "lora.json").exists()
    finally:
        shutil.rmtree(run.root)


def test_a_recipe_that_cannot_be_trained_is_refused_before_anything_starts(
    first: subprocess.CompletedProcess[str],
) -> None:
    run = copy_of_prepared_run("test-plan")
    try:
        failed = run_command("--run", run.name, TUTORIAL_OVERRIDES="lr_scheduler_type=nonsense")
        said = one_sentence(failed)
        assert "nonsense" in said
        assert "arguments.log" in said
        assert "== 01_env" not in failed.stdout
        assert (run.steps / "data.json").is_file()
    finally:
        shutil.rmtree(run.root)


def test_an_unknown_recipe_key_is_refused_before_anything_starts(
    first: subprocess.CompletedProcess[str],
) -> None:
    run = copy_of_prepared_run("test-key")
    try:
        said = one_sentence(run_command("--run", run.name, TUTORIAL_OVERRIDES="lora_rnk=4"))
        assert "'lora_rnk': did you mean lora_rank?" in said
        assert not list(run.logs.glob("lora*"))
    finally:
        shutil.rmtree(run.root)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--run", "a/b"], "cannot name a folder"),
        (["--model", "no-such-model"], "There is no model"),
        (["--run", "x", "--data", "absent.parquet"], "There is no file"),
    ],
)
def test_bad_arguments_are_one_sentence(arguments: list[str], words: str) -> None:
    said = one_sentence(run_command(*arguments))
    assert words in said
    shutil.rmtree(paths.RunFolder("x").root, ignore_errors=True)


def test_a_second_run_into_the_same_folder_stops(tmp_path: Path) -> None:
    from filelock import FileLock

    run = paths.RunFolder("test-locked")
    run.root.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(run.root / ".lock"):
            assert "Another run is working" in one_sentence(run_command("--run", run.name))
    finally:
        shutil.rmtree(run.root)


def test_a_run_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file where the folder should be")
    said = one_sentence(run_command("--run", "x", TUTORIAL_RUNS=str(tmp_path / "runs")))
    assert "cannot be written" in said


def test_executed_notebooks_hold_the_parameters_they_ran_with(
    first: subprocess.CompletedProcess[str],
) -> None:
    notebook = json.loads((RUN.notebooks / "03_lora.ipynb").read_text("utf-8"))
    injected = [
        "".join(cell["source"])
        for cell in notebook["cells"]
        if "injected-parameters" in cell["metadata"].get("tags", [])
    ]
    assert len(injected) == 1
    assert 'profile = "smoke"' in injected[0]


def test_the_readmes_script_runs_as_it_stands(
    first: subprocess.CompletedProcess[str], tmp_path: Path
) -> None:
    """In a run that has what the notebooks made: what the script adds is DoRA, and all is shown."""
    readme = (paths.ROOT / "README.md").read_text("utf-8")
    [script] = re.findall(r"```python\n(from helpers import Tutorial.*?)```", readme, re.DOTALL)
    lines = [line for line in script.splitlines() if line.strip()]
    assert 8 <= len(lines) <= 13
    run = tmp_path / "runs" / "mine"
    shutil.copytree(RUN.root, run, ignore=shutil.ignore_patterns("notebooks", "swanlab", "cache"))
    kept = {k: v for k, v in os.environ.items() if not k.startswith("TUTORIAL_")}
    env = kept | {"TUTORIAL_RUNS": str(tmp_path / "runs")}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=paths.ROOT, env=env, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (run / "dora_merged" / "config.json").is_file()
    for told in ("LoRA", "DoRA", "held-out loss after training", "LoRA answered"):
        assert told in done.stdout
    assert "QLoRA" not in done.stdout
