"""The loss curve that grows while a training runs, for notebooks that somebody watches."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape

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
