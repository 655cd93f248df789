"""Re-using finished steps: a step is done again only if what it depends on has changed."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from pydantic import BaseModel, ValidationError

from helpers.ground import paths
from helpers.ground.errors import TutorialError
from helpers.ground.files import refusals_explained, sha256_file, write_json
from helpers.ground.words import tr

# A run that was killed a moment ago may take this long to let go of its folder.
LOCK_SECONDS = 5.0


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
    """Return the names of the inputs that differ, such as "recipe.lora_rank"."""
    before, after = _flat(old), _flat(new)
    absent = object()
    return [key for key in after | before if before.get(key, absent) != after.get(key, absent)]


def _same_file(path: Path, kept: _Output) -> bool:
    try:
        state = path.stat()
    except OSError:
        return False
    if state.st_size != kept.size:
        return False
    return state.st_mtime_ns == kept.modified_ns or sha256_file(path) == kept.sha256


def _files(outputs: Sequence[Path]) -> list[Path]:
    found: list[Path] = []
    for path in outputs:
        found += sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    return found


@contextmanager
def _alone(run: paths.RunFolder) -> Iterator[None]:
    """Hold the run folder while a step changes it; a step within a step is let in.

    Raises:
        TutorialError: another process is doing a step in it.
    """
    with refusals_explained(run.root):
        run.root.mkdir(parents=True, exist_ok=True)
        lock = FileLock(run.root / ".step.lock", is_singleton=True)
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
    def usable(self) -> bool:
        return self.marker is not None and not self.damaged and not self.changed

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
            inputs=", ".join([*self.changed[:3], *more]),
        )


def _kept(run: paths.RunFolder, marker: Path, wanted: Mapping[str, Any]) -> _Kept:
    try:
        kept = _Marker.model_validate_json(marker.read_bytes())
    except (OSError, ValidationError):
        return _Kept()
    outputs = kept.outputs.items()
    damaged = next((key for key, out in outputs if not _same_file(run.root / key, out)), "")
    return _Kept(kept, damaged, tuple(_changed(kept.inputs, wanted)))


def _sha256_of_written(path: Path) -> str:
    """Return a file's SHA-256, once the disk has the file: a marker must not outlast a power cut
    that its outputs did not."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return sha256_file(path)


def done_once(
    run: paths.RunFolder,
    name: str,
    inputs: Mapping[str, Any],
    outputs: Sequence[Path],
    action: Callable[[], None],
    say: Callable[[str], None] = print,
) -> Done:
    """Do a step, unless it was done with the same inputs and its outputs are untouched.

    Args:
        run: the run folder; the marker lies in its steps/ folder.
        name: the step's name.
        inputs: everything that decides the outputs, as JSON values: settings, hashes, versions.
        outputs: the files or folders, inside the run folder, that the action writes.
        action: does the step. If it raises, the step counts as not done.
        say: takes one line on whether the step is re-used, and if not, why.

    Returns:
        Whether the step was re-used, and how long the action took when it was done.

    Raises:
        TutorialError: the run folder cannot be written, or another process works in it.
    """
    marker = run.steps / f"{name}.json"
    wanted = json.loads(json.dumps(inputs, default=str))
    kept = _kept(run, marker, wanted)
    if not kept.usable:
        with _alone(run):
            kept = _kept(run, marker, wanted)  # it may just have been done
            if not kept.usable:
                if why := kept.why_again(name):
                    say(why)
                return Done(False, _do(run, marker, wanted, outputs, action))
    assert kept.marker
    say(
        tr(
            "Re-using {step} from {time}: nothing it depends on has changed.",
            step=name,
            time=kept.marker.finished,
        )
    )
    return Done(reused=True, seconds=kept.marker.seconds)


def _do(
    run: paths.RunFolder,
    marker: Path,
    inputs: dict[str, Any],
    outputs: Sequence[Path],
    action: Callable[[], None],
) -> float:
    """Do a step and leave its marker; return how long the action took."""
    with refusals_explained(marker):
        marker.unlink(missing_ok=True)
    begin = time.monotonic()
    action()
    seconds = round(time.monotonic() - begin, 2)
    records = {}
    for path in _files(outputs):
        state = path.stat()
        records[path.relative_to(run.root).as_posix()] = _Output(
            size=state.st_size, modified_ns=state.st_mtime_ns, sha256=_sha256_of_written(path)
        )
    finished = datetime.now().strftime("%Y-%m-%d %H:%M")
    done = _Marker(inputs=inputs, outputs=records, finished=finished, seconds=seconds)
    write_json(marker, done.model_dump())
    return seconds
