"""Tables and texts as notebooks show them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from IPython.display import Markdown

from helpers.records import Answers, Example, Training
from helpers.serving import Said


def _cell(value: object) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> Markdown:
    """Return rows as a table that notebooks and GitHub render."""
    lines = [list(header), ["---"] * len(header), *rows]
    return Markdown("\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines))


def code(text: str, language: str = "") -> Markdown:
    """Return text as a block of code."""
    return Markdown(f"```{language}\n{text.rstrip()}\n```")


def yaml_file(file: Path) -> Markdown:
    """Return a YAML file as a block of code."""
    return code(file.read_text("utf-8"), "yaml")


def text(sentence: str) -> Markdown:
    """Return a sentence that stands out."""
    return Markdown(f"> **{sentence}**")


def training_facts(training: Training) -> list[tuple[str, str]]:
    """Return what a training did, as (name, value) rows."""
    memory = training.memory
    rows = [
        ("optimizer steps", str(training.optimizer_steps)),
        ("training loss, first and last logged",
         f"{training.loss[0].loss:.3f} → {training.loss[-1].loss:.3f}" if training.loss
         else "none: fewer optimizer steps than logging_steps"),
        ("held-out loss after training", f"{training.final_eval_loss:.4f}"),
        ("the whole call", f"{training.call_seconds:.0f} s"),
        ("of it the training loop", f"{training.train_seconds:.0f} s"),
        ("speed", f"{training.samples_per_second:.2f} samples/s"),
        (f"peak {memory.measure}", f"{memory.peak_bytes / 1e9:.2f} GB"),
        ("adapter on disk", f"{training.adapter_bytes / 1e6:.1f} MB"),
    ]  # fmt: skip
    if training.resumed_at:
        steps = ", ".join(map(str, training.resumed_at))
        rows.append(("interrupted; went on from step (times without what was lost)", steps))
    if memory.allocator_peak_bytes is not None:
        peak = f"{memory.allocator_peak_bytes / 1e9:.2f} GB"
        rows.append(("peak of torch's allocator on the device", peak))
    return rows


def facts_side_by_side(*trainings: Training) -> list[list[str]]:
    """Return what trainings did as table rows, one column a training; "-" where one lacks a row."""
    columns = [dict(training_facts(training)) for training in trainings]
    names = dict.fromkeys(name for column in columns for name in column)
    return [[name, *(column.get(name, "-") for column in columns)] for name in names]


def answer_counts(*answers: Answers) -> list[list[str]]:
    """Return table rows with the counts of right answers, one column a subject."""
    return [
        ["exact match", *(f"{a.correct} of {a.n}" for a in answers)],
        ["without ####: last number or letter", *(f"{a.correct_without_mark} of {a.n}"
                                                   for a in answers)],
        ["time of the predict call", *(f"{a.seconds:.0f} s" for a in answers)],
    ]  # fmt: skip


def side_by_side(examples: Iterable[Example]) -> Markdown:
    """Return problems with each subject's worked answer, right and wrong marked.

    Subjects that wrote the same to the letter share a line.
    """
    parts = []
    for example in examples:
        parts.append(f"**{_plain(example.problem)}** Expected: {example.expected}\n")
        authors: dict[tuple[str, bool], list[str]] = {}
        for name, answer in example.answers.items():
            authors.setdefault(answer, []).append(name)
        for (worked, correct), names in authors.items():
            mark = "✓" if correct else "✗"
            parts.append(f"- {mark} *{'; '.join(names)}*: {_plain(_shortened(worked))}")
        parts.append("")
    return Markdown("\n".join(parts))


def chat(conversations: Mapping[str, Sequence[Said]]) -> Markdown:
    """Return what several models answered to the same questions, by their names."""
    parts = []
    for turns in zip(*conversations.values(), strict=True):
        parts.append(f"**{_plain(turns[0].question)}**\n")
        parts += [
            f"- *{name}*: {_plain(_shortened(turn.answer))}"
            for name, turn in zip(conversations, turns, strict=True)
        ]
        parts.append("")
    return Markdown("\n".join(parts))


def _shortened(worked: str, most: int = 400) -> str:
    line = " ".join(worked.split())
    return line if len(line) <= most else line[:most] + " ..."


def _plain(words: str) -> str:
    """Return text in which Markdown finds nothing to mark up."""
    return re.sub(r"([\\`*_{}\[\]<>#|$~])", r"\\\1", words)
