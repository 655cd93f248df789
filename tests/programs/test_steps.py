"""Re-using finished steps: nothing twice, and nothing stale."""

from __future__ import annotations

import errno
import json
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
from helpers.programs.making import Making


class Counter:
    """A step that writes a file and counts how often it was done."""

    def __init__(self, run: RunFolder) -> None:
        self.run, self.file, self.times, self.said = run, run.root / "out" / "result.txt", 0, ""

    def do(self, **inputs: object) -> bool:
        def action(making: Making) -> None:
            self.times += 1
            folder = making.place(self.file.parent)
            folder.mkdir()
            (folder / self.file.name).write_text("result")

        lines: list[str] = []
        output = self.file.parent
        done = steps.done_once(self.run, "step", inputs, output, action, lines.append)
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


def test_equal_outputs_change_places_as_others_do(step: Counter) -> None:
    """Else the marker would name other times than its files have: all would be hashed each time."""
    step.do(rate=1)
    before = step.file.stat()
    assert not step.do(rate=2)
    assert step.file.stat().st_ino != before.st_ino
    kept = json.loads((step.run.steps / "step.json").read_text())["outputs"]["out/result.txt"]
    assert kept["modified_ns"] == step.file.stat().st_mtime_ns


def test_a_step_that_leaves_nothing_is_one_sentence(step: Counter) -> None:
    for action in (lambda making: None, lambda making: making.place(step.file.parent).mkdir()):
        with pytest.raises(TutorialError, match=r"step ended without .*/out: look into its log"):
            steps.done_once(step.run, "step", {}, step.file.parent, action, pytest.fail)


def test_a_copied_output_counts_by_its_content(step: Counter) -> None:
    step.do()
    os.utime(step.file, (1, 1))
    assert step.do()


def test_a_step_that_fails_is_not_done(step: Counter) -> None:
    def fail(making: Making) -> None:
        making.place(step.file.parent).mkdir()
        raise RuntimeError

    with pytest.raises(RuntimeError):
        steps.done_once(step.run, "step", {"rate": 1}, step.file.parent, fail, pytest.fail)
    assert not step.file.parent.exists()
    assert not step.do(rate=1)


def test_what_a_failed_successor_would_have_replaced_stays_in_use(step: Counter) -> None:
    step.do(rate=1)
    said: list[str] = []

    def fail(making: Making) -> None:
        folder = making.place(step.file.parent)
        folder.mkdir()
        (folder / step.file.name).write_text("half")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        steps.done_once(step.run, "step", {"rate": 2}, step.file.parent, fail, said.append)
    assert said[0] == "Doing step again: rate changed."
    assert said[1].startswith("step was not done: what there is of it, from ")
    assert len(said) == 2
    assert step.file.read_text() == "result"
    assert not list(step.run.making.iterdir())
    assert step.do(rate=1)
    assert step.times == 1


def test_checkpoints_are_no_outputs_once_a_step_is_done(step: Counter) -> None:
    """As a marker of the last release has them: listed, and gone since."""
    step.do()
    marker = step.run.steps / "step.json"
    kept = json.loads(marker.read_text())
    kept["outputs"]["out/checkpoint-8/optimizer.pt"] = kept["outputs"]["out/result.txt"]
    del kept["output"], kept["beside"]
    marker.write_text(json.dumps(kept))
    assert step.do()
    kept["outputs"]["out/else/optimizer.pt"] = kept["outputs"]["out/result.txt"]
    marker.write_text(json.dumps(kept))
    assert not step.do()
    assert "out/else/optimizer.pt is missing" in step.said


@pytest.mark.parametrize(("before", "after"), [("8.5", None), (None, "8.5")])
def test_a_version_that_is_not_known_is_no_change(
    step: Counter, before: str | None, after: str | None
) -> None:
    step.do(versions={"CANN": before, "torch": "2"})
    assert step.do(versions={"CANN": after, "torch": "2"})
    assert not step.do(versions={"CANN": after, "torch": None, "numpy": "1"})
    assert "versions.numpy changed" in step.said


def test_an_output_in_another_place_than_its_marker_says_is_made_again(step: Counter) -> None:
    step.do()
    step.file = step.run.root / "elsewhere" / "result.txt"
    assert not step.do()
    assert "elsewhere is missing" in step.said


def test_what_decided_a_steps_outputs_can_be_asked_while_they_are_whole(step: Counter) -> None:
    assert steps.inputs_of(step.run, "step") is None
    step.do(rate=1)
    assert steps.inputs_of(step.run, "step") == {"rate": 1}
    step.file.unlink()
    assert steps.inputs_of(step.run, "step") is None


def test_a_damaged_marker_counts_as_none(step: Counter) -> None:
    step.do()
    (step.run.steps / "step.json").write_text("{")
    assert not step.do()


HOLD = """
import sys, time
from helpers.programs import steps
from helpers.ground.paths import RunFolder
def hold(making):
    print("in", flush=True)
    time.sleep(60)
run = RunFolder("test")
steps.done_once(run, "step", {}, run.root / "held", hold)
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


@pytest.mark.parametrize("how", ["folder", "user"])
def test_a_lock_that_cannot_be_one_is_one_sentence(
    step: Counter, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    lock = step.run.root / ".step.lock"
    lock.parent.mkdir(parents=True)
    if how == "folder":
        lock.mkdir()
        with pytest.raises(TutorialError, match=r"\.step\.lock cannot be written: something else"):
            step.do()
    else:  # as after one `sudo make run`
        lock.touch()
        opened = os.open

        def refused(path: str | Path, *arguments: int, **more: int) -> int:
            if Path(path) == lock:
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return opened(path, *arguments, **more)

        monkeypatch.setattr(os, "open", refused)
        monkeypatch.setattr(os, "geteuid", lambda: 12345)
        with pytest.raises(TutorialError, match=r"\.step\.lock belongs to .*sudo chown -R"):
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


def test_whether_it_would_be_re_used_is_known_beforehand(step: Counter) -> None:
    final = step.run.root / "asked.txt"

    def action(making: Making) -> None:
        making.place(final).write_text("made")

    assert not steps.is_done(step.run, "asked", {"rate": 1}, final)
    steps.done_once(step.run, "asked", {"rate": 1}, final, action)
    assert steps.is_done(step.run, "asked", {"rate": 1}, final)
    assert not steps.is_done(step.run, "asked", {"rate": 2}, final)
    final.write_text("altered")
    assert not steps.is_done(step.run, "asked", {"rate": 1}, final)


def test_a_step_within_a_step_is_let_in(step: Counter) -> None:
    inner: list[bool] = []

    def outer(making: Making) -> None:
        inner.append(step.do())
        making.place(step.run.root / "outer.txt").write_text("")

    steps.done_once(step.run, "outer", {}, step.run.root / "outer.txt", outer)
    assert inner == [False]
    assert step.times == 1


def test_the_runners_own_lock_does_not_block_its_steps(step: Counter) -> None:
    step.run.root.mkdir(parents=True)
    with FileLock(step.run.root / ".lock"):
        assert not step.do()
