"""Killed in the middle, a training goes on and ends as one that was left alone: real trainings."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from family import asked, listening

from helpers.records.schema import Answers, Training
from helpers.worker import events

WORK = """
import sys
from helpers.calls import prediction, training
from helpers.inputs import data, models, settings
chosen = settings.resolve("smoke", run=sys.argv[1])
models.obtain(chosen.model, chosen.run.logs / "model.log")
data.prepare(chosen)
for step in sys.argv[2:]:
    subject = step.removesuffix("_answers")
    (prediction.answer if step != subject else training.train)(subject, chosen)
"""


def listening_beyond_this_machine(processes: list[psutil.Process]) -> list[str]:
    """Return the addresses on which any of the processes takes connections from elsewhere."""
    return [host for host, _ in listening(processes) if host not in ("127.0.0.1", "::1")]


def test_what_listens_beyond_this_machine_is_seen() -> None:
    myself = [psutil.Process()]
    with socket.create_server(("127.0.0.1", 0)):
        assert listening_beyond_this_machine(myself) == []
    with socket.create_server(("0.0.0.0", 0)):
        assert listening_beyond_this_machine(myself) == ["0.0.0.0"]


class Run:
    """A run folder whose steps are done by processes of their own."""

    def __init__(self, folder: Path, name: str) -> None:
        self.root, self.name = folder / name, name
        self.env = os.environ | {
            "TUTORIAL_RUNS": str(folder), "TUTORIAL_HEADLESS": "1", "TUTORIAL_OVERRIDES": "",
        }  # fmt: skip

    def start(self, *steps: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", WORK, self.name, *steps],
            env=self.env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def do(self, *steps: str) -> str:
        started = self.start(*steps)
        said, _ = started.communicate(timeout=600)
        assert started.returncode == 0, said
        return said

    def do_until(self, saved: Path, whom: str, *steps: str) -> str:
        """Do steps, but SIGKILL the worker or the trainer as soon as `saved` is there."""
        started = self.start(*steps)
        worker = psutil.Process(started.pid)
        while not saved.is_file():
            assert started.poll() is None
            time.sleep(0.02)
        family = worker.children(recursive=True)
        assert listening_beyond_this_machine([worker, *family]) == []
        commands = asked(family, psutil.Process.cmdline)
        trainer = next(who for who, words in commands if words[1].endswith("factory-cli"))
        (worker if whom == "worker" else trainer).kill()
        said, _ = started.communicate(timeout=60)
        _, alive = psutil.wait_procs(family, timeout=10)
        assert not [member for member in alive if member.status() != psutil.STATUS_ZOMBIE]
        return said

    def training(self, method: str) -> Training:
        return Training.model_validate_json((self.root / method / "training.json").read_text())

    def answers(self, subject: str) -> Answers:
        file = self.root / "answers" / subject / "answers.json"
        return Answers.model_validate_json(file.read_text())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("resume")


@pytest.fixture(scope="module")
def alone(folder: Path) -> Run:
    """A run that nobody disturbed."""
    run = Run(folder, "alone")
    run.do("lora", "lora_answers", "qlora")
    return run


@pytest.fixture(scope="module")
def killed(folder: Path) -> tuple[Run, dict[str, str]]:
    """A run that was killed in both trainings, and what it said."""
    run = Run(folder, "killed")
    saved = "checkpoint-8/trainer_state.json"
    lora, qlora = (run.root / "making" / method / method for method in ("lora", "qlora"))
    said = {"worker": run.do_until(lora / saved, "worker", "lora")}
    said["lora"] = run.do("lora", "lora_answers")
    said["trainer"] = run.do_until(qlora / saved, "trainer", "qlora")
    # It was killed while it wrote the next one, let us say.
    half = qlora / "checkpoint-10"
    half.mkdir()
    shutil.copy2(qlora / "checkpoint-8" / "adapter_model.safetensors", half)
    said["qlora"] = run.do("qlora")
    return run, said


@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_a_killed_training_ends_as_one_left_alone(
    alone: Run, killed: tuple[Run, dict[str, str]], method: str
) -> None:
    run, said = killed
    assert f"Going on with the interrupted training {method} from step 8." in said[method]
    left_alone, resumed = alone.training(method), run.training(method)
    assert resumed.loss == left_alone.loss
    assert len(resumed.loss) == 12
    assert resumed.eval_loss == left_alone.eval_loss
    assert resumed.final_eval_loss == left_alone.final_eval_loss
    assert resumed.adapter_sha256 == left_alone.adapter_sha256
    assert (resumed.resumed_at, left_alone.resumed_at) == ([8], [])
    assert resumed.frozen_weights == left_alone.frozen_weights
    # Each optimizer step and each evaluation is told once, whatever was interrupted.
    told = events.read(run.root / method / events.FILE)
    assert [e["step"] for e in told if e["event"] == "step"] == list(range(1, 13))
    assert [e["step"] for e in told if e["event"] == "evaluated"] == [4, 8, 12]


@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_time_and_memory_cover_both_parts(killed: tuple[Run, dict[str, str]], method: str) -> None:
    run, _ = killed
    resumed = run.training(method)
    last = json.loads((run.root / method / "all_results.json").read_text())
    # The second part did 4 of 12 steps; loading, the rest of its call, takes seconds.
    assert resumed.evaluation_seconds < resumed.train_seconds
    assert resumed.train_seconds >= last["train_runtime"]
    assert resumed.call_seconds > resumed.train_seconds + 5
    trace = resumed.memory
    assert trace.seconds == sorted(trace.seconds)
    assert trace.seconds[-1] <= resumed.call_seconds


def test_a_killed_trainer_is_one_sentence_and_a_killed_worker_says_nothing_more(
    killed: tuple[Run, dict[str, str]],
) -> None:
    _, said = killed
    assert "llamafactory-cli train was killed from outside" in said["trainer"]
    assert "TutorialError" not in said["worker"]


def test_what_was_finished_is_used_again(killed: tuple[Run, dict[str, str]]) -> None:
    run, said = killed
    assert "Re-using data from" in said["lora"]
    again = run.do("lora", "lora_answers", "qlora")
    assert again.count("Re-using") == 5


def test_the_figures_of_two_runs_are_the_same(
    alone: Run, killed: tuple[Run, dict[str, str]]
) -> None:
    """Accuracy and every answer, in two fresh folders; memory as the allocator counts it."""
    run, _ = killed
    assert run.answers("lora").items == alone.answers("lora").items
    assert run.answers("lora").correct == alone.answers("lora").correct
    for method in ("lora", "qlora"):
        first, second = alone.training(method), run.training(method)
        assert first.peaks.training
        assert second.peaks.training == pytest.approx(first.peaks.training, rel=0.01)
