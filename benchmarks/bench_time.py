"""How far the estimates of time can be trusted: `python benchmarks/bench_time.py public|here`.

public: against what others have published of an A100, LoRA and QLoRA of Qwen's three sizes at six
lengths (QwenLM/Qwen's README), whose card, software and kernels are not ours. No card is needed.
here: against steps that are taken on this machine, eight recipes of SmolLM2-135M with random
weights, after the operators were timed for ten seconds.
Writes benchmarks/results/time.json.
"""

from __future__ import annotations

import gc
import itertools
import json
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any

from helpers.ground import paths
from helpers.ground.files import write_json
from helpers.inputs import models, recipes
from helpers.inputs.settings import resolve
from helpers.machine import hardware
from helpers.planning import asking, cards, duration, estimate
from helpers.planning.work import Work, WorkQuestion
from helpers.programs import process
from helpers.records.versions import versions

RESULT = paths.BENCHMARKS / "time.json"
LOG = paths.RUNS / "bench-time.log"
LENGTHS = (256, 512, 1024, 2048, 4096, 8192)
# Seconds for 8 micro-batches of one example: one A100-80G, FlashAttention 2, checkpointing, rank 64
# on all linear layers. Q-LoRA is of models in GPTQ's Int4, which has kernels of its own.
PUBLIC = {
    ("1.8B", "lora"): (1.0, 1.0, 1.1, 1.7, 3.3, 6.8),
    ("1.8B", "qlora"): (1.4, 1.4, 1.4, 2.0, 3.4, 6.5),
    ("7B", "lora"): (1.2, 1.5, 2.8, 5.2, 10.1, 21.3),
    ("7B", "qlora"): (3.0, 3.0, 3.5, 7.0, 11.6, 22.3),
    ("14B", "lora"): (1.6, 2.4, 4.4, 8.4, 17.0, 36.0),
    ("14B", "qlora"): (5.3, 6.3, 8.2, 11.8, 20.1, 38.3),
}
MICRO_BATCHES = 8
# Tokens a second that others tell of, which nothing here was set by: LLaMA-Factory's wiki,
# Llama-2-7B on an A100, 4 texts of 1024 tokens, FlashAttention 2, and in 4 bits (bitsandbytes);
# torchtune, Llama-3.1-8B on a 4090, 2 packed texts of 2048.
LLAMA_2 = {"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32,
           "num_key_value_heads": 32, "intermediate_size": 11008, "vocab_size": 32000}  # fmt: skip
LLAMA_3 = LLAMA_2 | {"num_key_value_heads": 8, "intermediate_size": 14336, "vocab_size": 128256}
OTHERS = (
    ("LLaMA-Factory, Llama-2-7B", "A100", LLAMA_2, "lora", 4, 1024, 2954),
    ("LLaMA-Factory, Llama-2-7B", "A100", LLAMA_2, "qlora", 4, 1024, 2415),
    ("torchtune, Llama-3.1-8B", "4090", LLAMA_3, "lora", 2, 2048, 3083),
    ("torchtune, Llama-3.1-8B", "4090", LLAMA_3, "qlora", 2, 2048, 2413),
)
# hidden size, layers, heads, and the inner size of one of the two matrices of the gated layer.
SHAPES = {
    "1.8B": (2048, 24, 16, 5504),
    "7B": (4096, 32, 32, 11008),
    "14B": (5120, 40, 40, 13696),
}
HERE = {"method": ("lora", "qlora"), "checkpointing": (True, False), "length": (128, 256)}
STEPS = 4


def qwen(size: str) -> dict[str, Any]:
    """Return one of the three models as transformers' Qwen2 has it."""
    hidden, layers, heads, inner = SHAPES[size]
    return {
        "model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "dtype": "bfloat16",
        "hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads,
        "num_key_value_heads": heads, "intermediate_size": inner, "vocab_size": 151936,
        "tie_word_embeddings": False,
    }  # fmt: skip


def errors(rows: Iterable[dict[str, Any]]) -> dict[str, float]:
    """Return the median and the largest error of estimates, as shares of what was measured."""
    off = [abs(row["estimated"] / row["measured"] - 1) for row in rows]
    return {"median": median(off), "largest": max(off)}


def public() -> dict[str, Any]:
    """Hold estimates against the public table."""
    keys = [(size, method, length) for size, method in PUBLIC for length in LENGTHS]
    questions = [
        WorkQuestion(
            # Of dropout, which theirs had, a CPU's trace shows four operators and a card runs one.
            recipe=recipes.article(method)
            | {"model_name_or_path": size, "per_device_train_batch_size": 1, "lora_rank": 64,
               "cutoff_len": max(LENGTHS)},
            config=qwen(size), device="cuda", length=length, eval_length=64, padded=False,
        )
        for size, method, length in keys
    ]  # fmt: skip
    others = [
        WorkQuestion(
            recipe=recipes.article(method)
            | {"model_name_or_path": "llama", "per_device_train_batch_size": rows},
            config=shape | {"model_type": "llama", "architectures": ["LlamaForCausalLM"],
                            "dtype": "bfloat16", "tie_word_embeddings": False},
            device="cuda", length=length, eval_length=64, padded=False,
        )
        for _, _, shape, method, rows, length, _ in OTHERS
    ]  # fmt: skip
    answers = asking.ask("traced_work", [*questions, *others], LOG)
    works = [Work.model_validate(each) for each in answers]
    return held(dict(zip(keys, works, strict=False))) | {"others": beside(works[len(keys) :])}


def beside(works: list[Work]) -> list[dict[str, Any]]:
    """Return what others tell of beside the estimates for counted work."""
    known, rows = cards.catalogue(), []
    for (name, card, _, method, texts, length, measured), work in zip(OTHERS, works, strict=True):
        step = duration.on_card(work, known.cards[card], known.efficiencies["cuda"]).micro_batch
        speed = {"low": step.high, "high": step.low, "estimated": step.middle}
        rows.append(
            {"of": name, "card": card, "method": method, "tokens_per_second": measured}
            | {key: texts * length / seconds for key, seconds in speed.items()}
        )
    return rows


def held(works: dict[tuple[str, str, int], Work]) -> dict[str, Any]:
    """Return the public table beside the estimates for counted work."""
    known = cards.catalogue()
    rows = []
    for (size, method, length), work in works.items():
        phases = duration.on_card(work, known.cards["A100"], known.efficiencies["cuda"])
        step = estimate.step_of(phases, MICRO_BATCHES)
        measured = PUBLIC[size, method][LENGTHS.index(length)]
        rows.append(
            {"model": size, "method": method, "tokens": length, "measured": measured,
             "low": step.low, "high": step.high, "estimated": step.middle}
        )  # fmt: skip
    by_method = {
        method: errors(row for row in rows if row["method"] == method)
        for method in dict.fromkeys(row["method"] for row in rows)
    }
    return {"rows": rows, "errors": by_method}


def here() -> dict[str, Any]:
    """Hold estimates against steps that are taken on this machine."""
    from helpers.planning.real_steps import Case

    settings = resolve("cpu", run="bench-time")
    config = models.catalogue()["SmolLM2-135M-Instruct"].config
    assert config
    cases, questions = [], []
    for method, checkpointing, length in itertools.product(*HERE.values()):
        recipe = recipes.article(method) | {
            "model_name_or_path": "SmolLM2-135M", "use_cpu": True, "bf16": hardware.has_bf16(),
            "disable_gradient_checkpointing": not checkpointing, "gradient_accumulation_steps": 2,
            "use_swanlab": False,
        }  # fmt: skip
        shape = config | {"dtype": models.expanded_dtype()}
        key = f"{method}|{checkpointing}|{length}"
        cases.append(Case(key=key, recipe=recipe, config=shape, length=length, steps=STEPS))
        questions.append(
            WorkQuestion(
                recipe=recipe, config=shape, device="cpu", length=length, eval_length=64, forms=True
            )
        )
    # Of each method, the first recipe's probe: another length and checkpointing go by it, too.
    first: dict[str, WorkQuestion] = {}
    for case, question in zip(cases, questions, strict=True):
        first.setdefault(case.key.split("|")[0], question)
    probes = estimate.probes_of(first)
    asked = [*questions, *probes.values()]
    counted = [Work.model_validate(each) for each in asking.ask("traced_work", asked, LOG)]
    works = counted[: len(questions)]
    training = [work.model_copy(update={"evaluation": [], "token": []}) for work in works]
    probed = dict(
        zip(probes, zip(probes.values(), counted[len(works) :], strict=True), strict=True)
    )
    timed = estimate.timed_here(training, probed, settings)
    print(timed.longer, flush=True)
    # In a process of their own, with a training's environment.
    with tempfile.TemporaryDirectory() as folder:
        plan, result = Path(folder) / "plan.json", Path(folder) / "result.json"
        plan.write_text(json.dumps([case.model_dump() for case in cases]))
        command = [sys.executable, __file__, "steps", str(plan), str(result)]
        process.run(command, LOG, env=process.environment("cpu") | settings.environment)
        rows = json.loads(result.read_text())
    for row, work in zip(rows, works, strict=True):
        step = estimate.step_of(duration.here(work, timed.of(row["method"])), 2)
        row |= {"low": step.low, "high": step.high, "estimated": step.middle}
    return {
        "rows": rows, "errors": errors(rows), "machine": hardware.describe().sentence(),
        "versions": versions(), "steps": STEPS,
    }  # fmt: skip


def steps(plan: Path, result: Path) -> None:
    """Take the steps of a plan, and write what they took."""
    from helpers.planning.real_steps import Case, Training

    rows = []
    for case in map(Case.model_validate, json.loads(plan.read_text())):
        training = Training(case, "cpu")
        training.step()
        method, checkpointing, length = case.key.split("|")
        measured = median(training.timed() for _ in range(case.steps))
        rows.append({"method": method, "checkpointing": checkpointing == "True",
                     "tokens": int(length), "measured": measured})  # fmt: skip
        del training
        gc.collect()
    result.write_text(json.dumps(rows))


def main() -> None:
    """Do what the command line names."""
    if sys.argv[1] == "steps":
        steps(Path(sys.argv[2]), Path(sys.argv[3]))
        return
    kinds = {"public": public, "here": here}
    found = json.loads(RESULT.read_text("utf-8")) if RESULT.is_file() else {}
    for kind in sys.argv[1:]:
        found[kind] = kinds[kind]()
        write_json(RESULT, found)
        print(kind, found[kind]["errors"])


if __name__ == "__main__":
    main()
