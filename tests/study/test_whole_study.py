"""A study for real: trainings and answers of a tiny model, killed in the middle, then done."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from helpers.ground import paths
from helpers.study import scheduling

pytestmark = pytest.mark.skipif(
    not scheduling.PYTHON.is_file(), reason="Ray is not here: 'make .venv-study/.ready' brings it"
)
SECONDS = 900  # that a loaded machine may take
COMMAND = [
    sys.executable, "-m", "helpers", "study", "--profile", "smoke", "--price", "2.88",
    "--models", "tiny-random-qwen2", "--methods", "lora qlora", "--seeds", "2",
]  # fmt: skip


def rows(file: Path) -> list[dict[str, Any]]:
    return json.loads(file.read_text())["rows"] if file.is_file() else []


def at_work(folder: Path) -> list[psutil.Process]:
    """Return the programs that were told of a folder."""
    seen = psutil.process_iter(["cmdline"])
    return [each for each in seen if str(folder) in " ".join(each.info["cmdline"] or ())]


def test_a_study_that_is_killed_goes_on_and_tells_what_it_came_to(tmp_path: Path) -> None:
    own = {name: value for name, value in os.environ.items() if not name.startswith("TUTORIAL_")}
    env = own | {"TUTORIAL_RUNS": str(tmp_path), "TUTORIAL_LANGUAGE": "en"}
    file = tmp_path / "study" / "study.json"
    with (tmp_path / "first.log").open("wb") as log:
        first = subprocess.Popen(
            COMMAND, env=env, cwd=paths.ROOT, stdout=log, stderr=subprocess.STDOUT
        )
        until = time.monotonic() + SECONDS
        while not any(row["state"] == "done" for row in rows(file)):
            assert first.poll() is None, (tmp_path / "first.log").read_text()
            assert time.monotonic() < until
            time.sleep(0.2)
        first.kill()
        first.wait()
    done = [row for row in rows(file) if row["state"] == "done"]
    assert 1 <= len(done) <= 3
    until = time.monotonic() + 120
    while left := at_work(tmp_path):  # no orphan trains on
        assert time.monotonic() < until, left
        time.sleep(0.2)

    again = subprocess.run(
        COMMAND, env=env, cwd=paths.ROOT, capture_output=True, text=True, timeout=SECONDS
    )
    assert again.returncode == 0, again.stdout[-3000:] + again.stderr[-3000:]
    study = json.loads(file.read_text())
    assert [row["state"] for row in study["rows"]] == ["done"] * 4
    assert [row for row in study["rows"] if row["trial"] in [d["trial"] for d in done]] == done
    lora, qlora = study["outcomes"]
    assert (lora["method"], qlora["method"], lora["seeds"]) == ("lora", "qlora", [42, 43])
    for each in (lora, qlora):
        assert all(0 <= share <= 1 for share in each["exact_match"])
        assert all(1 < loss < 10 for loss in each["held_out_loss"])
        for measured in each["measured_bytes"]:
            assert abs(measured / each["planned_bytes"] - 1) < 0.05
        assert each["cost"] == pytest.approx(sum(each["seconds"]) / 2 / 3600 * 2.88)
    assert lora["held_out_loss"][0] != lora["held_out_loss"][1]
    verdict = study["verdicts"]["tiny-random-qwen2"]
    assert verdict["seeds"] == 2
    assert list(verdict["judgements"]) == ["qlora"]
    assert (tmp_path / "study" / "figures" / "study.png").stat().st_size > 10_000
    assert "QLoRA" in again.stdout


def test_two_simulated_cards_take_a_trial_each(tmp_path: Path) -> None:
    host = pytest.importorskip("npu_host", reason="tests/npusim is not there")
    if reason := pytest.importorskip("npusim").available():
        pytest.skip(reason)
    runs = tmp_path / "runs"
    little = "max_samples=16 max_new_tokens=4 logging_steps=1 eval_steps=2"
    env = host.environment(tmp_path, cards=2) | {
        "TUTORIAL_RUNS": str(runs), "TUTORIAL_LANGUAGE": "en", "TUTORIAL_DATA": "generated",
        "TUTORIAL_OVERRIDES": little, "TUTORIAL_TRAIN": "32", "TUTORIAL_EVAL": "8",
    }  # fmt: skip
    command = [sys.executable, "-m", "helpers", "study", "--profile", "npu",
               "--models", "tiny-random-qwen2", "--methods", "lora qlora"]  # fmt: skip
    done = subprocess.run(
        command, env=env, cwd=paths.ROOT, capture_output=True, text=True, timeout=SECONDS
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    study = json.loads((runs / "study" / "study.json").read_text())
    assert study["workers"] == 2
    assert [row["state"] for row in study["rows"]] == ["done", "done"]
    assert {row["where"] for row in study["rows"]} == {"npu 0", "npu 1"}
    for row in study["rows"]:  # each on the one card that it sees, without torchrun
        log = runs / row["trial"]["run"] / "logs" / f"{row['trial']['method']}.log"
        assert "npu:0" in log.read_text("utf-8", "replace")
        assert "torchrun" not in log.read_text("utf-8", "replace")
