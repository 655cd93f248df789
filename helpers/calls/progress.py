"""What readers see while a call runs: one line and a growing curve, or plain lines in a log.

Where the call is, it tells itself, by events (helpers/worker/events.py).
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any, Literal

from helpers.ground.words import tr
from helpers.machine.memory import MemoryTrace
from helpers.worker import events

HEADLESS_SECONDS = 10.0
LIVE_SECONDS = 1.0

Phase = Literal["working", "loading", "training", "evaluating", "answering"]


def _named(phase: Phase) -> str:
    names = {
        "working": tr("working"),
        "loading": tr("loading"),
        "training": tr("training"),
        "evaluating": tr("evaluating"),
        "answering": tr("answering"),
    }
    return names[phase]


@dataclass
class State:
    """Where a call is, as its events tell."""

    phase: Phase = "loading"
    step: int = 0
    total: int = 0  # optimizer steps
    done: int = 0
    batches: int = 0  # of the evaluation or the prediction that is going on
    losses: list[tuple[int, float]] = field(default_factory=list)
    eval_losses: list[tuple[int, float]] = field(default_factory=list)
    first_step: int = 0  # not 0 where a training went on
    since: float = 0.0  # when the training or the prediction began, in seconds since 1970
    seconds: float = 0.0  # that the training loop has taken since, without its evaluations
    evaluated: float = 0.0  # seconds

    def take(self, event: events.Event) -> None:
        """Go on to where an event says the call is."""
        match event["event"]:
            case "loaded":
                self.phase, self.since = "loading", event["at"]
            case "train_begin":
                self.phase, self.since = "training", event["at"]
                self.step = self.first_step = event["step"]
                self.total = event["total"]
                self.seconds = self.evaluated = 0.0
            case "step":
                self.phase, self.step = "training", event["step"]
                self.seconds = event["at"] - self.since - self.evaluated
            case "log":
                self.losses.append((event["step"], event["loss"]))
            case "evaluating":
                self.phase, self.done = "evaluating", event["done"]
                self.batches = event.get("total", 0)
            case "evaluated":
                self.phase, self.done, self.batches = "training", 0, 0
                self.evaluated += event["seconds"]
                self.eval_losses.append((event["step"], event["loss"]))
            case "answering":
                self.phase, self.done = "answering", event["done"]
                self.batches = event.get("total", 0)
                self.seconds = event["at"] - self.since

    def _rate(self) -> tuple[float, int]:
        """Return steps or batches a second, and how many are left; (0, 0) where nobody knows."""
        answering = self.phase == "answering"
        done = self.done if answering else self.step - self.first_step
        left = self.batches - self.done if answering else self.total - self.step
        return (done / self.seconds, left) if done > 0 and self.seconds > 0 else (0.0, 0)

    def line(
        self, elapsed: float, samples_a_step: int = 0, memory: MemoryTrace | None = None
    ) -> str:
        """Return the state as one line.

        Args:
            elapsed: since the call began, in seconds.
            samples_a_step: training examples of an optimizer step; 0 shows no speed.
            memory: the samples so far.
        """
        parts = [_named(self.phase)]
        if self.total:
            parts.append(tr("step {step}/{total}", step=self.step, total=self.total))
        if self.batches:
            parts.append(tr("batch {done}/{total}", done=self.done, total=self.batches))
        if self.losses:
            parts.append(tr("loss {loss}", loss=f"{self.losses[-1][1]:.3f}"))
        rate, left = self._rate()
        if rate:
            if samples_a_step and self.phase != "answering":
                parts.append(tr("{speed} samples/s", speed=f"{rate * samples_a_step:.1f}"))
            parts.append(tr("{seconds} s left", seconds=f"{left / rate:.0f}"))
        if memory and memory.bytes_used:
            parts.append(f"{memory.bytes_used[-1] / 1e9:.2f} GB")
        return f"{elapsed:5.0f} s  " + ", ".join(parts)


class Follower:
    """Reads a file of events while it is being written."""

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._read = 0  # bytes, up to the end of the last whole line
        self.state = State()
        self.look()  # what was told before an interruption
        self.state.phase = "loading" if file else "working"
        self.state.seconds = 0.0

    def look(self) -> State:
        """Take what has been told since the last look, and return where the call is."""
        if self._file is None:
            return self.state
        try:
            with self._file.open("rb") as file:
                file.seek(self._read)
                new = file.read()
        except OSError:
            return self.state
        whole = new[: new.rfind(b"\n") + 1]
        self._read += len(whole)
        for event in events.parse(whole.decode("utf-8").splitlines()):
            self.state.take(event)
        return self.state


def is_headless() -> bool:
    """Return whether nobody watches: papermill, nbval or a script, not JupyterLab."""
    return bool(os.environ.get("TUTORIAL_HEADLESS")) or "ipykernel" not in sys.modules


class Display:
    """Shows a running call: call `tick` often, `close` at its end.

    Args:
        told: the file of its events; None where it tells none.
        samples_a_step: training examples of an optimizer step.
        memory: takes the samples of the call's memory.
    """

    def __init__(
        self, told: Path | None, samples_a_step: int = 0, memory: MemoryTrace | None = None
    ) -> None:
        self._follower = Follower(told)
        self._samples_a_step, self._memory = samples_a_step, memory
        self._begin = time.monotonic()
        self._shown_at = -1e9
        self._headless = is_headless()
        self._handle: Any = None

    def tick(self) -> None:
        """Show the state, if it is time to."""
        now = time.monotonic()
        pause = HEADLESS_SECONDS if self._headless else LIVE_SECONDS
        if now - self._shown_at >= pause:
            self._shown_at = now
            self._show()

    def _show(self) -> None:
        state = self._follower.look()
        elapsed = time.monotonic() - self._begin
        line = state.line(elapsed, self._samples_a_step, self._memory)
        if self._headless:
            print(line, flush=True)
        else:
            self._show_live(line, state)

    def _show_live(self, line: str, state: State) -> None:
        from IPython.display import HTML, display

        from helpers.calls import live

        picture = live.curve(state.losses, state.eval_losses, state.total) if state.total else ""
        content = HTML(f"<code>{escape(line)}</code><br>{picture}")
        if self._handle is None:
            self._handle = display(content, display_id=True)
        else:
            self._handle.update(content)

    def close(self) -> None:
        """Show the last state."""
        self._show()
