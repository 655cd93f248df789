"""Re-using finished steps: nothing twice, and nothing stale."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from helpers.ground import paths
from helpers.ground.errors import TutorialError
from helpers.ground.paths import RunFolder
from helpers.programs import steps


class Counter:
    """A step that writes a file and counts how often it was done."""

    def __init__(self, run: RunFolder) -> None:
        self.run, self.file, self.times, self.said = run, run.root / "out" / "result.txt", 0, ""

    def do(self, **inputs: object) -> bool:
        def action() -> None:
            self.times += 1
            self.file.parent.mkdir(parents=True, exist_ok=True)
            self.file.write_text("result")

        lines: list[str] = []
        outputs = [self.file.parent]
        done = steps.done_once(self.run, "step", inputs, outputs, action, lines.append)
        self.said = " ".join(lines)
        return done.reused


@pytest.fixture
def step(runs: Path) -> Counter:
    return Counter(RunFolder("test"))


def test_a_finished_step_is_used_again_and_says_so(step: Counter) -> None:
    assert not step.do(rate=1)
    assert step.do(rate=1)
    assert step.times == 1
    assert "Re-using step" in step.said


def test_a_changed_setting_does_it_again_and_names_it(step: Counter) -> None:
    step.do(recipe={"rate": 1, "rank": 8})
    assert not step.do(recipe={"rate": 2, "rank": 8})
    assert "recipe.rate changed" in step.said


@pytest.mark.parametrize(
    ("before", "after"),
    [({}, {"rate": None}), ({"recipe": {}}, {}), ({"recipe": {}}, {"recipe": 0})],
)
def test_a_setting_that_comes_or_goes_counts_whatever_its_value(
    step: Counter, before: dict[str, object], after: dict[str, object]
) -> None:
    step.do(**before)
    assert step.do(**before)
    assert not step.do(**after)
    assert f"{next(iter(after | before))} changed" in step.said


def test_what_changed_is_named_up_to_three(step: Counter) -> None:
    step.do()
    step.do(a=1, b=2, c=3, d=4)
    assert "a, b, c, ... changed" in step.said


def test_an_altered_or_missing_output_does_it_again(step: Counter) -> None:
    step.do()
    step.file.write_text("altered")
    assert not step.do()
    assert "out/result.txt is missing or was altered" in step.said
    step.file.unlink()
    assert not step.do()
    assert step.times == 3


def test_a_copied_output_counts_by_its_content(step: Counter) -> None:
    step.do()
    os.utime(step.file, (1, 1))
    assert step.do()


def test_a_step_that_fails_is_not_done(step: Counter) -> None:
    step.do(rate=1)

    def fail() -> None:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        steps.done_once(step.run, "step", {"rate": 2}, [step.file], fail, lambda line: None)
    assert not step.do(rate=1)


def test_a_damaged_marker_counts_as_none(step: Counter) -> None:
    step.do()
    (step.run.steps / "step.json").write_text("{")
    assert not step.do()


HOLD = """
import sys, time
from helpers.programs import steps
from helpers.ground.paths import RunFolder
def hold():
    print("in", flush=True)
    time.sleep(60)
steps.done_once(RunFolder("test"), "step", {}, [], hold)
"""


@pytest.fixture
def another(runs: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process, in the middle of a step in the same run folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD], stdout=subprocess.PIPE, text=True, cwd=paths.ROOT,
        env=os.environ | {"TUTORIAL_RUNS": str(runs)},
    )  # fmt: skip
    assert process.stdout
    assert process.stdout.readline() == "in\n"
    yield process
    process.kill()
    process.wait()


def test_two_in_one_folder_the_second_says_so(
    another: subprocess.Popen[str], step: Counter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "LOCK_SECONDS", 0.2)
    with pytest.raises(TutorialError, match="Another notebook or run is working"):
        step.do()
    assert step.times == 0


def test_a_killed_one_lets_go_at_once(another: subprocess.Popen[str], step: Counter) -> None:
    another.kill()
    assert not step.do()
    assert step.times == 1


def test_what_is_finished_can_be_used_while_another_works(
    step: Counter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "LOCK_SECONDS", 0.2)
    step.do()
    with FileLock(step.run.root / ".step.lock"):
        assert step.do()
        with pytest.raises(TutorialError, match="Another notebook or run"):
            step.do(rate=2)


def test_a_step_within_a_step_is_let_in(step: Counter) -> None:
    inner: list[bool] = []
    steps.done_once(step.run, "outer", {}, [], lambda: inner.append(step.do()))
    assert inner == [False]
    assert step.times == 1


def test_the_runners_own_lock_does_not_block_its_steps(step: Counter) -> None:
    step.run.root.mkdir(parents=True)
    with FileLock(step.run.root / ".lock"):
        assert not step.do()
