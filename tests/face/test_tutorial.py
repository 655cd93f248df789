"""The face: a reader's own script, what it refuses, and how its results show themselves."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from helpers import Tutorial
from helpers.ground import words
from helpers.ground.errors import TutorialError
from helpers.ground.shown import Code, Dialogue, Entry, Picture, Sentence, Several, Table, escaped


def test_a_method_that_the_run_does_not_compare_is_one_sentence(runs: Path) -> None:
    tutorial = Tutorial("smoke", run="test", methods="lora")
    with pytest.raises(TutorialError, match=r"has no 'qlora'.*METHODS="):
        tutorial.method("qlora")
    with pytest.raises(TutorialError, match="no method"):
        tutorial.method("lora_merged")


def test_there_is_nothing_further_by_default(runs: Path) -> None:
    further = Tutorial("smoke", run="test").further()
    assert further.plain() == further.markdown() == ""


def test_nouns_say_which_notebook_makes_what_is_missing(runs: Path) -> None:
    tutorial = Tutorial("smoke", run="test")
    with pytest.raises(TutorialError, match="04_qlora"):
        _ = tutorial.method("qlora").training
    with pytest.raises(TutorialError, match="03_lora"):
        _ = tutorial.base.answers
    with pytest.raises(TutorialError, match="06_compare"):
        _ = tutorial.comparison


def test_settings_show_themselves_in_three_ways(runs: Path) -> None:
    tutorial = Tutorial("smoke", run="test")
    shown = tutorial._repr_mimebundle_()
    assert "| profile | smoke |" in shown["text/markdown"]
    assert re.search(r"^profile +smoke$", shown["text/plain"], re.MULTILINE)
    from rich.console import Console

    console = Console(width=100, record=True, file=open(os.devnull, "w"))  # noqa: SIM115, PTH123
    tutorial.print(console)
    assert "smoke" in console.export_text()


def test_a_recipe_shows_what_differs_here_and_against_another(runs: Path) -> None:
    tutorial = Tutorial("smoke", run="test", overrides={"lora_rank": 4})
    Tutorial("smoke", run="test").obtain()
    lora, dora = (Tutorial("smoke", run="test", methods="lora dora").method(name)
                  for name in ("lora", "dora"))  # fmt: skip
    assert "finetuning_type: lora" in lora.recipe.plain()
    assert "use_dora" in lora.recipe.against(dora.recipe).plain()
    assert re.search(r"lora_rank +8 +4", tutorial.method("lora").recipe.changes().plain())


MARKUP = "<script>alert(1)</script> ![x](http://a/b.png) [y](z) $x$ | `c` \x1b[31m *b*"


@pytest.mark.parametrize(
    "shown",
    [
        Table(["a", MARKUP], [[MARKUP, 1]], note=MARKUP, heads=True),
        Sentence(MARKUP, MARKUP),
        Dialogue([Entry(MARKUP, [("✓", MARKUP, MARKUP)])], MARKUP),
        Several([Sentence(MARKUP)]),
    ],
)
def test_markup_in_what_is_shown_is_text(shown: Table) -> None:
    text = shown.markdown()
    assert "<script" not in text
    assert not re.search(r"(?<!\\)\]\(", text)
    assert "\x1b" not in text + shown.plain()
    assert not re.search(r"(?<!\\)[$`]", text)


def test_escaping_takes_nothing_away() -> None:
    from html import unescape

    plain = "a_b * c | d < e & f [g] #### 7"
    assert unescape(re.sub(r"\\(.)", r"\1", escaped(plain))) == plain


def test_a_fence_is_longer_than_any_in_the_code() -> None:
    assert Code("```\n").markdown().startswith("````")


def test_a_picture_is_a_picture_and_says_what_it_shows() -> None:
    data, meta = Picture(b"png", "two curves", Path("x.png"))._repr_mimebundle_()
    assert data == {"image/png": b"png", "text/plain": "two curves"}
    assert meta["image/png"]["alt"] == "two curves"


def test_a_language_holds_for_all_that_is_shown(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(words, "_chosen", [])
    tutorial = Tutorial("smoke", run="test", language="zh")
    assert "| 运行文件夹 |" in tutorial.markdown()
    with pytest.raises(TutorialError, match="还没有 base 的结果"):
        _ = tutorial.base.answers
    Tutorial("smoke", run="test", language="en")
    assert "| run folder |" in tutorial.markdown()  # chosen when it is shown
    with pytest.raises(TutorialError, match="LANGUAGE='fr' is not understood: say en or zh"):
        Tutorial("smoke", language="fr")
    with pytest.raises(TutorialError, match="language=3 must be text"):
        Tutorial("smoke", language=3)  # type: ignore[arg-type]
