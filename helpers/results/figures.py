"""The figures of a run: each has a title, units, labels that can be read, and where it is from.

Each is kept as a PNG in the run's folder.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from helpers.ground import drawing, paths, width
from helpers.ground.files import write_bytes
from helpers.ground.shown import Picture, Sentence, Shown
from helpers.ground.words import sentences, series, tr
from helpers.inputs.settings import Settings
from helpers.inputs.subjects import Subject
from helpers.machine import memory
from helpers.records.schema import Merge, Training
from helpers.results import peaks, tables
from helpers.results.schema import Comparison

# matplotlib is imported where something is drawn: it takes a third of a second.
if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from helpers.inputs.data import DataFacts

_DARK = "#333333"
# Where legends stand.
_UPPER: Final = "upper right"
_LOWER: Final = "lower right"


def note_of(measured: Iterable[Training] | Iterable[Merge]) -> str:
    """Return the lines on where and when something was measured, broken to a figure's width."""
    return width.wrapped(tables.notes(each.origin for each in measured), 160)


def keep(figure: Figure, run: paths.RunFolder, name: str) -> Picture:
    """Keep a figure as figures/NAME.png of the run, and return it to be shown."""
    png, file = drawing.as_png(figure), run.figures / f"{name}.png"
    write_bytes(file, png)
    return Picture(png, figure.get_suptitle(), file, figure)


# ---- the data -----------------------------------------------------------------------------------


def data_overview(facts: DataFacts, run: paths.RunFolder) -> Picture:
    """Draw histograms of the length of problems and of worked solutions, in characters.

    Args:
        facts: what the run's prepared data are.
        run: the run; its data are read.
    """
    from helpers.inputs import data

    sets = {tr("training"): data.TRAIN, tr("held-out"): data.EVAL}
    figure, axes = drawing.new_figure(2, tr("The problems: {source}", source=facts.words()))
    headings = (("instruction", tr("problem")), ("output", tr("worked solution")))
    for ax, (key, heading) in zip(axes, headings, strict=True):
        lengths = {
            name: [len(row[key]) for row in data.examples(run.data, which)]
            for name, which in sets.items()
        }
        ax.hist(list(lengths.values()), bins=30, density=True, label=list(lengths))
        ax.set(
            title=heading,
            xlabel=tr("characters"),
            ylabel=tr("share of examples per character"),
        )
        ax.legend(frameon=False)
    return keep(figure, run, "data")


# ---- trainings ----------------------------------------------------------------------------------


def training_curves(trainings: Mapping[str, Training], settings: Settings, name: str) -> Picture:
    """Draw training loss, held-out loss and memory over time, one colour a method.

    Args:
        trainings: by method.
        settings: the run's settings.
        name: of the file.
    """
    title = _titled(
        [settings.subjects[method].label for method in trainings],
        settings.model.name,
        settings.profile.name,
    )
    return keep(_curves(trainings, settings.subjects, title), settings.run, name)


def comparison_curves(comparison: Comparison, run: paths.RunFolder) -> Picture:
    """Draw the same of all methods of a comparison."""
    labels = [method.label for method in comparison.methods]
    title = _titled(labels, comparison.model, comparison.profile)
    figure = _curves(comparison.training, comparison.subjects, title)
    return keep(figure, run, "compare_curves")


def _titled(labels: Sequence[str], model: str, profile: str) -> str:
    return tr(
        "{methods}: {model}, {profile} profile",
        methods=series(labels),
        model=model,
        profile=profile,
    )


def _curves(
    trainings: Mapping[str, Training], subjects: Mapping[str, Subject], title: str
) -> Figure:
    figure, axes = drawing.new_figure(3, title, note_of(trainings.values()))
    _draw_losses(axes, trainings, subjects)
    _draw_memory(axes[2], trainings, subjects)
    return figure


def _draw_losses(
    axes: Sequence[Axes], trainings: Mapping[str, Training], subjects: Mapping[str, Subject]
) -> None:
    from matplotlib.ticker import MaxNLocator

    for method, training in trainings.items():
        style: dict[str, Any] = {
            "color": subjects[method].colour,
            "label": subjects[method].label,
        }
        axes[0].plot([p.step for p in training.loss], [p.loss for p in training.loss], **style)
        axes[1].plot(
            [p.step for p in training.eval_loss],
            [p.loss for p in training.eval_loss],
            "o-",
            **style,
        )
    axes[0].set_title(tr("training"), fontsize=10)
    axes[1].set_title(tr("held-out"), fontsize=10)
    for ax in axes[:2]:
        ax.set(xlabel=tr("optimizer step"), ylabel=tr("cross-entropy loss (nats/token)"))
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))  # there is no half a step
        ax.set_ylim(bottom=0)
    axes[0].legend(frameon=False, loc=_UPPER)
    axes[1].legend(frameon=False, loc=_LOWER)


def _draw_memory(
    ax: Axes, trainings: Mapping[str, Training], subjects: Mapping[str, Subject]
) -> None:
    for method, training in trainings.items():
        trace = training.memory
        ax.plot(
            trace.seconds,
            [used / 1e9 for used in trace.bytes_used],
            color=subjects[method].colour,
            label=tr(
                "{method}, peak {peak} GB",
                method=subjects[method].label,
                peak=f"{trace.peak_bytes / 1e9:.2f}",
            ),
        )
    measures = dict.fromkeys(training.memory.measure for training in trainings.values())
    ax.set_title("\n".join(memory.named(measure) for measure in measures), fontsize=10)
    ax.set(xlabel=tr("seconds since the call began"), ylabel=tr("memory (GB = 10⁹ bytes)"))
    ax.set_ylim(bottom=0)
    ax.legend(frameon=False, loc=_LOWER)


# ---- bars ---------------------------------------------------------------------------------------


def _ticks(subjects: Iterable[Subject]) -> list[str]:
    """Return the subjects' labels, narrow enough to stand under their bars."""
    return [width.wrapped(subject.label, 14) for subject in subjects]


def _bars(
    ax: Axes, subjects: Sequence[Subject], values: Sequence[float | None], form: str, none: str = ""
) -> None:
    """Draw a bar a subject, its value above it; where there is none, `none` stands in its place."""
    places = range(len(subjects))
    bars = ax.bar(
        places, [value or 0 for value in values], color=[subject.colour for subject in subjects]
    )
    ax.set_xticks(places, _ticks(subjects))
    labels = ["" if value is None else form.format(value) for value in values]
    ax.bar_label(bars, labels, padding=3, fontsize=9)
    for place, value in enumerate(values):
        if value is None:  # on the axis, which may be logarithmic and have no 0
            ax.annotate(
                none, (place, 0), (0, 3), xycoords=("data", "axes fraction"),
                textcoords="offset points", ha="center", va="bottom", fontsize=9,
            )  # fmt: skip
    ax.set_axisbelow(True)
    ax.grid(visible=False, axis="x")
    ax.margins(y=0.15)


def cost_bars(comparison: Comparison, run: paths.RunFolder) -> Picture:
    """Draw what each method cost: time of the call, samples a second, peak memory."""
    title = tr(
        "What each cost: {model}, {profile} profile",
        model=comparison.model,
        profile=comparison.profile,
    )
    trainings = comparison.training.values()
    figure, axes = drawing.new_figure(3, title, note_of(trainings))
    subjects = [comparison.subjects[method] for method in comparison.training]
    measure = comparison.verdict.measure
    _bars(axes[0], subjects, [training.call_seconds for training in trainings], "{:.0f}")
    axes[0].set_title(tr("whole training call"), fontsize=10)
    axes[0].set_ylabel(tr("seconds"))
    _bars(axes[1], subjects, [training.samples_per_second for training in trainings], "{:.2f}")
    axes[1].set_title(tr("training, its evaluations left out"), fontsize=10)
    axes[1].set_ylabel(tr("samples per second"))
    taken = [peaks.of(training, measure) for training in trainings]
    large = max(taken) >= 1e8
    _bars(axes[2], subjects, [peak / (1e9 if large else 1e6) for peak in taken], "{:.2f}")
    axes[2].set_title(peaks.named(measure), fontsize=10)
    axes[2].set_ylabel(tr("peak (GB = 10⁹ bytes)") if large else tr("peak (MB = 10⁶ bytes)"))
    return keep(figure, run, "compare_cost")


def accuracy_bars(comparison: Comparison, run: paths.RunFolder) -> Shown:
    """Draw the share of held-out problems that each subject answered, with its 95 % interval.

    Returns:
        The picture; a sentence where the data do not say what is right.
    """
    from helpers.results import comparison_tables

    stood = comparison_tables.scores(comparison)
    if not comparison.accuracy:
        return Sentence(stood)
    title = tr(
        "Held-out problems answered: {model}, {profile} profile",
        model=comparison.model,
        profile=comparison.profile,
    )
    note = width.wrapped(sentences([stood, comparison.origin.note()]), 150)
    figure, (ax,) = drawing.new_figure(1, title, note, height=4.0)
    subjects, scores = list(comparison.subjects.values()), list(comparison.accuracy.values())
    figure.set_figwidth(max(8.5, 1.35 * len(subjects)))
    places = range(len(subjects))
    shares = [100 * score.share for score in scores]
    ends = [(100 * score.low, 100 * score.high) for score in scores]
    # Rounded, an end can lie a hair on the wrong side of its share.
    below = [max(0, share - low) for share, (low, _) in zip(shares, ends, strict=True)]
    above = [max(0, high - share) for share, (_, high) in zip(shares, ends, strict=True)]
    ax.bar(
        places,
        shares,
        color=[subject.colour for subject in subjects],
        yerr=[below, above],
        capsize=4,
        ecolor=_DARK,
    )
    for place, share, score, (_, high) in zip(places, shares, scores, ends, strict=True):
        # Above the interval: a bar near zero has no room for its figure.
        text = tr("{percent} %\n{right} of {n}", percent=f"{share:.1f}", right=score.correct,
                  n=score.n)  # fmt: skip
        ax.annotate(text, (place, high), (0, 5), textcoords="offset points", ha="center",
                    va="bottom", fontsize=10, color=_DARK,
                    bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5})  # fmt: skip
    ax.set_xticks(places, _ticks(subjects))
    ax.set_xlim(-0.6, len(subjects) - 0.4)
    ax.set_axisbelow(True)
    ax.grid(visible=False, axis="x")
    ax.set(
        ylabel=tr("exact match (% of the problems asked)"),
        ylim=(0, 118),
        yticks=range(0, 101, 20),
    )
    return keep(figure, run, "compare_accuracy")


def merge_bars(
    merges: Mapping[str, Merge], settings: Settings, name: str, scored: bool = True
) -> Picture:
    """Draw how far each merged model lies from base + adapter.

    Args:
        merges: by subject.
        settings: the run's settings.
        name: of the file.
        scored: whether the data say what is right; without, texts are compared. A model of the very
            weights from which base + adapter answered has no bar there.
    """
    title = tr(
        "Merged models against base + adapter: {model}, {profile} profile",
        model=settings.model.name,
        profile=settings.profile.name,
    )
    figure, axes = drawing.new_figure(2, title, note_of(merges.values()))
    figure.set_figwidth(max(9.2, 2.7 * len(merges)))
    subjects = [settings.subjects[each] for each in merges]
    distances = [merge.divergence.kl for merge in merges.values()]
    # A distance of nothing comes out as 0, or below it by rounding.
    above = [distance if distance > 0 else None for distance in distances]
    _bars(axes[0], subjects, above, "{:.1e}", tr("none"))
    # Merging as it should be and merging into other weights lie orders of magnitude apart. A
    # logarithmic axis has no room for a 0, and no bar is the right picture of it.
    axes[0].set_yscale("log")
    axes[0].set_ylim(bottom=min([x for x in distances if x > 0], default=1e-6) / 10)
    axes[0].set_title(tr("distance of the next-token distributions"), fontsize=10)
    axes[0].set_ylabel(tr("mean KL divergence (nats per token)"))
    shares = [
        None
        if merge.divergence.same_weights
        else 100 * (merge.same_answer if scored else merge.same_text) / merge.n
        for merge in merges.values()
    ]
    _bars(axes[1], subjects, shares, "{:.0f} %", tr("the same\nweights"))
    axes[1].set_title(tr("the same final answer") if scored else tr("the same text"), fontsize=10)
    axes[1].set(ylabel=tr("% of the problems that both were asked"), ylim=(0, 115))
    return keep(figure, settings.run, name)
