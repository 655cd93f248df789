"""What the notebooks add to the bare calls: `python benchmarks/bench_pipeline.py`.

Runs the six notebooks of the cpu profile into a fresh run folder, and once more with nothing
changed. Every program that the helpers start is counted and timed (helpers/programs/process.py),
and the memory of the notebook kernels is sampled meanwhile. Nothing else may run.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer

from helpers.ground import paths
from helpers.ground.files import write_json
from helpers.machine import hardware
from helpers.programs import process
from helpers.records.versions import recorded


def kernel_bytes(parent: psutil.Process) -> int:
    """Return the resident memory of the notebook kernel that runs now; 0 between two of them."""
    for child in parent.children(recursive=True):
        try:
            if "ipykernel_launcher" in child.cmdline():
                return int(child.memory_info().rss)
        except psutil.NoSuchProcess:
            continue
    return 0


def run(name: str, journal: Path) -> tuple[float, int, list[dict[str, Any]]]:
    """Run the notebooks; return wall seconds, the largest kernel in bytes, and the programs."""
    journal.write_text("")
    env = {k: v for k, v in os.environ.items() if not k.startswith("TUTORIAL_")}
    env |= {"TUTORIAL_PROFILE": "cpu", "TUTORIAL_RUN": name, process.JOURNAL: str(journal)}
    begin, largest = time.monotonic(), 0
    with subprocess.Popen(
        [sys.executable, "-m", "helpers", "run"], cwd=paths.ROOT, env=env
    ) as made:
        watched = psutil.Process(made.pid)
        while made.poll() is None:
            largest = max(largest, kernel_bytes(watched))
            time.sleep(1)
    if made.returncode:
        sys.exit(made.returncode)
    programs = [json.loads(line) for line in journal.read_text().splitlines()]
    return time.monotonic() - begin, largest, programs


def main(
    name: Annotated[str, typer.Option("--run", help="run folder, made anew")] = "bench",
) -> None:
    """Measure, print, and write benchmarks/results/pipeline.json."""
    shutil.rmtree(paths.RunFolder(name).root, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:
        journal = Path(folder) / "journal.jsonl"
        first, kernel, programs = run(name, journal)
        again, _, programs_again = run(name, journal)
    called = [p for p in programs if p["command"][0] == "llamafactory-cli"]
    own = [p for p in programs if p["command"][0] != "llamafactory-cli"]
    bare = sum(p["seconds"] for p in called)
    beside = sum(p["seconds"] for p in own)
    result = {
        "machine": hardware.describe().sentence(),
        "versions": recorded(),
        "first_run_seconds": round(first, 1),
        "llamafactory_cli_calls": len(called),
        "llamafactory_cli_seconds": round(bare, 1),
        # What llamafactory-cli has no command for: planning, KL, the dequantised merge, the doctor.
        "other_programs": Counter(" ".join(p["command"][1:3]) for p in own),
        "other_programs_seconds": round(beside, 1),
        # Kernels, papermill, and what the helpers do themselves.
        "pipeline_seconds": round(first - bare - beside, 1),
        "pipeline_share": round((first - bare - beside) / bare, 4),
        "second_run_seconds": round(again, 1),
        "second_run_share": round(again / first, 4),
        "second_run_programs": [" ".join(p["command"][:3]) for p in programs_again],
        "largest_kernel_mb": round(kernel / 1e6),
        "programs": programs,
    }
    write_json(paths.BENCHMARKS / "pipeline.json", result)
    print(json.dumps({k: v for k, v in result.items() if k != "programs"}, indent=1))


if __name__ == "__main__":
    typer.run(main)
