"""Re-using finished steps: nothing twice, and nothing stale."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from helpers import steps
from helpers.paths import RunFolder


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
