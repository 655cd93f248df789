"""The boundary of the face: whatever fails behind it ends in one sentence for the reader.

An error that readers can act on passes as it is. What a file system refuses, and known faults of
other programs, get their sentences. For what nobody has foreseen, the sentence says what was being
done, what went wrong and where; its traceback goes to a log that the sentence names.
"""

from __future__ import annotations

import functools
import inspect
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from helpers.doctor import host
from helpers.ground import escaping, paths
from helpers.ground.errors import TutorialError
from helpers.ground.files import refusal
from helpers.ground.words import tr
from helpers.programs import faults, process

LOG = "error.log"
_MOST = 200  # characters of a foreign message
# What a class says of itself, besides its public members: made, shown in a notebook, printed.
_SPOKEN = ("__init__", "_repr_mimebundle_", "__str__")

Kind = TypeVar("Kind", bound=type)
Function = TypeVar("Function", bound=Callable[..., Any])


def _keep(error: Exception, doing: str, folder: Path) -> Path | None:
    """Write an error's traceback to a log, and return its file; None where nothing can be written.

    Args:
        error: what happened.
        doing: during what.
        folder: where the log shall lie; where it cannot, the system's own place for such takes it.
    """
    lines = [f"{doing}\n", *traceback.format_exception(error)]
    text = process.redacted("".join(lines))
    for place in (folder, Path(tempfile.gettempdir())):
        try:
            place.mkdir(parents=True, exist_ok=True)
            (place / LOG).write_text(text, "utf-8", "backslashreplace")
        except (OSError, RecursionError):
            continue
        return place / LOG
    return None


def _place(error: Exception) -> str:
    """Return where in this project an error came up, as "helpers/ROOM/MODULE.py:LINE"."""
    frames = traceback.extract_tb(error.__traceback__)
    package = paths.ROOT / "helpers"
    ours = [frame for frame in frames if Path(frame.filename).is_relative_to(package)]
    found = ours or list(frames)
    return f"{paths.shown(Path(found[-1].filename))}:{found[-1].lineno}" if found else "?"


def explained(error: Exception, doing: str, folder: Path) -> TutorialError:
    """Return the one sentence for an error.

    Args:
        error: what happened.
        doing: what was being done, as readers type it: "make data", "train()".
        folder: the folder for the log.
    """
    if isinstance(error, TutorialError):
        return error
    log = _keep(error, doing, folder)
    if isinstance(error, OSError) and (told := refusal(error, folder)):
        told.log = log
        return told
    if isinstance(error, ImportError):
        return TutorialError(host.not_importable(error), log=log)
    said = process.redacted(escaping.line(error))
    seen = faults.recognise(f"{type(error).__name__}: {said}")
    if seen:
        return TutorialError(seen.sentence, log=log, fault=seen.name)
    return TutorialError(
        tr(
            "{doing} came upon what this tutorial does not foresee ({error}, in {place}): run it "
            "again, and if it stays so, please report it with the log.",
            doing=doing,
            error=f"{type(error).__name__}: {said[:_MOST]}".removesuffix(": "),
            place=_place(error),
        ),
        log=log,
    )


def end_scripts_in_one_sentence() -> None:
    """Have a Python script that an error of ours ends say its sentence alone.

    A notebook does so by the error itself; Python would print a traceback above it. Other errors
    stay what they are.
    """
    shown_before = sys.excepthook

    def show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if isinstance(error, TutorialError):
            print(error, file=sys.stderr)
        else:
            shown_before(kind, error, trace)

    sys.excepthook = show


def _logs_of(thing: Any) -> Path:
    """Return the folder for the logs of a part of the face: its run's, or the one of all runs."""
    holder = getattr(thing, "tutorial", thing)
    settings = getattr(holder, "settings", None)
    return settings.run.logs if settings is not None else paths.RUNS


def _bounded(function: Function, doing: str) -> Function:
    @functools.wraps(function)
    def call(self: Any, *arguments: Any, **named: Any) -> Any:
        try:
            return function(self, *arguments, **named)
        except TutorialError:
            raise
        except Exception as error:
            raise explained(error, doing, _logs_of(self)) from error

    call.__dict__["bounded"] = True
    return call  # type: ignore[return-value]


def bounded(kind: Kind) -> Kind:
    """Put the boundary around all that readers call of a class: its public methods and properties,
    making one, and showing one."""
    for name in dir(kind):
        if name.startswith("_") and name not in _SPOKEN:
            continue
        member = inspect.getattr_static(kind, name)
        if isinstance(member, property) and not hasattr(member.fget, "bounded"):
            assert member.fget
            setattr(kind, name, property(_bounded(member.fget, name), doc=member.__doc__))
        elif inspect.isfunction(member) and not hasattr(member, "bounded"):
            doing = kind.__name__ if name in _SPOKEN else f"{name}()"
            setattr(kind, name, _bounded(member, doing))
    return kind


end_scripts_in_one_sentence()
