"""Rows: columns found, values made text, and the article's draw."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.ground.errors import TutorialError
from helpers.inputs import rows
from helpers.inputs.readers import Source
from helpers.inputs.rows import Row, split_indices
from helpers.inputs.values import Code, Fault


@given(rows=st.integers(10, 5000), share=st.floats(0.01, 1))
def test_samples_never_meet(rows: int, share: float) -> None:
    cut = int(rows * 0.9)
    train, held_out = split_indices(
        rows, max(1, int(cut * share)), max(1, int((rows - cut) * share))
    )
    assert max(train) < cut <= min(held_out)
    assert len(set(train)) == len(train)
    assert len(set(held_out)) == len(held_out)


def test_what_can_be_asked_for_is_named() -> None:
    with pytest.raises(TutorialError, match=r"have 50 rows, .* with TRAIN=45 EVAL=3, the most"):
        split_indices(50, 100, 3)
    with pytest.raises(TutorialError, match="have 1 row, "):
        split_indices(1, 1, 1)


def test_every_fault_has_words() -> None:
    for code in get_args(Code):
        words = Fault(code=code, column="output", detail="9001").words()
        assert words
        assert "{" not in words


# ---- columns ------------------------------------------------------------------------------------


def file_with(*columns: str) -> Source:
    return Source(Path("/mine.json"), "json", columns, 10, fetched=False)


@pytest.mark.parametrize(
    ("columns", "renamed", "form", "found"),
    [
        (("id", "instruction", "output"), {}, "alpaca", ["instruction", "output"]),
        (("question", "answer"), {"instruction": "question", "output": "answer"}, "alpaca",
         ["question", "answer"]),  # and so no column of answers
        (("instruction", "output", "answer"), {"answer": ""}, "alpaca", ["instruction", "output"]),
        (("instruction", "output", "messages"), {}, "alpaca", ["instruction", "output"]),
        (("instruction", "output", "turns"), {"messages": "turns"}, "messages", ["turns"]),
        (("conversations", "system", "answer"), {}, "messages",
         ["conversations", "answer", "system"]),
        (("messages",), {}, "messages", ["messages"]),
    ],
)  # fmt: skip
def test_which_columns_are_what(
    columns: tuple[str, ...], renamed: dict[str, str], form: str, found: list[str]
) -> None:
    layout = rows.layout([file_with(*columns)], renamed)
    assert layout.form == form
    assert list(layout.columns.values()) == found


@pytest.mark.parametrize(
    ("files", "renamed", "words"),
    [
        ([("question", "answer")], {}, 'COLUMNS="instruction=question output=answer"'),
        ([("instruction", "x")], {}, 'and has instruction, x: .* COLUMNS="output=..."'),
        ([("a",)], {"output": "b"}, "says output=b, and /mine.json has no column b: it has a"),
        ([("instruction", "output"), ("instruction", "text")], {}, "no column output, which"),
    ],
)
def test_a_column_that_is_missing(
    files: list[tuple[str, ...]], renamed: dict[str, str], words: str
) -> None:
    with pytest.raises(TutorialError, match=words) as caught:
        rows.layout([file_with(*columns) for columns in files], renamed)
    assert "\n" not in caught.value.message


# ---- values -------------------------------------------------------------------------------------

ALPACA = rows.layout([file_with(*rows.COLUMNS[:-1])], {})
MESSAGES = rows.layout([file_with("messages", "answer", "system", "tools")], {})
TOOLS = '[{"name": "add", "parameters": {"properties": {}}}]'
GOOD: dict[str, Any] = {"instruction": "How many?", "output": "Five."}


def said(*turns: tuple[str, str], **more: Any) -> dict[str, Any]:
    return {"messages": [{"role": role, "content": text} for role, text in turns]} | more


@pytest.mark.parametrize(
    ("values", "row"),
    [
        (GOOD, Row("How many?", "", "Five.")),
        (GOOD | {"answer": 5, "input": 3}, Row("How many?", "3", "Five.", "5")),
        (GOOD | {"answer": 12.0}, Row("How many?", "", "Five.", "12.0")),
        (GOOD | {"answer": 1e3}, Row("How many?", "", "Five.", "1000.0")),
        (GOOD | {"answer": Decimal("2.50")}, Row("How many?", "", "Five.", "2.50")),
        (GOOD | {"answer": float("nan")}, Row("How many?", "", "Five.", "nan")),
        (GOOD | {"system": "Be brief.", "history": [["a", "b"]]},
         Row("How many?", "", "Five.", None, "Be brief.", [["a", "b"]])),
        (GOOD | {"history": None}, Row("How many?", "", "Five.")),
        (GOOD | {"tools": TOOLS}, Row("How many?", "", "Five.", tools=TOOLS)),
    ],
)  # fmt: skip
def test_values_as_text(values: dict[str, Any], row: Row) -> None:
    found = rows.row_of(values, ALPACA)
    assert found == row
    assert Row.unpacked(row.packed()) == row


def test_messages_in_alpacas_terms() -> None:
    whole = said(("system", "Brief."), ("user", "a"), ("assistant", "b"), ("user", "c"),
                 ("assistant", "d"), answer="7")  # fmt: skip
    expected = Row("c", "", "d", "7", "Brief.", [["a", "b"]])
    assert rows.row_of(whole, MESSAGES) == expected
    names = {"role": "from", "content": "value", "user": "human", "assistant": "gpt"}
    turns = [{names[k]: names.get(v, v) for k, v in turn.items()} for turn in whole["messages"]]
    assert rows.row_of({"messages": turns, "answer": "7"}, MESSAGES) == expected
    short = said(("user", "c"), ("assistant", "d"), system="Column.")
    assert rows.row_of(short, MESSAGES) == Row("c", "", "d", None, "Column.")


@pytest.mark.parametrize(
    ("values", "code", "detail"),
    [
        (said(("user", "a")), "turns", "2"),
        (said(("assistant", "a"), ("user", "b")), "turns", "1"),
        (said(("user", "a"), ("user", "b")), "turns", "2"),
        (said(("user", "a"), ("tool", "b")), "turns", "2"),
        (said(("user", "a"), ("system", "b")), "turns", "2"),
        (said(), "turns", "1"),
        ({"messages": None}, "missing", ""),
        ({"messages": "hello"}, "kind", "text"),
        ({"messages": {"role": "user"}}, "kind", "dict"),
        ({"messages": ["hello"]}, "kind", "str"),
        ({"messages": [{"role": ["user"], "content": "a"}]}, "turns", "1"),
        (said(("user", ["picture"]), ("assistant", "b")), "kind", "list"),
        (said(("user", " "), ("assistant", "b")), "empty", ""),
    ],
)
def test_messages_that_are_none(values: dict[str, Any], code: str, detail: str) -> None:
    found = rows.row_of(values, MESSAGES)
    assert isinstance(found, Fault)
    assert (found.code, found.detail) == (code, detail)
    assert "\n" not in found.words()


@pytest.mark.parametrize(
    ("values", "code", "column"),
    [
        ({"instruction": "a"}, "missing", "output"),
        (GOOD | {"instruction": 5}, "kind", "instruction"),
        (GOOD | {"instruction": {"text": "a"}}, "kind", "instruction"),
        (GOOD | {"output": ["a"]}, "kind", "output"),
        (GOOD | {"answer": True}, "kind", "answer"),
        (GOOD | {"input": b"caf\xe9"}, "not_utf8", "input"),
        (GOOD | {"output": "half a pair: \ud83d"}, "not_utf8", "output"),
        (GOOD | {"output": "a\x00b"}, "control", "output"),
        (GOOD | {"history": "a"}, "kind", "history"),
        (GOOD | {"history": [["a"]]}, "kind", "history"),
        (GOOD | {"history": [["a", "x" * 9000]]}, "long", ""),
    ],
)
def test_values_that_are_none(values: dict[str, Any], code: str, column: str) -> None:
    found = rows.row_of(values, ALPACA)
    assert isinstance(found, Fault)
    assert (found.code, found.column) == (code, column)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["role", "content", "from", "value"]) | st.text(), inner)
    ),
    max_leaves=8,
)


@given(values=st.dictionaries(st.sampled_from(rows.COLUMNS), VALUES))
def test_whatever_the_values_are_it_is_a_row_or_a_fault(values: dict[str, Any]) -> None:
    for layout in (ALPACA, MESSAGES):
        found = rows.row_of(values, layout)
        if isinstance(found, Fault):
            assert found.words()
        else:
            assert Row.unpacked(found.packed()) == found
            json.dumps(found.example("x", "sharegpt"), ensure_ascii=False).encode()


def test_the_same_problem_whatever_its_case_and_space() -> None:
    assert Row("How  many\n?", "x", "a").problem == Row("how many ?", "X", "b").problem
    assert (
        Row("How many?", "", "a", history=[["q", "a"]]).problem != Row("How many?", "", "a").problem
    )
