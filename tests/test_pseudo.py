"""A language in which every translation is marked: what stands outside of the marks was not said
through the catalogue. Tables, verdict, checks, figures, and what a run writes are gone through.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

import pytest
from conftest import make_answers, make_training
from matplotlib.figure import Figure
from matplotlib.text import Text
from results import made
from results.test_figures import ALL, compared, drawn, three

from helpers.ground import words
from helpers.ground.errors import TutorialError
from helpers.ground.shown import Shown
from helpers.inputs.settings import Settings
from helpers.records import store
from helpers.records.schema import Score
from helpers.results import (
    checks,
    comparison_tables,
    merge_checks,
    tables,
    verdict,
)
from helpers.results.schema import Comparison

__all__ = ["compared", "drawn", "three"]  # fixtures

OPEN, CLOSE = "\N{LEFT CEILING}", "\N{RIGHT FLOOR}"  # in the fonts of figures
WORD = re.compile(r"[A-Za-z]{3,}")
# Names, keys, units and values, which are the same in every language.
NAMES = {
    "LoRA", "QLoRA", "DoRA", "torch", "GiB", "MiB", "logits", "tiny", "random", "qwen", "smoke",
    "cpu", "float", "generated", "true", "false", "lora", "qlora", "dora", "nats", "token", "KL",
}  # fmt: skip


class Marked:
    """A catalogue in which a translation is its English between two marks."""

    def gettext(self, text: str) -> str:
        return f"{OPEN}{text}{CLOSE}"

    def ngettext(self, one: str, many: str, n: int) -> str:
        return self.gettext(one if n == 1 else many)


@pytest.fixture(autouse=True)
def marked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(words, "_catalogue", lambda language: Marked())


def outside(text: str) -> Iterator[str]:
    """Yield the words that stand outside of all marks and are no name."""
    depth, bare = 0, ""
    for sign in text:
        depth += (sign == OPEN) - (sign == CLOSE)
        bare += sign if depth == 0 else " "
    bare = re.sub(r"\$[^$]*\$", " ", bare)  # powers of ten on an axis
    # Code, keys (a dot, an underscore or a slash in them), file names.
    bare = re.sub(r"\S*[\w)][._/@=]\w\S*", " ", bare)
    yield from (word for word in WORD.findall(bare) if word not in NAMES)


SHOWN: Mapping[str, Callable[[Settings, Comparison], Shown]] = {
    "settings": lambda chosen, found: chosen.table(),
    "machine": lambda chosen, found: found.origin.machine.model_copy(
        update={"cpu": "cpu", "system": "smoke"}
    ),
    "trainings": lambda chosen, found: tables.trainings(
        {"LoRA": make_training(), "QLoRA": make_training(loss=[], resumed_at=[3])}
    ),
    "answers": lambda chosen, found: tables.answers({"LoRA": make_answers([True, False])}),
    "planned": lambda chosen, found: tables.planned_and_measured(
        {"LoRA": (made.plan(), make_training())}
    ),
    "layer": lambda chosen, found: tables.layer(made.layer()),
    "block": lambda chosen, found: tables.block(made.block()),
    "scores": lambda chosen, found: tables.scores(
        [Score(subject="base", benchmark="held_out", n=4, share=0.5, ours=2, seconds=3,
               evalscope="1")],
        found.subjects,
    ),
    "comparison": lambda chosen, found: comparison_tables.comparison(found),
    "conditions": lambda chosen, found: comparison_tables.conditions(found),
    "pairs": lambda chosen, found: comparison_tables.pairs(found),
    "seeds": lambda chosen, found: comparison_tables.seeds(found.seeds, found.subjects),
    "evidence": lambda chosen, found: comparison_tables.evidence(found),
    "checks": lambda chosen, found: checks.conclude(checks.of_comparison(found)),
}  # fmt: skip


@pytest.mark.parametrize("name", SHOWN)
def test_a_table_says_nothing_past_the_catalogue(
    name: str, three: Settings, compared: Comparison
) -> None:
    shown = SHOWN[name](three, compared)
    assert OPEN in shown.plain()
    assert list(outside(shown.plain())) == []


def test_the_verdict_says_nothing_past_the_catalogue(compared: Comparison) -> None:
    assert list(outside(verdict.sentence(compared))) == []


def test_checks_say_nothing_past_the_catalogue(three: Settings, compared: Comparison) -> None:
    records = {name: store.read(three.run, subject) for name, subject in three.subjects.items()
               if subject.kind == "merged"}  # fmt: skip
    for each in [*checks.of_comparison(compared), *merge_checks.of_merges(records, three)]:
        assert list(outside(each.statement)) == []
        assert list(outside(each.figures)) == []


@pytest.mark.parametrize("name", ALL)
def test_a_figure_says_nothing_past_the_catalogue(
    name: str, three: Settings, compared: Comparison, drawn: list[Figure]
) -> None:
    picture = ALL[name](three, compared)
    assert list(outside(picture.alt)) == []
    texts = [text.get_text() for text in drawn[0].findobj(Text) if isinstance(text, Text)]
    assert any(OPEN in text for text in texts)
    assert [word for text in texts for word in outside(text.replace("\n", " "))] == []


def test_what_a_run_writes_holds_no_sentence(three: Settings, compared: Comparison) -> None:
    files = [three.run.comparison, *three.run.results.glob("*.json")]
    assert len(files) > 6
    for file in files:
        assert OPEN not in file.read_text("utf-8"), file


def test_an_error_says_nothing_past_the_catalogue(three: Settings) -> None:
    with pytest.raises(TutorialError) as caught:
        three.subject("none of these")
    assert list(outside(str(caught.value).replace("none of these", ""))) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (f"{OPEN}held-out {OPEN}loss{CLOSE} of it{CLOSE}: 3.2 GB", []),
        (f"{OPEN}loss{CLOSE} on the cpu", ["the"]),
        ("Measured on LoRA", ["Measured"]),
        ("runs/test/figures lora_rank 4", []),
    ],
)
def test_a_planted_word_is_found(text: str, found: list[str]) -> None:
    assert list(outside(text)) == found
