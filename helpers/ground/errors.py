"""The one error that readers see: a sentence with cause and remedy, then the log's path."""

from __future__ import annotations

from pathlib import Path

from helpers.ground import escaping
from helpers.ground.words import tr


class TutorialError(Exception):
    """A failure that the reader can act on.

    Args:
        message: one sentence that gives the cause and what to do.
        log: the log that holds the details, if there is one.
        tail: the last lines of that log, shown under the sentence.
        fault: which known fault it is, by its name in helpers/programs/faults.toml; "" for none.
    """

    def __init__(
        self, message: str, log: Path | None = None, tail: str = "", fault: str = ""
    ) -> None:
        self.message = message
        self.log = log
        self.tail = tail
        self.fault = fault
        super().__init__(message)

    def __str__(self) -> str:
        parts = [self.message]
        if self.tail:
            parts.append(tr("The last lines of the log:") + f"\n{self.tail}")
        if self.log is not None:
            parts.append(tr("Log: {path}", path=self.log))
        return escaping.lines("\n".join(parts))

    # IPython calls this instead of printing a traceback (see IPython's `_render_traceback_`).
    def _render_traceback_(self) -> list[str]:
        return str(self).splitlines()
