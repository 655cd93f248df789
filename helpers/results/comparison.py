"""The comparison: read from the records, checked for fairness, and written as comparison.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from helpers.ground import paths
from helpers.ground.errors import TutorialError
from helpers.ground.files import read_json, write_bytes
from helpers.ground.words import tr
from helpers.inputs import keys, recipes
from helpers.inputs.methods import Method
from helpers.inputs.settings import Settings
from helpers.records import store
from helpers.records.schema import Answers, Record, SeedResult, Training
from helpers.records.versions import deciding
from helpers.results import chance, pairs, verdict
from helpers.results.schema import Accuracy, Comparison, Difference, MethodFacts

EXAMPLES = 5


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


def _otherwise_made(record: Record, first: Record) -> str | None:
    """Return the sentence that refuses two records which were not made alike; None if they were."""
    named = {
        "subject": record.subject,
        "first": first.subject,
        "notebooks": ", ".join(paths.NOTEBOOK_NAMES[2:5]),
    }
    if record.model_sha256 != first.model_sha256:
        return tr(
            "The results of {subject} and {first} were made with another model, so they cannot be "
            "compared: run the notebooks {notebooks} again with the same parameters.",
            **named,
        )
    if record.data != first.data:
        return tr(
            "The results of {subject} and {first} were made with another data set, so they cannot "
            "be compared: run the notebooks {notebooks} again with the same parameters.",
            **named,
        )
    if record.profile != first.profile:
        return tr(
            "The results of {subject} and {first} were made with another profile, so they cannot "
            "be compared: run the notebooks {notebooks} again with the same parameters.",
            **named,
        )
    if deciding(record.versions) != deciding(first.versions):
        return tr(
            "The results of {subject} and {first} were made with other versions of the software, "
            "so they cannot be compared: run the notebooks {notebooks} again with the same "
            "parameters.",
            **named,
        )
    return None


def _trained(record: Record) -> recipes.Recipe:
    return recipes.without_places(record.recipes["train"])


def _differences(methods: Sequence[Method], found: Mapping[str, Record]) -> list[Difference]:
    """Return how each further training differs from the first, once nothing but the method does.

    A key is the method's own if it can be one, and the files in configs/ differ in it: a rank that
    only one of the two was given by an override makes no method.

    Raises:
        TutorialError: two trainings differ in more than that.
    """
    first, *others = methods
    differences = []
    for other in others:
        rows = recipes.differences(_trained(found[first.name]), _trained(found[other.name]))
        own = {row[0] for row in recipes.differences(first.recipe, other.recipe)}
        unfair = [row[0] for row in rows if row[0] not in own & keys.of_a_method()]
        if unfair:
            raise TutorialError(
                tr(
                    "{first} and {other} were trained with another {keys}, so the comparison would "
                    "not be fair: have the same in {first_file} and {other_file}, and train both "
                    "with the same overrides.",
                    first=first.label,
                    other=other.label,
                    keys=", ".join(unfair),
                    first_file=paths.shown(first.file),
                    other_file=paths.shown(other.file),
                )
            )
        differences += [
            Difference(method=other.name, key=key, first=a, other=b) for key, a, b in rows
        ]
    return differences


def _training(record: Record) -> Training:
    assert record.training is not None
    return record.training


def compare(settings: Settings, seeds: Sequence[SeedResult] = ()) -> Comparison:
    """Read the run's records, compare them, write comparison.json, and return it.

    Args:
        settings: the run's settings: they name what is compared.
        seeds: what repeating the trainings with other seeds gave.

    Raises:
        TutorialError: a record is missing (with the notebook that makes it), or the records were
            made under conditions that differ in more than the method.
    """
    run, methods = settings.run, settings.methods
    found = {name: store.read(run, subject) for name, subject in settings.subjects.items()}
    first = found[methods[0].name]
    for record in found.values():
        refusal = _otherwise_made(record, first)
        if refusal:
            raise TutorialError(refusal)
    differences = _differences(methods, found)
    training = {method.name: _training(found[method.name]) for method in methods}
    paired = pairs.against(
        first.answers, {method.name: found[method.name].answers for method in methods[1:]}
    )
    result = Comparison(
        run=run.name,
        profile=first.profile,
        device=first.device,
        origin=training[methods[0].name].origin,
        model=first.model,
        data=first.data,
        versions=first.versions,
        methods=[
            MethodFacts(name=m.name, label=m.label, recipe=_trained(found[m.name])) for m in methods
        ],
        differences=differences,
        accuracy={name: accuracy(record.answers) for name, record in found.items()},
        training=training,
        merges={name: record.merge for name, record in found.items() if record.merge is not None},
        pairs=paired,
        examples=pairs.examples({n: record.answers for n, record in found.items()}, EXAMPLES),
        seeds=list(seeds),
        verdict=verdict.decide(paired, training),
    )
    write_bytes(run.comparison, (result.model_dump_json(indent=1) + "\n").encode())
    return result


def read(file: Path) -> Comparison:
    """Return the comparison that a run wrote.

    Raises:
        TutorialError: there is none, or it cannot be read.
    """
    return read_json(
        file, Comparison, tr("run the notebook {notebook} again", notebook=paths.NOTEBOOK_NAMES[5])
    )
