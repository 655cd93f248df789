"""The comparison: read from the records, checked for fairness, and written as comparison.json."""

from __future__ import annotations

from pathlib import Path

from helpers.calls import repeats
from helpers.ground import paths
from helpers.ground.files import read_json, write_bytes
from helpers.ground.words import tr
from helpers.inputs.settings import Settings
from helpers.records import store
from helpers.records.schema import Answers, Record, Training
from helpers.results import chance, fairness, judging, pairs
from helpers.results.schema import Accuracy, Comparison, MethodFacts

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


def _training(record: Record) -> Training:
    assert record.training is not None
    return record.training


def compare(settings: Settings) -> Comparison:
    """Read the run's records, compare them, write comparison.json, and return it.

    Args:
        settings: the run's settings: they name what is compared, and how many seeds.

    Raises:
        TutorialError: a record is missing (with the notebook that makes it), or the records were
            made under conditions that differ in more than the method.
    """
    run, methods = settings.run, settings.methods
    found = {name: store.read(run, subject) for name, subject in settings.subjects.items()}
    trainings = {method.name: repeats.records(method.name, settings) for method in methods}
    first = found[methods[0].name]
    fairness.check(
        settings.subjects,
        found,
        {name: records[1:] for name, records in trainings.items()},
        first.subject,
    )
    differences = fairness.differences(methods, found)
    training = {method.name: _training(found[method.name]) for method in methods}
    results = {
        name: [repeats.result(name, record) for record in records]
        for name, records in trainings.items()
    }
    scored = first.data.scored
    result = Comparison(
        run=run.name,
        profile=first.profile,
        device=first.device,
        origin=training[methods[0].name].origin,
        model=first.model,
        data=first.data,
        versions=first.versions,
        methods=[
            MethodFacts(name=m.name, label=m.label, recipe=fairness.trained(found[m.name]))
            for m in methods
        ],
        differences=differences,
        accuracy={name: accuracy(record.answers) for name, record in found.items()}
        if scored
        else {},
        training=training,
        merges={name: record.merge for name, record in found.items() if record.merge is not None},
        pairs=pairs.against(
            first.answers, {method.name: found[method.name].answers for method in methods[1:]}
        )
        if scored
        else {},
        examples=pairs.examples({n: record.answers for n, record in found.items()}, EXAMPLES),
        seeds=[each for of_method in results.values() for each in of_method],
        verdict=judging.decide(results, training, model=first.model, scored=scored),
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
