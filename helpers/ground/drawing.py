"""How every figure looks: size, grid, title, and the line that says where it is from."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from helpers.ground import escaping, fonts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# matplotlib is imported where something is drawn: it takes a third of a second.


def new_figure(
    panels: int, title: str, note: str = "", height: float = 3.4
) -> tuple[Figure, list[Axes]]:
    """Return a figure with panels side by side.

    Args:
        panels: how many.
        title: what the figure shows.
        note: a small line below it: where and when it was measured.
        height: in inches.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6 * panels, height + (0.25 if note else 0)), dpi=96,
                    layout="constrained")  # fmt: skip
    axes = figure.subplots(1, panels, squeeze=False)[0]
    for ax in axes:
        ax.grid(alpha=0.3)
        ax.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, fontsize=11)
    if note:
        figure.supxlabel(note, fontsize=7, color="#555555", x=0.01, ha="left")
    return figure, list(axes)


def _as_text(figure: Figure) -> None:
    """Have a figure's texts be text: a "$" is a dollar, not a formula.

    On a logarithmic axis the labels of ticks stay formulas: matplotlib writes powers of ten so.
    """
    from matplotlib.axis import Axis
    from matplotlib.text import Text
    from matplotlib.ticker import LogFormatter

    powers = {
        text
        for axis in figure.findobj(Axis)
        if isinstance(axis, Axis) and isinstance(axis.get_major_formatter(), LogFormatter)
        for text in [*axis.get_ticklabels(), *axis.get_ticklabels(minor=True)]
    }
    fonts.register()
    for text in figure.findobj(Text):
        if isinstance(text, Text):
            text.set_fontfamily(fonts.FAMILIES)
            if text not in powers:
                text.set_parse_math(False)
                text.set_text(escaping.lines(text.get_text()))


def as_png(figure: Figure, dpi: int = 96) -> bytes:
    """Return a figure as the bytes of a PNG."""
    _as_text(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def as_svg(figure: Figure) -> bytes:
    """Return a figure as the bytes of an SVG: its letters are outlines, so it needs no font."""
    import matplotlib

    _as_text(figure)
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "path", "svg.hashsalt": "as it was drawn"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()
