"""Every figure has a title, and every panel labels with units; tables survive odd text."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import make_answers, make_merge, make_training
from matplotlib.figure import Figure

from helpers import figures, paths, records, show
from helpers.planner import PARTS, Phase

TRAININGS = {"lora": make_training(), "qlora": make_training(final_eval_loss=0.6)}
PHASE = Phase(
    rows=2, length=64, peak_bytes=3 * 2**30,
    parts=dict.fromkeys(PARTS, 0) | {"weights": 2 * 2**30, "logits": 2**30},
)  # fmt: skip
EXAMPLES = [{"instruction": "How many?", "input": "", "output": "2 + 2 = 4\n#### 4"}] * 3
ALL = {
    "training": figures.training_curves(TRAININGS, "LoRA and QLoRA"),
    "cost": figures.cost_bars(
        {
            name: {"call_seconds": 10, "samples_per_second": 2, "peak_gb": 1}
            for name in ("lora", "qlora")
        },
        "memory",
        "What each cost",
    ),
    "accuracy": figures.accuracy_bars({"base": (0, 0, 0.1), "lora": (0.5, 0.3, 0.7)}, 20, "Score"),
    "merges": figures.merge_bars(
        {"lora_merged": make_merge(), "qlora_merged": make_merge(same_answer=1, kl=0.1)}, "Merged"
    ),
    "plan": figures.plan_bars(
        {"LoRA": PHASE, "QLoRA": PHASE}, "Planned", {"LoRA": ("the allocator", 4 * 2**30)}
    ),
    "data": figures.data_overview({"training": EXAMPLES, "held-out": EXAMPLES}, "The problems"),
}


@pytest.mark.parametrize("name", ALL)
def test_titles_and_labels(name: str) -> None:
    figure: Figure = ALL[name]
    assert figure.get_suptitle()
    for ax in figure.axes:
        assert ax.get_ylabel() or [tick.get_text() for tick in ax.get_yticklabels()]
        assert ax.get_xlabel() or [tick.get_text() for tick in ax.get_xticklabels()]
        assert len(figure.axes) == 1 or ax.get_title()


def test_curves_show_the_figures_they_are_given() -> None:
    training, held_out, memory = ALL["training"].axes
    assert list(training.lines[0].get_ydata()) == [p.loss for p in TRAININGS["lora"].loss]
    assert list(held_out.lines[1].get_ydata()) == [p.loss for p in TRAININGS["qlora"].eval_loss]
    assert "peak 1.00 GB" in memory.get_legend().get_texts()[0].get_text()


def test_merges_are_drawn_on_a_scale_that_shows_small_and_large() -> None:
    distance, answers = ALL["merges"].axes
    assert distance.get_yscale() == "log"
    assert [bar.get_height() for bar in distance.patches] == [0.0, 0.1]
    assert [bar.get_height() for bar in answers.patches] == [100.0, 25.0]


def test_planned_and_measured_memory_are_bars_of_their_own() -> None:
    [ax] = ALL["plan"].axes
    names = [tick.get_text() for tick in ax.get_yticklabels()]
    assert names == ["LoRA: planned", "LoRA: measured\nthe allocator", "QLoRA: planned"]
    widths = [bar.get_width() for bar in ax.patches if bar.get_width()]
    assert widths == [2, 1, 4, 2, 1]
    assert [text.get_text().strip() for text in ax.texts] == ["3.00", "4.00", "3.00"]


def test_facts_side_by_side_where_only_one_training_was_interrupted() -> None:
    rows = show.facts_side_by_side(make_training(), make_training(resumed_at=[4]))
    assert all(len(row) == 3 for row in rows)
    assert [row[1:] for row in rows if row[0].startswith("interrupted")] == [["-", "4"]]


def test_facts_of_a_training_too_short_to_log_a_loss() -> None:
    rows = dict(show.training_facts(make_training(loss=[])))
    assert rows["training loss, first and last logged"].startswith("none")


def test_a_figure_is_saved_with_the_run(runs: Path) -> None:
    run = paths.RunFolder("test")
    shown = figures.save(ALL["cost"], run, "cost")
    assert (run.figures / "cost.png").read_bytes() == shown.data
    assert shown.data.startswith(b"\x89PNG")


def test_the_live_curve_can_be_drawn_from_the_first_moment() -> None:
    assert "data:image/png" in figures.live_curve([], [], 0)
    assert "data:image/png" in figures.live_curve([(1, 2.0)], [(1, 1.5)], 10)


def test_tables_keep_their_columns_whatever_the_text() -> None:
    text = show.table(["a", "b"], [("x | y", "two\nlines")]).data
    assert text.splitlines()[2] == "| x \\| y | two lines |"


def test_worked_answers_are_marked_and_not_rendered() -> None:
    before, after = make_answers([False]), make_answers([True])
    before.items[0].text = "$5 * 3$ <b>is</b> #### 8"
    text = show.side_by_side(records.examples({"base model": before, "LoRA": after}, 1)).data
    assert "✗ *base model*: \\$5 \\* 3\\$ \\<b\\>is" in text
    assert "✓ *LoRA*" in text


def test_who_wrote_the_same_shares_a_line() -> None:
    same, other = make_answers([True]), make_answers([False])
    text = show.side_by_side(
        records.examples({"LoRA": same, "LoRA, merged": same, "QLoRA": other}, 1)
    ).data
    assert "✓ *LoRA; LoRA, merged*" in text
    assert "✗ *QLoRA*" in text


def test_facts_of_a_training_name_the_memory_for_what_it_is() -> None:
    rows = dict(show.training_facts(make_training()))
    assert rows["peak memory"] == "1.00 GB"
    assert rows["training loss, first and last logged"] == "2.000 → 0.250"
