"""The same training by TRL's SFTTrainer and by ours: `python benchmarks/bench_trl.py full`.

Whole calls, imports and evaluations included, in turn: ours with the tuned recipe and as the
tutorial calls it, which evaluates the last weights once and measures memory; TRL's with its own
defaults, and TRL's with our settings. Model, problems, chat template, rank, learning rate,
effective batch and steps are the same for all; TRL's QLoRA has the 4-bit kernels that bitsandbytes
brings, ours those of helpers/worker/npu_4bit.py. The adapters are then scored alike, by
LLaMA-Factory. Beside it stands how much of the processor's speed at matrix products a step reaches.
Nothing else may run meanwhile. On two cores with bf16 about 50 minutes, with `--samples 64` about
20; where a processor has no bf16, three times as long.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import bench_recipes
import typer

from helpers.ground import paths
from helpers.ground.files import write_json
from helpers.inputs import data, methods, recipes, settings
from helpers.programs import process
from helpers.worker import events

app = typer.Typer(add_completion=False)
# What a comparison of speed must leave as it is, in both of TRL's arms.
SHARED = ("learning_rate", "num_train_epochs", "lr_scheduler_type", "warmup_ratio", "seed", "bf16",
          "logging_steps", "eval_strategy", "eval_steps", "use_cpu")  # fmt: skip
SAME = ("per_device_train_batch_size", "gradient_accumulation_steps", "per_device_eval_batch_size",
        "save_steps", "save_total_limit")  # fmt: skip
BITSANDBYTES_OWN = {"TUTORIAL_KERNELS": "default"}  # it loads ours wherever they are installed
ROUNDS = 5


def arguments(recipe: dict[str, Any], same: bool) -> dict[str, Any]:
    """Return SFTConfig's arguments for a recipe.

    Args:
        recipe: ours.
        same: with our settings; else what TRL does by default, where the work allows it.
    """
    used = {key: recipe[key] for key in (*SHARED, *(SAME if same else ())) if key in recipe}
    used |= {"max_length": recipe["cutoff_len"], "report_to": "none", "do_eval": True,
             "completion_only_loss": True}  # fmt: skip
    if same:
        used["gradient_checkpointing"] = not recipe.get("disable_gradient_checkpointing", False)
    else:
        batch = recipe["per_device_train_batch_size"] * recipe["gradient_accumulation_steps"]
        # TRL's default batch; what is missing to the recipe's effective batch is accumulated.
        used["gradient_accumulation_steps"] = max(1, batch // 8)
        used["save_strategy"] = "no"
    return used


def rows(file: Path, most: int, tokenizer: Any) -> list[dict[str, list[int]]]:
    """Return problems as TRL trains on them: their tokens, and which of these are answers.

    TRL would find that out itself, but its 0.24 takes what transformers 5 returns of a prompt for a
    list of tokens, and trains on all but the first two.

    Args:
        file: problems as LLaMA-Factory has them.
        most: how many.
        tokenizer: the model's; its chat template makes the texts.
    """
    found = []
    for row in json.loads(file.read_text("utf-8"))[:most]:
        prompt = [{"role": "user", "content": row["instruction"]}]
        answer = [{"role": "assistant", "content": row["output"]}]
        asked, whole = (
            tokenizer.apply_chat_template(turns, add_generation_prompt=turns is prompt,
                                          tokenize=True, return_dict=True)["input_ids"]
            for turns in (prompt, prompt + answer)
        )  # fmt: skip
        mask = [int(place >= len(asked)) for place in range(len(whole))]
        found.append({"input_ids": whole, "completion_mask": mask})
    return found


@app.command()
def train(plan: Path) -> None:
    """Train as TRL does; `full` starts this in a process of its own, and times that."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
    from trl import SFTConfig, SFTTrainer

    asked = json.loads(plan.read_text("utf-8"))
    recipe, folder = asked["recipe"], Path(asked["folder"])
    dtype = torch.bfloat16 if recipe.get("bf16") else torch.float32
    loading: dict[str, Any] = {"dtype": dtype}
    if recipe.get("quantization_bit"):
        loading["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype,
            bnb_4bit_use_double_quant=recipe["double_quantization"],
        )  # fmt: skip
    if asked["same"] and recipe.get("flash_attn") == "disabled":
        loading["attn_implementation"] = "eager"
    model = AutoModelForCausalLM.from_pretrained(recipe["model_name_or_path"], **loading)
    tokenizer = AutoTokenizer.from_pretrained(recipe["model_name_or_path"])
    most = recipe["max_samples"]
    trainer = SFTTrainer(
        model,
        args=SFTConfig(output_dir=str(folder), **asked["arguments"]),
        train_dataset=Dataset.from_list(rows(Path(asked["train"]), most, tokenizer)),
        eval_dataset=Dataset.from_list(rows(Path(asked["held_out"]), most, tokenizer)),
        processing_class=tokenizer,
        peft_config=LoraConfig(
            r=recipe["lora_rank"], lora_alpha=2 * recipe["lora_rank"],
            target_modules="all-linear", task_type="CAUSAL_LM",
        ),
    )  # fmt: skip
    results = trainer.train().metrics | trainer.evaluate()
    trainer.save_model()
    found: dict[str, Any] = {key: results[key] for key in ("train_runtime", "eval_runtime")}
    if asked["count"]:
        found |= reached(trainer)
    write_json(folder / "found.json", found)


def fastest(what: Callable[[], object]) -> float:
    """Return the seconds of the fastest of some rounds."""
    seconds = []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        what()
        seconds.append(time.perf_counter() - begin)
    return min(seconds)


def reached(trainer: Any) -> dict[str, float]:
    """Return how much of this processor's speed at matrix products a step reaches.

    A step is one batch of the training forward and backward; its operations are those that torch's
    own counter sees in matrix products and attention, two for a multiplication and an addition.
    The processor's speed is that of the model's largest product, in the type of its weights.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    trainer.model.train()
    batch = next(iter(trainer.get_train_dataloader()))

    def step() -> None:
        with trainer.compute_loss_context_manager():
            loss = trainer.model(**batch).loss
        loss.backward()

    with FlopCounterMode(display=False) as counter:
        step()
    weight = trainer.model.get_output_embeddings().weight.detach()
    tokens = torch.randn(batch["input_ids"].numel(), weight.shape[1], dtype=weight.dtype)
    with torch.inference_mode():
        product_seconds = fastest(lambda: tokens @ weight.T)
    operations = counter.get_total_flops()
    step_speed = operations / fastest(step)
    product_speed = 2 * tokens.shape[0] * weight.shape[0] * weight.shape[1] / product_seconds
    return {
        "operations_a_step": operations,
        "step_operations_per_second": round(step_speed),
        "product_operations_per_second": round(product_speed),
        "share_of_products": round(step_speed / product_speed, 4),
    }


def trl(
    name: str, recipe: dict[str, Any], same: bool, extra: dict[str, str], count: bool
) -> dict[str, Any]:
    """Time one training by TRL, and return what it came to.

    Args:
        name: of its folder.
        recipe: ours.
        same: with our settings, or by TRL's defaults.
        extra: of its environment.
        count: find out how much of the processor a step uses; such a call's time does not count.
    """
    chosen = settings.resolve("cpu", run=bench_recipes.RUN)
    folder = bench_recipes.output(name)
    plan = folder.with_suffix(".json")
    write_json(plan, {
        "recipe": recipe, "same": same, "arguments": arguments(recipe, same),
        "folder": str(folder), "count": count,
        "train": str(chosen.run.data / f"{data.TRAIN}.json"),
        "held_out": str(chosen.run.data / f"{recipe['eval_dataset']}.json"),
    })  # fmt: skip
    env = process.environment("cpu", chosen.run.cache, chosen.profile.environment) | extra
    command = [sys.executable, __file__, "train", str(plan)]
    seconds = process.run(command, folder.with_suffix(".log"), env=env)
    found = json.loads((folder / "found.json").read_text("utf-8"))
    print(name, round(seconds, 2), found, flush=True)
    return found | {"call_seconds": round(seconds, 2)}


def ours(name: str, recipe: dict[str, Any], extra: dict[str, str], samples: int) -> dict[str, Any]:
    """Time one training as the tutorial calls it: what it does is told, and its memory measured."""
    file = bench_recipes.output(name).with_suffix(".events.jsonl")
    return bench_recipes.call(name, recipe, extra | {events.VARIABLE: str(file)}, samples)


@app.command()
def full(
    rounds: Annotated[int, typer.Option(help="calls of each")] = 3,
    samples: Annotated[int, typer.Option(help="training problems, at most")] = 10**6,
) -> None:
    """Whole calls, in turn; the result goes to benchmarks/results/trl.json."""
    tuned = settings.resolve("cpu", run=bench_recipes.RUN, tuned="yes")
    samples = min(samples, tuned.profile.data.train)
    result = bench_recipes.prepared() | {"rounds": rounds, "samples": samples, "methods": {}}
    for method in methods.default():
        recipe = recipes.for_training(method, tuned) | {"max_samples": samples}
        calls: dict[str, list[dict[str, Any]]] = {"ours": [], "trl_defaults": [], "trl_same": []}
        for turn in range(rounds):
            name = f"{method} {{}} {turn}"
            calls["ours"].append(ours(name.format("ours"), recipe, tuned.environment, samples))
            for kind, same in (("trl_defaults", False), ("trl_same", True)):
                extra = (tuned.environment if same else {}) | BITSANDBYTES_OWN
                calls[kind].append(trl(name.format(kind), recipe, same, extra, count=False))
        # Our steps are torch's and the model's own, as TRL's with the same settings are.
        share = trl(f"{method} counted", recipe, True, tuned.environment, count=True)
        speed = {
            kind: statistics.median(samples / each["call_seconds"] for each in found)
            for kind, found in calls.items()
        }
        ratios = [
            min(calls[kind][turn]["call_seconds"] for kind in ("trl_defaults", "trl_same"))
            / calls["ours"][turn]["call_seconds"]
            for turn in range(rounds)
        ]
        losses = {kind: bench_recipes.scored(f"{method} {kind} 0", method) for kind in calls}
        result["methods"][method] = {
            "samples_per_second_of_call": {kind: round(each, 4) for kind, each in speed.items()},
            "times_the_best_of_trl": round(statistics.median(ratios), 3),
            "times_spread": [round(min(ratios), 3), round(max(ratios), 3)],
            "eval_loss": losses,
            "eval_loss_change": {
                kind: round(losses["ours"] / loss - 1, 5) for kind, loss in losses.items()
            },
            "step": {key: value for key, value in share.items() if "operations" in key
                     or "share" in key},
            "calls": calls,
        }  # fmt: skip
        write_json(paths.BENCHMARKS / "trl.json", result)


if __name__ == "__main__":
    app()
