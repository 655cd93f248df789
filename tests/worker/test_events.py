"""Events: what is read of a file, and what they come to."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from helpers.worker import events
from helpers.worker.events import Event

PARTS: list[Event] = [
    {"event": "loaded", "at": 0.0},
    {"event": "train_begin", "at": 10.0, "step": 0, "total": 6},
    {"event": "step", "at": 12.0, "step": 1},
    {"event": "step", "at": 14.0, "step": 2},
    {"event": "evaluated", "at": 17.0, "step": 2, "loss": 1.0, "seconds": 3.0},
    {"event": "step", "at": 19.0, "step": 3},
    {"event": "train_end", "at": 19.5, "step": 3},
    {"event": "digest", "at": 20.0},
]


def test_a_half_line_is_left(tmp_path: Path) -> None:
    file = tmp_path / "events"
    file.write_text("".join(json.dumps(event) + "\n" for event in PARTS) + '{"event": "st')
    assert events.read(file) == PARTS
    assert events.read(tmp_path / "none") == []


def test_an_interrupted_training_is_cut_at_its_checkpoint() -> None:
    assert events.until(PARTS, 2) == PARTS[:5]
    # Interrupted in its last evaluation, with its last step saved, it does that once more.
    assert events.until(PARTS, 3) == PARTS[:6]
    assert events.until(PARTS, 0) == PARTS[:2]


def test_loops_are_added_up_without_what_lies_between_them() -> None:
    second: list[Event] = [
        {"event": "loaded", "at": 100.0},
        {"event": "train_begin", "at": 130.0, "step": 2, "total": 6},
        {"event": "step", "at": 131.5, "step": 3},
    ]
    assert events.loop_seconds(PARTS[:5]) == 7.0
    assert events.loop_seconds([*PARTS[:5], *second]) == 8.5
    assert events.loop_seconds([*PARTS[:5], *second[:2]]) == 7.0
    assert events.loop_seconds(PARTS) == 9.0
    assert events.loop_seconds([]) == 0.0


def test_reading_them_takes_no_package() -> None:
    code = (
        "import sys; from helpers.worker import events; "
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'pydantic')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
