"""Re-using finished steps: a step is done again only if what it depends on has changed.

What a finished step left stays until its successor is whole: see helpers/programs/making.py.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any

from filelock import FileLock, Timeout
from pydantic import BaseModel, ValidationError

from helpers.ground import escaping, paths
from helpers.ground.errors import TutorialError
from helpers.ground.files import refusals_explained, sha256_file, write_json
from helpers.ground.words import series, tr
from helpers.programs.making import Making, sync

# A run that was killed a moment ago may take this long to let go of its folder.
LOCK_SECONDS = 5.0
# Of no use once their training is done: whoever is short of disk may remove them.
CHECKPOINTS = "checkpoint-*"
VERSIONS = "versions"  # the input that holds versions by name
_WHOLE = ".whole.json"  # in the place where a step is made: its marker, once all is there


class _Output(BaseModel):
    size: int
    modified_ns: int
    sha256: str


class _Marker(BaseModel):
    """What is kept of a finished step."""

    inputs: dict[str, Any]
    outputs: dict[str, _Output]
    finished: str
    seconds: float
    output: str = ""  # the file or folder that holds them
    beside: list[str] = []  # what changes places with them and may be altered: recipes, reports

    def counted(self) -> dict[str, _Output]:
        """Return the outputs that must be as they were."""
        return {
            name: kept
            for name, kept in self.outputs.items()
            if not any(part.match(CHECKPOINTS) for part in map(PurePosixPath, name.split("/")))
        }


@dataclass(frozen=True)
class Done:
    """How a step came to be done."""

    reused: bool
    seconds: float


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(value, Mapping) and (value or not prefix):
        parts: dict[str, Any] = {}
        for key, inner in value.items():
            parts |= _flat(inner, f"{prefix}.{key}" if prefix else str(key))
        return parts
    return {prefix: value}


def _changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Return the names of the inputs that differ, such as "recipe.lora_rank".

    A version that is None could not be found out this time, or then: that is no change.
    """
    before, after = _flat(old), _flat(new)
    absent = object()

    def unknown(key: str) -> bool:
        values = (before.get(key, absent), after.get(key, absent))
        return key.startswith(f"{VERSIONS}.") and None in values

    differ = [key for key in after | before if before.get(key, absent) != after.get(key, absent)]
    return [key for key in differ if not unknown(key)]


def _same_file(path: Path, kept: _Output) -> bool:
    try:
        state = path.stat()
    except OSError:
        return False
    if state.st_size != kept.size:
        return False
    return state.st_mtime_ns == kept.modified_ns or sha256_file(path) == kept.sha256


@contextmanager
def _alone(run: paths.RunFolder) -> Iterator[None]:
    """Hold the run folder while a step changes it; a step within a step is let in.

    Raises:
        TutorialError: another process is doing a step in it.
    """
    file = run.root / ".step.lock"
    with refusals_explained(file):
        run.root.mkdir(parents=True, exist_ok=True)
        lock = FileLock(file, is_singleton=True)
        try:
            lock.acquire(timeout=LOCK_SECONDS)
        except Timeout as error:
            raise TutorialError(
                tr(
                    "Another notebook or run is working in {folder}: wait for it to end, or choose "
                    "another RUN=name.",
                    folder=paths.shown(run.root),
                )
            ) from error
    try:
        yield
    finally:
        lock.release()


@dataclass(frozen=True)
class _Kept:
    """What is left of a finished step: its marker, and what keeps it from being re-used."""

    marker: _Marker | None = None  # None: it was not finished
    damaged: str = ""  # an output that is missing or was altered
    changed: tuple[str, ...] = ()  # inputs

    @property
    def whole(self) -> bool:
        return self.marker is not None and not self.damaged

    @property
    def usable(self) -> bool:
        return self.whole and not self.changed

    def why_again(self, name: str) -> str:
        """Return the line on why a finished step is done again; "" where it was not finished."""
        if self.marker is None:
            return ""
        if self.damaged:
            return tr(
                "Doing {step} again: {file} is missing or was altered.",
                step=name,
                file=self.damaged,
            )
        more = ["..."] if len(self.changed) > 3 else []
        return tr(
            "Doing {step} again: {inputs} changed.",
            step=name,
            inputs=series([*self.changed[:3], *more]),
        )


def _file(run: paths.RunFolder, name: str) -> Path:
    return run.steps / f"{name}.json"


def _read(file: Path) -> _Marker | None:
    try:
        return _Marker.model_validate_json(file.read_bytes())
    except (OSError, ValidationError):
        return None


def _damaged(marker: _Marker, root: Path) -> str:
    """Return the first output that is not below `root` as the marker has it, or ""."""
    outputs = marker.counted().items()
    return next((key for key, out in outputs if not _same_file(root / key, out)), "")


def _moved(marker: _Marker, root: Path) -> bool:
    """Return whether the very files that were made lie below `root`: equal ones can be the old."""
    for name, kept in marker.counted().items():
        try:
            state = (root / name).stat()
        except OSError:
            return False
        if (state.st_size, state.st_mtime_ns) != (kept.size, kept.modified_ns):
            return False
    return True


def _kept(run: paths.RunFolder, name: str, wanted: Mapping[str, Any], output: Path) -> _Kept:
    marker = _read(_file(run, name))
    if marker is None:
        return _Kept()
    within = output.relative_to(run.root).as_posix()
    held = any(key == within or key.startswith(f"{within}/") for key in marker.outputs)
    damaged = _damaged(marker, run.root) if held else within
    return _Kept(marker, damaged, tuple(_changed(marker.inputs, wanted)))


def inputs_of(run: paths.RunFolder, name: str) -> dict[str, Any] | None:
    """Return what decided the outputs of a step as they lie there; None where they are not whole.

    Args:
        run: the run's folder.
        name: the step's name.
    """
    # Killed at the last moment, a step has its new outputs in place and its marker not yet.
    for file in (Making(run, name).folder / _WHOLE, _file(run, name)):
        marker = _read(file)
        if marker and not _damaged(marker, run.root):
            return marker.inputs
    return None


def is_done(run: paths.RunFolder, name: str, inputs: Mapping[str, Any], output: Path) -> bool:
    """Return whether `done_once` would re-use a step.

    Args:
        run: the run folder.
        name: the step's name.
        inputs: everything that decides the output, as for `done_once`.
        output: the file or folder that the step is for.
    """
    return _kept(run, name, json.loads(json.dumps(inputs, default=str)), output).usable


def done_once(
    run: paths.RunFolder,
    name: str,
    inputs: Mapping[str, Any],
    output: Path,
    action: Callable[[Making], None],
    say: Callable[[str], None] = print,
    *,
    goes_on: bool = False,
) -> Done:
    """Do a step, unless it was done with the same inputs and its output is untouched.

    What an earlier one left stays where it is, in use, until the new output is whole; then the two
    change places. Of a step that fails nothing is seen.

    Args:
        run: the run folder; the marker lies in its steps/ folder.
        name: the step's name.
        inputs: everything that decides the output, as JSON values: settings, hashes, and versions,
            where None says that one could not be found out.
        output: the file or folder, inside the run folder, that the step is for.
        action: does the step. It is given the place in which to make the output, and whatever else
            changes places with it. If it raises, the step counts as not done.
        say: takes one line on whether the step is re-used, and if not, why; and one where it
            failed, and what there was before stays in use.
        goes_on: the action goes on from what one that was interrupted left in its place; else it
            finds an empty one.

    Returns:
        Whether the step was re-used, and how long the action took when it was done.

    Raises:
        TutorialError: the run folder cannot be written, another process works in it, or the action
            left no output.
    """
    wanted = json.loads(json.dumps(inputs, default=str))
    kept = _kept(run, name, wanted, output)
    if not kept.usable:
        with _alone(run):
            _finish(Making(run, name))
            kept = _kept(run, name, wanted, output)  # it may just have been done
            if not kept.usable:
                if why := kept.why_again(name):
                    say(why)
                making = Making(run, name)
                try:
                    seconds = _do(making, wanted, output, action, goes_on)
                except BaseException:
                    _failed(making, kept, goes_on, say)
                    raise
                _finish(making)
                return Done(False, seconds)
    assert kept.marker
    say(
        tr(
            "Re-using {step} from {time}: nothing it depends on has changed.",
            step=name,
            time=kept.marker.finished,
        )
    )
    return Done(reused=True, seconds=kept.marker.seconds)


def _failed(making: Making, kept: _Kept, goes_on: bool, say: Callable[[str], None]) -> None:
    if kept.whole and kept.marker:
        say(
            tr(
                "{step} was not done: what there is of it, from {time}, stays in use.",
                step=making.step,
                time=kept.marker.finished,
            )
        )
    if not goes_on:
        with suppress(OSError):  # the step's own error is the one to tell
            making.discard(making.folder)


def _output_of(path: Path) -> _Output:
    """Return what is kept of a file, once the disk has it: a marker must not outlast a power cut
    that its outputs did not."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
    state = path.stat()
    return _Output(size=state.st_size, modified_ns=state.st_mtime_ns, sha256=sha256_file(path))


def _do(
    making: Making,
    inputs: dict[str, Any],
    output: Path,
    action: Callable[[Making], None],
    goes_on: bool,
) -> float:
    """Make a step's outputs and their marker, all in their own place; return the action's time."""
    with refusals_explained(making.folder):
        if not goes_on:
            making.discard(making.folder)
    begin = time.monotonic()
    try:
        action(making)
    except (ValueError, LookupError, TypeError, ArithmeticError) as error:
        raise TutorialError(
            tr(
                "{step} left something that cannot be read ({error}): look into its log in {logs}, "
                "and run this again.",
                step=making.step,
                error=f"{type(error).__name__}: {escaping.line(error)}"[:200],
                logs=paths.shown(making.run.logs),
            )
        ) from error
    seconds = round(time.monotonic() - begin, 2)
    made = making.at(output)
    files = sorted(p for p in made.rglob("*") if p.is_file()) if made.is_dir() else [made]
    if not files or not files[0].is_file():
        raise TutorialError(
            tr(
                "{step} ended without {file}: look into its log in {logs}, and run this again.",
                step=making.step,
                file=paths.shown(output),
                logs=paths.shown(making.run.logs),
            )
        )
    for folder in {file.parent for file in files}:
        sync(folder)
    beside = [final for final in making.finals if final != output and making.at(final).exists()]
    done = _Marker(
        inputs=inputs,
        outputs={file.relative_to(making.folder).as_posix(): _output_of(file) for file in files},
        finished=datetime.now().strftime("%Y-%m-%d %H:%M"),
        seconds=seconds,
        beside=[final.relative_to(making.run.root).as_posix() for final in beside],
        output=output.relative_to(making.run.root).as_posix(),
    )
    write_json(making.folder / _WHOLE, done.model_dump())
    return seconds


def _finish(making: Making) -> None:
    """Let what was made whole change places with what was there, from wherever that was left off.

    Raises:
        TutorialError: the run folder cannot be written.
    """
    run, whole = making.run, making.folder / _WHOLE
    marker = _read(whole)
    if marker is None:
        return
    with refusals_explained(run.root):
        if not _moved(marker, run.root):
            if not _damaged(marker, making.folder):
                making.change_places(run.root / marker.output)
            elif _damaged(marker, run.root):  # somebody removed some of it
                making.discard(whole)
                return
        for name in marker.beside:
            making.move(run.root / name)
        run.steps.mkdir(parents=True, exist_ok=True)
        whole.replace(_file(run, making.step))
        sync(run.steps)
    with suppress(OSError):  # what was there before takes room, and nothing else
        making.discard(making.folder)
