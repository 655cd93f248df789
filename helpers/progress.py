"""What readers see while a training runs: one line and a growing curve, or plain lines in a log."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from helpers.memory import MemoryTrace

HEADLESS_SECONDS = 10.0
LIVE_SECONDS = 1.0
_BAR = re.compile(rb"(\d+)/(\d+) \[")
_TOTAL = re.compile(rb"Total optimization steps = (\d+)")
_PREDICTING = b"***** Running Prediction *****"
_EVALUATION = re.compile(rb"Running Evaluation.*?(?:'eval_loss'|eval metrics|\Z)", re.DOTALL)


@dataclass
class State:
    """Where a llamafactory-cli call is, as its log and its trainer_log.jsonl tell."""

    phase: str = "loading"
    step: int = 0
    total: int = 0
    losses: list[tuple[int, float]] = field(default_factory=list)
    eval_losses: list[tuple[int, float]] = field(default_factory=list)

    def line(self, elapsed: float, samples_a_step: int, training_since: float | None,
             memory: MemoryTrace | None, first_step: int = 0) -> str:  # fmt: skip
        """Return the state as one line; `elapsed` and `training_since` are in seconds.

        Speed counts from `first_step`, where the call was at `training_since`.
        """
        parts = [self.phase]
        if self.total:
            unit = "step" if self.phase != "answering" else "batch"
            parts.append(f"{unit} {self.step}/{self.total}")
        if self.losses:
            parts.append(f"loss {self.losses[-1][1]:.3f}")
        done = self.step - first_step
        if done > 0 and training_since is not None and elapsed > training_since:
            rate = done / (elapsed - training_since)
            if samples_a_step:
                parts.append(f"{rate * samples_a_step:.1f} samples/s")
            parts.append(f"{(self.total - self.step) / rate:.0f} s left")
        if memory and memory.bytes_used:
            parts.append(f"{memory.bytes_used[-1] / 1e9:.2f} GB")
        return f"{elapsed:5.0f} s  " + ", ".join(parts)


def read_trainer_log(file: Path) -> list[dict[str, float]]:
    """Return the lines of LLaMA-Factory's trainer_log.jsonl; a half-written last one is left."""
    rows = []
    try:
        lines = file.read_text("utf-8").splitlines()
    except OSError:
        return []
    for line in lines:
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


def read_state(log: Path, trainer_log: Path) -> State:
    """Return where a call is now.

    Args:
        log: what llamafactory-cli has printed so far.
        trainer_log: the trainer_log.jsonl of its output folder.
    """
    state = State()
    try:
        text = log.read_bytes()
    except OSError:
        return state
    predicting, total = text.rfind(_PREDICTING), _TOTAL.search(text)
    if predicting >= 0:
        state.phase = "answering"
        for done, of in _BAR.findall(text, predicting)[-1:]:
            state.step, state.total = int(done), int(of)
        return state
    if total is None:
        return state
    state.total = int(total[1])
    # Evaluations print bars as well, which may count to the same total.
    trained = text[total.end() :]
    evaluations = list(_EVALUATION.finditer(trained))
    state.phase = (
        "evaluating" if evaluations and evaluations[-1].end() == len(trained) else "training"
    )
    bars = _BAR.findall(_EVALUATION.sub(b"", trained))
    state.step = max((int(done) for done, of in bars if of == total[1]), default=0)
    for row in read_trainer_log(trainer_log):
        if "loss" in row:
            state.losses.append((int(row["current_steps"]), row["loss"]))
        if "eval_loss" in row:
            state.eval_losses.append((int(row["current_steps"]), row["eval_loss"]))
    return state


def is_headless() -> bool:
    """Return whether nobody watches: papermill, nbval or a script, not JupyterLab."""
    return bool(os.environ.get("TUTORIAL_HEADLESS")) or "ipykernel" not in sys.modules


class Display:
    """Shows a running call: call `tick` often, `close` at its end."""

    def __init__(self, log: Path, trainer_log: Path, samples_a_step: int = 0,
                 memory: MemoryTrace | None = None) -> None:  # fmt: skip
        self._log, self._trainer_log = log, trainer_log
        self._samples_a_step, self._memory = samples_a_step, memory
        self._begin = time.monotonic()
        self._training_since: float | None = None
        self._first_step = 0  # not 0 where a training is resumed, or was seen late
        self._shown_at = -1e9
        self._headless = is_headless()
        self._last_line = ""
        self._handle = None

    def tick(self) -> None:
        """Show the state, if it is time to."""
        now = time.monotonic()
        pause = HEADLESS_SECONDS if self._headless else LIVE_SECONDS
        if now - self._shown_at >= pause:
            self._shown_at = now
            self._show()

    def _show(self) -> None:
        state = read_state(self._log, self._trainer_log)
        elapsed = time.monotonic() - self._begin
        if self._training_since is None and state.phase != "loading":
            self._training_since, self._first_step = elapsed, state.step
        line = state.line(
            elapsed, self._samples_a_step, self._training_since, self._memory, self._first_step
        )
        if self._headless:
            print(line, flush=True)
        else:
            self._show_live(line, state)

    def _show_live(self, line: str, state: State) -> None:
        from IPython.display import HTML, display

        from helpers.figures import live_curve

        picture = live_curve(state.losses, state.eval_losses, state.total)
        content = HTML(f"<code>{line}</code><br>{picture}")
        if self._handle is None:
            self._handle = display(content, display_id=True)
        else:
            self._handle.update(content)

    def close(self) -> None:
        """Show the last state."""
        self._show()
