"""The notebooks' checks: each is shown to fail on a planted fault."""

from __future__ import annotations

import pytest
from conftest import DIGEST, make_answers, make_merge, make_training

from helpers import checks, merging
from helpers.errors import TutorialError
from helpers.memory import MemoryTrace
from helpers.records import LossPoint

BEFORE, AFTER = make_answers([False] * 4, "before"), make_answers([True] * 4, "after")


def test_a_sound_training_passes_and_prints_no_figures(capsys: pytest.CaptureFixture[str]) -> None:
    checks.conclude(checks.of_training(make_training(), BEFORE, AFTER))
    said = capsys.readouterr().out
    assert said.count("OK: ") == 6
    assert not any(character.isdigit() for character in said)


RISING = [LossPoint(step=i, loss=float(i)) for i in range(1, 9)]
LEVEL = [LossPoint(step=i, loss=0.0) for i in range(1, 9)]
BROKEN = [*RISING[::-1], LossPoint(step=9, loss=float("nan"))]


@pytest.mark.parametrize(
    ("planted", "words"),
    [
        ({"loss": RISING}, "the training loss fell: from 1.500 to 7.500"),
        ({"loss": LEVEL}, "finite and above zero"),
        ({"loss": BROKEN}, "finite and above zero"),
        ({"loss": RISING[:1]}, "finite and above zero"),
        # bitsandbytes 0.50.2 on a CPU with AVX512-BF16: figures that were seen
        ({"eval_loss": [LossPoint(step=8, loss=1.89)], "final_eval_loss": 16.29},
         "1.8900 during, 16.2900 after"),
        ({"eval_loss": [LossPoint(step=8, loss=6.335)], "final_eval_loss": 6.366},
         "6.3350 during, 6.3660 after"),
        ({"memory": MemoryTrace(measure="memory")}, "memory was sampled"),
        # planted in a real training by tests/test_frozen_weights.py
        ({"frozen_weights": {"before": DIGEST, "after": DIGEST | {"digest": "fedcba9876543210"}}},
         "same bits as before: digest 0123456789ab of 2 tensors before, fedcba987654 of 2 after"),
    ],
)  # fmt: skip
def test_a_planted_fault_fails(planted: dict[str, object], words: str) -> None:
    with pytest.raises(TutorialError, match=words):
        checks.conclude(checks.of_training(make_training(**planted), BEFORE, AFTER))


def test_answers_that_training_did_not_change_fail() -> None:
    with pytest.raises(TutorialError, match="training changed the answers: 0 of 4 differ"):
        checks.conclude(checks.of_training(make_training(), BEFORE, BEFORE))


def test_a_merged_model_that_answers_otherwise_fails() -> None:
    checks.conclude(checks.of_merge("it", make_merge(same_answer=70, n=100)))
    with pytest.raises(TutorialError, match="on 46 of 100 problems"):
        checks.conclude(checks.of_merge("it", make_merge(same_answer=46, n=100)))


def test_a_merged_model_with_other_distributions_fails() -> None:
    checks.conclude(checks.of_merge("it", make_merge(kl=0.0004)))
    with pytest.raises(TutorialError, match=r"KL 0.059 nats per token, at most 0.005"):
        checks.conclude(checks.of_merge("it", make_merge(kl=0.059)))


def test_agreement_counts_answers_and_texts() -> None:
    first = make_answers([True, True, False, True], "a")
    second = make_answers([True, False, False, True], "a")
    second.items[3].text = "worded otherwise\n#### 7"
    assert merging.agreement(first, second) == (3, 2)


def test_two_answers_without_a_mark_agree_only_to_the_letter() -> None:
    first, second = make_answers([True, True]), make_answers([True, True])
    for answers in (first, second):
        for item in answers.items:
            item.given = ""
    second.items[1].text = "other words"
    assert merging.agreement(first, second) == (1, 1)


def test_a_change_of_base_may_change_answers_but_not_lose_them() -> None:
    before = make_answers([True] * 20 + [False] * 20)
    turned = make_answers([False] * 5 + [True] * 15 + [True] * 4 + [False] * 16)
    far, near = make_merge(kl=0.08), make_merge(kl=0.0004)
    checks.conclude(checks.of_change_of_base("it", before, turned, far, near))
    with pytest.raises(TutorialError, match=r"KL 0.0004 nats per token, and 0.08 on its own base"):
        checks.conclude(checks.of_change_of_base("it", before, turned, near, far))
    worse = make_answers([False] * 12 + [True] * 8 + [False] * 20)
    with pytest.raises(TutorialError, match="20 of 40 before, 8 after"):
        checks.conclude(checks.of_change_of_base("it", before, worse, far, near))
