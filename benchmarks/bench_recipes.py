"""The article's recipe against the tuned one: `bench_recipes.py full|levers|measuring`.

`full` times whole `llamafactory-cli train` calls of the cpu profile, evaluations included, the
article's and the tuned recipe in turn. Both adapters are then scored alike, in the article's
evaluation batches: the trainer averages the held-out loss over batches, so another batch gives
another loss for the same model. `levers` adds the tuned settings one by one, on a part of the
problems, so that each one's share of the gain is seen, and tries those that were left out.
`measuring` times the tuned recipe with its memory measured, as a run has it, and without. Nothing
else may run meanwhile.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import typer

from helpers.calls.factory import CLI
from helpers.ground import paths
from helpers.ground.files import sha256_file, write_json
from helpers.inputs import data, methods, models, recipes, settings
from helpers.machine import hardware
from helpers.programs import process
from helpers.records.versions import recorded
from helpers.worker import events

app = typer.Typer(add_completion=False)
RUN = "bench"
LEVER_SAMPLES = 48
# The tuned settings in the order in which they are added; ENVIRONMENT stands for the process's.
ENVIRONMENT = "environment"
LEVERS: dict[str, tuple[str, ...]] = {
    "no gradient checkpointing": ("disable_gradient_checkpointing",),
    "one micro-batch a step": ("per_device_train_batch_size", "gradient_accumulation_steps"),
    "plain attention": ("flash_attn",),
    "the allocator keeps its memory": (ENVIRONMENT,),
}
# Added after those that were left out have been tried, for it alone changes how a loss is averaged.
EVALUATION = ("evaluation in batches of 5", "per_device_eval_batch_size")
# Each of these is added to the settings above: what it changes of the recipe, and what it appends
# to variables of the environment.
LEFT_OUT: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "batches of similar length": ({"train_sampling_strategy": "group_by_length"}, {}),
    "huge pages": ({}, {"GLIBC_TUNABLES": ":glibc.malloc.hugetlb=1"}),
}


def output(name: str) -> Path:
    """Return the output folder of one training."""
    return paths.RunFolder(RUN).root / "bench" / name.replace(" ", "_")


def run(
    recipe: dict[str, Any], folder: Path, extra: dict[str, str]
) -> tuple[float, dict[str, Any]]:
    """Run `llamafactory-cli train` into a folder; return its seconds and its results."""
    chosen = settings.resolve("cpu", run=RUN)
    used = recipe | {"output_dir": str(folder)}
    file = recipes.write(used, "llamafactory-cli train", folder.with_suffix(".yaml"))
    env = process.environment("cpu", chosen.run.cache, chosen.profile.environment) | extra
    seconds = process.run([CLI, "train", str(file)], folder.with_suffix(".log"), env=env)
    return seconds, json.loads((folder / "all_results.json").read_text())


def call(name: str, recipe: dict[str, Any], extra: dict[str, str], samples: int) -> dict[str, Any]:
    """Time one training, and return what it came to."""
    folder = output(name)
    seconds, results = run(recipe | {"swanlab_run_name": name}, folder, extra)
    adapter = folder / "adapter_model.safetensors"
    found = {
        "call_seconds": round(seconds, 2),
        "train_seconds": results["train_runtime"],
        "last_evaluation_seconds": results["eval_runtime"],
        "samples_per_second_of_call": round(samples / seconds, 4),
        "samples_per_second_of_training": round(samples / results["train_runtime"], 4),
        "eval_loss": results["eval_loss"],
        "adapter_sha256": sha256_file(adapter),
    }
    print(name, found, flush=True)
    return found


def scored(name: str, method: str) -> float:
    """Return the held-out loss of a call's adapter, in the article's evaluation batches."""
    chosen = settings.resolve("cpu", run=RUN, tuned="no")
    adapter = output(name)
    used = recipes.for_training(method, chosen) | {
        "do_train": False,
        "eval_strategy": "no",
        "use_swanlab": False,
        "adapter_name_or_path": str(adapter),
    }
    _, results = run(used, adapter.with_name(f"{adapter.name}_scored"), {})
    return float(results["eval_loss"])


def prepared() -> dict[str, Any]:
    """Bring model and data, and return what a result has to say of its origin."""
    chosen = settings.resolve("cpu", run=RUN)
    models.obtain(chosen.model, chosen.run.logs / "model.log")
    data.prepare(chosen)
    machine = hardware.describe().sentence()
    return {"machine": machine, "versions": recorded(), "model": chosen.model.name}


@app.command()
def full(
    rounds: Annotated[int, typer.Option(help="calls of each recipe")] = 3,
    samples: Annotated[int, typer.Option(help="training problems, at most")] = 10**6,
) -> None:
    """Whole calls, in turn."""
    chosen = {name: settings.resolve("cpu", run=RUN, tuned=name) for name in ("no", "yes")}
    samples = min(samples, chosen["no"].profile.data.train)
    result = prepared() | {"rounds": rounds, "samples": samples, "methods": {}}
    for method in methods.default():
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
        losses = {kind: scored(f"{method} {kind} 0", method) for kind in calls}
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


def row(setting: str, used: bool, made: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """Return what a setting brought: how many times faster a call is than the one before it."""
    ratio = round(loop_seconds(before) / loop_seconds(made), 3)
    return {"setting": setting, "used": used, "times_faster": ratio} | made


@app.command()
def levers() -> None:
    """The tuned settings, added one by one; those that were left out are tried, one at a time."""
    result = prepared() | {"samples": LEVER_SAMPLES, "methods": {}}
    chosen = settings.resolve("cpu", run=RUN, tuned="no")
    assert chosen.profile.tuned is not None
    tuned = chosen.profile.tuned
    keys = {key for keys in LEVERS.values() for key in keys} | {EVALUATION[1]}
    assert keys == {*tuned.recipe, ENVIRONMENT}
    for method in methods.default():
        recipe = recipes.for_training(method, chosen) | {"max_samples": LEVER_SAMPLES}
        extra: dict[str, str] = {}
        found = call(f"{method} article", recipe, extra, LEVER_SAMPLES)
        rows = [row("the article's recipe", True, found, found)]
        for lever, added in LEVERS.items():
            recipe = recipe | {key: tuned.recipe[key] for key in added if key != ENVIRONMENT}
            extra = tuned.environment if ENVIRONMENT in added else extra
            before, found = found, call(f"{method} {lever}", recipe, extra, LEVER_SAMPLES)
            rows.append(row(lever, True, found, before))
        for lever, (changes, appended) in LEFT_OUT.items():
            other = extra | {name: extra.get(name, "") + text for name, text in appended.items()}
            tried = call(f"{method} {lever}", recipe | changes, other, LEVER_SAMPLES)
            rows.append(row(lever, False, tried, found))
        lever, key = EVALUATION
        recipe = recipe | {key: tuned.recipe[key]}
        before, found = found, call(f"{method} {lever}", recipe, extra, LEVER_SAMPLES)
        assert found["adapter_sha256"] == before["adapter_sha256"], "an evaluation trained"
        rows.append(row(lever, True, found | {"eval_loss": before["eval_loss"]}, before))
        result["methods"][method] = rows
        write_json(paths.BENCHMARKS / "levers.json", result)


# What a call tells of, whether it is measured or not: its pieces lie between.
MARKS = ("loaded", "train_begin", "step", "evaluated", "train_end", "digest", "losses")


def pieces(began: float, told: Sequence[events.Event], ended: float) -> list[float]:
    """Return how long the pieces of a call took, in seconds: loading, each step, each evaluation.

    Args:
        began: when the call began, in seconds since 1970.
        told: its events.
        ended: when it ended.
    """
    marks = [event["at"] for event in told if event["event"] in MARKS]
    return [round(end - start, 4) for start, end in pairwise([began, *marks, ended])]


def watched(name: str, recipe: dict[str, Any], extra: dict[str, str]) -> dict[str, Any]:
    """Time one training that tells what it does, and return it with its pieces."""
    folder = output(name)
    file = folder.with_suffix(".events.jsonl")
    file.unlink(missing_ok=True)
    began = time.time()
    named = recipe | {"swanlab_run_name": name}
    seconds, _ = run(named, folder, extra | {events.VARIABLE: str(file)})
    told, ended = events.read(file), time.time()
    found = {
        "call_seconds": round(seconds, 2),
        "pieces": pieces(began, told, ended),
        "peaks": sorted({event["of"] for event in told if event["event"] == "peak"}),
        "seconds_of_measuring": max(
            (event["seconds"] for event in told if event["event"] == "measuring"), default=0.0
        ),
        "adapter_sha256": sha256_file(folder / "adapter_model.safetensors"),
    }
    print(name, found["call_seconds"], found["seconds_of_measuring"], found["peaks"], flush=True)
    return found


def cost_of_measuring(calls: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Return what measuring costs, as a share of a call and in seconds.

    As many steps are measured of few problems as of many, so the seconds hold for any number.

    Args:
        calls: those with measuring ("measured") and those without ("plain"), in turn.
    """
    whole = {kind: [each["call_seconds"] for each in found] for kind, found in calls.items()}
    costs = [a / b - 1 for a, b in zip(whole["measured"], whole["plain"], strict=True)]
    # A pause of the machine falls into one piece of one call: the others tell what that one takes.
    quiet = {
        kind: sum(map(statistics.median, zip(*(each["pieces"] for each in found), strict=True)))
        for kind, found in calls.items()
    }
    return {
        "call_seconds": {kind: statistics.median(each) for kind, each in whole.items()},
        "cost": round(statistics.median(costs), 4),
        "cost_spread": [round(min(costs), 4), round(max(costs), 4)],
        "cost_of_pieces": round(quiet["measured"] / quiet["plain"] - 1, 4),
        "seconds_of_pieces": round(quiet["measured"] - quiet["plain"], 2),
        "seconds_of_measuring": statistics.median(
            each["seconds_of_measuring"] for each in calls["measured"]
        ),
    }


@app.command()
def measuring(
    rounds: Annotated[int, typer.Option(help="calls of each kind")] = 3,
    samples: Annotated[int, typer.Option(help="training problems, at most")] = 10**6,
) -> None:
    """Whole calls with their memory measured and without, in turn."""
    chosen = settings.resolve("cpu", run=RUN)
    samples = min(samples, chosen.profile.data.train)
    result = prepared() | {"rounds": rounds, "samples": samples, "methods": {}}
    for method in methods.default():
        recipe = recipes.for_training(method, chosen) | {"max_samples": samples}
        calls: dict[str, list[dict[str, Any]]] = {"measured": [], "plain": []}
        for turn in range(rounds):
            for kind in ("plain", "measured") if turn % 2 else ("measured", "plain"):
                extra = chosen.environment | ({events.UNMEASURED: "1"} if kind == "plain" else {})
                calls[kind].append(watched(f"{method} {kind} {turn}", recipe, extra))
        assert {tuple(each["peaks"]) for each in calls["plain"]} == {()}
        assert all("training" in each["peaks"] for each in calls["measured"])
        adapters = {each["adapter_sha256"] for found in calls.values() for each in found}
        assert len(adapters) == 1, "measuring changed what was trained"
        result["methods"][method] = cost_of_measuring(calls) | {"calls": calls}
        write_json(paths.BENCHMARKS / "measuring.json", result)


if __name__ == "__main__":
    app()
