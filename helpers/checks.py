"""The checks that close each notebook: statements that hold, or one sentence on why they do not."""

from __future__ import annotations

import math
from collections.abc import Iterable

from helpers import chance
from helpers.errors import TutorialError
from helpers.records import Answers, Merge, Training, paired_counts

Check = tuple[str, bool, str]  # statement, whether it holds, the figures behind it

# The evaluation after training repeats the last one during it: the same weights, the same data, and
# on a CPU with bitsandbytes 0.48.2 the same loss in every digit. 0.49 and 0.50 damaged the 4-bit
# weights in between: 1.89 became 16.29 with SmolLM2-135M, 6.335 became 6.366 with the tiny model.
EVAL_TOLERANCE = 0.001
# Merging rounds base + adapter to bfloat16 once more, so next tokens become a little more or less
# likely, and where two are nearly equal a greedy answer turns; more would mean another model.
# Measured with SmolLM2-135M on 50 problems, in nats per token and as the share of equal answers:
# 0.0004 and 100 % for LoRA's, 0.0004 and 90 % for QLoRA's on the dequantised base; 0.079 and 38 %
# for QLoRA's on the 16-bit base, 0.06 and 46 % for the other method's model. With the random tiny
# model 0.00003, against 0.013 and 0.03. The limits lie between, far from both.
MERGED_AGREEMENT = 0.7
MERGED_DIVERGENCE = 0.005


def conclude(checks: Iterable[Check]) -> None:
    """Print one line for each check that holds.

    The lines hold no figures, so that they are the same on every machine and profile.

    Raises:
        TutorialError: a check does not hold; the sentence names all of them with their figures.
    """
    failed = []
    for statement, holds, figures in checks:
        if holds:
            print(f"OK: {statement}")
        else:
            failed.append(f"{statement}: {figures}")
    if failed:
        raise TutorialError(
            f"Not as it should be: {'; '.join(failed)}. Do not trust the figures of this run "
            "before the cause is found."
        )


def of_training(training: Training, before: Answers, after: Answers) -> list[Check]:
    """Return the checks that a training did what it says.

    Args:
        training: its facts.
        before: the base model's answers.
        after: the answers of base model + adapter.
    """
    losses = [point.loss for point in training.loss + training.eval_loss]
    sane = all(math.isfinite(loss) and loss > 0 for loss in losses) and len(training.loss) > 1
    during = training.eval_loss[-1] if training.eval_loss else None
    quarter = max(1, len(training.loss) // 4)
    first = sum(point.loss for point in training.loss[:quarter]) / quarter
    last = sum(point.loss for point in training.loss[-quarter:]) / quarter
    changed = sum(a.text != b.text for a, b in zip(before.items, after.items, strict=True))
    frozen = training.frozen_weights
    checks = [
        ("all losses are finite and above zero", sane, f"{losses}"),
        ("the training loss fell", last < first, f"from {first:.3f} to {last:.3f}"),
        (
            "the frozen weights are the same bits as before",
            frozen.before == frozen.after,
            f"digest {frozen.before.digest[:12]} of {frozen.before.tensors} tensors before, "
            f"{frozen.after.digest[:12]} of {frozen.after.tensors} after",
        ),
        ("training changed the answers", changed > 0, f"{changed} of {after.n} differ"),
        ("memory was sampled while it ran", training.memory.peak_bytes > 0, "no samples"),
    ]
    if during is not None and during.step == training.optimizer_steps:
        same = math.isclose(during.loss, training.final_eval_loss, rel_tol=EVAL_TOLERANCE)
        checks.append(
            (
                "the evaluation after training equals the last one during it",
                same,
                f"{during.loss:.4f} during, {training.final_eval_loss:.4f} after",
            )
        )
    return checks


def of_merge(name: str, merge: Merge) -> list[Check]:
    """Return the checks that a merged model is base + adapter, up to rounding.

    LoRA's on the original 16-bit weights has to pass them, and QLoRA's on the dequantised ones.
    QLoRA's on the 16-bit weights is another model: see `of_change_of_base`.

    Args:
        name: the merged model, as readers know it.
        merge: what merging gave.
    """
    kl = merge.divergence.kl
    return [
        (
            f"{name} gives the next tokens the likelihood that base + adapter gave them",
            kl <= MERGED_DIVERGENCE,
            f"KL {kl:.2g} nats per token, at most {MERGED_DIVERGENCE} expected",
        ),
        (
            f"{name} answers as base + adapter did",
            merge.same_answer >= MERGED_AGREEMENT * merge.n,
            f"the same final answer on {merge.same_answer} of {merge.n} problems, "
            f"at least {MERGED_AGREEMENT:.0%} expected",
        ),
    ]


def of_change_of_base(
    name: str, before: Answers, after: Answers, merge: Merge, own: Merge
) -> list[Check]:
    """Return the checks of an adapter that was merged into another base than its own.

    QLoRA's adapter is trained beside 4-bit weights; on the 16-bit ones single answers change, and
    the distributions have to lie farther off than on its own base: if not, the two were mixed up.
    A clear loss (one-sided binomial test on the problems that only one of the two solved,
    p < 0.01) would make the merged model useless.

    Args:
        name: the merged model, as readers know it.
        before: the answers of base + adapter.
        after: the answers of the merged model.
        merge: what merging into the other base gave.
        own: what merging into its own base gave.
    """
    far, near = merge.divergence.kl, own.divergence.kl
    _, lost, won, _ = paired_counts(before, after)
    p = chance.sign_test(lost, won, "greater")
    return [
        (
            f"{name} is not clearly worse than base + adapter",
            p >= 0.01,
            f"{before.correct} of {before.n} before, {after.correct} after (p = {p:.4f})",
        ),
        (
            f"{name} is farther from base + adapter than on the base it was trained beside",
            far > near,
            f"KL {far:.2g} nats per token, and {near:.2g} on its own base",
        ),
    ]
