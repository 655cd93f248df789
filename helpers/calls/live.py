"""What somebody sees who watches a call in a notebook: one place that changes, without widgets.

A widget needs its kernel to show anything, and a page that was closed has lost it; HTML and a
picture stay in the notebook as they were last.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from typing import Any

from helpers.ground import drawing
from helpers.ground.words import tr


def curve(
    losses: Sequence[tuple[int, float]], eval_losses: Sequence[tuple[int, float]], total: int
) -> str:
    """Return the loss so far as an HTML image.

    Args:
        losses: (optimizer step, mean training loss since the last one).
        eval_losses: (optimizer step, loss on the held-out set).
        total: how many optimizer steps there will be.
    """
    title = tr("Loss so far")
    figure, (ax,) = drawing.new_figure(1, title, height=2.6)
    for points, style, label in (
        (losses, "-", tr("training")),
        (eval_losses, "o", tr("held-out")),
    ):
        if points:
            ax.plot(*zip(*points, strict=True), style, label=label)
    ax.set(xlabel=tr("optimizer step"), ylabel=tr("loss"), xlim=(0, max(total, 1)))
    if ax.lines:
        ax.legend(frameon=False)
    encoded = base64.b64encode(drawing.as_png(figure, 72)).decode()
    return f'<img alt="{escape(title)}" src="data:image/png;base64,{encoded}">'


class Place:
    """One output of a cell, replaced whenever there is something new.

    Args:
        origin: the line above everything; "" for none.
    """

    def __init__(self, origin: str) -> None:
        self._head = f"<small>{escape(origin)}</small><br>" if origin else ""
        self._handle: Any = None

    def show(
        self,
        line: str,
        losses: Sequence[tuple[int, float]] = (),
        eval_losses: Sequence[tuple[int, float]] = (),
        total: int = 0,
    ) -> None:
        """Show a line, and the curve below it where there are optimizer steps.

        Args:
            line: where the call is.
            losses: (optimizer step, mean training loss since the last one).
            eval_losses: (optimizer step, loss on the held-out set).
            total: how many optimizer steps there will be.
        """
        from IPython.display import HTML

        picture = curve(losses, eval_losses, total) if total else ""
        self.put(HTML(f"{self._head}<code>{escape(line)}</code><br>{picture}"))

    def put(self, content: object) -> None:
        """Show what shows itself in a notebook."""
        from IPython.display import display

        if self._handle is None:
            self._handle = display(content, display_id=True)
        else:
            self._handle.update(content)
