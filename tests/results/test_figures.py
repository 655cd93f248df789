"""Every figure has a title, its panels labels with units, and a file in the run's folder."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from conftest import ORIGIN, make_merge, make_training
from matplotlib.figure import Figure
from results import made

from helpers.ground import paths, words
from helpers.ground.shown import Picture
from helpers.inputs import data
from helpers.inputs.settings import Settings
from helpers.planning.plan import ArticlePlans
from helpers.records import schema
from helpers.results import comparison, figures, mechanism, memory_figures
from helpers.results.schema import Comparison

# Where to look at them: FIGURES=/tmp/figures pytest tests/results/test_figures.py
LOOK = os.environ.get("FIGURES")


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Every figure that is kept."""
    found: list[Figure] = []
    keep = figures.keep

    def kept(figure: Figure, run: paths.RunFolder, name: str) -> Picture:
        found.append(figure)
        picture = keep(figure, run, name)
        if LOOK:
            number = len(list(Path(LOOK).glob("*.png")))
            (Path(LOOK) / f"{number:02}_{name}.png").write_bytes(picture.png)
        return picture

    monkeypatch.setattr(figures, "keep", kept)
    monkeypatch.setattr(mechanism, "keep", kept)
    monkeypatch.setattr(memory_figures, "keep", kept)
    return found


@pytest.fixture
def three(runs: object) -> Settings:
    """The settings of a run with three methods, whose records are there."""
    chosen = made.chosen("lora qlora dora")
    made.write(
        chosen,
        qlora={"training": make_training(final_eval_loss=0.6, call_seconds=31)},
        qlora_merged={"merge": make_merge(same_answer=1, kl=0.1)},
    )
    return chosen


@pytest.fixture
def compared(three: Settings) -> Comparison:
    return comparison.compare(three)


def _data(chosen: Settings) -> Picture:
    chosen.run.data.mkdir(parents=True, exist_ok=True)
    row = {"instruction": "How many?", "input": "", "output": "2 + 2 = 4\n#### 4"}
    longer = row | {"instruction": "How many are there, all in all?"}
    for name in (data.TRAIN, data.EVAL):
        (chosen.run.data / f"{name}.json").write_text(json.dumps([row, longer, longer]))
    return figures.data_overview(made.record(chosen, "base").data, chosen.run)


def _both_settings(chosen: Settings, found: Comparison) -> Picture:
    plans = {name: made.plan() for name in ("lora", "qlora")}
    measured = schema.ArticleMemory(training={"lora": 3 * 2**30, "qlora": 2 * 2**30}, origin=ORIGIN)
    trainings = {name: found.training[name] for name in plans}
    return memory_figures.both_settings(plans, trainings, plans, measured, chosen)


def _merges(chosen: Settings, found: Comparison) -> Picture:
    return figures.merge_bars(found.merges, chosen, "merges")


def _all_plans(chosen: Settings, found: Comparison) -> Picture:
    plans = {method.name: made.plan() for method in chosen.methods}
    article = ArticlePlans(
        made_from="",
        plans={f"Qwen2-{size} {method} 2048": made.plan(9 * 2**30)
               for size in ("0.5B", "7B") for method in ("lora", "qlora")},
    )  # fmt: skip
    return memory_figures.all_plans(plans, article, chosen)


ALL: Mapping[str, Callable[[Settings, Comparison], Picture]] = {
    "data": lambda chosen, found: _data(chosen),
    "lora_curves": lambda chosen, found: figures.training_curves(
        {"lora": make_training()}, chosen, "lora_curves"
    ),
    "compare_curves": lambda chosen, found: figures.comparison_curves(found, chosen.run),
    "compare_cost": lambda chosen, found: figures.cost_bars(found, chosen.run),
    "compare_accuracy": lambda chosen, found: figures.accuracy_bars(found, chosen.run),
    "merges": _merges,
    "qlora_plan": lambda chosen, found: memory_figures.planned_and_measured(
        {name: (made.plan(4 * 10**8, 3 * 10**8), make_training()) for name in ("lora", "qlora")},
        chosen,
        "qlora_plan",
    ),
    "both_settings": _both_settings,
    "compare_plans": _all_plans,
    "layer": lambda chosen, found: mechanism.layer_picture(made.layer(), chosen.run),
    "block": lambda chosen, found: mechanism.block_picture(made.block(), chosen.run),
}


@pytest.mark.parametrize("name", ALL)
def test_a_figure_has_a_title_and_labels_and_is_kept_with_the_run(
    name: str, three: Settings, compared: Comparison, drawn: list[Figure]
) -> None:
    picture = ALL[name](three, compared)
    assert picture.file == three.run.figures / f"{name}.png"
    assert picture.file.read_bytes() == picture.png
    assert picture.png.startswith(b"\x89PNG")
    [figure] = drawn
    assert figure.get_suptitle() == picture.alt
    assert picture.alt
    if name == "layer":  # heat maps: the panels are matrices, and say which
        return
    for ax in figure.axes:
        assert ax.get_ylabel() or [tick.get_text() for tick in ax.get_yticklabels()]
        assert ax.get_xlabel() or [tick.get_text() for tick in ax.get_xticklabels()]
        assert len(figure.axes) == 1 or ax.get_title()


@pytest.mark.parametrize("name", [name for name in ALL if name not in ("data", "compare_plans")])
def test_what_was_measured_says_where_and_when(
    name: str, three: Settings, compared: Comparison, drawn: list[Figure]
) -> None:
    ALL[name](three, compared)
    assert drawn[0].get_supxlabel().replace("\n", " ").endswith(ORIGIN.note())


def test_a_plan_alone_says_that_nothing_was_measured(
    three: Settings, compared: Comparison, drawn: list[Figure]
) -> None:
    _all_plans(three, compared)
    assert "nothing was measured" in drawn[0].get_supxlabel()
    names = [tick.get_text() for tick in drawn[0].axes[0].get_yticklabels()]
    assert names[2] == f"this run, {three.model.name}, DoRA"
    assert len(names) == 7


def test_curves_show_the_figures_they_are_given(
    three: Settings, compared: Comparison, drawn: list[Figure]
) -> None:
    figures.comparison_curves(compared, three.run)
    training, held_out, memory = drawn[0].axes
    assert list(training.lines[0].get_ydata()) == [p.loss for p in make_training().loss]
    assert list(held_out.lines[2].get_ydata()) == [p.loss for p in make_training().eval_loss]
    legend = memory.get_legend()
    assert legend
    assert "LoRA, peak 1.00 GB" in legend.get_texts()[0].get_text()
    assert memory.get_title() == "resident memory of the training process"
    colours = {line.get_color() for line in training.lines}
    assert colours == {compared.subjects[name].colour for name in ("lora", "qlora", "dora")}


def test_a_comparison_is_drawn_in_a_run_that_was_opened_with_other_methods(
    three: Settings, compared: Comparison, drawn: list[Figure]
) -> None:
    found = comparison.read(three.run.comparison)
    figures.comparison_curves(found, three.run)
    figures.cost_bars(found, three.run)
    figures.accuracy_bars(found, three.run)
    assert [tick.get_text() for tick in drawn[1].axes[0].get_xticklabels()] == [
        "LoRA", "QLoRA", "DoRA"
    ]  # fmt: skip


def test_cost_shows_memory_as_the_allocator_counts_it(
    three: Settings, compared: Comparison, drawn: list[Figure]
) -> None:
    figures.cost_bars(compared, three.run)
    seconds, _, memory = drawn[0].axes
    assert [bar.get_height() for bar in seconds.patches] == [20.0, 31.0, 20.0]
    assert [bar.get_height() for bar in memory.patches] == [0.4, 0.4, 0.4]
    assert memory.get_title() == "tensors, as the allocator counts them"


def test_a_score_stands_above_its_interval(
    three: Settings, compared: Comparison, drawn: list[Figure]
) -> None:
    """Also that of a bar which is too low to hold it."""
    figures.accuracy_bars(compared, three.run)
    [ax] = drawn[0].axes
    scores = list(compared.accuracy.values())
    assert [text.get_text() for text in ax.texts] == [
        f"{100 * s.share:.1f} %\n{s.correct} of {s.n}" for s in scores
    ]
    for text, score in zip(ax.texts, scores, strict=True):
        assert text.xy[1] == pytest.approx(100 * score.high)  # type: ignore[attr-defined]
        assert text.get_color() == "#333333"
        assert text.get_fontsize() == 10
        box = text.get_bbox_patch()  # no line of the grid runs through it
        assert box is not None
        assert box.get_facecolor() == (1.0, 1.0, 1.0, 1.0)


def test_merges_that_cannot_be_scored_show_texts(
    three: Settings, compared: Comparison, drawn: list[Figure]
) -> None:
    figures.merge_bars(compared.merges, three, "merges", scored=False)
    assert drawn[0].axes[1].get_title() == "the same text"


def test_a_merged_model_that_was_not_asked_has_no_bar(
    three: Settings, compared: Comparison, drawn: list[Figure]
) -> None:
    compared.merges["lora_merged"].divergence.same_weights = True
    figures.merge_bars(compared.merges, three, "merges")
    answers = drawn[0].axes[1]
    assert {"the same\nweights", "25 %"} <= {text.get_text() for text in answers.texts}
    assert answers.patches[0].get_height() == 0


def test_a_distance_of_nothing_has_no_bar_and_says_so(
    three: Settings, compared: Comparison, drawn: list[Figure]
) -> None:
    for name, merge in compared.merges.items():  # what rounding makes of 0, and of more
        merge.divergence.kl = -1e-9 if name == "qlora_merged" else 1e-3
    _merges(three, compared)
    distances = drawn[-1].axes[0]
    at = list(compared.merges).index("qlora_merged")
    [said] = [text for text in distances.texts if text.get_text() == "none"]
    assert said.xy == (at, 0)


def test_accuracy_that_is_not_known_is_a_sentence(three: Settings, compared: Comparison) -> None:
    compared.accuracy = {}
    shown = figures.accuracy_bars(compared, three.run)
    assert "do not say what is right" in shown.plain()


def test_merges_are_drawn_on_a_scale_that_shows_small_and_large(
    three: Settings, compared: Comparison, drawn: list[Figure]
) -> None:
    _merges(three, compared)
    distance, answers = drawn[0].axes
    assert distance.get_yscale() == "log"
    assert [bar.get_height() for bar in distance.patches] == [0.0, 0.1, 0.0, 0.0]
    assert [bar.get_height() for bar in answers.patches] == [100.0, 25.0, 100.0, 100.0]


def test_planned_and_measured_memory_are_bars_of_their_own(
    three: Settings, drawn: list[Figure]
) -> None:
    plan = made.plan(3 * 2**30, 2**30)
    measured = make_training(
        peaks={"training": 4 * 2**30, "training_longest": True, "evaluation": 2**29}
    )
    sampled = make_training(peaks={})
    found = {"lora": (plan, measured), "qlora": (plan, sampled)}
    memory_figures.planned_and_measured(found, three, "plan")
    [ax] = drawn[0].axes
    names = [tick.get_text() for tick in ax.get_yticklabels()]
    assert names == [
        "LoRA, training step: planned",
        "LoRA, training step: measured",
        "LoRA, evaluation: planned",
        "LoRA, evaluation: measured\nwithout the longest example",
        "QLoRA: planned",
        "QLoRA: measured\nresident memory of the\ntraining process",
    ]
    hatched = [bar.get_width() for bar in ax.patches if bar.get_hatch()]
    assert hatched == [4, 0.5, pytest.approx(10**9 / 2**30)]
    widths = [bar.get_width() for bar in ax.patches if bar.get_width() and not bar.get_hatch()]
    assert sum(widths) == pytest.approx(3 + 1 + 3)
    figures_shown = [text.get_text().strip() for text in ax.texts]
    assert figures_shown == ["3.00", "4.00", "1.00", "0.50", "3.00", "0.93"]


def test_little_memory_is_drawn_in_a_unit_in_which_it_is_something(
    three: Settings, compared: Comparison, drawn: list[Figure]
) -> None:
    little = {"training": 4_500_000, "evaluation": 3_000_000}
    for training in compared.training.values():
        training.peaks = training.peaks.model_copy(update=little)
    figures.cost_bars(compared, three.run)
    memory = drawn[0].axes[2]
    assert memory.get_ylabel() == "peak (MB = 10⁶ bytes)"
    assert [bar.get_height() for bar in memory.patches] == [4.5] * 3
    found = {"lora": (made.plan(5 * 2**20, 2**20), make_training(peaks={"training": 4 * 2**20}))}
    memory_figures.planned_and_measured(found, three, "plan")
    [ax] = drawn[1].axes
    assert ax.get_xlabel() == "MiB = 2²⁰ bytes at the peak"
    assert [text.get_text().strip() for text in ax.texts] == ["5.00", "4.00", "1.00"]


def test_a_layer_and_its_product_have_one_scale_of_colours(
    three: Settings, drawn: list[Figure]
) -> None:
    picture = mechanism.layer_picture(made.layer(), three.run)
    assert picture.alt.startswith("model.layers.1.self_attn.q_proj: 20 numbers trained beside 24")
    weight, beside, _, own, _ = [ax.images[0] for ax in drawn[0].axes if ax.images][:5]
    assert weight.get_clim() == beside.get_clim() == (-0.5, 0.5)
    assert own.get_clim()[1] < 0.5
    assert beside.get_array().tolist() == own.get_array().tolist() == made.layer().product


def test_dora_shows_all_that_training_changes(three: Settings, drawn: list[Figure]) -> None:
    changed = [[0.2] * 6] * 4
    mechanism.layer_picture(made.layer(magnitude=[1.0] * 4, change=changed), three.run)
    beside = drawn[0].axes[1]
    assert beside.get_title() == "what training changes, on the scale of W"
    assert beside.images[0].get_array().tolist() == changed


def test_a_block_shows_its_codes_and_its_weights(three: Settings, drawn: list[Figure]) -> None:
    block = made.block()
    mechanism.block_picture(block, three.run)
    line, error = drawn[0].axes
    before, after = [points for points in line.lines if points.get_marker() == "o"]
    assert list(before.get_xdata()) == block.before
    assert list(after.get_xdata()) == block.after
    assert len(error.patches) == 64
    largest = max(abs(b - a) for a, b in zip(block.before, block.after, strict=True))
    assert max(abs(bar.get_height()) for bar in error.patches) == pytest.approx(largest)


def test_weights_that_were_not_trained_can_be_drawn(three: Settings) -> None:
    """B begins as zeros: a scale of colours has to come from somewhere."""
    zero = [[0.0] * 6] * 4
    layer = made.layer(b=[[0.0] * 2] * 4, product=zero, change=zero)
    assert mechanism.layer_picture(layer, three.run).png


def test_figures_of_another_language_lie_beside_the_english_ones(three: Settings) -> None:
    english = mechanism.block_picture(made.block(), three.run)
    with words.spoken("zh"):
        chinese = mechanism.block_picture(made.block(), three.run)
    assert chinese.file == english.file.parent / "zh/block.png"
    assert english.file.read_bytes() == english.png != chinese.png
