"""Whether what is compared was made alike in all but the method; one sentence refuses what is not.

Model, data, profile, versions, the machine, the environment, how models were trained and how they
were asked. A result that is used again keeps the machine that made it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from helpers.ground import paths
from helpers.ground.errors import TutorialError
from helpers.ground.words import clauses, series, tr
from helpers.inputs import keys, recipes
from helpers.inputs.methods import Method, beyond_the_method
from helpers.inputs.subjects import BASE, Subject
from helpers.machine.hardware import Hardware
from helpers.records.schema import Origin, Record
from helpers.records.versions import deciding
from helpers.results.schema import Difference


def _otherwise_made(record: Record, first: Record, named: Mapping[str, str]) -> str | None:
    """Return the sentence that refuses two records which were not made alike; None if they were."""
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


def _otherwise_shared(record: Record, first: Record, named: Mapping[str, str]) -> str | None:
    """Return the sentence that refuses trainings on other cards, or otherwise shared by them."""
    if record.training is None or first.training is None:
        return None
    here, there = record.training.cards, first.training.cards
    if here != there:
        return tr(
            "{subject} was trained on {here} and {first} on {there} cards, so their times and "
            "memory cannot be compared: run the notebooks {notebooks} again with the same CARDS=.",
            here=here,
            there=there,
            **named,
        )
    if record.training.sharded != first.training.sharded:
        return tr(
            "One of {subject} and {first} was trained with its model sharded over the cards, and "
            "the other was not, so their times and memory cannot be compared: run the notebooks "
            "{notebooks} again with the same SHARDED=.",
            **named,
        )
    return None


def _origins(record: Record) -> Iterator[Origin]:
    if record.training is not None:
        yield record.training.origin
    yield record.answers.origin


def _machines_apart(machine: Hardware, first: Hardware) -> list[str]:
    """Return in what two machines differ that decides figures, in words."""
    none = tr("none")
    pairs = (
        (
            tr("accelerator"),
            series(sorted(set(machine.accelerators))) or none,
            series(sorted(set(first.accelerators))) or none,
        ),
        (tr("processor"), machine.cpu, first.cpu),
        (tr("usable cores"), str(machine.cores), str(first.cores)),
    )
    return [
        tr("{what} ({here}, there {there})", what=what, here=here, there=there)
        for what, here, there in pairs
        if here != there
    ]


def _otherwise_placed(record: Record, first: Record, named: Mapping[str, str]) -> str | None:
    """Return the sentence that refuses two records of other machines or environments."""
    origin, *_ = _origins(first)
    for each in _origins(record):
        apart = _machines_apart(each.machine, origin.machine)
        if apart:
            return tr(
                "The results of {subject} and {first} were measured on other machines, so their "
                "times, memory and answers cannot be compared: {what}. Make all of them on one "
                "machine, in a run of its own (RUN=name).",
                what=clauses(apart),
                **named,
            )
        if each.environment is None or origin.environment is None:
            continue
        names = [row[0] for row in recipes.differences(each.environment, origin.environment)]
        if names:
            return tr(
                "The results of {subject} and {first} were measured in other environments, so they "
                "cannot be compared: {names} differ. Set them alike, and make all results in a run "
                "of its own (RUN=name).",
                names=series(names),
                **named,
            )
    return None


def _asked_otherwise(record: Record, base: Record, subject: Subject) -> list[str]:
    """Return the keys in which two were asked otherwise, but for what makes the method."""
    may: frozenset[str] = frozenset()
    if subject.kind == "merged":
        may = frozenset({"max_samples"})  # fewer of the same problems
    elif subject.method is not None and keys.quantisation() & record.recipes["train"].keys():
        may = keys.quantisation()
    rows = recipes.differences(
        recipes.without_places(base.recipes["predict"]),
        recipes.without_places(record.recipes["predict"]),
    )
    return [row[0] for row in rows if row[0] not in may]


def trained(record: Record) -> recipes.Recipe:
    """Return the recipe with which a record's adapter was trained, without its places."""
    return recipes.without_places(record.recipes["train"])


def differences(methods: Sequence[Method], found: Mapping[str, Record]) -> list[Difference]:
    """Return how each further training differs from the first, once nothing but the method does.

    Args:
        methods: what is compared.
        found: their records, by name.

    Raises:
        TutorialError: two trainings differ in more than that.
    """
    first, *others = methods
    rows_of_all = []
    for other in others:
        rows = recipes.differences(trained(found[first.name]), trained(found[other.name]))
        unfair = beyond_the_method(first, other, [row[0] for row in rows])
        if unfair:
            raise TutorialError(
                tr(
                    "{first} and {other} were trained with another {keys}, so the comparison would "
                    "not be fair: have the same in {first_file} and {other_file}, and train both "
                    "with the same overrides.",
                    first=first.label,
                    other=other.label,
                    keys=series(unfair),
                    first_file=paths.shown(first.file),
                    other_file=paths.shown(other.file),
                )
            )
        rows_of_all += [
            Difference(method=other.name, key=key, first=a, other=b) for key, a, b in rows
        ]
    return rows_of_all


def _repeated_otherwise(record: Record, own: Record) -> list[str]:
    """Return the keys in which a repetition was made otherwise, but for its seed."""
    rows = recipes.differences(trained(own), trained(record)) + recipes.differences(
        recipes.without_places(own.recipes["predict"]),
        recipes.without_places(record.recipes["predict"]),
    )
    return [row[0] for row in rows if row[0] != "seed"]


def check(
    subjects: Mapping[str, Subject],
    found: Mapping[str, Record],
    repeated: Mapping[str, Sequence[Record]],
    first: str,
) -> None:
    """Check that all records were made alike in all but the method.

    Args:
        subjects: what is compared, by name.
        found: their records.
        repeated: the records of the further seeds, by method.
        first: the method that the others are compared with.

    Raises:
        TutorialError: two of them were not; the sentence names what differs.
    """
    notebooks = series(paths.NOTEBOOK_NAMES[2:5])
    for name in found:
        for record in (found[name], *repeated.get(name, ())):
            named = {"subject": name, "first": first, "notebooks": notebooks}
            refusal = (
                _otherwise_made(record, found[first], named)
                or _otherwise_shared(record, found[first], named)
                or _otherwise_placed(record, found[first], named)
            )
            if refusal:
                raise TutorialError(refusal)
        unlike = _asked_otherwise(found[name], found[BASE], subjects[name])
        if unlike:
            raise TutorialError(
                tr(
                    "{subject} and the base model were asked with another {keys}, so their answers "
                    "cannot be compared: run the notebooks {notebooks} again with the same "
                    "parameters.",
                    subject=subjects[name].label,
                    keys=series(unlike),
                    notebooks=notebooks,
                )
            )
        for record in repeated.get(name, ()):
            unlike = _repeated_otherwise(record, found[name])
            if unlike:
                raise TutorialError(
                    tr(
                        "{method} was trained or asked again with another {keys} than the first "
                        "time, so its trainings cannot be taken together: run the notebooks "
                        "{notebooks} again with the same parameters.",
                        method=subjects[name].label,
                        keys=series(unlike),
                        notebooks=notebooks,
                    )
                )
