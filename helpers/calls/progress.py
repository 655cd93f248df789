"""What readers see while a call runs: one line and a growing curve, or plain lines in a log.

Where the call is, it tells itself, by events (helpers/worker/events.py).
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from helpers.ground.words import phrases, tr
from helpers.machine.memory import MemoryTrace
from helpers.programs.detached import Pulse
from helpers.worker import events

if TYPE_CHECKING:
    from helpers.calls.live import Place

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
    looping: bool = False  # among its optimizer steps and the evaluations between them
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
                self.total, self.looping = event["total"], True
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
            case "train_end":
                self.looping = False
            case "answering":
                self.phase, self.done = "answering", event["done"]
                self.batches = event.get("total", 0)
                self.seconds = event["at"] - self.since

    def interrupted(self) -> None:
        """Go back to the start of another part, which knows what was told of the one before."""
        if self.phase != "working":
            self.phase = "loading"
        self.looping, self.seconds = False, 0.0

    def _rate(self) -> tuple[float, int]:
        """Return steps or batches a second, and how many are left; (0, 0) where nobody knows."""
        answering = self.phase == "answering"
        done = self.done if answering else self.step - self.first_step
        left = self.batches - self.done if answering else self.total - self.step
        return (done / self.seconds, left) if done > 0 and self.seconds > 0 else (0.0, 0)

    def line(self, elapsed: float, samples_a_step: int = 0, memory_bytes: int | None = None) -> str:
        """Return the state as one line.

        Args:
            elapsed: since the call began, in seconds.
            samples_a_step: training examples of an optimizer step; 0 shows no speed.
            memory_bytes: what the call takes now.
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
        if memory_bytes:
            parts.append(f"{memory_bytes / 1e9:.2f} GB")
        return tr("{seconds} s", seconds=f"{elapsed:5.0f}") + "  " + phrases(parts)


class Follower:
    """Reads a file of events while it is being written.

    Args:
        file: the file; None where the call tells nothing.
        since: when the call began, in seconds since 1970; what was told before that was told before
            an interruption. None: all that is there already was.
    """

    def __init__(self, file: Path | None, since: float | None = None) -> None:
        self._file, self._since = file, since
        self._read = 0  # bytes, up to the end of the last whole line
        self.state = State(phase="loading" if file else "working")
        self.look()
        if since is None:
            self.state.interrupted()

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
            if self._since is not None and event["at"] < self._since:
                self.state.interrupted()
        return self.state


def is_headless() -> bool:
    """Return whether nobody watches: papermill, nbval or a script, not JupyterLab."""
    if os.environ.get("TUTORIAL_HEADLESS"):
        return True
    ipython = sys.modules.get("IPython")
    return getattr(ipython and ipython.get_ipython(), "kernel", None) is None


_reported: ContextVar[Callable[[Pulse], None] | None] = ContextVar("_reported", default=None)


@contextmanager
def reported(report: Callable[[Pulse], None]) -> Iterator[None]:
    """Have what calls in the block would show go to others, who watch from elsewhere.

    Args:
        report: takes where the call is, once a second.
    """
    token = _reported.set(report)
    try:
        yield
    finally:
        _reported.reset(token)


class Display:
    """Shows a running call: call `tick` often, `close` at its end.

    Args:
        told: the file of its events; None where it tells none.
        samples_a_step: training examples of an optimizer step.
        memory: takes the samples of the call's memory.
        origin: on which machine, in which run and when: a page can show what another machine did.
    """

    def __init__(
        self,
        told: Path | None,
        samples_a_step: int = 0,
        memory: MemoryTrace | None = None,
        origin: str = "",
    ) -> None:
        self._told, self._follower = told, Follower(told)
        self._samples_a_step, self._memory, self._origin = samples_a_step, memory, origin
        self._begin = time.monotonic()
        self._shown_at = -1e9
        self._report = _reported.get()
        self._screen: Screen | None = None
        self._headless = self._report is None and is_headless()

    def tick(self) -> None:
        """Show the state, if it is time to."""
        now = time.monotonic()
        pause = HEADLESS_SECONDS if self._headless else LIVE_SECONDS
        if now - self._shown_at >= pause:
            self._shown_at = now
            self._show()

    def _show(self) -> None:
        state = self._follower.look()
        memory = self._memory.bytes_used[-1] if self._memory and self._memory.bytes_used else None
        if self._report:
            self._report(
                Pulse(
                    told=self._told,
                    samples_a_step=self._samples_a_step,
                    memory_bytes=memory,
                    looping=state.looping,
                )
            )
            return
        if self._screen is None:
            self._screen = Screen(self._origin, self._headless)
        elapsed = time.monotonic() - self._begin
        self._screen.show(state.line(elapsed, self._samples_a_step, memory), state)

    def close(self) -> None:
        """Show the last state."""
        self._show()


class Screen:
    """Where a call is seen: one place in a notebook's page, or line after line in a log.

    Args:
        origin: the line above it; "" for none.
        headless: nobody watches.
    """

    def __init__(self, origin: str, headless: bool = False) -> None:
        self._origin, self._headless = origin, headless
        self._place: Place | None = None
        if headless and origin:
            print(origin, flush=True)

    def show(self, line: str, state: State) -> None:
        """Show the state, with its one line."""
        if self._headless:
            print(line, flush=True)
            return
        from helpers.calls import live

        if self._place is None:
            self._place = live.Place(self._origin)
        self._place.show(line, state.losses, state.eval_losses, state.total)
