"""What is stored of where something was measured."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from helpers.records import schema


def test_the_environment_that_decides_figures_is_kept_as_the_call_had_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in schema.ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("SOMETHING_ELSE", "1")
    asked = {"GLIBC_TUNABLES": "a", "OMP_NUM_THREADS": "1"}
    assert schema.origin("r", asked).environment == {"GLIBC_TUNABLES": "a", "OMP_NUM_THREADS": "3"}
    assert schema.origin("r").environment == {"OMP_NUM_THREADS": "3"}


def test_answers_are_scored_where_one_was_expected(
    make_record: Callable[..., schema.Record],
) -> None:
    answers = make_record("lora").answers
    assert answers.scored
    for item in answers.items:
        item.expected = ""
    assert not answers.scored
