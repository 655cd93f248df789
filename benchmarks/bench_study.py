"""What a study gains from two trials at a time: `python benchmarks/bench_study.py`, 10 minutes.

The smoke profile, two sizes of a random model, two methods, two seeds: eight trials, done once one
at a time and once two at a time, each time from nothing. Beside it stands what scheduling costs:
from one trial's end to the next one's beginning, and Ray's own start and end. Run
`make .venv-study/.ready` before, and nothing else meanwhile.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from helpers.ground import paths
from helpers.ground.files import write_json
from helpers.inputs import models
from helpers.machine import hardware
from helpers.records.versions import recorded

RESULT = paths.BENCHMARKS / "study.json"
SMALL = "tiny-random-qwen2"
WIDER = {"hidden_size": 256, "layers": 4, "intermediate_size": 512}
SEEDS = 2
METHODS = ("lora", "qlora")


def study(folder: Path, workers: int, wider: Path) -> dict[str, Any]:
    """Do the study into a folder of its own; return what it took, in seconds."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("TUTORIAL_")}
    begin = time.time()
    subprocess.run(
        [sys.executable, "-m", "helpers", "study", "--profile", "smoke", "--workers", str(workers),
         "--models", f"{SMALL} {wider}", "--methods", " ".join(METHODS), "--seeds", str(SEEDS)],
        cwd=paths.ROOT, env=env | {"TUTORIAL_RUNS": str(folder)}, check=True,
    )  # fmt: skip
    end = time.time()
    told = (folder / "study" / "logs" / "told.jsonl").read_text("utf-8").splitlines()
    events = [json.loads(line) for line in told]
    begun = [each["at"] for each in events if each["event"] == "running"]
    ended = [each["at"] for each in events if each["event"] == "ended"]
    rows = json.loads((folder / "study" / "study.json").read_text("utf-8"))["rows"]
    found = {
        "command_seconds": end - begin,
        "before_the_first_trial_seconds": begun[0] - begin,
        "after_the_last_trial_seconds": end - ended[-1],
        "trials_seconds": ended[-1] - begun[0],
        "a_trial_seconds": statistics.median(row["seconds"] for row in rows),
    }
    if workers == 1:
        between = [next_ - last for last, next_ in zip(ended[:-1], begun[1:], strict=True)]
        found["between_trials_seconds"] = statistics.median(between)
    print(workers, found, flush=True)
    return {key: round(value, 2) for key, value in found.items()}


def main() -> None:
    """Do both, and write benchmarks/results/study.json."""
    machine = hardware.describe()
    tiny = models.find(SMALL).tiny
    assert tiny is not None
    with tempfile.TemporaryDirectory() as place:
        wider = Path(place) / "wider"
        wider.mkdir()
        subprocess.run(
            [sys.executable, "-m", "helpers.inputs.tiny_model", json.dumps(tiny | WIDER), wider],
            cwd=paths.ROOT, check=True,
        )  # fmt: skip
        one, two = (study(Path(place) / f"runs{n}", n, wider) for n in (1, 2))
    write_json(RESULT, {
        "machine": machine.sentence(),
        "versions": recorded(),
        "trials": 2 * len(METHODS) * SEEDS,
        "one_at_a_time": one,
        "two_at_a_time": two,
        "times_faster": round(one["trials_seconds"] / two["trials_seconds"], 2),
    })  # fmt: skip


if __name__ == "__main__":
    main()
