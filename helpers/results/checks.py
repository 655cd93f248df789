"""The checks that close each notebook: statements that hold, or one sentence on why they do not."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from helpers.ground.errors import TutorialError
from helpers.ground.shown import Shown, escaped
from helpers.ground.words import clauses, phrases, series, tr, trn
from helpers.inputs.settings import Settings
from helpers.planning.plan import Plan
from helpers.records.schema import Answers, Training
from helpers.results import peaks
from helpers.results.saving import Step
from helpers.results.schema import Comparison

if TYPE_CHECKING:
    from helpers.doctor.host import Check as Finding

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
    failed = [
        tr("{name}: {value}", name=check.statement, value=check.figures)
        for check in checks
        if not check.holds
    ]
    if failed:
        raise TutorialError(
            tr(
                "Not as it should be: {failed}. Do not trust the figures of this run before the "
                "cause is found.",
                failed=clauses(failed),
            )
        )
    return Conclusion(checks)


def of_doctor(found: Iterable[Finding]) -> list[Check]:
    """Return the check that nothing keeps a run from working on this machine."""
    from helpers.doctor.host import Status

    failing = [finding.name for finding in found if finding.status == Status.FAIL]
    return [Check(tr("no check of the doctor fails"), not failing, series(failing))]


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
    from helpers.inputs.answers import final_answer

    folder = settings.run.data
    facts, asked_for = data.facts_of(settings.run), settings.profile.data
    # One at a time: there may be a million.
    sets = (data.examples(folder, name) for name in (data.TRAIN, data.EVAL))
    ends = Counter(bool(final_answer(row["output"])) for rows in sets for row in rows)
    found, unusable, unmarked = ends.total(), len(facts.unusable), ends[False]
    wanted = asked_for.train + asked_for.eval
    marks = Check(
        tr("every solution ends with its answer after ####"),
        not unmarked,
        tr("{count} do not", count=unmarked),
    )
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
        *([marks] if facts.scored else []),
        Check(
            tr("the sets are registered for LLaMA-Factory"),
            set(registered) == {data.TRAIN, data.EVAL} | ({data.CURVE} if facts.curve else set()),
            series(registered),
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
    sane = all(math.isfinite(loss) and loss > 0 for loss in losses)
    several = len(training.loss) > 1
    # Where nothing is learned, training losses still rise and fall with the problems of each step.
    evaluated = {point.step: point.loss for point in training.eval_loss}
    moved = len(evaluated) < 2 or len(set(evaluated.values())) > 1
    quarter = max(1, len(training.loss) // 4)
    first = sum(point.loss for point in training.loss[:quarter]) / quarter
    last = sum(point.loss for point in training.loss[-quarter:]) / quarter
    course = tr("from {first} to {last}", first=f"{first:.3f}", last=f"{last:.3f}")
    if not several:
        course = trn(
            "{n} loss was logged, which shows no course: lower logging_steps, or train longer",
            "{n} losses were logged, which show no course: lower logging_steps, or train longer",
            len(training.loss),
        )
    elif not moved:
        course = tr("the held-out loss never moved, so nothing was learned: raise learning_rate")
    changed = sum(a.text != b.text for a, b in zip(before.items, after.items, strict=True))
    frozen = training.frozen_weights
    return [
        Check(tr("all losses are finite and above zero"), sane, f"{losses}"),
        Check(tr("the training loss fell"), last < first and several and moved, course),
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


def of_memory(
    device: str, plan: Plan, training: Training, article: Iterable[Step] = ()
) -> list[Check]:
    """Return the check that memory was measured and took what was planned.

    Args:
        device: npu, cuda or cpu: how near the two have to be; there is a check on a cpu alone.
        plan: what was planned.
        training: has the peaks of tensors, as the allocator counted them. One without is caught,
            unless there was no step to measure: then the statement says so.
        article: steps with the article's settings, each on the longest example.
    """
    if device not in PLAN_TOLERANCE:
        return []
    tolerance, measured = PLAN_TOLERANCE[device], training.peaks
    nothing_left = peaks.unmeasurable(training)
    holds, figures = True, []
    sharded = plan.question.sharded
    for what, planned, peak, longest, at_most in (
        (
            tr("a training step"),
            plan.training.peak_bytes,
            measured.training,
            measured.training_longest,
            sharded,
        ),
        (
            tr("an evaluation"),
            plan.evaluation.peak_bytes,
            measured.evaluation,
            measured.evaluation_longest,
            sharded,
        ),
        *(
            (
                tr("a training step of {method} with the article's settings", method=step.method),
                step.planned.peak_bytes,
                step.measured,
                True,
                False,
            )
            for step in article
        ),
    ):
        if peak is None:
            holds &= nothing_left
            figures.append(tr("the peak of {what} was not measured", what=what))
            continue
        # A plan is for the longest example; what was measured without it takes less. So may a part
        # of a model: the plan has a layer gathered at every moment.
        holds &= peak <= planned * (1 + tolerance)
        holds &= not longest or at_most or peak >= planned * (1 - tolerance)
        taken = {
            "what": what, "peak": peaks.binary(peak), "planned": peaks.binary(planned),
            "tolerance": f"{tolerance:.0%}",
        }  # fmt: skip
        figures.append(
            tr("{what} took {peak} of tensors and at most {planned} were planned", **taken)
            if at_most
            else tr(
                "{what} took {peak} of tensors and {planned} were planned (at most {tolerance} "
                "apart)",
                **taken,
            )
        )
    statement = tr("no peak of memory that was measured is far from its plan")
    if nothing_left:
        statement = tr(
            "no peak of memory that was measured is far from its plan; of this training none was, "
            "for it went on from after its last step"
        )
    return [Check(statement, holds, phrases(figures))]


def of_comparison(comparison: Comparison) -> list[Check]:
    """Return the checks that a comparison is one of methods, and that training did no harm."""
    from helpers.inputs import keys

    others = [d.key for d in comparison.differences if d.key not in keys.of_a_method()]
    checks = [
        Check(
            tr("the recipes differ in nothing but what makes the method"),
            not others,
            series(others),
        )
    ]
    if not comparison.accuracy:
        return checks
    base, *_ = comparison.accuracy.values()
    subjects = comparison.subjects
    # A merged model may be asked fewer problems: its score then says nothing beside this one.
    worse = [
        subjects[name].label
        for name, score in comparison.accuracy.items()
        if score.n == base.n and score.correct < base.correct
    ]
    unasked = {
        subjects[name].label: score.n
        for name, score in comparison.accuracy.items()
        if score.n != base.n and (subjects[name].kind != "merged" or score.n > base.n)
    }
    return [
        *checks,
        Check(tr("no model answers fewer problems than the base model"), not worse, series(worse)),
        Check(
            tr("the base model and every adapter answered every held-out problem"),
            not unasked,
            series(tr("{name}: {value}", name=label, value=n) for label, n in unasked.items()),
        ),
    ]
