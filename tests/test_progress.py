"""Progress: read from llamafactory-cli's own log while it is being written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from helpers import progress
from helpers.memory import MemoryTrace

TRAINING = (
    "loading\n***** Running training *****\n  Total optimization steps = 40\n"
    "  0%| | 0/40 [00:00<?, ?it/s]\r  8%|# | 3/40 [00:09<01:50, 3.0s/it]"
)
EVALUATING = TRAINING + "\n***** Running Evaluation *****\n  0%| | 0/32 [\r 6%| | 2/32 ["
ANSWERING = "***** Running Prediction *****\n 0%| | 0/5 [\r 40%| | 2/5 [00:20<00:30]"


def state(folder: Path, text: str, rows: list[dict[str, float]] | None = None) -> progress.State:
    log, trainer_log = folder / "log", folder / "trainer_log.jsonl"
    log.write_text(text)
    trainer_log.write_text("".join(json.dumps(row) + "\n" for row in rows or []) + '{"half')
    return progress.read_state(log, trainer_log)


def test_phases_and_steps(tmp_path: Path) -> None:
    found = [state(tmp_path, text) for text in ("", TRAINING, EVALUATING, ANSWERING)]
    assert [(s.phase, s.step, s.total) for s in found] == [
        ("loading", 0, 0), ("training", 3, 40), ("evaluating", 3, 40), ("answering", 2, 5),
    ]  # fmt: skip


def test_losses_come_from_the_trainer_log_and_a_half_line_is_left(tmp_path: Path) -> None:
    rows = [{"current_steps": 1, "loss": 2.5}, {"current_steps": 2, "eval_loss": 1.5}]
    found = state(tmp_path, TRAINING, rows)
    assert (found.losses, found.eval_losses) == ([(1, 2.5)], [(2, 1.5)])


def test_the_line_has_step_loss_speed_time_and_memory(tmp_path: Path) -> None:
    found = state(tmp_path, TRAINING, [{"current_steps": 1, "loss": 2.5}])
    memory = MemoryTrace(measure="memory", seconds=[1.0], bytes_used=[2_500_000_000])
    line = found.line(20.0, 8, 10.0, memory)
    for part in ("training", "step 3/40", "loss 2.500", "2.4 samples/s", "123 s left", "2.50 GB"):
        assert part in line


def test_nothing_there_yet(tmp_path: Path) -> None:
    assert progress.read_state(tmp_path / "no", tmp_path / "no2").phase == "loading"


def test_headless_prints_plain_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TUTORIAL_HEADLESS", "1")
    (tmp_path / "log").write_text(TRAINING)
    shown = progress.Display(tmp_path / "log", tmp_path / "none")
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
    (tmp_path / "log").write_text(TRAINING)
    (tmp_path / "rows").write_text('{"current_steps": 1, "loss": 2.5}\n')
    shown = progress.Display(tmp_path / "log", tmp_path / "rows")
    shown.tick()
    shown.close()
    assert len(contents) == 2
    assert all("step 3/40" in text and "data:image/png" in text for text in contents)


def test_an_evaluation_that_counts_to_the_same_total_is_not_the_training(tmp_path: Path) -> None:
    same = TRAINING + "\n***** Running Evaluation *****\n  0%| | 0/40 [\r 90%| | 36/40 ["
    found = state(tmp_path, same)
    assert (found.phase, found.step) == ("evaluating", 3)
    found = state(tmp_path, same + "{'eval_loss': '0.4'}\n 10%| | 4/40 [00:30<02:00]")
    assert (found.phase, found.step) == ("training", 4)
