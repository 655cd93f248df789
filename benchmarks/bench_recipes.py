"""The article's recipe against the tuned one: `python benchmarks/bench_recipes.py full|levers`.

The batch of an evaluation stays the article's: the trainer averages over batches, so another size
gives another held-out loss for the same model.

`full` times whole `llamafactory-cli train` calls of the cpu profile, evaluations included, the
article's and the tuned recipe in turn. `levers` adds the tuned settings one by one, on a part of
the problems, so that each one's share of the gain is seen, and then those that were tried and left
out. Nothing else may run meanwhile.
"""

from __future__ import annotations

import json
import statistics
from typing import Annotated, Any

import typer

from helpers import data, hardware, models, paths, process, records, settings
from helpers import recipe as recipes
from helpers.factory import CLI
from helpers.files import write_json

app = typer.Typer(add_completion=False)
RUN = "bench"
LEVER_SAMPLES = 48
# The tuned settings in the order in which they are added.
LEVERS: dict[str, tuple[str, ...]] = {
    "no gradient checkpointing": ("disable_gradient_checkpointing",),
    "one micro-batch a step": ("per_device_train_batch_size", "gradient_accumulation_steps"),
    "plain attention": ("flash_attn",),
}
# Each of these is added to the tuned recipe: what it changes of the recipe, and of the environment.
LEFT_OUT: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "batches of similar length": ({"train_sampling_strategy": "group_by_length"}, {}),
    "evaluation in batches of 10": ({"per_device_eval_batch_size": 10}, {}),
    "glibc's allocator keeps its memory": (
        {},
        {
            "GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=1073741824"
            ":glibc.malloc.trim_threshold=8589934592:glibc.malloc.top_pad=67108864"
            ":glibc.malloc.hugetlb=1"
        },
    ),
}


def call(name: str, recipe: dict[str, Any], extra: dict[str, str], samples: int) -> dict[str, Any]:
    """Time one training, and return what it came to."""
    chosen = settings.resolve("cpu", run=RUN)
    folder = chosen.run.root / "bench" / name.replace(" ", "_")
    used = recipe | {"output_dir": str(folder), "swanlab_run_name": name}
    file = recipes.write(used, "llamafactory-cli train", folder.with_suffix(".yaml"))
    env = process.environment("cpu", chosen.run.cache, chosen.profile.environment) | extra
    seconds = process.run([CLI, "train", str(file)], folder.with_suffix(".log"), env=env)
    results = json.loads((folder / "all_results.json").read_text())
    found = {
        "call_seconds": round(seconds, 2),
        "train_seconds": results["train_runtime"],
        "last_evaluation_seconds": results["eval_runtime"],
        "samples_per_second_of_call": round(samples / seconds, 4),
        "samples_per_second_of_training": round(samples / results["train_runtime"], 4),
        "eval_loss": results["eval_loss"],
    }
    print(name, found, flush=True)
    return found


def prepared() -> dict[str, Any]:
    """Bring model and data, and return what a result has to say of its origin."""
    chosen = settings.resolve("cpu", run=RUN)
    models.obtain(chosen.model, chosen.run.logs / "model.log")
    data.prepare(chosen)
    machine = hardware.describe().sentence()
    return {"machine": machine, "versions": records.versions(), "model": chosen.model.name}


@app.command()
def full(
    rounds: Annotated[int, typer.Option(help="calls of each recipe")] = 3,
    samples: Annotated[int, typer.Option(help="training problems, at most")] = 10**6,
) -> None:
    """Whole calls, in turn."""
    chosen = {name: settings.resolve("cpu", run=RUN, tuned=name) for name in ("no", "yes")}
    samples = min(samples, chosen["no"].profile.data.train)
    result = prepared() | {"rounds": rounds, "samples": samples, "methods": {}}
    for method in recipes.METHODS:
        calls: dict[str, list[dict[str, Any]]] = {"article": [], "tuned": []}
        for turn in range(rounds):
            for kind, tuned in (("article", "no"), ("tuned", "yes")):
                recipe = recipes.for_training(method, chosen[tuned]) | {"max_samples": samples}
                extra = chosen[tuned].environment
                name = f"{method} {kind} {turn}"
                calls[kind].append(call(name, recipe, extra, samples))
        speed = {
            kind: [each["samples_per_second_of_call"] for each in found]
            for kind, found in calls.items()
        }
        ratios = [b / a for a, b in zip(speed["article"], speed["tuned"], strict=True)]
        losses = {kind: found[0]["eval_loss"] for kind, found in calls.items()}
        result["methods"][method] = {
            "samples_per_second_of_call": {k: statistics.median(v) for k, v in speed.items()},
            "ratio": round(statistics.median(ratios), 3),
            "ratio_spread": [round(min(ratios), 3), round(max(ratios), 3)],
            "eval_loss": losses,
            "eval_loss_change": round(losses["tuned"] / losses["article"] - 1, 5),
            "calls": calls,
        }
        write_json(paths.BENCHMARKS / "recipes.json", result)


def loop_seconds(found: dict[str, Any]) -> float:
    """Return the time without imports and loading, which no setting changes."""
    return float(found["train_seconds"] + found["last_evaluation_seconds"])


@app.command()
def levers() -> None:
    """The tuned settings, added one by one; then those that were left out, one at a time."""
    result = prepared() | {"samples": LEVER_SAMPLES, "methods": {}}
    chosen = settings.resolve("cpu", run=RUN, tuned="no")
    assert chosen.profile.tuned is not None
    tuned = chosen.profile.tuned.recipe
    assert {key for keys in LEVERS.values() for key in keys} == set(tuned)
    for method in recipes.METHODS:
        recipe = recipes.for_training(method, chosen) | {"max_samples": LEVER_SAMPLES}
        found = call(f"{method} article", recipe, {}, LEVER_SAMPLES)
        rows = [{"setting": "the article's recipe", "used": True, "times_faster": 1.0} | found]
        for lever, keys in LEVERS.items():
            recipe = recipe | {key: tuned[key] for key in keys}
            before, found = found, call(f"{method} {lever}", recipe, {}, LEVER_SAMPLES)
            ratio = round(loop_seconds(before) / loop_seconds(found), 3)
            rows.append({"setting": lever, "used": True, "times_faster": ratio} | found)
        for lever, (changes, extra) in LEFT_OUT.items():
            tried = call(f"{method} {lever}", recipe | changes, extra, LEVER_SAMPLES)
            ratio = round(loop_seconds(found) / loop_seconds(tried), 3)
            rows.append({"setting": lever, "used": False, "times_faster": ratio} | tried)
        result["methods"][method] = rows
        write_json(paths.BENCHMARKS / "levers.json", result)


if __name__ == "__main__":
    app()
