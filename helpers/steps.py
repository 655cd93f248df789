"""Re-using finished steps: a step is done again only if what it depends on has changed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from helpers import paths
from helpers.files import refusals_explained, sha256_file, write_json


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
    if isinstance(value, Mapping):
        parts: dict[str, Any] = {}
        for key, inner in value.items():
            parts |= _flat(inner, f"{prefix}.{key}" if prefix else str(key))
        return parts
    return {prefix: value}


def _what_changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    before, after = _flat(old), _flat(new)
    changed = [key for key in after | before if before.get(key) != after.get(key)]
    return f"{', '.join(changed[:3])}{', ...' if len(changed) > 3 else ''} changed"


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
        TutorialError: the run folder cannot be written.
    """
    marker = run.steps / f"{name}.json"
    wanted = json.loads(json.dumps(inputs, default=str))
    try:
        kept = _Marker.model_validate_json(marker.read_text(encoding="utf-8"))
    except (OSError, ValidationError):
        kept = None
    if kept is not None:
        damaged = [
            key for key, output in kept.outputs.items() if not _same_file(run.root / key, output)
        ]
        if kept.inputs == wanted and not damaged:
            say(f"Re-using {name} from {kept.finished}: nothing it depends on has changed.")
            return Done(reused=True, seconds=kept.seconds)
        why = f"{damaged[0]} is missing or was altered" if damaged else ""
        say(f"Doing {name} again: {why or _what_changed(kept.inputs, wanted)}.")
    with refusals_explained(marker):
        marker.unlink(missing_ok=True)
    begin = time.monotonic()
    action()
    seconds = round(time.monotonic() - begin, 2)
    records = {}
    for path in _files(outputs):
        state = path.stat()
        records[path.relative_to(run.root).as_posix()] = _Output(
            size=state.st_size, modified_ns=state.st_mtime_ns, sha256=sha256_file(path)
        )
    finished = datetime.now().strftime("%Y-%m-%d %H:%M")
    done = _Marker(inputs=wanted, outputs=records, finished=finished, seconds=seconds)
    write_json(marker, done.model_dump())
    return Done(reused=False, seconds=seconds)
