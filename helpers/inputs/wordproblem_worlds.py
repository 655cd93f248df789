"""The settings of word problems: people, nouns and phrasings, as wordproblems.toml has them."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("wordproblems.toml")


@dataclass(frozen=True)
class Noun:
    """A countable thing or unit, in both numbers."""

    one: str
    many: str

    def form(self, amount: Decimal | int) -> str:
        """Return the form that agrees with `amount`."""
        return self.one if amount == 1 else self.many


@dataclass(frozen=True)
class Hero:
    """Whom a story is about, with the pronouns that stand in for the name."""

    name: str
    he: str = "it"
    him: str = "it"
    his: str = "its"


@dataclass(frozen=True)
class World:
    """The setting of a story: its vocabulary, its number ranges and its phrasing per operation.

    An operation is possible in a world exactly if `lines` has a phrasing under its name.
    """

    nouns: tuple[Noun, ...]
    boxes: tuple[Noun, ...]
    places: tuple[str, ...]  # the hero is one of these, or a person where there are none
    adjectives: tuple[str, ...]  # pairs such as "old new"
    lines: dict[str, str]
    start: Sequence[int | Decimal]
    groups: Sequence[int | Decimal]
    sizes: Sequence[int | Decimal]


DOLLAR = Noun("dollar", "dollars")
_DOLLARS_AND_HALVES = tuple(Decimal(cents) / 100 for cents in range(200, 1050, 50))
PRICES = _DOLLARS_AND_HALVES + _DOLLARS_AND_HALVES[::2] * 8  # mostly in whole dollars


def _nouns(words: Sequence[str]) -> tuple[Noun, ...]:
    """Read "apple" and "box/boxes" as nouns; a plural left out ends in s."""
    pairs = [word.partition("/") for word in words]
    return tuple(Noun(one, many or f"{one}s") for one, _, many in pairs)


def _phrasing(said: str | list[str]) -> str:
    """Return a phrasing as it is drawn from: alternatives between bars."""
    return said if isinstance(said, str) else "|".join(said)


def _phrasings(table: dict[str, Any]) -> dict[str, str]:
    return {name: _phrasing(said) for name, said in table.items()}


def _numbers(told: Any) -> Sequence[int | Decimal]:
    if told == "prices":
        return PRICES
    return told if isinstance(told, list) else range(told["from"], told["to"] + 1)


def _world(told: dict[str, Any], like: dict[str, dict[str, str]]) -> World:
    """Read a world; its own lines go before those of the kind that it is like."""
    shared = like[told["like"]] if "like" in told else {}
    return World(
        nouns=_nouns(told["nouns"]),
        boxes=_nouns(told.get("boxes", ["box/boxes", "bag", "basket", "crate"])),
        places=tuple(told.get("places", ())),
        adjectives=tuple(told.get("adjectives", ["old new"])),
        lines=shared | _phrasings(told["lines"]),
        start=_numbers(told.get("start", {"from": 4, "to": 20})),
        groups=_numbers(told.get("groups", {"from": 2, "to": 6})),
        sizes=_numbers(told.get("sizes", {"from": 2, "to": 8})),
    )


_TOLD = tomllib.loads(FILE.read_text("utf-8"))
_LIKE = {kind: _phrasings(lines) for kind, lines in _TOLD["like"].items()}
WORLDS = tuple(_world(told, _LIKE) for told in _TOLD["worlds"])
PEOPLE = tuple(Hero(name, "she", "her", "her") for name in _TOLD["people"]["she"].split())
PEOPLE += tuple(Hero(name, "he", "him", "his") for name in _TOLD["people"]["he"].split())
STEPS = _phrasings(_TOLD["steps"])  # how a step of the solution is put
TELLING = _phrasings(_TOLD["telling"])
# How a number is told, by what it does: {"part": {2: "half", ...}, ...}.
WORDS = {
    name: {int(number): word for number, word in told.items()}
    for name, told in _TOLD["words"].items()
}
