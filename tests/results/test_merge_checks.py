"""The checks of merged models: each is shown to fail on a planted fault."""

from __future__ import annotations

import pytest
from conftest import make_answers, make_merge
from results import made

from helpers.ground.errors import TutorialError
from helpers.results import checks, merge_checks


def test_a_merged_model_that_answers_otherwise_fails() -> None:
    checks.conclude(merge_checks.of_merge("it", make_merge(same_answer=70, n=100)))
    with pytest.raises(TutorialError, match="on 46 of 100 problems"):
        checks.conclude(merge_checks.of_merge("it", make_merge(same_answer=46, n=100)))


def test_a_merged_model_with_other_distributions_fails() -> None:
    checks.conclude(merge_checks.of_merge("it", make_merge(kl=0.0004)))
    with pytest.raises(TutorialError, match=r"KL 0.059 nats per token, at most 0.005"):
        checks.conclude(merge_checks.of_merge("it", make_merge(kl=0.059)))


def test_a_change_of_base_may_change_answers_but_not_lose_them() -> None:
    before = make_answers([True] * 20 + [False] * 20)
    turned = make_answers([False] * 5 + [True] * 15 + [True] * 4 + [False] * 16)
    far, near = make_merge(kl=0.08), make_merge(kl=0.0004)
    checks.conclude(merge_checks.of_change_of_base("it", before, turned, far, near))
    with pytest.raises(TutorialError, match=r"KL 0.0004 nats per token, and 0.08 on its own base"):
        checks.conclude(merge_checks.of_change_of_base("it", before, turned, near, far))
    worse = make_answers([False] * 12 + [True] * 8 + [False] * 20)
    with pytest.raises(TutorialError, match="20 of 40 before, 8 after"):
        checks.conclude(merge_checks.of_change_of_base("it", before, worse, far, near))


def test_each_merged_model_is_held_to_what_it_was_merged_into(runs: object) -> None:
    chosen = made.chosen("lora qlora dora")
    far = {"merge": make_merge(kl=0.08)}
    records = made.write(chosen, qlora_merged=far)
    merged = {name: record for name, record in records.items() if record.merge}
    lines = checks.conclude(merge_checks.of_merges(merged, chosen)).plain().splitlines()
    assert len(lines) == 8
    assert "OK: DoRA, merged answers as base + adapter did" in lines
    assert "OK: QLoRA, merged (dequantised base) answers as base + adapter did" in lines
    assert "OK: QLoRA, merged (16-bit base) is not clearly worse than base + adapter" in lines
    # What a quantised method may do, the others may not.
    records = made.write(chosen, dora_merged=far)
    merged = {name: record for name, record in records.items() if record.merge}
    with pytest.raises(TutorialError, match="DoRA, merged gives the next tokens"):
        checks.conclude(merge_checks.of_merges(merged, chosen))


def test_answers_are_compared_on_the_problems_that_both_were_asked() -> None:
    """The first of them: those that only base + adapter was asked decide nothing."""
    before = make_answers([False] * 20 + [True] * 30)
    after = make_answers([False] * 20)
    far, near = make_merge(kl=0.08), make_merge(kl=0.0004)
    checks.conclude(merge_checks.of_change_of_base("it", before, after, far, near))


def test_answers_that_cannot_be_scored_are_not_checked() -> None:
    far, near = make_merge(kl=0.08), make_merge(kl=0.0004)
    [only] = merge_checks.of_merge("it", near, scored=False)
    assert "likelihood" in only.statement
    answers = make_answers([False, False])
    for item in answers.items:
        item.expected = ""
    [only] = merge_checks.of_change_of_base("it", answers, answers, far, near)
    assert "farther" in only.statement
