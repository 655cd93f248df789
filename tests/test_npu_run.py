"""All six notebooks with PROFILE=npu, on the simulated NPU: every branch that asks for an NPU runs.

Nothing here is an Ascend measurement: the device is host memory and the CPU's kernels.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.ground import paths
from helpers.inputs import methods, subjects
from helpers.machine import npu_smi
from helpers.records import store
from helpers.records.schema import Record, Training
from helpers.results import comparison as compare

npusim = pytest.importorskip("npusim", reason="tests/npusim is not there")
npu_host = pytest.importorskip("npu_host", reason="tests/npusim is not there")
REASON = npusim.available()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))

RUN = paths.RunFolder("test-npu")
METHODS = ("lora", "qlora")
# The work is cut down, and nothing else: 2,000 problems would take an hour here.
OVERRIDES = "max_samples=64 max_new_tokens=8 logging_steps=1 eval_steps=2 learning_rate=1.0e-2"
# Answering two problems takes 17.3 MB of the device, LoRA 23.3, QLoRA 14.3 [npusim's own count].
LITTLE_WORK = "max_samples=2 max_new_tokens=1 logging_steps=1"
LITTLE_MEMORY_MB = "20"
# Many thin layers: quantising one weight takes temporaries of a hundred times its size.
WIDE = {"hidden_size": 256, "layers": 16, "heads": 4, "kv_heads": 2, "intermediate_size": 256,
        "vocab_size": 1024}  # fmt: skip


def record_of(method: str) -> Record:
    return store.read(RUN, subjects.of(methods.named(METHODS))[method])


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a host that has what the doctor asks for: npu-smi, CANN and an NPU."""
    return npu_host.environment(tmp_path_factory.mktemp("host"))


def python(*arguments: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        env=env, cwd=paths.ROOT, capture_output=True, text=True, timeout=900,
    )  # fmt: skip


@pytest.fixture(scope="module")
def finished(host: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run the six notebooks."""
    shutil.rmtree(RUN.root, ignore_errors=True)
    command = ["-m", "helpers", "run", "--profile", "npu", "--run", RUN.name]
    command += ["--model", "tiny-random-qwen2", "--data", "generated"]
    return python(*command, env=host | {"TUTORIAL_OVERRIDES": OVERRIDES})


def test_the_six_notebooks_run(finished: subprocess.CompletedProcess[str]) -> None:
    assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-3000:]
    comparison = compare.read(RUN.comparison)
    assert comparison.device == "npu"
    assert comparison.accuracy["lora"].n == 64


def test_the_trainings_were_on_the_device(finished: subprocess.CompletedProcess[str]) -> None:
    for method in ("lora", "qlora"):
        assert "npu:0" in (RUN.logs / f"{method}.log").read_text("utf-8", "replace")


def test_the_records_say_what_the_first_real_run_has_to(
    finished: subprocess.CompletedProcess[str],
) -> None:
    shown = npu_smi.parse(npu_host.NPU_SMI)
    assert shown.cards[0].hbm_used_mb
    for method in METHODS:
        record = record_of(method)
        assert record.versions["CANN"] == "9.1.0"
        assert record.versions["npu-smi"] == shown.version
        assert record.versions["torch-npu"] == "2.10.0.post2+sim"
        assert record.hardware.accelerators == [f"Ascend {card.name}" for card in shown.cards]
        assert record.training
        memory = record.training.memory
        assert memory.measure == "npu_smi"
        assert set(memory.bytes_used) == {shown.cards[0].hbm_used_mb * npu_smi.MEGABYTE}
        assert len(memory.seconds) == len(memory.bytes_used) > 2
        # torch.npu's own peaks, of all steps and evaluations
        peaks = record.training.peaks
        assert peaks.training
        assert peaks.evaluation
        assert peaks.loading
        assert peaks.training_longest
        assert peaks.evaluation_longest


def test_the_articles_recipe_ran_as_it_stands(
    finished: subprocess.CompletedProcess[str],
) -> None:
    used = record_of("qlora").recipes["train"]
    assert (used["per_device_train_batch_size"], used["gradient_accumulation_steps"]) == (2, 8)
    assert (used["cutoff_len"], used["bf16"], used["quantization_bit"]) == (2048, True, 4)
    assert "use_cpu" not in used


def test_in_little_memory_the_reader_is_told_and_qlora_fits(
    host: dict[str, str], tmp_path: Path
) -> None:
    """LoRA by `make run`, which it ends; then QLoRA in the same run, as notebook 4 starts it."""
    model = tmp_path / "wide"
    made = python(
        "-m", "helpers.inputs.tiny_model", json.dumps(WIDE), str(model), env=dict(os.environ)
    )
    assert made.returncode == 0, made.stderr
    run = tmp_path / "runs" / "little"
    env = host | {
        "NPUSIM_MEMORY_MB": LITTLE_MEMORY_MB,
        "TUTORIAL_RUNS": str(run.parent),
        "TUTORIAL_OVERRIDES": LITTLE_WORK,
        "TUTORIAL_PROFILE": "npu",
        "TUTORIAL_MODEL": str(model),
        "TUTORIAL_DATA": "generated",
        "TUTORIAL_RUN": run.name,
    }
    lora = python("-m", "helpers", "run", env=env)
    assert lora.returncode == 1
    said = lora.stderr.strip().splitlines()
    assert said[0].startswith("03_lora: The NPU ran out of memory: lower per_device_train_batch")
    assert "train with a quantised base model, as QLoRA does" in said[0]
    assert said[-1].endswith("lora.log")
    assert "NPU out of memory. Tried to allocate" in (run / "logs" / "lora.log").read_text()
    notebook = json.loads((run / "notebooks" / "03_lora.ipynb").read_text())
    (shown,) = (
        output["traceback"]
        for cell in notebook["cells"]
        for output in cell.get("outputs", [])
        if output["output_type"] == "error"
    )
    assert shown[0].startswith("The NPU ran out of memory")
    # Beside the tail of the log, which is the failed program's own words, no traceback of ours.
    assert "helpers/" not in lora.stdout + lora.stderr + "".join(shown)
    assert (run / "steps" / "base_answers.json").is_file()
    assert not (run / "steps" / "lora.json").exists()

    code = "from helpers import Tutorial; Tutorial().train('qlora')"
    qlora = python("-c", code, env=env)
    assert qlora.returncode == 0, qlora.stdout + qlora.stderr
    trained = Training.model_validate_json((run / "qlora" / "training.json").read_text())
    assert trained.optimizer_steps == 1
    assert trained.peaks.training
    assert trained.peaks.training < int(LITTLE_MEMORY_MB) << 20


@pytest.fixture(scope="module")
def prepared(host: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make data` brings: the run folder, for a tiny model and generated problems."""
    runs = tmp_path_factory.mktemp("article")
    command = ["-m", "helpers", "data", "--profile", "npu", "--run", "article"]
    command += ["--model", "tiny-random-qwen2", "--data", "generated"]
    done = python(*command, env=host | {"TUTORIAL_RUNS": str(runs)})
    assert done.returncode == 0, done.stderr
    return runs / "article"


@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_the_shipped_recipe_runs_by_the_command_in_its_header(
    method: str, host: dict[str, str], prepared: Path
) -> None:
    """As the file stands: only where things lie is another place, and the work is cut down."""
    file = f"configs/{method}.yaml"
    assert f"llamafactory-cli train {file} num_train_epochs=" in (paths.ROOT / file).read_text()
    output = prepared / method
    done = subprocess.run(
        [
            Path(sys.executable).with_name("llamafactory-cli"), "train", file,
            f"model_name_or_path={paths.MODELS / 'tiny-random-qwen2'}",
            f"dataset_dir={prepared / 'data'}", f"output_dir={output}",
            f"swanlab_logdir={prepared / 'swanlab'}", "max_samples=16",
        ],
        env=host, cwd=paths.ROOT, text=True, timeout=300,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
    assert "device: npu:0" in done.stdout
    assert ("4 bit with bitsandbytes" in done.stdout) == (method == "qlora")
    assert json.loads((output / "trainer_state.json").read_text())["global_step"] == 1
    assert (output / "adapter_model.safetensors").stat().st_size > 50_000
