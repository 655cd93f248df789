"""Chinese characters take two columns, and lines break between them."""
# ruff: noqa: RUF001

from __future__ import annotations

import textwrap

import pytest

from helpers.ground import width
from helpers.ground.shown import Table

CHINESE = "LoRA、DoRA 以合并后的权重作答：LLaMA-Factory 在加载时就把适配器加到 16 比特权重上。"


def test_a_chinese_character_is_as_wide_as_two_latin_ones() -> None:
    assert width.columns("LoRA") == 4
    assert width.columns("合并后 a") == 8
    assert width.padded("运行", 6) == "运行  "
    assert width.padded("too long", 3) == "too long"


def test_columns_of_a_table_stand_below_each_other() -> None:
    lines = Table(["名称", "b"], [["合并后的模型", 1], ["LoRA", 2]]).plain().splitlines()
    ends = {width.columns(line[:-1]) for line in lines}
    assert len(ends) == 1


@pytest.mark.parametrize("most", [12, 30, 60])
def test_chinese_lines_are_no_wider_than_asked_and_lose_nothing(most: int) -> None:
    wrapped = width.wrapped(CHINESE, most)
    # The longest word, and a sign that may not begin a line, have to go somewhere.
    assert max(map(width.columns, wrapped.splitlines())) <= max(most, 15) + 2
    assert wrapped.replace("\n", "").replace(" ", "") == CHINESE.replace(" ", "")
    assert not any(line[0] in "，。：；、" for line in wrapped.splitlines())


def test_english_breaks_as_ever() -> None:
    text = "LoRA answered from merged weights: LLaMA-Factory adds an adapter."
    assert width.wrapped(text, 20) == textwrap.fill(text, 20)
