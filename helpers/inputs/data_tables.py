"""What readers see of a run's problems: where they come from, some of them, and their answers."""

from __future__ import annotations

from helpers.ground import paths
from helpers.ground.shown import Code, Table, facts
from helpers.ground.words import tr
from helpers.inputs import data
from helpers.inputs.data import DataFacts


def facts_table(about: DataFacts) -> Table:
    """Return where the problems come from, and how many there are."""
    rows = {
        tr("source"): about.words(),
        tr("rows in the source"): f"{about.source_rows:,}",
        tr("training problems"): f"{about.train:,}",
        tr("held-out problems"): f"{about.eval:,}",
        tr("sampled rows that cannot be used"): f"{len(about.unusable):,}",
    }
    return facts(rows, [tr("data"), tr("value")])


def examples_table(run: paths.RunFolder, count: int) -> Table:
    """Return the first training problems with what the model should write."""
    shown = data.load(run.data, data.TRAIN)[:count]
    return Table(
        [tr("problem"), tr("what the model should write")],
        [(row["instruction"], row["output"].replace("\n", " ⏎ ")) for row in shown],
    )


def answers_table(run: paths.RunFolder) -> Table:
    """Return what kind of answers the training problems have, and what is wrong with them."""
    train, held_out = (data.load(run.data, name) for name in (data.TRAIN, data.EVAL))
    kinds = data.kinds(train)
    rows = {
        tr("answer is a number"): kinds["number"],
        tr("answer is a letter"): kinds["letter"],
        tr("the last number of the worked steps is not the answer"): len(
            data.contradictions(train)
        ),
        tr("held-out problems that also stand in the training set"): data.overlap(train, held_out),
    }
    return facts(rows, [tr("the training problems"), tr("count")])


def registration(run: paths.RunFolder) -> Code:
    """Return how LLaMA-Factory finds the two sets."""
    return Code(data.registration_file(run).read_text("utf-8"), "json")
