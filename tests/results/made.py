"""Small facts to compare, all well; tests change some of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from conftest import ORIGIN, make_answers, make_merge, make_training

from helpers.inputs import data, settings
from helpers.inputs.methods import Recipe
from helpers.inputs.settings import Settings
from helpers.inputs.subjects import Subject
from helpers.machine import hardware
from helpers.planning.plan import PARTS, Phase, Plan, Question
from helpers.records import store
from helpers.records.inside import Block, Layer
from helpers.records.schema import ProblemLoss, Record, SeedResult, Training


def chosen(methods: str = "lora qlora") -> Settings:
    """Return the settings of a run that compares these methods."""
    return settings.resolve("smoke", run="test", methods=methods)


def cost(seconds: float, gigabytes: float) -> Training:
    """Return a training that took so long, and so much memory at its peak."""
    used = int(gigabytes * 1e9)
    return make_training(call_seconds=seconds, peaks={"training": used, "evaluation": used // 2})


def asked(subject: Subject) -> Recipe:
    """Return the recipe with which a subject was asked."""
    quantised = subject.kind == "adapter" and subject.method and subject.method.quantised
    return {"cutoff_len": 256, "max_new_tokens": 16, "do_sample": False} | (
        {"quantization_bit": 4} if quantised else {}
    )


def result(
    method: str, right: Sequence[bool], losses: Sequence[float], seed: int = 42, **changes: Any
) -> SeedResult:
    """Return what a training came to: right or wrong a problem, and 10 tokens' loss a problem."""
    facts: dict[str, Any] = {
        "method": method,
        "seed": seed,
        "held_out_loss": sum(losses) / len(losses),
        "correct": sum(right),
        "n": len(right),
        "right": list(right),
        "losses": [ProblemLoss(nats=10 * loss, tokens=10) for loss in losses],
        "call_seconds": 100.0,
        "tensors": 10**9,
    }
    return SeedResult.model_validate(facts | changes)


def record(of: Settings, name: str, **changes: Any) -> Record:
    """Return the record of one of a run's subjects."""
    subject = of.subject(name)
    trained = subject.kind == "adapter" and subject.method is not None
    facts = {
        "subject": name,
        "profile": "smoke",
        "device": "cpu",
        "model": "tiny",
        "model_source": "test",
        "model_sha256": "1",
        "data": data.DataFacts(
            source="generated", name="", source_rows=10, source_sha256="2", train=6, eval=4,
            train_sha256="3", eval_sha256="4", unusable=[],
        ),
        "overrides": {},
        "recipes": {"predict": asked(subject)} | (
            {"train": dict(subject.method.recipe)} if trained and subject.method else {}
        ),
        "versions": {"torch": "2.10.0"},
        "hardware": hardware.describe(),
        "training": make_training() if trained else None,
        "merge": make_merge().model_copy(update={"weights": subject.weights})
        if subject.weights else None,
        "answers": make_answers([subject.kind != "base", True, False, False], subject.kind),
    }  # fmt: skip
    return Record.model_validate(facts | changes)


def write(of: Settings, **changed: dict[str, Any]) -> dict[str, Record]:
    """Write the records of a run, some of them with changes, and return them by subject."""
    records = {name: record(of, name, **changed.get(name, {})) for name in of.subjects}
    for each in records.values():
        store.write(of.run, each)
    return records


def plan(training_bytes: int = 3 * 2**30, evaluation_bytes: int = 2**30) -> Plan:
    """Return a plan with these peaks."""

    def phase(peak: int) -> Phase:
        parts = dict.fromkeys(PARTS, 0) | {"weights": peak // 3 * 2, "logits": peak - peak // 3 * 2}
        return Phase(rows=2, length=64, peak_bytes=peak, parts=parts)

    training, evaluation = phase(training_bytes), phase(evaluation_bytes)
    question = Question(recipe={}, device="cpu")
    return Plan.model_construct(training=training, evaluation=evaluation, question=question)


def layer(**changes: Any) -> Layer:
    """Return a layer of rank 2, as it is after training."""
    a = [[0.01 * (i - j) for j in range(6)] for i in range(2)]
    b = [[0.02 * (i + j) for j in range(2)] for i in range(4)]
    product = [[2 * sum(b[r][k] * a[k][c] for k in range(2)) for c in range(6)] for r in range(4)]
    facts = {
        "name": "model.layers.1.self_attn.q_proj",
        "rows": 4,
        "columns": 6,
        "rank": 2,
        "scale": 2.0,
        "a": a,
        "b": b,
        "weight": [[0.1 * (r - c) for c in range(6)] for r in range(4)],
        "product": product,
        "change": product,
        "norm_weight": 1.0,
        "norm_product": 0.01,
        "norm_change": 0.01,
        "magnitude": None,
        "trained": 20,
        "parameters": 24,
        "model_trained": 80,
        "model_parameters": 1000,
        "origin": ORIGIN,
    }
    return Layer.model_validate(facts | changes)


def block() -> Block:
    """Return a block of 64 weights on 16 codes, evenly spread."""
    codes = [-1 + 2 * i / 15 for i in range(16)]
    before = [0.5 * (-1 + 2 * i / 63) for i in range(64)]
    indices = [min(range(16), key=lambda i: abs(codes[i] - w / 0.5)) for w in before]
    return Block.model_validate(
        {
            "name": "model.layers.1.self_attn.q_proj",
            "rows": 8,
            "columns": 8,
            "quant_type": "nf4",
            "codes": codes,
            "scale": 0.5,
            "before": before,
            "indices": indices,
            "after": [0.5 * codes[i] for i in indices],
            "error_max": 0.03,
            "error_rms": 0.02,
            "error_relative": 0.1,
            "matrix_error_max": 0.04,
            "matrix_error_rms": 0.02,
            "matrix_error_relative": 0.09,
            "bytes_16": 128,
            "bytes_codes": 32,
            "bytes_scales": 4,
            "origin": ORIGIN,
        }
    )
