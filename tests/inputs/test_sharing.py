"""What several cards share of a training: the batch of a step stays what it is on one."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.ground.errors import TutorialError
from helpers.inputs import recipes, settings, sharing

COUNTS = st.integers(1, 64)


@given(rows=COUNTS, micro_batches=COUNTS, cards=st.integers(1, 16))
def test_a_step_takes_as_many_examples_or_it_is_one_sentence(
    rows: int, micro_batches: int, cards: int
) -> None:
    whole = {sharing.ROWS: rows, sharing.MICRO_BATCHES: micro_batches, sharing.EVALUATED: 2}
    if rows * micro_batches % cards:
        with pytest.raises(TutorialError, match="does not divide by") as caught:
            sharing.shared(whole, cards)
        assert "\n" not in str(caught.value)
        return
    each = sharing.shared(whole, cards)
    assert each[sharing.ROWS] * each[sharing.MICRO_BATCHES] * cards == rows * micro_batches
    assert min(each[sharing.ROWS], each[sharing.MICRO_BATCHES]) >= 1


def test_with_one_card_a_recipe_stays_as_it_is(smoke: settings.Settings) -> None:
    whole = {sharing.ROWS: 2, sharing.MICRO_BATCHES: 2}
    assert sharing.shared(whole, 1) is whole
    used = recipes.for_training("lora", smoke, planned=True)
    assert "ddp_backend" not in used
    assert used[sharing.MICRO_BATCHES] == 2


def test_micro_batches_are_shared_out_first_then_their_examples(smoke: settings.Settings) -> None:
    on_two = recipes.for_training("lora", replace(smoke, cards=2), planned=True)
    assert (on_two[sharing.ROWS], on_two[sharing.MICRO_BATCHES]) == (2, 1)
    assert sharing.between(2, "cpu") == {"ddp_backend": "gloo"}
    assert sharing.between(1, "cpu") == sharing.between(8, "npu") == {}
    on_four = recipes.for_training("lora", replace(smoke, cards=4), planned=True)
    assert (on_four[sharing.ROWS], on_four[sharing.MICRO_BATCHES]) == (1, 1)


def test_what_is_no_count_is_left_to_whoever_refuses_it() -> None:
    odd = {sharing.ROWS: "many", sharing.MICRO_BATCHES: True}
    assert sharing.shared(odd, 2) == odd


def test_one_card_has_nobody_to_share_the_model_with(smoke: settings.Settings) -> None:
    with pytest.raises(TutorialError, match=r"over several cards: say how many with CARDS=") as it:
        recipes.for_training("lora", replace(smoke, sharded=True), planned=True)
    assert "\n" not in str(it.value)
    shared = recipes.for_training("lora", replace(smoke, cards=2, sharded=True), planned=True)
    assert shared == recipes.for_training("lora", replace(smoke, cards=2), planned=True)
