"""The checks of merged models: each is base + adapter, or no worse than it on another base."""

from __future__ import annotations

from collections.abc import Mapping

from helpers.ground.words import tr
from helpers.inputs.settings import Settings
from helpers.records import store
from helpers.records.schema import Answers, Merge, Record
from helpers.results import chance
from helpers.results.checks import Check
from helpers.results.pairs import paired_counts

# Merging rounds base + adapter to bfloat16 once more, so next tokens become a little more or less
# likely, and where two are nearly equal a greedy answer turns; more would mean another model.
# Measured with SmolLM2-135M on 50 problems, in nats per token and as the share of equal answers:
# 0.0004 and 100 % for LoRA's, 0.0004 and 90 % for QLoRA's on the dequantised base; 0.079 and 38 %
# for QLoRA's on the 16-bit base, 0.06 and 46 % for the other method's model. With the random tiny
# model 0.00003, against 0.013 and 0.03. The limits lie between, far from both.
MERGED_AGREEMENT = 0.7
MERGED_DIVERGENCE = 0.005


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
            checks += of_merge(subject.label, record.merge, record.data.scored)
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


def of_merge(label: str, merge: Merge, scored: bool = True) -> list[Check]:
    """Return the checks that a merged model is base + adapter, up to rounding.

    A model that is merged into the weights which its adapter was trained beside has to pass them.
    One merged into others is another model: see `of_change_of_base`.

    Args:
        label: the merged model, as readers know it.
        merge: what merging gave.
        scored: whether the data say what is right; without, there are no final answers.
    """
    kl = merge.divergence.kl
    checks = [
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
    return checks if scored else checks[:1]


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
    both, lost, won, _ = paired_counts(before, after)
    p = chance.sign_test(lost, won, "greater")
    checks = [
        Check(
            tr("{model} is not clearly worse than base + adapter", model=label),
            p >= 0.01,
            tr(
                "{before} of {total} before, {after} after (p = {p})",
                before=both + lost,
                total=after.n,
                after=both + won,
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
    return checks if before.scored else checks[1:]
