"""The figures of the mechanism: one layer that was trained, one block that was quantised."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from helpers.ground import drawing, paths
from helpers.ground.shown import Picture
from helpers.ground.words import tr
from helpers.results.figures import keep

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from helpers.records.inside import Block, Layer

_BEFORE, _AFTER, _CODE = "#0072B2", "#D55E00", "#999999"


def _largest(matrix: Sequence[Sequence[float]]) -> float:
    return max((abs(value) for row in matrix for value in row), default=0.0) or 1.0


def _heat(ax: Axes, matrix: Sequence[Sequence[float]], most: float, heading: str) -> Any:
    """Draw a matrix, white where it is zero, and return what a colour bar needs."""
    image = ax.imshow(matrix, cmap="RdBu_r", vmin=-most, vmax=most, aspect="auto",
                      interpolation="nearest")  # fmt: skip
    ax.set_title(heading, fontsize=9)
    ax.set(xticks=[], yticks=[])
    return image


def layer_picture(layer: Layer, run: paths.RunFolder) -> Picture:
    """Draw a corner of a frozen weight, and what was trained beside it.

    What training changes stands beside the weight on the same scale of colours; the product once
    more on its own, with the two thin matrices that it is made of at its edges.
    """
    from matplotlib.figure import Figure

    title = tr(
        "{layer}: {trained} numbers trained beside {numbers} ({percent} %)",
        layer=layer.name,
        trained=f"{layer.trained:,}",
        numbers=f"{layer.parameters:,}",
        percent=f"{100 * layer.trained / layer.parameters:.2f}",
    )
    figure = Figure(figsize=(12, 4.8), dpi=96, layout="constrained")
    figure.suptitle(title, fontsize=11)
    figure.supxlabel(layer.origin.note(), fontsize=7, color="#555555", x=0.01, ha="left")
    grid = figure.add_gridspec(2, 4, width_ratios=[5, 5, 0.9, 5], height_ratios=[0.9, 5])
    corner, beside, tall, own, wide = (
        figure.add_subplot(grid[place]) for place in ((1, 0), (1, 1), (1, 2), (1, 3), (0, 3))
    )
    part = tr(
        "the first {rows} rows and {columns} columns",
        rows=len(layer.weight),
        columns=len(layer.weight[0]),
    )
    rank = tr("rank {rank}", rank=layer.rank)
    most = _largest(layer.weight)
    _heat(corner, layer.weight, most, tr("W, frozen"))
    corner.set_xlabel(part, fontsize=8)
    plain = layer.magnitude is None
    shared = _heat(
        beside,
        layer.product if plain else layer.change,
        most,
        tr("scale · B · A, on the scale of W")
        if plain
        else tr("what training changes, on the scale of W"),
    )
    beside.set_xlabel(part, fontsize=8)
    figure.colorbar(shared, ax=[corner, beside], shrink=0.8)
    _heat(tall, layer.b, _largest(layer.b), tr("B"))
    tall.set_xlabel(rank, fontsize=8)
    _heat(wide, layer.a, _largest(layer.a), tr("A"))
    wide.set_ylabel(rank, fontsize=8)
    heading = tr("scale · B · A, on a scale of its own")
    most = _largest(layer.product)
    figure.colorbar(_heat(own, layer.product, most, heading), ax=own, shrink=0.8)
    own.set_xlabel(part, fontsize=8)
    return keep(figure, run, "layer")


def block_picture(block: Block, run: paths.RunFolder) -> Picture:
    """Draw a block of weights before and after, on the codes it is rounded to, and the error."""
    title = tr(
        "{layer}: {n} weights, {bits} bits each",
        layer=block.name,
        n=len(block.before),
        bits=f"{block.bits_a_weight:.2f}",
    )
    figure, (line, error) = drawing.new_figure(2, title, block.origin.note(), height=3.6)
    figure.set_figwidth(12)
    for code in block.codes:
        line.axvline(code * block.scale, color=_CODE, linewidth=0.8, zorder=0)
    for before, after in zip(block.before, block.after, strict=True):
        line.plot([before, after], [1, 0], color=_CODE, linewidth=0.5)
    line.plot(block.before, [1] * len(block.before), "o", color=_BEFORE, markersize=4)
    line.plot(block.after, [0] * len(block.after), "o", color=_AFTER, markersize=4)
    line.set_yticks([1, 0], [tr("before"), tr("after")])
    line.set(
        xlabel=tr("weight; the lines are the {n} codes times the scale", n=len(block.codes)),
        ylim=(-0.4, 1.4),
    )
    line.set_title(tr("each weight becomes the nearest code"), fontsize=10)
    line.grid(visible=False)
    errors = [after - before for before, after in zip(block.before, block.after, strict=True)]
    error.bar(range(1, len(errors) + 1), errors, color=_AFTER, width=0.8)
    error.axhline(0, color="#333333", linewidth=0.6)
    error.set_ylim(-block.scale / 4, block.scale / 4)
    error.set_title(
        tr(
            "the error: {percent} % of the weights (root mean square)",
            percent=f"{100 * block.error_relative:.1f}",
        ),
        fontsize=10,
    )
    error.set(xlabel=tr("number of the weight"), ylabel=tr("after - before"))
    return keep(figure, run, "block")
