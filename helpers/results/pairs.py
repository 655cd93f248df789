"""Two who answered the same problems: who solved which, and what each wrote."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from itertools import islice

from helpers.records.schema import Answers
from helpers.records.scoring import Answer
from helpers.results import chance
from helpers.results.schema import Example, Paired


def shared(first: Answers, second: Answers) -> list[tuple[Answer, Answer]]:
    """Return the answers of two to the problems that both were asked, pair by pair.

    One may have been asked fewer than the other: the first ones.

    Raises:
        ValueError: the two were not asked the same problems.
    """
    together = list(zip(first.items, second.items, strict=False))
    if any(a.problem != b.problem for a, b in together):
        raise ValueError("the two did not answer the same problems")
    return together


def paired_counts(first: Answers, second: Answers) -> tuple[int, int, int, int]:
    """Return how many problems both solved, only the first, only the second, and neither.

    Of those that both were asked.

    Raises:
        ValueError: the two were not asked the same problems.
    """
    pairs = [(a.correct, b.correct) for a, b in shared(first, second)]
    outcomes = ((True, True), (True, False), (False, True), (False, False))
    both, only_first, only_second, neither = (pairs.count(outcome) for outcome in outcomes)
    return both, only_first, only_second, neither


def against(first: Answers, others: Mapping[str, Answers]) -> dict[str, Paired]:
    """Return how each of several did on the same problems as the first, by their names.

    Raises:
        ValueError: one was not asked the same problems.
    """
    counts = {name: paired_counts(first, other) for name, other in others.items()}
    return {
        name: Paired(
            both=both,
            only_first=only_first,
            only_other=only_other,
            neither=neither,
            p=round(chance.sign_test(only_first, only_other), 4),
        )
        for name, (both, only_first, only_other, neither) in counts.items()
    }


def examples(answers: Mapping[str, Answers], count: int) -> list[Example]:
    """Return the first problems with what each wrote.

    Args:
        answers: by name; all to the same problems, from the first on.
        count: how many problems, at most: those that all answered.
    """
    return list(islice(_together(answers), count))


def telling(answers: Mapping[str, Answers], judged: Collection[str], each: int) -> list[Example]:
    """Return problems that all of some solved, then that a part of them solved, then none.

    Args:
        answers: by name; all to the same problems, from the first on.
        judged: whose being right counts, by name.
        each: how many problems of a kind, at most, the first ones: those that all answered.
    """
    kinds: dict[str, list[Example]] = {"all": [], "some": [], "none": []}
    for example in _together(answers):
        right = sum(example.answers[name][1] for name in judged)
        kind = "all" if right == len(judged) else "some" if right else "none"
        kinds[kind].append(example)
    return [example for found in kinds.values() for example in found[:each]]


def _together(answers: Mapping[str, Answers]) -> Iterator[Example]:
    for items in zip(*(each.items for each in answers.values()), strict=False):
        yield Example(
            problem=items[0].problem,
            expected=items[0].expected,
            answers={
                name: (item.text, item.correct) for name, item in zip(answers, items, strict=True)
            },
        )
