"""What readers see of a run's problems: where they come from, some of them, and their answers."""

from __future__ import annotations

from itertools import islice

from helpers.ground import paths
from helpers.ground.shown import Code, Table, facts
from helpers.ground.words import series, tr, trn
from helpers.inputs import answers, data
from helpers.inputs.data import DataFacts
from helpers.inputs.file_kinds import SPELT


def facts_table(about: DataFacts) -> Table:
    """Return where the problems come from, in which form, and how many there are."""
    rows = {
        tr("source"): about.words(),
        tr("form"): _form(about),
        tr("columns"): _columns(about),
        tr("rows in the source"): f"{about.source_rows:,}",
        tr("training problems"): f"{about.train:,}",
        tr("held-out problems"): f"{about.eval:,}",
    }
    if about.curve:
        rows[tr("of these, on which training follows the held-out loss")] = f"{about.curve:,}"
    if about.with_tools:
        rows[tr("problems in which tools are called or answer")] = f"{about.with_tools:,}"
    none = tr("none that can be scored: losses and texts are compared, accuracy is left out")
    rows |= {
        tr("answers come from"): data.ways_named(about.answers) if about.scored else none,
        tr("sampled rows that cannot be used"): f"{len(about.unusable):,}",
        tr("training problems that stand there twice"): f"{about.repeated:,}",
        tr("held-out problems that also stand in the training set"): f"{about.leaked:,}",
    }
    return facts(rows, [tr("data"), tr("value")])


def _form(about: DataFacts) -> str:
    kind = SPELT[about.kind]
    form = {
        "alpaca": tr("{kind}, Alpaca columns", kind=kind),
        "messages": tr("{kind}, messages", kind=kind),
    }[about.form]
    many = trn("{n} file of {form}", "{n} files of {form}", about.files, form=form)
    return form if about.files == 1 else many


def _columns(about: DataFacts) -> str:
    return series(
        ours if ours == theirs else f"{ours} = {theirs}" for ours, theirs in about.columns.items()
    )


def examples_table(run: paths.RunFolder, count: int) -> Table:
    """Return the first training problems with what the model should write."""
    shown = islice(data.examples(run.data, data.TRAIN), count)
    return Table(
        [tr("problem"), tr("what the model should write")],
        [(row["instruction"], row["output"].replace("\n", " ⏎ ")) for row in shown],
    )


def answers_table(run: paths.RunFolder) -> Table:
    """Return what kind of answers the training problems have, and what is wrong with them."""
    about = data.facts_of(run)
    if not about.scored:
        rows = {tr("problems without an answer that can be scored"): about.train}
        return facts(rows, [tr("the training problems"), tr("count")])
    kinds = answers.kinds(data.examples(run.data, data.TRAIN))
    rows = {
        tr("answer is a number"): kinds["number"],
        tr("answer is a letter"): kinds["letter"],
        tr("the last number of the worked steps is not the answer"): len(
            answers.contradictions(data.examples(run.data, data.TRAIN))
        ),
    }
    return facts(rows, [tr("the training problems"), tr("count")])


def registration(run: paths.RunFolder) -> Code:
    """Return how LLaMA-Factory finds the sets."""
    return Code(data.registration_file(run).read_text("utf-8"), "json")
