"""What the benchmark against TRL's trainer asks of it: the same work in both of its arms."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest

from helpers.ground import paths
from helpers.inputs import recipes, settings


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(paths.ROOT / "benchmarks"))
    import bench_trl

    return bench_trl


@pytest.mark.parametrize("tuned", ["yes", "no"])
def test_both_arms_take_as_many_problems_a_step_as_we_do(
    bench: ModuleType, runs: Path, tuned: str
) -> None:
    chosen = settings.resolve("cpu", run="test", tuned=tuned)
    recipe = recipes.for_training("lora", chosen, planned=True)
    batch = recipe["per_device_train_batch_size"] * recipe["gradient_accumulation_steps"]
    same, default = (bench.arguments(recipe, same) for same in (True, False))
    assert same["per_device_train_batch_size"] * same["gradient_accumulation_steps"] == batch
    assert "per_device_train_batch_size" not in default  # TRL's own: 8
    assert 8 * default["gradient_accumulation_steps"] == batch
    for used in (same, default):
        assert used["learning_rate"] == recipe["learning_rate"]
        assert used["eval_steps"] == recipe["eval_steps"]
    # By default TRL recomputes activations; with our settings it does what we do.
    assert same["gradient_checkpointing"] == (tuned == "no")
    assert "gradient_checkpointing" not in default


class Words:
    """A tokenizer whose tokens are the lengths of words."""

    def apply_chat_template(
        self, turns: list[dict[str, str]], *, add_generation_prompt: bool, **more: object
    ) -> dict[str, list[int]]:
        words = [word for turn in turns for word in (turn["role"], *turn["content"].split())]
        words += ["assistant"] * add_generation_prompt
        return {"input_ids": [len(word) for word in words]}


def test_only_answers_are_trained_on(bench: ModuleType, tmp_path: Path) -> None:
    file = tmp_path / "problems.json"
    problems = [{"instruction": "how many ?", "input": "", "output": "it is 3"} for _ in range(3)]
    file.write_text(json.dumps(problems))
    found = bench.rows(file, 2, Words())
    assert len(found) == 2
    assert found[1] == {
        "input_ids": [4, 3, 4, 1, 9, 2, 2, 1], "completion_mask": [0, 0, 0, 0, 0, 1, 1, 1],
    }  # fmt: skip


def test_the_fastest_of_some_rounds_counts(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter([0.0, 3.0, 10.0, 11.0, 20.0, 22.0, 30.0, 33.0, 40.0, 44.0])
    monkeypatch.setattr(bench.time, "perf_counter", lambda: next(times))
    done: list[int] = []
    assert bench.fastest(lambda: done.append(1)) == 1.0
    assert len(done) == bench.ROUNDS == 5


def test_the_results_page_tells_what_was_measured(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    import table

    kinds = {"ours": 1.42, "trl_same": 1.24, "trl_defaults": 1.01}
    method = {
        "samples_per_second_of_call": kinds,
        "times_the_best_of_trl": 1.15,
        "times_spread": [1.11, 1.19],
        "eval_loss_change": {"ours": 0.0, "trl_same": 0.0021, "trl_defaults": -0.0034},
        "step": {"share_of_products": 0.53, "product_operations_per_second": 210e9},
    }
    found = {"rounds": 3, "samples": 64, "model": "a model", "machine": "a machine",
             "versions": {"torch": "2.10.0"}, "methods": {"lora": method}}  # fmt: skip
    monkeypatch.setattr(table, "load", lambda name: found)
    page = table.trl()
    assert (
        "| LoRA | 1.42 | 1.24 | 1.01 | 1.15 (1.11-1.19) | +0.21 % / -0.34 % | 53 % of 210 " in page
    )
    assert "64 training problems, a model, cpu profile; a machine;" in page
