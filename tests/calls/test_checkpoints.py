"""Going on with an interrupted training: which checkpoint is taken, and what is counted."""

from __future__ import annotations

import json
import os
import shutil
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from helpers.calls import checkpoints
from helpers.machine.memory import MemoryTrace
from helpers.worker import events

INPUTS = {"recipe": {"learning_rate": 1e-4}, "model": "1"}


def checkpoint(folder: Path, step: int) -> Path:
    """Write a checkpoint as transformers 5.6.0 does: the same files, in the same order."""
    made = folder / f"checkpoint-{step}"
    made.mkdir(parents=True)
    save_file({"lora_A": np.arange(512, dtype=np.float32)}, made / "adapter_model.safetensors")
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        with zipfile.ZipFile(made / name, "w") as archive:
            archive.writestr("data/0", bytes(range(256)) * 8)
    (made / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    return made


def gone(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)


def attempt(
    folder: Path, inputs: dict[str, Any], say: Callable[[str], None]
) -> checkpoints.Attempt:
    return checkpoints.Attempt(folder, inputs, gone, say)


def test_a_whole_checkpoint_is_taken_and_the_newest(tmp_path: Path) -> None:
    assert checkpoints.last_whole(tmp_path) is None
    for step in (90, 100, 9):
        checkpoint(tmp_path, step)
    assert checkpoints.last_whole(tmp_path) == tmp_path / "checkpoint-100"


FILES = ("adapter_model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth",
         "trainer_state.json")  # fmt: skip


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kept", [None, 0, 0.5, 0.99])
def test_a_half_written_checkpoint_is_not_taken(
    tmp_path: Path, name: str, kept: float | None
) -> None:
    whole = checkpoint(tmp_path, 4)
    file = checkpoint(tmp_path, 8) / name
    if kept is None:
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[: int(kept * file.stat().st_size)])
    assert checkpoints.last_whole(tmp_path) == whole


def test_a_checkpoint_of_cards_that_share_the_model_is_whole_with_both_states(
    tmp_path: Path,
) -> None:
    made = checkpoint(tmp_path, 8)
    (made / "optimizer.pt").rename(made / "optimizer.bin")
    assert checkpoints.last_whole(tmp_path) is None
    state = made / "pytorch_model_fsdp.bin"
    state.write_bytes((made / "optimizer.bin").read_bytes())
    assert checkpoints.last_whole(tmp_path) == made
    state.write_bytes(state.read_bytes()[:-40])
    assert checkpoints.last_whole(tmp_path) is None


def test_altered_bytes_in_the_optimizers_state_are_noticed(tmp_path: Path) -> None:
    file = checkpoint(tmp_path, 8) / "optimizer.pt"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    assert checkpoints.last_whole(tmp_path) is None


def test_a_checkpoint_under_another_name_is_not_taken(tmp_path: Path) -> None:
    checkpoint(tmp_path, 8).rename(tmp_path / "checkpoint-80")
    assert checkpoints.last_whole(tmp_path) is None


def tell(folder: Path, begun: float, first: int, last: int) -> None:
    """Append what a part tells that trained from one step to another, five seconds each."""
    told: list[events.Event] = [
        {"event": "loaded", "at": begun - 20},
        {"event": "train_begin", "at": begun, "step": first, "total": 12},
    ]
    for done in range(1, last - first + 1):
        at, step = begun + 5 * done, first + done
        told.append({"event": "step", "at": at - 1, "step": step})
        told.append({"event": "log", "at": at, "step": step, "loss": 9.0 - step})
    with (folder / events.FILE).open("a") as file:
        file.writelines(json.dumps(event) + "\n" for event in told)


def interrupted(folder: Path, said: list[str]) -> None:
    """Leave what a training killed after step 9 leaves: it began 100 s ago, and saved 40 s ago."""
    first = attempt(folder, INPUTS, said.append)
    checkpoint(folder, 8)
    (checkpoint(folder, 10) / "trainer_state.json").unlink()  # it was being written
    saved = time.time() - 40
    os.utime(folder / "checkpoint-8" / "trainer_state.json", (saved, saved))
    tell(folder, begun=1000.0, first=0, last=9)
    trace = MemoryTrace(measure="resident", seconds=[30.0, 90.0], bytes_used=[300, 900])
    parts = first.parts.model_copy(update={"began": time.time() - 100, "memory": trace})
    (folder / "parts.json").write_text(parts.model_dump_json())


def test_the_same_inputs_go_on(tmp_path: Path) -> None:
    said: list[str] = []
    folder = tmp_path / "lora"
    interrupted(folder, said)
    assert said == []
    made = attempt(folder, INPUTS, said.append)
    assert said == ["Going on with the interrupted training lora from step 8."]
    assert made.arguments == [
        f"resume_from_checkpoint={folder / 'checkpoint-8'}", "overwrite_output_dir=false",
    ]  # fmt: skip
    assert not (folder / "checkpoint-10").exists()
    # What the first part did after its checkpoint is lost, and is not counted.
    told = events.read(folder / events.FILE)
    assert [event["step"] for event in told if event["event"] == "log"] == list(range(1, 9))
    assert made.parts.resumed_at == [8]
    assert made.parts.train_seconds == 40
    assert made.parts.seconds == pytest.approx(60, abs=2)


def test_a_part_that_saved_nothing_counts_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "lora"
    interrupted(folder, [])
    once = attempt(folder, INPUTS, lambda line: None).parts
    twice = attempt(folder, INPUTS, lambda line: None).parts
    assert (twice.seconds, twice.train_seconds) == (once.seconds, once.train_seconds)
    assert twice.resumed_at == [8, 8]


def test_the_loops_of_all_parts_count_up_to_their_checkpoints(tmp_path: Path) -> None:
    folder = tmp_path / "lora"
    interrupted(folder, [])
    attempt(folder, INPUTS, lambda line: None)
    tell(folder, begun=5000.0, first=8, last=11)
    checkpoint(folder, 10)
    third = attempt(folder, INPUTS, lambda line: None).parts
    assert third.resumed_at == [8, 10]
    assert third.train_seconds == 40 + 10  # 8 steps, then 2 of the 3


def test_other_inputs_start_anew(tmp_path: Path) -> None:
    folder = tmp_path / "lora"
    interrupted(folder, [])
    made = attempt(folder, INPUTS | {"model": "2"}, pytest.fail)
    assert made.arguments == []
    assert [file.name for file in folder.iterdir()] == ["parts.json"]


@pytest.mark.parametrize("content", [None, "", '{"inputs": "'])
def test_a_lost_or_damaged_note_starts_anew(tmp_path: Path, content: str | None) -> None:
    folder = tmp_path / "lora"
    interrupted(folder, [])
    note = folder / "parts.json"
    note.unlink() if content is None else note.write_text(content)
    assert attempt(folder, INPUTS, pytest.fail).checkpoint is None


def test_nothing_whole_starts_anew(tmp_path: Path) -> None:
    folder = tmp_path / "lora"
    interrupted(folder, [])
    shutil.rmtree(folder / "checkpoint-8")
    assert attempt(folder, INPUTS, pytest.fail).parts.resumed_at == []


def test_memory_of_all_parts_is_one_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "lora"
    interrupted(folder, [])
    made = attempt(folder, INPUTS, lambda line: None)
    second = MemoryTrace(measure="resident", seconds=[10.0], bytes_used=[500])
    both = checkpoints.joined(made.parts.memory, second, made.parts.seconds)
    assert both.bytes_used == [300, 500]  # the sample at 90 s was of work that was lost
    assert both.seconds == [30.0, pytest.approx(70, abs=2)]
    made.keep(second)  # too soon
    assert "500" not in (folder / "parts.json").read_text()
    monkeypatch.setattr(checkpoints, "KEEP_SECONDS", 0)
    made.keep(second)
    assert "500" in (folder / "parts.json").read_text()


def test_samples_of_something_else_are_not_joined() -> None:
    first = MemoryTrace(measure="npu_smi", seconds=[1.0], bytes_used=[1])
    second = MemoryTrace(measure="resident", seconds=[1.0], bytes_used=[2])
    assert checkpoints.joined(first, second, 10) == second
    assert checkpoints.joined(None, second, 0) == second
