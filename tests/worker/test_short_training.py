"""A few steps that have the peak of a whole training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from helpers.worker import short_training

RECIPE: dict[str, Any] = {
    "model_name_or_path": "model",
    "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 8,
    "save_strategy": "steps",
    "do_eval": True,
    "lora_rank": 8,
}


@pytest.fixture
def by_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tokenizer whose tokens are words."""
    import transformers

    def tokenize(texts: list[str]) -> dict[str, list[list[str]]]:
        return {"input_ids": [text.split() for text in texts]}

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", lambda path: tokenize)


def test_it_keeps_nothing_and_all_that_decides_a_steps_size(tmp_path: Path) -> None:
    used = short_training.short(RECIPE, tmp_path)
    assert used["per_device_train_batch_size"] == 2
    assert used["lora_rank"] == 8
    assert used["gradient_accumulation_steps"] == 2
    assert (used["save_strategy"], used["eval_strategy"], used["do_eval"]) == ("no", "no", False)
    assert (
        short_training.short(RECIPE | {"gradient_accumulation_steps": 1}, tmp_path)[
            "gradient_accumulation_steps"
        ]
        == 1
    )


def test_the_last_micro_batch_has_the_longest_and_the_others_the_shortest(
    by_words: None, tmp_path: Path
) -> None:
    rows = [{"instruction": "a " * n, "input": "", "output": "b"} for n in (3, 1, 9, 4)]
    used = short_training.short(RECIPE, tmp_path)
    chosen = short_training.problems(used, rows)
    assert len(chosen) == 2 * 2 * short_training.STEPS
    assert chosen[-2:] == [rows[2], rows[1]]
    assert chosen[:-2] == [rows[1], rows[0]] * (2 * short_training.STEPS - 1)
