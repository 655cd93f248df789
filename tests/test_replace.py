"""Replace, never empty: whatever fails or is killed, what was finished is still there and in use.

Steps are done, failed, killed at each change that they make on the disk, and robbed of outputs, in
random order; a model says what must be there afterwards.
"""

from __future__ import annotations

import ast
import errno
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from helpers.ground import paths
from helpers.ground.paths import RunFolder
from helpers.programs import making as making_module
from helpers.programs import steps
from helpers.programs.making import Making, discard

STEPS = ("lora", "answers", "divergence")  # a training that goes on, a folder, a file
PARTS = ("weights.bin", "facts.json", "deep/log.txt")


class Killed(BaseException):
    """The process ends here."""


class Mortal:
    """Ends the process at the nth change on the disk. What is dead changes nothing any more."""

    def __init__(self, die: Callable[[], None] | None = None) -> None:
        self.left: int | None = None
        self.dead = False
        self.die = die

    def tick(self) -> None:
        if self.left is not None and not self.dead:
            self.dead = self.left == 0
            self.left -= 1
        if self.dead:
            if self.die:
                self.die()
            raise Killed

    def around(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def change(*arguments: Any, **more: Any) -> Any:
            self.tick()
            result = real(*arguments, **more)
            self.tick()
            return result

        return change

    @contextmanager
    def patched(self, exchanges: bool = True) -> Iterator[None]:
        """Let each change on the disk count; without `exchanges` no file system knows them."""
        remove = shutil.rmtree

        def rmtree(folder: Path, **more: Any) -> None:
            self.tick()
            for child in sorted(Path(folder).iterdir() if Path(folder).is_dir() else []):
                if child.is_dir():
                    remove(child)
                    self.tick()
            remove(folder, **more)
            self.tick()

        exchange = making_module.exchange if exchanges else lambda *_: False
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "fsync", lambda handle: None)  # takes time, and nothing can be seen
            patch.setattr(shutil, "rmtree", rmtree)
            patch.setattr(making_module, "exchange", self.around(exchange))
            for name in ("replace", "rename", "mkdir"):
                patch.setattr(Path, name, self.around(getattr(Path, name)))
            yield


class Steps:
    """A run folder and the steps that are done in it; each output says from which value it is."""

    def __init__(self, run: RunFolder, mortal: Mortal) -> None:
        self.run, self.mortal = run, mortal
        self.times, self.said = 0, [""]

    def final(self, step: str) -> Path:
        return {
            "lora": self.run.adapter("lora"),
            "answers": self.run.answers("lora"),
            "divergence": self.run.divergence,
        }[step]

    def do(self, step: str, value: int, fails: bool = False) -> bool:
        """Do a step; return whether it was re-used."""

        def action(making: Making) -> None:
            self.times += 1
            place = making.place(self.final(step))
            if step == "divergence":
                place.write_text(f"{value}")
            for part in PARTS if step != "divergence" else ():
                file = place / part
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(f"{value}")
                self.mortal.tick()
            if step == "lora":
                checkpoint = place / "checkpoint-8"
                checkpoint.mkdir(exist_ok=True)
                (checkpoint / "optimizer.pt").write_text(f"{value}")
                (making.place(self.run.recipes / "lora.yaml")).write_text(f"{value}")
            if fails:
                raise RuntimeError("it failed")

        self.said = []
        return steps.done_once(
            self.run, step, {"value": value}, self.final(step), action, self.said.append,
            goes_on=step == "lora",
        ).reused  # fmt: skip

    def seen(self, step: str) -> set[str]:
        """Return what the parts of an output are from; one value where it is whole."""
        final = self.final(step)
        files = [final] if step == "divergence" else [final / part for part in PARTS]
        return {file.read_text() if file.is_file() else "" for file in files}


class Reader(RuleBasedStateMachine):
    """What a reader does, and the world besides: against what must still be there."""

    exchanges = True

    def __init__(self) -> None:
        super().__init__()
        self.mortal = Mortal()
        self.patches = ExitStack()
        self.patches.enter_context(self.mortal.patched(self.exchanges))
        self.steps = Steps(RunFolder("r"), self.mortal)
        self.whole: dict[str, int | None] = dict.fromkeys(STEPS)  # from which value it is
        self.mine = self.steps.run.root / "notes" / "mine.txt"
        self.mine.parent.mkdir(parents=True)
        self.mine.write_text("mine")

    def _waiting(self, step: str) -> int | None:
        """Return the value of what was whole when its step was killed, and waits for its place."""
        file = self.steps.run.making / step / ".whole.json"
        return json.loads(file.read_text())["inputs"]["value"] if file.is_file() else None

    def _settle(self, step: str, value: int) -> None:
        """Whoever does a step first puts what waits into its place."""
        if self.whole[step] != value and (waiting := self._waiting(step)) is not None:
            self.whole[step] = waiting

    def _look_again(self, step: str, allowed: set[str], value: int) -> None:
        """After a kill: the old is whole, or the new is, and it is used again."""
        seen = self.steps.seen(step)
        assert len(seen) == 1, seen
        if not self.exchanges and seen == {""} and self.whole[step] is not None:
            # Killed between the two renames: the new one is whole, and is put where it belongs.
            assert self.steps.do(step, value)
            seen = self.steps.seen(step)
        assert seen <= allowed
        [now] = seen
        self.whole[step] = int(now) if now else None
        if now:
            times = self.steps.times
            assert self.steps.do(step, int(now))
            assert self.steps.times == times

    @rule(step=st.sampled_from(STEPS), value=st.integers(0, 2))
    def does(self, step: str, value: int) -> None:
        self._settle(step, value)
        assert self.steps.do(step, value) == (self.whole[step] == value)
        self.whole[step] = value

    @rule(step=st.sampled_from(STEPS), value=st.integers(0, 2))
    def fails(self, step: str, value: int) -> None:
        self._settle(step, value)
        if self.whole[step] == value:
            assert self.steps.do(step, value, fails=True)  # it need not be done
            return
        with pytest.raises(RuntimeError):
            self.steps.do(step, value, fails=True)
        told = [line for line in self.steps.said if "stays in use" in line]
        assert len(told) == (self.whole[step] is not None)

    @rule(step=st.sampled_from(STEPS), value=st.integers(0, 2), after=st.integers(0, 60))
    def is_killed(self, step: str, value: int, after: int) -> None:
        before = (self.whole[step], self._waiting(step), value)
        allowed = {f"{one}" for one in before if one is not None}
        allowed |= {""} if self.whole[step] is None else set()
        self.mortal.left = after
        try:
            self.steps.do(step, value)
        except Killed:
            self.mortal.left, self.mortal.dead = None, False
            self._look_again(step, allowed, value)
        else:
            self.mortal.left = None
            self.whole[step] = value

    @rule(step=st.sampled_from(STEPS), part=st.sampled_from([*PARTS, "checkpoint-8", ""]))
    def loses(self, step: str, part: str) -> None:
        """The reader removes the output or one of its parts, or an old checkpoint."""
        final = self.steps.final(step)
        place = final if step == "divergence" else final / part
        if not place.exists():
            return
        shutil.rmtree(place) if place.is_dir() else place.unlink()
        if place.name != "checkpoint-8":
            if final.is_dir():
                shutil.rmtree(final)  # what is left of it is nobody's
            self.whole[step] = None

    @rule(step=st.sampled_from(STEPS))
    def loses_its_marker(self, step: str) -> None:
        """The reader removes all that there is of a step."""
        (self.steps.run.steps / f"{step}.json").unlink(missing_ok=True)
        shutil.rmtree(self.steps.final(step), ignore_errors=True)
        if step == "divergence":
            self.steps.final(step).unlink(missing_ok=True)
        self.whole[step] = None

    @rule()
    def clears_what_is_being_made(self) -> None:
        shutil.rmtree(self.steps.run.making, ignore_errors=True)

    @invariant()
    def what_was_finished_is_there(self) -> None:
        for step, value in self.whole.items():
            if value is not None:
                assert self.steps.seen(step) == {f"{value}"}
                assert steps.inputs_of(self.steps.run, step) == {"value": value}
        assert self.mine.read_text() == "mine"
        if self.whole["lora"] is not None:
            assert (self.steps.run.recipes / "lora.yaml").read_text() == f"{self.whole['lora']}"

    def teardown(self) -> None:
        self.patches.close()
        shutil.rmtree(self.steps.run.root)


class ReaderOnOldFileSystem(Reader):
    """... whose file system cannot exchange two folders: it takes two renames."""

    exchanges = False


def check(reader: type[Reader], examples: int) -> None:
    wanted = settings(
        max_examples=examples, stateful_step_count=15, deadline=None, derandomize=True,
        database=None, phases=[Phase.generate], report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    run_state_machine_as_test(reader, settings=wanted)


@pytest.mark.parametrize("reader", [Reader, ReaderOnOldFileSystem])
def test_what_was_finished_is_there_whatever_happens(runs: Path, reader: type[Reader]) -> None:
    check(reader, 60)


def emptied_first(making: Making, final: Path) -> None:
    if final.is_dir():
        shutil.rmtree(final)
    making.move(final)


def finished_too_early(making: Making, final: Path) -> None:
    making.run.steps.mkdir(exist_ok=True)
    shutil.copy(making.folder / ".whole.json", making.run.steps / f"{making.step}.json")
    making.move(final)


@pytest.mark.parametrize("planted", [emptied_first, finished_too_early])
def test_another_order_of_replacing_is_found(
    runs: Path, monkeypatch: pytest.MonkeyPatch, planted: Callable[[Making, Path], None]
) -> None:
    monkeypatch.setattr(Making, "change_places", planted)
    with pytest.raises(AssertionError):
        check(Reader, 500)  # until it is found


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("exchanges", [True, False])
def test_a_process_that_ends_at_any_change_leaves_the_old_or_the_new(
    runs: Path, step: str, exchanges: bool
) -> None:
    """Processes that really end, one at each change that a step makes."""
    own = Steps(RunFolder("r"), Mortal())
    own.do(step, 1)
    code, left = 9, 0
    while code == 9:
        child = os.fork()
        if child == 0:
            mortal = Mortal(lambda: os._exit(9))
            mortal.left = left
            with mortal.patched(exchanges):
                Steps(own.run, mortal).do(step, 2)
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        seen = own.seen(step)
        if not exchanges and step != "divergence" and seen == {""}:
            assert own.do(step, 2)
            seen = own.seen(step)
        assert seen in ({"1"}, {"2"})
        assert own.do(step, int(seen.pop()))
        own.do(step, 1)
        left += 1
    assert (code, left > 10) == (0, True)


def test_whoever_reads_meanwhile_finds_the_old_or_the_new(runs: Path) -> None:
    own = Steps(RunFolder("r"), Mortal())
    own.do("lora", 0)
    ended = threading.Event()
    found: list[str] = []

    def read() -> None:
        while not ended.is_set():
            file = own.final("lora") / "facts.json"
            found.append(file.read_text() if file.is_file() else "nothing")

    with ThreadPoolExecutor(1) as reader:
        reading = reader.submit(read)
        for value in range(1, 40):
            own.do("lora", value)
        ended.set()
        reading.result()
    seen = list(dict.fromkeys(found))
    assert len(seen) > 5
    assert "nothing" not in seen
    assert seen == sorted(seen, key=int)  # none comes back


# ---- what may be removed ------------------------------------------------------------------------


def test_only_what_is_being_made_can_be_removed(runs: Path) -> None:
    run = RunFolder("r")
    inner = run.making / "lora" / "lora"
    inner.mkdir(parents=True)
    elsewhere = run.root / "lora"
    elsewhere.mkdir()
    (run.making / "link").symlink_to(elsewhere)
    outside = runs / "other"
    outside.mkdir()
    for path in (
        elsewhere, run.root, run.making, run.making / "..", run.making / "lora" / ".." / "..",
        run.making / "link" / "x", outside, RunFolder("s").making / "lora",
    ):  # fmt: skip
        with pytest.raises(ValueError, match="does not lie in"):
            discard(run, path)
    discard(run, run.making / "link")
    discard(run, run.making / "lora")
    discard(run, run.making / "never there")
    assert elsewhere.is_dir()
    assert list(run.making.iterdir()) == []


REMOVERS = {"rmtree", "unlink", "rmdir", "removedirs"}
# Who removes what, and why it may.
KNOWN = {
    ("programs/making.py", "discard"),  # the one for all that a run makes
    ("ground/files.py", "whole_file"),  # its own file aside
    ("ground/files.py", "folder_aside"),  # a model that is being downloaded, and the one before
    ("programs/detached.py", "started"),  # the wish that an earlier job should stop
    ("study/scheduling.py", "run"),  # what the scheduler told of an earlier study
    ("programs/process.py", "socket_folder"),  # of its own prefix, whose process has ended
    ("programs/kernel.py", "unregister"),  # what `make kernel` has put into Jupyter's folder
}


def removals(folder: Path) -> set[tuple[str, str]]:
    """Return the (module, function) pairs in which something is removed from the disk."""
    found = set()
    for file in folder.rglob("*.py"):
        for function in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(function, ast.FunctionDef):
                names = {
                    node.attr for node in ast.walk(function) if isinstance(node, ast.Attribute)
                }
                if names & REMOVERS:
                    found.add((file.relative_to(folder).as_posix(), function.name))
    return found


def test_one_function_removes(tmp_path: Path) -> None:
    assert removals(paths.ROOT / "helpers") - KNOWN == set()
    (tmp_path / "sly.py").write_text("def empty(folder):\n    shutil.rmtree(folder)\n")
    assert removals(tmp_path) == {("sly.py", "empty")}


def test_two_paths_change_places_at_once_or_one_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    (first / "a").write_text("")
    second.write_text("b")
    assert making_module.exchange(first, second)
    assert (first.read_text(), (second / "a").is_file()) == ("b", True)
    with pytest.raises(FileNotFoundError) as caught:
        making_module.exchange(first, tmp_path / "none")
    assert caught.value.errno == errno.ENOENT
    monkeypatch.setattr(making_module.ctypes, "get_errno", lambda: errno.EINVAL)
    assert not making_module.exchange(first, tmp_path / "none")
    monkeypatch.setattr(making_module.ctypes, "CDLL", lambda *_, **__: object())
    assert not making_module.exchange(first, second)
