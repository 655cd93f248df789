"""The figures: every one has a title, units, and labels that can be read."""

from __future__ import annotations

import base64
import io
import textwrap
from collections.abc import Sequence
from typing import Any

from IPython.display import Image
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from helpers import paths
from helpers.compare import LABELS
from helpers.files import write_bytes
from helpers.planner import PARTS, Phase
from helpers.records import Merge, Training

# Blue and orange of Okabe and Ito's palette, which colour-blind readers can tell apart.
COLOURS = {"base": "#7f7f7f", "lora": "#0072B2", "qlora": "#D55E00",
           "lora_merged": "#56B4E9", "qlora_merged": "#E69F00",
           "qlora_merged_dequantised": "#CC79A7"}  # fmt: skip


PART_COLOURS = {"weights": "#0072B2", "adapter": "#CC79A7", "gradients": "#F0E442",
                "optimizer": "#E69F00", "activations": "#009E73", "logits": "#D55E00"}  # fmt: skip


def _figure(panels: int, title: str, height: float = 3.4) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(4.6 * panels, height), dpi=96, layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)[0]
    for ax in axes:
        ax.grid(alpha=0.3)
        ax.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, fontsize=11)
    return figure, list(axes)


def _png(figure: Figure, dpi: int = 96) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def save(figure: Figure, run: paths.RunFolder, name: str) -> Image:
    """Save a figure as figures/NAME.png of the run, and return it for the notebook to show."""
    picture = _png(figure)
    write_bytes(run.figures / f"{name}.png", picture)
    return Image(picture, alt=figure.get_suptitle())


def live_curve(
    losses: Sequence[tuple[int, float]], eval_losses: Sequence[tuple[int, float]], total: int
) -> str:
    """Return the loss curve so far as an HTML image; `total` is the number of optimizer steps."""
    figure, (ax,) = _figure(1, "Loss so far", height=2.6)
    for points, style, label in ((losses, "-", "training"), (eval_losses, "o", "held-out")):
        if points:
            ax.plot(*zip(*points, strict=True), style, label=label)
    ax.set(xlabel="optimizer step", ylabel="loss", xlim=(0, max(total, 1)))
    if ax.lines:
        ax.legend(frameon=False)
    encoded = base64.b64encode(_png(figure, 72)).decode()
    return f'<img alt="loss so far" src="data:image/png;base64,{encoded}">'


def _draw_losses(axes: Sequence[Axes], runs: dict[str, Training]) -> None:
    for method, training in runs.items():
        style: dict[str, Any] = {"color": COLOURS[method], "label": LABELS[method]}
        axes[0].plot([p.step for p in training.loss], [p.loss for p in training.loss], **style)
        axes[1].plot(
            [p.step for p in training.eval_loss],
            [p.loss for p in training.eval_loss],
            "o-",
            **style,
        )
    axes[0].set(title="training", xlabel="optimizer step", ylabel="cross-entropy loss (nats/token)")
    axes[1].set(title="held-out", xlabel="optimizer step", ylabel="cross-entropy loss (nats/token)")
    for ax in axes[:2]:
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))  # there is no half a step
        ax.set_ylim(bottom=0)
    axes[0].legend(frameon=False, loc="upper right")
    axes[1].legend(frameon=False, loc="lower right")


def _draw_memory(ax: Axes, runs: dict[str, Training]) -> None:
    for method, training in runs.items():
        trace = training.memory
        ax.plot(
            trace.seconds,
            [used / 1e9 for used in trace.bytes_used],
            color=COLOURS[method],
            label=f"{LABELS[method]}, peak {trace.peak_bytes / 1e9:.2f} GB",
        )
        ax.set_title(trace.measure, fontsize=10)
    ax.set(xlabel="seconds since the call began", ylabel="memory (GB = 10⁹ bytes)")
    ax.set_ylim(bottom=0)
    ax.legend(frameon=False, loc="lower right")


def training_curves(runs: dict[str, Training], title: str) -> Figure:
    """Return training loss, held-out loss and memory over time, one colour a method.

    Args:
        runs: the trainings by method (lora, qlora).
        title: the figure's title.
    """
    figure, axes = _figure(3, title)
    _draw_losses(axes, runs)
    _draw_memory(axes[2], runs)
    return figure


def _ticks(names: Sequence[str]) -> list[str]:
    """Return the subjects' labels, narrow enough to stand under their bars."""
    return [textwrap.fill(LABELS[name], 13) for name in names]


def _bars(ax: Axes, names: Sequence[str], values: Sequence[float], form: str, **style: Any) -> None:
    bars = ax.bar(
        _ticks(names),
        values,
        color=[COLOURS[name] for name in names],
        **style,
    )
    ax.bar_label(bars, [form.format(value) for value in values], padding=3, fontsize=9)
    ax.grid(visible=False, axis="x")
    ax.margins(y=0.15)


def cost_bars(costs: dict[str, dict[str, float]], measure: str, title: str) -> Figure:
    """Return three panels of bars: time of the call, samples a second, peak memory.

    Args:
        costs: by method: call_seconds, samples_per_second, peak_gb.
        measure: what kind of memory was measured.
        title: the figure's title.
    """
    figure, axes = _figure(3, title)
    names = list(costs)
    panels = (
        ("call_seconds", "whole training call", "seconds", "{:.0f}"),
        ("samples_per_second", "training speed", "samples per second", "{:.2f}"),
        ("peak_gb", measure, "peak (GB = 10⁹ bytes)", "{:.2f}"),
    )
    for ax, (key, heading, unit, form) in zip(axes, panels, strict=True):
        _bars(ax, names, [costs[name][key] for name in names], form)
        ax.set_title(heading, fontsize=10)
        ax.set_ylabel(unit)
    return figure


def accuracy_bars(
    accuracy: dict[str, tuple[float, float, float]], problems: int, title: str
) -> Figure:
    """Return the share of held-out problems answered, with its 95 % interval, one bar a subject.

    Args:
        accuracy: by subject: share, lower and upper end of the interval, each 0 to 1.
        problems: how many problems were put.
        title: the figure's title.
    """
    figure, (ax,) = _figure(1, title, height=3.8)
    figure.set_figwidth(8.5)  # room for six labels
    names = list(accuracy)
    shares = [100 * accuracy[name][0] for name in names]
    below = [100 * (accuracy[name][0] - accuracy[name][1]) for name in names]
    above = [100 * (accuracy[name][2] - accuracy[name][0]) for name in names]
    bars = ax.bar(
        _ticks(names),
        shares,
        color=[COLOURS[name] for name in names],
        yerr=[below, above],
        capsize=4,
        ecolor="#333333",
    )
    labels = [f"{share:.0f} %" for share in shares]
    ax.bar_label(bars, labels, label_type="center", fontsize=9, color="white")
    ax.grid(visible=False, axis="x")
    ax.set(ylabel=f"exact match (% of {problems} problems)", ylim=(0, 100))
    return figure


def merge_bars(merges: dict[str, Merge], title: str) -> Figure:
    """Return two panels of bars: how far each merged model lies from base + adapter.

    Args:
        merges: by subject.
        title: the figure's title.
    """
    figure, axes = _figure(2, title)
    names = list(merges)
    distances = [merges[name].divergence.kl for name in names]
    _bars(axes[0], names, distances, "{:.1e}")
    # Merging as it should be and merging into other weights lie orders of magnitude apart. A
    # logarithmic axis has no room for a 0, and no bar is the right picture of it.
    axes[0].set_yscale("log")
    axes[0].set_ylim(bottom=min([x for x in distances if x > 0], default=1e-6) / 10)
    axes[0].set_title("distance of the next-token distributions", fontsize=10)
    axes[0].set_ylabel("mean KL divergence (nats per token)")
    shares = [100 * merges[name].same_answer / merges[name].n for name in names]
    _bars(axes[1], names, shares, "{:.0f} %")
    axes[1].set_title("the same final answer", fontsize=10)
    axes[1].set(ylabel="% of the held-out problems", ylim=(0, 115))
    return figure


def plan_bars(
    phases: dict[str, Phase], title: str, measured: dict[str, tuple[str, int]] | None = None
) -> Figure:
    """Return planned peaks as bars, split into what takes the room, and what was measured.

    Args:
        phases: planned peaks by the name to show.
        title: the figure's title.
        measured: by the same names, after the training: what was measured, and its peak in bytes.
            It gets a bar of its own, because it is not the same kind of figure.
    """
    measured = measured or {}
    bars = len(phases) + len(measured)
    figure, (ax,) = _figure(1, title, height=1.5 + 0.42 * bars)
    figure.set_figwidth(9.2)
    names: list[str] = []
    for name, phase in phases.items():
        left, row = 0.0, len(names)
        for part in PARTS:
            width = phase.parts[part] / 2**30
            label = part if row == 0 else None
            ax.barh(row, width, left=left, color=PART_COLOURS[part], label=label, height=0.7)
            left += width
        ax.text(left, row, f" {left:.2f}", va="center", fontsize=9)
        names.append(f"{name}: planned")
        if name in measured:
            what, peak = measured[name]
            row = len(names)
            ax.barh(row, peak / 2**30, height=0.7, fill=False, edgecolor="#333333", hatch="///")
            ax.text(peak / 2**30, row, f" {peak / 2**30:.2f}", va="center", fontsize=9)
            names.append(f"{name}: measured\n{what}")
    ax.set_yticks(range(len(names)), names, fontsize=9)
    ax.invert_yaxis()
    ax.set(xlabel="GiB = 2³⁰ bytes at the peak")
    ax.margins(x=0.1)
    ax.grid(visible=False, axis="y")
    figure.legend(ncols=len(PARTS), loc="outside lower center", frameon=False, fontsize=9)
    return figure


def data_overview(sets: dict[str, list[dict[str, str]]], title: str) -> Figure:
    """Return histograms of the length of problems and of worked solutions, in characters.

    Args:
        sets: examples in Alpaca form by the name of their set.
        title: the figure's title.
    """
    figure, axes = _figure(2, title)
    for ax, key, heading in zip(
        axes, ("instruction", "output"), ("problem", "worked solution"), strict=True
    ):
        lengths = {name: [len(row[key]) for row in rows] for name, rows in sets.items()}
        ax.hist(list(lengths.values()), bins=30, density=True, label=list(lengths))
        ax.set(title=heading, xlabel="characters", ylabel="share of examples per character")
        ax.legend(frameon=False)
    return figure
