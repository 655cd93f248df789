"""Progress: told by a call's events while it runs."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from helpers.calls import live, progress
from helpers.machine.memory import MemoryTrace
from helpers.programs.detached import Pulse
from helpers.worker.events import Event

TRAINING: list[Event] = [
    {"event": "loaded", "at": 100.0},
    {"event": "train_begin", "at": 110.0, "step": 0, "total": 40},
    {"event": "step", "at": 113.0, "step": 1},
    {"event": "log", "at": 113.0, "step": 1, "loss": 2.5},
    {"event": "step", "at": 116.0, "step": 2},
    {"event": "step", "at": 120.0, "step": 3},
]
EVALUATING: list[Event] = [
    *TRAINING,
    {"event": "evaluating", "at": 120.0, "step": 3, "done": 0},
    {"event": "evaluating", "at": 121.0, "step": 3, "done": 2, "total": 32},
]
ANSWERING: list[Event] = [
    {"event": "loaded", "at": 100.0},
    {"event": "answering", "at": 100.0, "done": 0},
    {"event": "answering", "at": 120.0, "step": 0, "done": 2, "total": 5},
]


def write(file: Path, told: list[Event]) -> Path:
    file.write_text("".join(json.dumps(event) + "\n" for event in told))
    return file


def state(told: list[Event]) -> progress.State:
    found = progress.State()
    for event in told:
        found.take(event)
    return found


def test_phases_and_steps() -> None:
    found = [state(told) for told in ([], TRAINING, EVALUATING, ANSWERING[:2], ANSWERING)]
    assert [(s.phase, s.step, s.total, s.done, s.batches) for s in found] == [
        ("loading", 0, 0, 0, 0),
        ("training", 3, 40, 0, 0),
        ("evaluating", 3, 40, 2, 32),
        ("answering", 0, 0, 0, 0),
        ("answering", 0, 0, 2, 5),
    ]


def test_losses_are_kept_by_step() -> None:
    evaluated: Event = {"event": "evaluated", "at": 130.0, "step": 3, "loss": 1.5, "seconds": 10.0}
    found = state([*EVALUATING, evaluated])
    assert (found.losses, found.eval_losses) == ([(1, 2.5)], [(3, 1.5)])
    assert (found.phase, found.batches) == ("training", 0)


def test_the_line_has_step_loss_speed_time_and_memory() -> None:
    line = state(TRAINING).line(20.0, 8, 2_500_000_000)
    for part in ("training", "step 3/40", "loss 2.500", "2.4 samples/s", "123 s left", "2.50 GB"):
        assert part in line
    assert "step 3/40, batch 2/32" in state(EVALUATING).line(20.0, 8)
    assert "batch 2/5, 30 s left" in state(ANSWERING).line(20.0)


def test_evaluations_do_not_slow_the_speed_that_is_shown() -> None:
    told: list[Event] = [
        *EVALUATING,
        {"event": "evaluated", "at": 1120.0, "step": 3, "loss": 1.5, "seconds": 1000.0},
        {"event": "step", "at": 1123.0, "step": 4},
    ]
    assert "2.5 samples/s" in state(told).line(20.0, 8)  # 4 steps of 8 in 13 s


def test_a_training_that_goes_on_counts_its_speed_from_where_it_went_on() -> None:
    told: list[Event] = [
        *TRAINING,
        {"event": "loaded", "at": 900.0},
        {"event": "train_begin", "at": 910.0, "step": 3, "total": 40},
        {"event": "step", "at": 912.0, "step": 4},
    ]
    assert "4.0 samples/s, 72 s left" in state(told).line(20.0, 8)
    assert state(told).losses == [(1, 2.5)]


def test_nothing_there_yet(tmp_path: Path) -> None:
    follower = progress.Follower(tmp_path / "none")
    assert follower.look().phase == "loading"
    assert progress.Follower(None).look().phase == "working"


def test_what_is_half_written_is_read_once_it_is_whole(tmp_path: Path) -> None:
    file = write(tmp_path / "events", TRAINING[:3])
    follower = progress.Follower(file)
    assert follower.state.phase == "loading"  # all that was told before belongs to another part
    line = json.dumps(TRAINING[3]) + "\n"
    with file.open("a") as told:
        told.write(line[:20])
    assert follower.look().losses == []
    with file.open("a") as told:
        told.write(line[20:])
    assert follower.look().losses == [(1, 2.5)]
    assert follower.look().losses == [(1, 2.5)]


def test_headless_prints_plain_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TUTORIAL_HEADLESS", "1")
    shown = progress.Display(tmp_path / "events")
    write(tmp_path / "events", TRAINING)
    shown.tick()
    shown.tick()  # too soon for another line
    assert capsys.readouterr().out.count("training, step 3/40") == 1


def test_live_updates_one_display(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contents: list[str] = []

    class Handle:
        def update(self, content: object) -> None:
            contents.append(content.data)  # type: ignore[attr-defined]

    def display(content: object, display_id: bool) -> Handle:
        contents.append(content.data)  # type: ignore[attr-defined]
        return Handle()

    monkeypatch.setattr("IPython.display.display", display)
    monkeypatch.setattr(progress, "is_headless", lambda: False)
    shown = progress.Display(tmp_path / "events")
    write(tmp_path / "events", TRAINING)
    shown.tick()
    shown.close()
    assert len(contents) == 2
    assert all("step 3/40" in text and "data:image/png" in text for text in contents)


def test_an_evaluation_that_counts_to_the_same_total_is_not_the_training() -> None:
    same: Event = {"event": "evaluating", "at": 121.0, "step": 3, "done": 36, "total": 40}
    assert (state([*TRAINING, same]).phase, state([*TRAINING, same]).step) == ("evaluating", 3)


def test_what_is_shown_begins_with_where_and_when_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TUTORIAL_HEADLESS", "1")
    shown = progress.Display(tmp_path / "events", origin="Measured on this; run test, today.")
    shown.tick()
    shown.close()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Measured on this; run test, today."
    assert len(lines) == 3
    assert "<small>Measured &lt;here&gt;</small>" in live.Place("Measured <here>")._head


def test_whoever_joins_later_sees_the_whole_curve_and_where_the_part_is(tmp_path: Path) -> None:
    told: list[Event] = [
        *TRAINING,
        {"event": "loaded", "at": 900.0},
        {"event": "train_begin", "at": 910.0, "step": 3, "total": 40},
        {"event": "step", "at": 912.0, "step": 4},
    ]
    file = write(tmp_path / "events", told[:-2])
    follower = progress.Follower(file, since=890.0)
    assert (follower.state.phase, follower.state.looping) == ("loading", False)
    write(file, told)
    assert (follower.look().phase, follower.state.looping, follower.state.step) == (
        "training", True, 4,
    )  # fmt: skip
    assert follower.state.losses == [(1, 2.5)]
    assert "4.0 samples/s, 72 s left" in follower.state.line(20.0, 8)


def test_calls_that_others_watch_are_reported_and_show_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path / "events", [])
    memory = MemoryTrace(measure="resident", seconds=[1.0], bytes_used=[10**9])
    pulses: list[Pulse] = []
    with progress.reported(pulses.append):
        shown = progress.Display(file, 8, memory, "Measured here.")
        write(file, TRAINING)
        shown.tick()
    assert pulses == [Pulse(told=file, samples_a_step=8, memory_bytes=10**9, looping=True)]
    assert capsys.readouterr().out == ""


def test_a_kernel_is_watched_unless_it_is_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TUTORIAL_HEADLESS", raising=False)
    assert progress.is_headless()
    monkeypatch.setattr("IPython.get_ipython", lambda: SimpleNamespace(kernel=object()))
    assert not progress.is_headless()
    monkeypatch.setenv("TUTORIAL_HEADLESS", "1")
    assert progress.is_headless()
