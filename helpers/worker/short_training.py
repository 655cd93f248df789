"""A few steps of several recipes, for their memory: `python -m helpers.worker.short_training PLAN`.

PLAN is a YAML: `result` names the JSON file to write, `data` the training problems (beside them
lies dataset_info.json, which says what their columns are), `folder` a place for what is thrown
away, `recipes` holds a recipe of each method. LLaMA-Factory trains each as llamafactory-cli would;
one process does it for all, for starting one costs more than the steps.

The last micro-batch has the longest problem, so that the last step has a whole training's peak.
Writes, by method, the most bytes of tensors during a step.
"""

from __future__ import annotations

import gc
import json
import os
import sys
from pathlib import Path
from typing import Any

from helpers.ground import paths
from helpers.ground.files import read_yaml, write_json
from helpers.worker import callback, events

STEPS = 2  # the state of the optimizer exists from the second on, which is what is measured
NAME = "math_train"


def short(recipe: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return a recipe that takes a few steps of a recipe's size, and keeps nothing.

    Args:
        recipe: as helpers/inputs/recipes.py composes it.
        folder: where the problems lie and the outputs go.
    """
    # Gradients that wait for the next micro-batch are there with two as with more.
    micro_batches = min(2, recipe.get("gradient_accumulation_steps", 1))
    return recipe | {
        "dataset_dir": str(folder),
        "dataset": NAME,
        "output_dir": str(folder / "out"),
        "gradient_accumulation_steps": micro_batches,
        "max_steps": STEPS,
        "disable_shuffling": True,
        "save_strategy": "no",
        "eval_strategy": "no",
        "eval_dataset": None,
        "do_eval": False,
        "use_swanlab": False,
    }


def whole_text(row: dict[str, Any]) -> str:
    """Return all that a row of a set says, whichever form the set has (dataset_info.json)."""
    if "conversations" in row:
        said = [turn["value"] for turn in row["conversations"]]
    else:
        said = [part for turn in row.get("history", []) for part in turn]
        said.append(f"{row['instruction']}\n{row['input']}{row['output']}")
    return "\n".join([*(row[name] for name in ("system", "tools") if name in row), *said])


def problems(recipe: dict[str, Any], rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the problems of a short training: the longest in its last micro-batch alone.

    By then gradients wait and the optimizer's state is there; what comes before may be short.

    Args:
        recipe: the short one.
        rows: all training problems, as their file has them.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(recipe["model_name_or_path"])
    lengths = [len(ids) for ids in tokenizer([whole_text(row) for row in rows])["input_ids"]]
    in_order = [row for _, row in sorted(zip(lengths, rows, strict=True), key=lambda pair: pair[0])]
    batch = recipe["per_device_train_batch_size"]
    before = recipe["gradient_accumulation_steps"] * STEPS - 1
    return in_order[:batch] * before + [in_order[-1], *in_order[: batch - 1]]


def measured(recipe: dict[str, Any], file: Path) -> int:
    """Take the steps of a short recipe, and return the most bytes of tensors during one.

    Args:
        recipe: the short one.
        file: takes the events.
    """
    from llamafactory.train.tuner import run_exp

    os.environ[events.VARIABLE] = str(file)
    callback.register()
    run_exp(recipe)
    gc.collect()
    told = (event for event in events.read(file) if event["event"] == "peak")
    return max(event["bytes"] for event in told if event["of"] == "training")


def main() -> None:
    """Measure the recipes of the plan that the command line names."""
    plan = read_yaml(Path(sys.argv[1]))
    data = paths.ROOT / plan["data"]
    rows = json.loads(data.read_text("utf-8"))
    registered = json.loads(data.with_name("dataset_info.json").read_text("utf-8"))
    found = {}
    for name, recipe in plan["recipes"].items():
        folder = paths.ROOT / plan["folder"] / name
        folder.mkdir(parents=True, exist_ok=True)
        used = short(recipe, folder)
        write_json(folder / f"{NAME}.json", problems(used, rows))
        write_json(folder / "dataset_info.json", {NAME: registered[NAME]})
        found[name] = measured(used, folder / events.FILE)
    write_json(paths.ROOT / plan["result"], found)


if __name__ == "__main__":
    main()
