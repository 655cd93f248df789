"""The comparison: read from the records, checked for fairness, with a verdict from the figures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from helpers import chance, paths, recipe, records
from helpers.errors import TutorialError
from helpers.files import read_json, write_bytes
from helpers.records import Answers, Example, Merge, Record, Training
from helpers.repeats import SeedResult

LABELS = {
    "base": "base model",
    "lora": "LoRA",
    "qlora": "QLoRA",
    "lora_merged": "LoRA, merged",
    "qlora_merged": "QLoRA, merged (16-bit base)",
    "qlora_merged_dequantised": "QLoRA, merged (dequantised base)",
}
EXAMPLES = 5
SIGNIFICANCE = 0.05
# A saving or a slowdown below this share is within what two runs of one recipe differ.
NOTEWORTHY = 0.05


class Accuracy(BaseModel):
    """Exact match on the held-out problems, with its Wilson interval."""

    correct: int
    n: int
    share: float
    low: float  # 95 % interval
    high: float
    correct_without_mark: int


class Paired(BaseModel):
    """LoRA and QLoRA on the same problems; `p` is McNemar's exact test on where they differ."""

    both: int
    only_lora: int
    only_qlora: int
    neither: int
    p: float


class Comparison(BaseModel):
    """Everything that 06_compare shows."""

    run: str
    profile: str
    device: str
    machine: str
    model: str
    data_source: str
    train_rows: int
    eval_rows: int
    versions: dict[str, str]
    recipe_differences: list[tuple[str, Any, Any]]
    accuracy: dict[str, Accuracy]
    training: dict[str, Training]
    merges: dict[str, Merge]
    paired: Paired
    examples: list[Example]
    seeds: list[SeedResult] = []
    verdict: str


def accuracy(answers: Answers) -> Accuracy:
    """Return exact match with its 95 % Wilson score interval."""
    low, high = chance.wilson(answers.correct, answers.n)
    return Accuracy(
        correct=answers.correct,
        n=answers.n,
        share=answers.accuracy,
        low=round(low, 4),
        high=round(high, 4),
        correct_without_mark=answers.correct_without_mark,
    )


def paired(lora: Answers, qlora: Answers) -> Paired:
    """Return how LoRA and QLoRA did on the same problems.

    `p` is McNemar's exact test on the problems that only one of the two solved.

    Raises:
        ValueError: the two did not answer the same problems.
    """
    both, only_lora, only_qlora, neither = records.paired_counts(lora, qlora)
    return Paired(
        both=both,
        only_lora=only_lora,
        only_qlora=only_qlora,
        neither=neither,
        p=round(chance.sign_test(only_lora, only_qlora), 4),
    )


def _check_fair(found: dict[str, Record]) -> list[tuple[str, Any, Any]]:
    """Return how the two recipes differ, once nothing but the method does."""
    first = found["lora"]
    for subject, record in found.items():
        for what, same in (
            ("model", record.model_sha256 == first.model_sha256),
            ("data", record.data == first.data),
            ("profile", record.profile == first.profile),
            ("software versions", record.versions == first.versions),
        ):
            if not same:
                raise TutorialError(
                    f"The results of {subject} and lora were made with another {what}, so they "
                    "cannot be compared: run the notebooks 03_lora, 04_qlora and 05_merge again "
                    "with the same parameters."
                )
    lora, qlora = (found[method].recipes["train"] for method in recipe.METHODS)
    differences = recipe.differences(recipe.without_places(lora), recipe.without_places(qlora))
    others = [row[0] for row in differences if row[0] not in recipe.QUANTISATION_KEYS]
    if others:
        raise TutorialError(
            f"LoRA and QLoRA were trained with another {', '.join(others)}, so the comparison "
            "would not be fair: run 03_lora and 04_qlora again with the same overrides."
        )
    return differences


def _share(ratio: float) -> str:
    if abs(ratio - 1) <= NOTEWORTHY:
        return "about as much"
    return f"{abs(ratio - 1) * 100:.0f} % {'more' if ratio > 1 else 'less'}"


def verdict(pair: Paired, lora: Training, qlora: Training) -> str:
    """Return one sentence on which method to use, computed from the figures alone."""
    n = pair.both + pair.only_lora + pair.only_qlora + pair.neither
    lora_right, qlora_right = pair.both + pair.only_lora, pair.both + pair.only_qlora
    score = f"LoRA answered {lora_right} and QLoRA {qlora_right} of {n} held-out problems"
    differs = pair.p < SIGNIFICANCE
    accuracy_part = (
        f"{score}, a real difference (p = {pair.p:.3f})"
        if differs
        else f"{score}: no difference at this n (p = {pair.p:.2f})"
    )
    memory = qlora.memory.peak_bytes / lora.memory.peak_bytes if lora.memory.peak_bytes else 1.0
    time = qlora.call_seconds / lora.call_seconds
    cost = f"QLoRA took {_share(time)} time and {_share(memory)} memory at its peak"
    saves = memory < 1 - NOTEWORTHY
    if differs:
        better = "LoRA" if lora_right > qlora_right else "QLoRA"
        worth = "" if better == "QLoRA" or not saves else " unless only QLoRA fits in memory"
        advice = f"use {better} here{worth}"
    elif saves:
        faster = "LoRA" if time > 1 + NOTEWORTHY else "either"
        advice = f"use QLoRA where memory is short, and {faster} where it is not"
    elif time > 1 + NOTEWORTHY:
        advice = "use LoRA here: QLoRA costs time and saves no memory worth having"
    else:
        advice = "use either here"
    return f"{accuracy_part}. {cost}. {advice[0].upper()}{advice[1:]}."


def compare(run: paths.RunFolder, seeds: Sequence[SeedResult] = ()) -> Comparison:
    """Read the run's records, compare them, write comparison.json, and return it.

    Args:
        run: the run folder.
        seeds: what repeating the trainings with other seeds gave.

    Raises:
        TutorialError: a record is missing (with the notebook that makes it), or the records were
            made under conditions that differ in more than the method.
    """
    found = {subject: records.read(run, subject) for subject in LABELS}
    differences = _check_fair(found)
    lora, qlora = found["lora"], found["qlora"]
    assert lora.training is not None
    assert qlora.training is not None
    pair = paired(lora.answers, qlora.answers)
    result = Comparison(
        run=run.name,
        profile=lora.profile,
        device=lora.device,
        machine=lora.hardware.sentence(),
        model=lora.model,
        data_source=lora.data.source,
        train_rows=lora.data.train,
        eval_rows=lora.answers.n,
        versions=lora.versions,
        recipe_differences=differences,
        accuracy={subject: accuracy(record.answers) for subject, record in found.items()},
        training={"lora": lora.training, "qlora": qlora.training},
        merges={
            subject: record.merge for subject, record in found.items() if record.merge is not None
        },
        paired=pair,
        examples=records.examples(
            {LABELS[name]: record.answers for name, record in found.items()}, EXAMPLES
        ),
        seeds=list(seeds),
        verdict=verdict(pair, lora.training, qlora.training),
    )
    write_bytes(run.comparison, (result.model_dump_json(indent=1) + "\n").encode())
    return result


def read(file: Path) -> Comparison:
    """Return the comparison that a run wrote.

    Raises:
        TutorialError: there is none, or it cannot be read.
    """
    return read_json(file, Comparison, "run the notebook 06_compare again")


def costs(comparison: Comparison) -> dict[str, dict[str, float]]:
    """Return what each method cost: call_seconds, samples_per_second, peak_gb (10^9 bytes)."""
    return {
        method: {
            "call_seconds": training.call_seconds,
            "samples_per_second": training.samples_per_second,
            "peak_gb": training.memory.peak_bytes / 1e9,
        }
        for method, training in comparison.training.items()
    }


def table(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Return the comparison as a table: its header, and one row a subject, as text."""
    header = ["", "exact match (95 % interval)", "held-out loss", "train call", "samples/s",
              "peak memory", "size on disk"]  # fmt: skip
    rows = []
    for subject, score in comparison.accuracy.items():
        row = [
            LABELS[subject],
            f"{score.correct}/{score.n} ({100 * score.low:.0f}-{100 * score.high:.0f} %)",
        ]
        training, merge = comparison.training.get(subject), comparison.merges.get(subject)
        if training:
            row += [
                f"{training.final_eval_loss:.3f}",
                f"{training.call_seconds:.0f} s",
                f"{training.samples_per_second:.2f}",
                f"{training.memory.peak_bytes / 1e9:.2f} GB",
                f"{training.adapter_bytes / 1e6:.1f} MB",
            ]
        else:
            size = f"{merge.bytes_on_disk / 1e6:.1f} MB" if merge else "-"
            row += ["-", "-", "-", "-", size]
        rows.append(row)
    return header, rows


def merge_table(
    merged: dict[str, Record], run: paths.RunFolder
) -> tuple[list[str], list[list[str]]]:
    """Return what merging gave as a table: its header, and one row a merged model, as text.

    Args:
        merged: the records of the merged models by subject.
        run: where the records of base + adapter lie.
    """
    header = ["merged model", "same final answer", "same text", "KL (nats/token)",
              "same likeliest token", "exact match before", "after", "on disk"]  # fmt: skip
    rows = []
    for subject, record in merged.items():
        assert record.merge is not None
        rows.append(
            [
                LABELS[subject],
                f"{record.merge.same_answer}/{record.merge.n}",
                f"{record.merge.same_text}/{record.merge.n}",
                f"{record.merge.divergence.kl:.1e}",
                f"{100 * record.merge.divergence.same_token:.1f} %",
                str(records.read(run, paths.MERGED[subject]).answers.correct),
                str(record.answers.correct),
                f"{record.merge.bytes_on_disk / 1e6:.1f} MB",
            ]
        )
    return header, rows
