"""A notebook's training goes on without the notebook, and any number of cells can watch it."""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import forget_settings
from holding import Held
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

from helpers.calls import attached, progress, running, training
from helpers.ground import paths
from helpers.ground.errors import TutorialError
from helpers.ground.files import sha256_json
from helpers.inputs import settings
from helpers.programs import detached
from helpers.programs.detached import Job, Pulse, Result, Status
from helpers.worker import events

INPUTS = {"recipe": "one"}


@pytest.fixture
def job(smoke: settings.Settings, monkeypatch: pytest.MonkeyPatch) -> Job:
    """A training that is this very process, as far as one can tell from what is kept of it."""
    import psutil

    made = Job(smoke.run, "lora")
    smoke.run.running.mkdir(parents=True)
    made.log.write_text("")
    created = psutil.Process().create_time()
    made.write(
        Status(pid=os.getpid(), created=created, inputs=sha256_json(INPUTS), began=time.time())
    )
    monkeypatch.setattr(attached, "PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(detached, "started", lambda *arguments: made.status())
    monkeypatch.setattr(detached.Job, "interrupt", lambda self: self.ask_to_stop())
    return made


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The lines that are shown in place."""
    lines: list[str] = []
    monkeypatch.setattr(progress.Screen, "show", lambda self, line, state: lines.append(line))
    return lines


def ends(job: Job, result: Result, **pulse: Any) -> None:
    status = job.status()
    assert status
    job.write(status.model_copy(update={"result": result, "pulse": Pulse(**pulse)}))


def watch(smoke: settings.Settings) -> list[str]:
    said: list[str] = []
    attached.train("lora", smoke, INPUTS, said.append)
    return said


def test_what_the_training_says_and_where_it_is_are_shown(
    smoke: settings.Settings, job: Job, shown: list[str]
) -> None:
    told = smoke.run.adapter("lora") / events.FILE
    told.parent.mkdir()
    at = time.time()
    rows = [{"event": "train_begin", "at": at - 99, "step": 0, "total": 40},
            {"event": "log", "at": at - 98, "step": 1, "loss": 2.5},
            {"event": "train_begin", "at": at + 1, "step": 1, "total": 40},
            {"event": "step", "at": at + 3, "step": 2}]  # fmt: skip
    told.write_text("".join(json.dumps(row) + "\n" for row in rows))
    job.log.write_text("Going on\nhalf a li")
    ends(job, Result(outcome="done"), samples_a_step=4, memory_bytes=10**9)
    assert watch(smoke) == ["Going on"]
    assert "training, step 2/40, loss 2.500, 2.0 samples/s, 76 s left, 1.00 GB" in shown[-1]


def test_a_failure_there_is_the_same_sentence_here(
    smoke: settings.Settings, job: Job, tmp_path: Path
) -> None:
    ends(job, Result(outcome="failed", message="No.", log=tmp_path, tail="last", fault="disk full"))
    with pytest.raises(TutorialError, match=r"^No\.") as caught:
        watch(smoke)
    assert (caught.value.log, caught.value.tail, caught.value.fault) == (
        tmp_path, "last", "disk full",
    )  # fmt: skip


def test_one_that_was_stopped_says_how_it_goes_on(smoke: settings.Settings, job: Job) -> None:
    ends(job, Result(outcome="stopped"))
    with pytest.raises(TutorialError, match=r"was stopped: run this cell again"):
        attached._Watch(job, smoke.run.root / "none", print).until_it_ends()


def test_one_that_was_killed_says_how_it_goes_on(smoke: settings.Settings, job: Job) -> None:
    status = job.status()
    assert status
    job.write(status.model_copy(update={"created": 1.0}))
    with pytest.raises(TutorialError, match="ended from outside: run this cell again"):
        attached._Watch(job, smoke.run.root / "none", print).until_it_ends()


def test_a_training_with_other_settings_is_never_shown_as_this_one(
    smoke: settings.Settings, job: Job
) -> None:
    with pytest.raises(TutorialError, match=r"with other settings .*'make stop RUN=test'"):
        attached.train("lora", smoke, {"recipe": "another"})


def interrupted(monkeypatch: pytest.MonkeyPatch, job: Job, times: int) -> list[float]:
    """Press the stop button so often while the cell looks; return when it was asked to stop."""
    asked: list[float] = []
    look = attached._Watch._look
    begin = time.monotonic()

    def press(self: attached._Watch) -> bool:
        nonlocal times
        if times:
            times -= 1
            raise KeyboardInterrupt
        if job.is_to_stop() and not asked:
            asked.append(time.monotonic() - begin)
            ends(job, Result(outcome="stopped"))
        return look(self)

    monkeypatch.setattr(attached._Watch, "_look", press)
    return asked


def test_the_stop_button_waits_whether_it_is_the_kernel_that_ends(
    smoke: settings.Settings, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attached, "GRACE_SECONDS", 0.3)
    asked = interrupted(monkeypatch, job, times=1)
    said: list[str] = []
    with pytest.raises(TutorialError, match="was stopped"):
        attached.train("lora", smoke, INPUTS, said.append)
    assert asked[0] >= 0.3
    assert said[0].startswith("Stopping: the training leaves a checkpoint")


def test_pressed_twice_it_ends_at_once(
    smoke: settings.Settings, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = interrupted(monkeypatch, job, times=2)
    with pytest.raises(TutorialError, match="was stopped"):
        watch(smoke)
    assert asked[0] < attached.GRACE_SECONDS


def test_what_nobody_watches_stays_a_child(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not attached.wanted()


@pytest.mark.parametrize(
    ("error", "asked", "outcome", "words"),
    [
        (None, False, "done", ""),
        (TutorialError("No data.", fault="disk full"), False, "failed", "No data."),
        (TutorialError("llamafactory-cli train failed"), True, "stopped", ""),
        (KeyboardInterrupt(), False, "stopped", ""),
        (ValueError("unforeseen"), False, "failed", "unforeseen"),
    ],
)
def test_however_it_ends_is_kept_for_who_watches(
    smoke: settings.Settings, job: Job, monkeypatch: pytest.MonkeyPatch,
    error: BaseException | None, asked: bool, outcome: str, words: str,
) -> None:  # fmt: skip
    def train(*arguments: object) -> None:
        if asked:
            job.ask_to_stop()
        if error:
            raise error

    monkeypatch.setattr(training, "train", train)
    found = attached._result(job, "lora", smoke, lambda pulse: None)
    assert found.outcome == outcome
    assert words in found.message
    if isinstance(error, ValueError):
        assert found.log
        assert "Traceback" in found.log.read_text("utf-8")


# ---- a real kernel, a real training --------------------------------------------------------------

BEGIN = """
from here import Tutorial
t = Tutorial("smoke", run="test")
t.obtain()
t.prepare()
lora = t.method("lora")
"""
TRAIN = """
training = lora.train()
print("facts:", training.facts.resumed_at, len(training.facts.loss))
"""


class Page:
    """A notebook's page with its kernel, which can run a cell and be watched meanwhile."""

    def __init__(self, runs: Path, env: dict[str, str]) -> None:
        env = os.environ | env | {"TUTORIAL_RUNS": str(runs)}
        env.pop("TUTORIAL_HEADLESS", None)
        self.manager = KernelManager(kernel_name="python3")
        self.manager.start_kernel(cwd=str(paths.NOTEBOOKS), env=env)
        self.client = self._connected()
        self.seen = ""

    def _connected(self) -> BlockingKernelClient:
        client: BlockingKernelClient = self.manager.client()
        client.start_channels()
        client.wait_for_ready(timeout=300)
        return client

    def _take(self, message: dict[str, Any]) -> None:
        content = message["content"]
        self.seen += content.get("text", "") + "\n".join(content.get("traceback", []))
        self.seen += content.get("data", {}).get("text/html", "")

    def run(self, code: str) -> threading.Thread:
        """Run a cell; the thread that is returned ends with it."""
        self.seen = ""
        thread = threading.Thread(
            target=self.client.execute_interactive,
            args=(code,), kwargs={"output_hook": self._take, "timeout": 900}, daemon=True,
        )  # fmt: skip
        thread.start()
        return thread

    def restart(self) -> None:
        """Start the kernel anew, as JupyterLab does."""
        self.client.stop_channels()
        self.manager.restart_kernel(now=False)
        self.client = self._connected()

    def steps(self) -> set[str]:
        return set(re.findall(r"step (\d+)/12", self.seen))

    def close(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


@pytest.fixture
def held(tmp_path: Path) -> Held:
    """Trainings that stand still at two steps."""
    return Held(tmp_path / "held", (3, 9))


@pytest.fixture
def pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: Held) -> Iterator[list[Page]]:
    """Two pages open on one run."""
    forget_settings(monkeypatch)
    monkeypatch.setattr(paths, "RUNS", tmp_path / "runs")
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "1")
    opened = [Page(tmp_path / "runs", held.env) for _ in range(2)]
    yield opened
    for page in opened:
        page.close()
    Job(paths.RunFolder("test"), "lora").interrupt()


def wait_for(what: Callable[[], object], seconds: float = 600) -> bool:
    end = time.monotonic() + seconds
    while not what() and time.monotonic() < end:
        time.sleep(0.05)
    return bool(what())


def test_a_training_outlives_its_kernel_and_is_stopped_with_a_checkpoint(
    pages: list[Page], held: Held
) -> None:
    first = pages[0]
    run = paths.RunFolder("test")
    job = Job(run, "lora")
    first.run(BEGIN).join()
    # Restarted while it trains, the kernel takes nothing with it.
    first.run(TRAIN)
    assert wait_for(lambda: "loading" in first.seen), first.seen
    begun = job.running()
    first.restart()
    assert begun
    assert (found := job.running()), job.status()
    assert found.pid == begun.pid
    assert not job.is_to_stop()
    # The cell attaches again, and so does another page's.
    for page in pages:
        page.run(BEGIN).join()
    cells = [page.run(TRAIN) for page in pages]
    assert wait_for(lambda: all("3" in page.steps() for page in pages)), first.seen[-2000:]
    held.let_go_on("lora", 3)
    assert wait_for(lambda: all("9" in page.steps() for page in pages)), first.seen[-2000:]
    assert all("data:image/png" in page.seen and "run test" in page.seen for page in pages)
    assert "training lora" in running.overview().plain()
    # The stop button leaves a checkpoint, and both see it.
    first.manager.interrupt_kernel()
    for cell in cells:
        cell.join()
    assert all("The training was stopped: run this cell again" in page.seen for page in pages)
    assert job.running() is None
    [checkpoint] = run.making.glob("lora/lora/checkpoint-*")
    stopped = int(checkpoint.name.rpartition("-")[2])
    # Run again, it goes on from there.
    first.run(TRAIN).join()
    assert f"Going on with the interrupted training lora from step {stopped}." in first.seen
    assert f"facts: [{stopped}] 12" in first.seen
    trained = training.Training.model_validate_json((run.root / "lora/training.json").read_bytes())
    assert trained.optimizer_steps == 12
    assert "step 12/12" in first.seen
