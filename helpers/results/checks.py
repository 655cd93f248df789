"""The checks that close each notebook: statements that hold, or one sentence on why they do not."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from helpers.ground.errors import TutorialError
from helpers.ground.shown import Shown, escaped
from helpers.ground.words import tr
from helpers.inputs.settings import Settings
from helpers.planning.plan import Plan
from helpers.records import store
from helpers.records.schema import Answers, Merge, Peaks, Record, Training
from helpers.results import chance, peaks
from helpers.results.pairs import paired_counts
from helpers.results.schema import Comparison

if TYPE_CHECKING:
    from helpers.doctor.host import Check as Finding

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
# A plan and the allocator count the same tensors: within 0.01 % with SmolLM2-135M on a CPU. On a
# card there is no check, only the picture: none was at hand to try whether its kernels take
# workspace that a trace does not see (without a fused attention kernel the simulated NPU takes 12 %
# more than a plan that counts on one).
PLAN_TOLERANCE = {"cpu": 0.02}


@dataclass(frozen=True)
class Check:
    """A statement, whether it holds, and the figures behind it."""

    statement: str
    holds: bool
    figures: str


@dataclass(frozen=True)
class Conclusion(Shown):
    """Checks that hold, one line each.

    The lines hold no figures, so that they are the same on every machine and profile.
    """

    checks: Sequence[Check]

    def _lines(self) -> list[str]:
        return [tr("OK: {statement}", statement=check.statement) for check in self.checks]

    def markdown(self) -> str:
        return "\n".join(f"- {escaped(line)}" for line in self._lines())

    def plain(self) -> str:
        return "\n".join(self._lines())


def conclude(checks: Iterable[Check]) -> Conclusion:
    """Return the checks to show, once all of them hold.

    Raises:
        TutorialError: one does not; the sentence names all that do not, with their figures.
    """
    checks = list(checks)
    failed = [f"{check.statement}: {check.figures}" for check in checks if not check.holds]
    if failed:
        raise TutorialError(
            tr(
                "Not as it should be: {failed}. Do not trust the figures of this run before the "
                "cause is found.",
                failed="; ".join(failed),
            )
        )
    return Conclusion(checks)


def of_doctor(found: Iterable[Finding]) -> list[Check]:
    """Return the check that nothing keeps a run from working on this machine."""
    from helpers.doctor.host import Status

    failing = [finding.name for finding in found if finding.status == Status.FAIL]
    return [Check(tr("no check of the doctor fails"), not failing, ", ".join(failing))]


def of_model(folder: Path) -> list[Check]:
    """Return the check that the base model's weights are in its folder."""
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    return [
        Check(tr("the base model lies here as safetensors"), size > 0, tr("no weights were found"))
    ]


def of_data(settings: Settings) -> list[Check]:
    """Return the checks of a run's prepared data.

    Raises:
        TutorialError: they are not prepared.
    """
    from helpers.inputs import data

    folder = settings.run.data
    facts, asked_for = data.facts_of(settings.run), settings.profile.data
    sets = [data.load(folder, name) for name in (data.TRAIN, data.EVAL)]
    found, unusable = sum(map(len, sets)), len(facts.unusable)
    wanted = asked_for.train + asked_for.eval
    unmarked = sum(not data.final_answer(row["output"]) for rows in sets for row in rows)
    registered = json.loads(data.registration_file(settings.run).read_text("utf-8"))
    return [
        Check(
            tr("both sets have the size asked for"),
            found + unusable == wanted,
            tr(
                "{found} of {wanted} problems, {unusable} unusable",
                found=found,
                wanted=wanted,
                unusable=unusable,
            ),
        ),
        Check(
            tr("every solution ends with its answer after ####"),
            not unmarked,
            tr("{count} do not", count=unmarked),
        ),
        Check(
            tr("both sets are registered for LLaMA-Factory"),
            set(registered) == {data.TRAIN, data.EVAL},
            ", ".join(registered),
        ),
    ]


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
        Check(tr("all losses are finite and above zero"), sane, f"{losses}"),
        Check(
            tr("the training loss fell"),
            last < first,
            tr("from {first} to {last}", first=f"{first:.3f}", last=f"{last:.3f}"),
        ),
        Check(
            tr("the frozen weights are the same bits as before"),
            frozen.before == frozen.after,
            tr(
                "digest {before} of {tensors} tensors before, {after} of {after_tensors} after",
                before=frozen.before.digest[:12],
                tensors=frozen.before.tensors,
                after=frozen.after.digest[:12],
                after_tensors=frozen.after.tensors,
            ),
        ),
        Check(
            tr("training changed the answers"),
            changed > 0,
            tr("{changed} of {total} differ", changed=changed, total=after.n),
        ),
        Check(
            tr("memory was sampled while it ran"),
            training.memory.peak_bytes > 0,
            tr("no samples"),
        ),
    ]
    if during is not None and during.step == training.optimizer_steps:
        same = math.isclose(during.loss, training.final_eval_loss, rel_tol=EVAL_TOLERANCE)
        checks.append(
            Check(
                tr("the evaluation after training equals the last one during it"),
                same,
                tr(
                    "{during} during, {after} after",
                    during=f"{during.loss:.4f}",
                    after=f"{training.final_eval_loss:.4f}",
                ),
            )
        )
    return checks


def of_memory(device: str, plan: Plan, measured: Peaks) -> list[Check]:
    """Return the check that memory took what was planned, wherever it was measured.

    Args:
        device: npu, cuda or cpu: how near the two have to be; there is a check on a cpu alone.
        plan: what was planned.
        measured: the peaks of tensors, as the allocator counted them.
    """
    if device not in PLAN_TOLERANCE:
        return []
    tolerance = PLAN_TOLERANCE[device]
    holds, figures = True, []
    for what, planned, peak, longest in (
        (
            tr("a training step"),
            plan.training.peak_bytes,
            measured.training,
            measured.training_longest,
        ),
        (
            tr("an evaluation"),
            plan.evaluation.peak_bytes,
            measured.evaluation,
            measured.evaluation_longest,
        ),
    ):
        if peak is None:
            continue
        # A plan is for the longest example; what was measured without it takes less.
        holds &= peak <= planned * (1 + tolerance)
        holds &= not longest or peak >= planned * (1 - tolerance)
        figures.append(
            tr(
                "{what} took {peak} of tensors and {planned} were planned (at most {tolerance} "
                "apart)",
                what=what,
                peak=peaks.binary(peak),
                planned=peaks.binary(planned),
                tolerance=f"{tolerance:.0%}",
            )
        )
    statement = tr("no peak of memory that was measured is far from its plan")
    return [Check(statement, holds, ", ".join(figures))]


def of_merges(records: Mapping[str, Record], settings: Settings) -> list[Check]:
    """Return the checks of all merged models.

    Args:
        records: theirs, by subject.
        settings: the run's settings; the records of base + adapter lie in its folder.

    Raises:
        TutorialError: one of these is missing, with the notebook that makes it.
    """
    checks = []
    for name, record in records.items():
        subject = settings.subjects[name]
        assert subject.method is not None
        assert record.merge is not None
        trained_beside = "dequantised" if subject.method.quantised else "original"
        if subject.weights == trained_beside:
            checks += of_merge(subject.label, record.merge)
            continue
        own = next(
            records[other.name].merge
            for other in settings.subjects.values()
            if other.method == subject.method and other.weights == trained_beside
        )
        assert own is not None
        before = store.read(settings.run, settings.subjects[subject.method.name]).answers
        checks += of_change_of_base(subject.label, before, record.answers, record.merge, own)
    return checks


def of_merge(label: str, merge: Merge) -> list[Check]:
    """Return the checks that a merged model is base + adapter, up to rounding.

    A model that is merged into the weights which its adapter was trained beside has to pass them.
    One merged into others is another model: see `of_change_of_base`.

    Args:
        label: the merged model, as readers know it.
        merge: what merging gave.
    """
    kl = merge.divergence.kl
    return [
        Check(
            tr(
                "{model} gives the next tokens the likelihood that base + adapter gave them",
                model=label,
            ),
            kl <= MERGED_DIVERGENCE,
            tr(
                "KL {kl} nats per token, at most {most} expected",
                kl=f"{kl:.2g}",
                most=MERGED_DIVERGENCE,
            ),
        ),
        Check(
            tr("{model} answers as base + adapter did", model=label),
            merge.same_answer >= MERGED_AGREEMENT * merge.n,
            tr(
                "the same final answer on {same} of {total} problems, at least {least} expected",
                same=merge.same_answer,
                total=merge.n,
                least=f"{MERGED_AGREEMENT:.0%}",
            ),
        ),
    ]


def of_change_of_base(
    label: str, before: Answers, after: Answers, merge: Merge, own: Merge
) -> list[Check]:
    """Return the checks of an adapter that was merged into another base than its own.

    An adapter that was trained beside quantised weights has never seen the 16-bit ones: single
    answers change, and the distributions have to lie farther off than on its own base: if not, the
    two were mixed up. A clear loss (one-sided binomial test on the problems that only one of the
    two solved, p < 0.01) would make the merged model useless.

    Args:
        label: the merged model, as readers know it.
        before: the answers of base + adapter.
        after: the answers of the merged model.
        merge: what merging into the other base gave.
        own: what merging into its own base gave.
    """
    far, near = merge.divergence.kl, own.divergence.kl
    _, lost, won, _ = paired_counts(before, after)
    p = chance.sign_test(lost, won, "greater")
    return [
        Check(
            tr("{model} is not clearly worse than base + adapter", model=label),
            p >= 0.01,
            tr(
                "{before} of {total} before, {after} after (p = {p})",
                before=before.correct,
                total=before.n,
                after=after.correct,
                p=f"{p:.4f}",
            ),
        ),
        Check(
            tr(
                "{model} is farther from base + adapter than on the base it was trained beside",
                model=label,
            ),
            far > near,
            tr(
                "KL {far} nats per token, and {near} on its own base",
                far=f"{far:.2g}",
                near=f"{near:.2g}",
            ),
        ),
    ]


def of_comparison(comparison: Comparison) -> list[Check]:
    """Return the checks that a comparison is one of methods, and that training did no harm."""
    from helpers.inputs import keys

    others = [d.key for d in comparison.differences if d.key not in keys.of_a_method()]
    base, *_ = comparison.accuracy.values()
    labels = {name: subject.label for name, subject in comparison.subjects.items()}
    worse = [
        labels[name] for name, score in comparison.accuracy.items() if score.correct < base.correct
    ]
    asked = {labels[name]: score.n for name, score in comparison.accuracy.items()}
    return [
        Check(
            tr("the recipes differ in nothing but what makes the method"),
            not others,
            ", ".join(others),
        ),
        Check(
            tr("no model answers fewer problems than the base model"), not worse, ", ".join(worse)
        ),
        Check(
            tr("every model answered every held-out problem"),
            set(asked.values()) == {base.n},
            ", ".join(f"{label}: {n}" for label, n in asked.items()),
        ),
    ]
