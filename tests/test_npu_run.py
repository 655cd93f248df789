"""All six notebooks with PROFILE=npu, on the simulated NPU: every branch that asks for an NPU runs.

Nothing here is an Ascend measurement: the device is host memory and the CPU's kernels.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import compare, paths, records

npusim = pytest.importorskip("npusim", reason="tests/npusim is not there")
REASON = npusim.available()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))

RUN = paths.RunFolder("test-npu")
NPU_SMI = Path(__file__).parent / "fixtures" / "npu_smi" / "910b3_24.1_idle.txt"
# The work is cut down, and nothing else: 2,000 problems would take an hour here.
OVERRIDES = "max_samples=128 max_new_tokens=8 logging_steps=1 eval_steps=1 learning_rate=1.0e-2"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    """Run the notebooks on a host that has what the doctor asks for: npu-smi and CANN."""
    shutil.rmtree(RUN.root, ignore_errors=True)
    host = tmp_path_factory.mktemp("host")
    tool = host / "npu-smi"
    tool.write_text(f"#!/bin/sh\ncat '{NPU_SMI}'\n")
    tool.chmod(0o755)
    (host / "cann").mkdir()
    (host / "cann" / "version.cfg").write_text("toolkit_running_version=[9.1.0:9.1.0]\n")
    clean = {k: v for k, v in os.environ.items() if not k.startswith("TUTORIAL_")}
    env = npusim.environment(
        PATH=f"{host}:{os.environ['PATH']}",
        ASCEND_HOME_PATH=str(host / "cann"),
        TUTORIAL_OVERRIDES=OVERRIDES,
        JUPYTER_PREFER_ENV_PATH="1",
    )
    command = [sys.executable, "-m", "helpers", "run", "--profile", "npu", "--run", RUN.name]
    return subprocess.run(
        [*command, "--model", "tiny-random-qwen2", "--data", "generated"],
        env=env | {k: v for k, v in clean.items() if k not in env},
        cwd=paths.ROOT, capture_output=True, text=True, timeout=900,
    )  # fmt: skip


def test_the_six_notebooks_run(finished: subprocess.CompletedProcess[str]) -> None:
    assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-3000:]
    comparison = compare.read(RUN.comparison)
    assert comparison.device == "npu"
    assert comparison.accuracy["lora"].n == 128


def test_the_trainings_were_on_the_device(finished: subprocess.CompletedProcess[str]) -> None:
    for method in ("lora", "qlora"):
        assert "npu:0" in (RUN.logs / f"{method}.log").read_text("utf-8", "replace")
        trained = records.read(RUN, method).training
        assert trained is not None
        # torch.npu's own peak, through LLaMA-Factory's RECORD_VRAM
        assert trained.memory.allocator_peak_bytes is not None
        assert trained.memory.measure == "HBM in use on the NPU (npu-smi)"
        assert trained.memory.peak_bytes > 0


def test_the_articles_recipe_ran_as_it_stands(
    finished: subprocess.CompletedProcess[str],
) -> None:
    used = records.read(RUN, "qlora").recipes["train"]
    assert (used["per_device_train_batch_size"], used["gradient_accumulation_steps"]) == (2, 8)
    assert (used["cutoff_len"], used["bf16"], used["quantization_bit"]) == (2048, True, 4)
    assert "use_cpu" not in used
