"""Drawing the story of a word problem: operations on a running amount, told and worked one by one.

Each operation tells one fact of the story and works one or two equations of the solution.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from helpers.inputs.wordproblem_worlds import (
    DOLLAR,
    PEOPLE,
    PRICES,
    STEPS,
    WORDS,
    WORLDS,
    Hero,
    Noun,
    World,
)

_BARE = {"k", "q", "pct"}  # numbers that never count the noun at hand
_ARITHMETIC: dict[str, Callable[[Decimal, Decimal], Decimal]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
}
_LARGEST = 200  # of all amounts in a story


class Misfit(Exception):
    """A draw does not fit the story so far: a share that is not whole, an amount too large."""


def spin(rng: random.Random, phrasing: str) -> str:
    """Draw one alternative of every ``[this|that]``, from the inside out."""
    text = f"[{phrasing}]"
    while "[" in text:
        text = re.sub(r"\[([^\[\]]*)\]", lambda match: rng.choice(match[1].split("|")), text)
    return text


def plain(amount: Decimal) -> str:
    """Write an amount without trailing zeros: 12, 7.5."""
    return f"{amount.normalize():f}"


def _figure(amount: Decimal, money: bool) -> str:
    """Write an amount as a story does: 12, $12, $7.50."""
    if not money:
        return plain(amount)
    return f"${int(amount)}" if amount == int(amount) else f"${amount:.2f}"


@dataclass
class Line:
    """A clause whose slots are all filled but those for its people, who are named when told."""

    text: str
    slots: dict[str, str]
    hero: Hero
    friend: Hero
    happens: bool = False  # an event, which may follow a "then", not a state of things

    def tell(self, named: bool) -> str:
        """Return the clause, with the hero's name or with pronouns."""
        hero = self.hero
        mention = {
            "P": hero.name if named else hero.he,
            "Po": hero.name if named else hero.him,
            "Ps": f"{hero.name}'s" if named else hero.his,
            "him": hero.him,
            "his": hero.his,
            "O": self.friend.name,
        }
        return self.text.format_map(self.slots | mention)


def tell_all(rng: random.Random, lines: Iterable[Line]) -> list[str]:
    """Tell clauses in turn, with a pronoun only where it cannot be taken for someone else."""
    told: list[str] = []
    clear: Hero | None = None
    for line in lines:
        told.append(line.tell(named=line.hero is not clear or rng.random() < 0.2))
        if "{O}" in line.text:
            clear = None
        elif "{P" in line.text:
            clear = line.hero
        elif line.hero.he == "it":  # which could now be the weather
            clear = None
    return told


@dataclass
class Draft:
    """A problem while it is being written: the running amount and what was told and worked."""

    rng: random.Random
    world: World
    hero: Hero
    friend: Hero
    noun: Noun
    words: dict[str, str]  # the slots that stay the same throughout
    value: Decimal = Decimal(0)
    facts: list[Line] = field(default_factory=list)
    steps: list[Line] = field(default_factory=list)
    figures: list[Decimal] = field(default_factory=list)  # all numbers of the equations
    question: Line | None = None

    def line(self, phrasing: str, slots: dict[str, str], happens: bool = False) -> Line:
        """Draw a wording and tie it to whoever is the hero now."""
        return Line(spin(self.rng, phrasing), slots, self.hero, self.friend, happens)

    def slots(self, numbers: Mapping[str, Decimal]) -> dict[str, str]:
        """Return the slots of a phrasing, with each number in its several forms."""
        found = {**self.words, "things": self.noun.many, "thing": self.noun.one}
        for name, number in numbers.items():
            if name in WORDS:
                found[name] = WORDS[name][int(number)]
                continue
            money = name == "price" or (self.noun == DOLLAR and name not in _BARE)
            figure, things = _figure(number, money), self.noun.form(number)
            found[name] = figure
            found[f"{name}_things"] = figure if money else f"{figure} {things}"
            found[f"{name}_more"] = f"{figure} more" if money else f"{figure} more {things}"
            found[f"{name}_fewer"] = f"{figure} less" if money else f"{figure} fewer {things}"
            found[f"{name}_of"] = f"{figure} of the {self.noun.many}"
        return found

    def apply(self, operation: Operation) -> None:
        """Tell the fact of an operation, work its equations and set the question it leads to.

        Raises:
            Misfit: no number fits, or a result is too large or not whole.
        """
        numbers: dict[str, Decimal] = {}
        for name, among in operation.draws.items():
            fitting = among(self, numbers)
            if not fitting:
                raise Misfit
            numbers[name] = Decimal(self.rng.choice(fitting))
        slots = self.slots(numbers)
        if fact := self.world.lines[operation.fact]:
            self.facts.append(self.line(fact, slots, operation.role == "middle"))
        known = {**numbers, "v": self.value}
        if "pct" in known:
            known["pct"] /= 100
        for step, a, sign, b in operation.work:
            known["r"] = self.work(step, known[a], sign, known[b], slots, operation.unit)
        if not operation.work:
            self.value = numbers["a"]
        if operation.fact == "need" and self.rng.random() < 0.4:  # a goal may be told first
            self.facts.insert(0, self.facts.pop())
        ask = operation.ask if operation.ask in self.world.lines else "ask"
        self.question = self.line(self.world.lines[ask], slots)
        if ask == "ask_compare":  # it is about the friend
            self.question.hero, self.question.friend = self.friend, self.hero

    def work(
        self, step: str, a: Decimal, sign: str, b: Decimal, slots: dict[str, str], unit: Noun | None
    ) -> Decimal:
        """Add one equation to the solution and return its result, the new running amount."""
        unit = unit or self.noun
        result = _ARITHMETIC[sign](a, b)
        grain = 100 if unit == DOLLAR else 1
        if not 0 < result <= _LARGEST or result * grain % 1:
            raise Misfit
        equation = f"{plain(a)} {sign} {plain(b)} = {plain(result)} {unit.form(result)}".rstrip()
        own = {"eq": equation, "a_": plain(a), "b_": plain(b)}
        own["are"] = "is" if result == 1 else "are"
        line = self.line(self.world.lines.get(f"so_{step}", STEPS[step]), slots | own)
        line.text = line.text.replace("{fact}", self.facts[-1].text)
        self.steps.append(line)
        self.figures += [a, b, result]
        self.value = result
        return result


_Draw = Callable[[Draft, Mapping[str, Decimal]], Sequence[int | Decimal]]


@dataclass(frozen=True)
class Operation:
    """One thing that can happen in a story, with the numbers it draws and the equations it takes.

    Equations are (phrasing in `STEPS`, left, sign, right) over the names of the drawn numbers,
    v for the running amount at first and r for the last result.
    """

    fact: str
    role: str  # "start", "middle" or "end"
    work: tuple[tuple[str, ...], ...]  # four words each
    ask: str
    unit: Noun | None  # what the result counts, where it is not what was counted so far
    draws: dict[str, _Draw]

    def follows(self, last: str, world: World, left: int) -> bool:
        """Tell whether it can come next, with so many steps left to fill."""
        fits = len(self.work) == left if self.role == "end" else len(self.work) <= left
        started = (self.role != "start") == bool(last)
        asked = self.role != "end" or self.ask in world.lines
        return fits and started and asked and self.fact != last and self.fact in world.lines


def _operation(
    fact: str, role: str, work: str, ask: str = "", unit: Noun | None = None, **draws: _Draw
) -> Operation:
    """Read an operation from a row of the table; equations are like "part v / k; rest v - r"."""
    equations = tuple(tuple(row.split()) for row in work.split(";") if row)
    return Operation(fact, role, equations, ask or f"ask_{fact}", unit, draws)


def _small(d: Draft, limit: int = _LARGEST) -> range:
    """Return what may be added or taken away: mostly small numbers, of 2 or more."""
    return range(2, min(9 if d.rng.random() < 0.8 else 20, limit - 1) + 1)


def _start(d: Draft, _: Mapping[str, Decimal]) -> Sequence[int | Decimal]:
    return d.world.start


def _gained(d: Draft, _: Mapping[str, Decimal]) -> Sequence[int]:
    return _small(d)


def _lost(d: Draft, _: Mapping[str, Decimal]) -> Sequence[int]:
    return _small(d, int(d.value))


def _price(d: Draft, _: Mapping[str, Decimal]) -> Sequence[int | Decimal]:
    return PRICES if d.value <= 20 else range(2, 10)


def _any(among: Iterable[int | Decimal]) -> _Draw:
    """Return a draw of any of the numbers."""
    return lambda d, _: list(among)


def _divisor(among: Iterable[int]) -> _Draw:
    """Return a draw of the numbers that divide the running amount into two or more."""
    return lambda d, _: [n for n in among if d.value % n == 0 and d.value > n]


_FEW, _SOME = _any(range(2, 6)), _any(range(2, 11))
_OTHER = Noun("", "")  # boxes or days: the question names them, the equation need not
_COMPARISONS: dict[str, tuple[str, dict[str, _Draw]]] = {
    "compare_more": ("compare v + n", {"n": _gained}),
    "compare_fewer": ("compare v - n", {"n": _lost}),
    "compare_times": ("compare v * times", {"times": _any(WORDS["times"])}),
    "compare_part": ("compare v / part", {"part": _divisor((2, 3, 4))}),
}
OPERATIONS = [
    _operation("given", "start", "", "ask_all", a=_start),
    _operation(
        "groups",
        "start",
        "groups k * m",
        "ask_all",
        k=lambda d, _: d.world.groups,
        m=lambda d, _: d.world.sizes,
    ),
    _operation("dozens", "start", "groups k * m", "ask_all", k=_any(range(2, 9)), m=_any([12])),
    _operation("sum", "start", "sum x + y", "ask_all", x=_start, y=_start),
    _operation("gain", "middle", "gain v + n", "ask", n=_gained),
    _operation("lose", "middle", "lose v - n", "ask_left", n=_lost),
    _operation("times", "middle", "times v * doubled", "ask", doubled=_any(WORDS["doubled"])),
    _operation("keep", "middle", "part v / part", "ask_left", part=_divisor(WORDS["part"])),
    _operation(
        "fraction", "middle", "part v / part; rest v - r", "ask_left", part=_divisor(WORDS["part"])
    ),
    _operation(
        "percent", "middle", "percent v * pct; rest v - r", "ask_left", pct=_any((10, 20, 25, 50))
    ),
    _operation("packs", "middle", "each k * m; more v + r", "ask", k=_FEW, m=_SOME),
    _operation("hand", "middle", "each k * m; rest v - r", "ask_left", k=_FEW, m=_SOME),
    _operation("gap", "end", "gap v - n", n=_lost),
    _operation("share", "end", "share v / k", k=_divisor(range(3, 11))),
    _operation("fill", "end", "fill v / m", unit=_OTHER, m=_divisor(range(2, 13))),
    _operation("pace", "end", "pace v / m", unit=_OTHER, m=_divisor(range(2, 13))),
    _operation(
        "spare",
        "end",
        "full q * m; rest v - r",
        m=lambda d, _: [m for m in range(3, 13) if d.value % m and d.value > 2 * m],
        q=lambda d, drawn: [d.value // drawn["m"]],
    ),
    _operation("need", "end", "need t - v", t=lambda d, _: [d.value + n for n in _small(d)]),
    _operation("sell", "end", "sell v * price", unit=DOLLAR, price=_price),
    _operation("fee", "end", "sell v * price", unit=DOLLAR, price=_price),
    _operation(
        "change",
        "end",
        "change t - v",
        t=lambda d, _: [bill for bill in (10, 20, 50, 100, 200) if d.value < bill <= 5 * d.value],
    ),
    _operation("later", "end", "age v + n", n=_gained),
    _operation("earlier", "end", "age v - n", n=_lost),
]
for _way, (_work, _draws) in _COMPARISONS.items():
    OPERATIONS += [
        _operation(_way, "end", _work, "ask_compare", None, **_draws),
        _operation(_way, "end", f"{_work}; together v + r", "together", None, **_draws),
    ]


def write(rng: random.Random, steps: int) -> Draft:
    """Draw a problem of exactly so many steps, or raise `Misfit`."""
    world = rng.choice(WORLDS)
    hero, friend = rng.sample(PEOPLE, 2)
    if world.places:
        hero = Hero(rng.choice(world.places))
    box, crate = rng.sample(world.boxes, 2)
    adj, adj2 = rng.choice(world.adjectives).split()
    words = {"box": box.one, "boxes": box.many, "crate": crate.one, "crates": crate.many}
    words |= {"adj": adj, "adj2": adj2}
    draft = Draft(rng, world, hero, friend, rng.choice(world.nouns), words)
    last, left = "", steps
    while left or not last:
        possible = [each for each in OPERATIONS if each.follows(last, world, left)]
        if not possible:
            raise Misfit
        operation = rng.choice(possible)
        draft.apply(operation)
        last, left = operation.fact, left - len(operation.work)
    return draft
