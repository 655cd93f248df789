"""The two READMEs: in step with each other, and true about what they point to."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from itertools import chain

import pytest

from helpers.ground import paths, words
from helpers.results import card_page

ENGLISH, CHINESE = (
    (paths.ROOT / name).read_text("utf-8") for name in ("README.md", "README_zh.md")
)
NUMBER = r"\d+(?:[.,]\d+)*"


def code_blocks(text: str) -> list[str]:
    return re.findall(r"```\w*\n(.*?)```", text, re.DOTALL)


def links(text: str) -> list[str]:
    return re.findall(r"\]\(([^)]+)\)", text)


def section(heading: str) -> str:
    """Return a section of the English README."""
    return ENGLISH.split(f"\n## {heading}\n")[1].split("\n## ")[0]


def tables(text: str) -> list[list[str]]:
    """Return what needs no translation in each table row: numbers and code."""
    rows = [line for line in text.splitlines() if line.startswith("|")]
    return [re.findall(rf"`[^`]+`|{NUMBER}", row) for row in rows]


def test_both_have_the_same_sections_code_links_and_figures() -> None:
    assert len(re.findall(r"^#+ ", ENGLISH, re.M)) == len(re.findall(r"^#+ ", CHINESE, re.M))
    assert code_blocks(ENGLISH) == code_blocks(CHINESE)
    # The first leads to the other language, and the second is a picture with words in it.
    assert links(ENGLISH)[2:] == links(CHINESE)[2:]
    assert tables(ENGLISH) == tables(CHINESE)


def test_both_maps_of_the_rooms_say_the_same_names() -> None:
    english, chinese = (
        (paths.ROOT / "helpers" / name).read_text("utf-8") for name in ("README.md", "README_zh.md")
    )
    assert links(english)[1:] == links(chinese)[1:]
    assert sorted(re.findall(r"`[^`\n]+`", english)) == sorted(re.findall(r"`[^`\n]+`", chinese))
    assert len(re.findall(r"^#+ ", english, re.M)) == len(re.findall(r"^#+ ", chinese, re.M))


@pytest.mark.parametrize("text", [ENGLISH, CHINESE], ids=["English", "Chinese"])
def test_what_it_points_to_is_there(text: str) -> None:
    for link in links(text):
        assert (paths.ROOT / link).exists(), link
    makefile = (paths.ROOT / "Makefile").read_text()
    for target in set(re.findall(r"`make ([a-z]+)", text)):
        assert re.search(rf"^{target}:", makefile, re.M), target


def test_the_results_are_those_of_the_committed_notebook() -> None:
    notebook = (paths.NOTEBOOKS / "06_compare.ipynb").read_text("utf-8")
    rows = section("Results").splitlines()
    table = [row for row in rows if re.match(r"\| (base model|Q?LoRA\b).*%\)", row)]
    assert len(table) == 6
    for row in table:
        for score in re.findall(r"\d+/\d+ \(\d+-\d+ %\)", row):
            assert score in notebook, score


def test_the_second_table_is_that_of_the_run_with_several_seeds() -> None:
    seen = json.loads((paths.BENCHMARKS / "seeds.json").read_text("utf-8"))
    rows = [row for row in section("Results").splitlines() if re.match(r"\| Q?LoRA \| \d+ \|", row)]
    each = zip(*(map(chain.from_iterable, (seen["counts"], seen["losses"]))), strict=True)
    expected = [f"{correct}/{seen['n']} | {loss:.4f}" for correct, loss in each]
    assert len(rows) == 6
    assert all(told in row for told, row in zip(expected, rows, strict=True))


@pytest.mark.parametrize("language", words.languages())
def test_the_picture_is_that_of_the_committed_notebook(language: str) -> None:
    text = ENGLISH if language == words.SOURCE else CHINESE
    picture = (paths.ROOT / re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text)[0]).read_bytes()
    notebook = paths.edition(paths.NOTEBOOKS, language) / "06_compare.ipynb"
    assert b64encode(picture).decode() in notebook.read_text("utf-8")


def test_the_speeds_are_those_of_the_benchmarks() -> None:
    page = (paths.BENCHMARKS / "README.md").read_text("utf-8")
    faster = section("What makes it faster").splitlines()
    rows = [row for row in faster if re.match(r"\| Q?LoRA \|", row)]
    assert len(rows) == 2
    assert all(row in page for row in rows)


def test_the_sections_that_readers_look_for_are_there() -> None:
    for heading in ("Two commands", "Will it fit?", "Results", "On an Ascend NPU", "Limits"):
        assert f"\n## {heading}\n" in ENGLISH


def test_a_difference_between_the_two_is_found() -> None:
    changed = ENGLISH.replace("| `RUN` |", "| `RUNS` |", 1)
    assert tables(changed) != tables(CHINESE)


@pytest.mark.parametrize(("text", "language"), [(ENGLISH, "en"), (CHINESE, "zh")])
def test_the_table_of_real_cards_is_the_one_that_their_files_make(text: str, language: str) -> None:
    with words.spoken(language):
        table = card_page.overview(card_page.read(paths.CARDS))
    assert f"<!-- cards -->\n{table}\n<!-- /cards -->" in text
