"""Rows: the draw, and what each code of a bad one says."""

from __future__ import annotations

from typing import get_args

from hypothesis import given
from hypothesis import strategies as st

from helpers.inputs import rows
from helpers.inputs.rows import split_indices


@given(rows=st.integers(10, 5000), share=st.floats(0.01, 1))
def test_samples_never_meet(rows: int, share: float) -> None:
    cut = int(rows * 0.9)
    train, held_out = split_indices(
        rows, max(1, int(cut * share)), max(1, int((rows - cut) * share))
    )
    assert max(train) < cut <= min(held_out)
    assert len(set(train)) == len(train)
    assert len(set(held_out)) == len(held_out)


def test_every_fault_has_words() -> None:
    for code in get_args(rows.Code):
        words = rows.Fault(code=code, column="output", detail="9001").words()
        assert words
        assert "{" not in words
