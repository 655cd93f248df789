"""Arithmetic word problems with worked steps, in the columns of Math10K.

A stand-in for the real data set where no hub can be reached. A problem is drawn, not looked up: a
story world (a bakery, a bus, a wage, a fence, ...; wordproblems.toml) supplies nouns and phrasings,
and one to four arithmetic operations act on a running amount (wordproblem_stories.py). Scene,
flavor, order, connectives, distractor and question are then drawn independently of one another.
"""

from __future__ import annotations

import random
import re
from contextlib import suppress
from pathlib import Path

from helpers.inputs import wordproblem_stories, wordproblem_worlds
from helpers.inputs.wordproblem_stories import Draft, Misfit, plain, spin, tell_all, write
from helpers.inputs.wordproblem_worlds import TELLING

# The files that decide what is generated.
SOURCES: tuple[Path, ...] = (
    Path(__file__),
    Path(wordproblem_stories.__file__),
    Path(wordproblem_worlds.__file__),
    wordproblem_worlds.FILE,
)
_MULTIPLE_CHOICE = 0.06


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def _instruction(d: Draft) -> str:
    """Tell the story of a draft, ending with its question."""
    rng, facts = d.rng, d.facts
    opening = [d.line(d.world.lines["scene"], d.slots({}))] if rng.random() < 0.9 else []
    if rng.random() < 0.1:
        opening.insert(rng.randrange(len(opening) + 1), d.line(TELLING["mood"], {}))
    elif opening and not d.world.places and "{O}" not in opening[0].text and rng.random() < 0.5:
        opening.append(d.line(TELLING["company"], {}))
    if rng.random() < 0.05:
        opening.append(d.line(TELLING["aside"], {"d": str(rng.randint(5, 11))}))
    assert d.question is not None  # `write` ends a draft with one
    *told, question = tell_all(rng, [*opening, *facts, d.question])
    sentences, follow = told[: len(opening)], d.world.lines.get("next", TELLING["next"])
    for fact, clause in zip(facts, told[len(opening) :], strict=True):
        free = fact.happens and "," not in clause and follow
        if free and fact is facts[-1] and rng.random() < 0.3:
            question = f"if {clause}, {question}"
        elif free and rng.random() < 0.2 and not re.search(r"and |,", sentences[-1]):
            sentences[-1] += f", and then {clause}"
        else:
            sentences.append(spin(rng, follow) + clause if free else clause)
    return " ".join([_sentence(text) + "." for text in sentences] + [_sentence(question) + "?"])


def _solution(d: Draft) -> str:
    """Tell the worked steps of a draft, one sentence each."""
    lines = d.steps
    if len(d.facts) > 1 and len(d.steps) < 3 and d.rng.random() < 0.3:
        lines = d.facts[: len(d.facts) - len(d.steps)] + lines
    return " ".join(_sentence(text) + "." for text in tell_all(d.rng, lines))


def _choices(d: Draft) -> tuple[str, str]:
    """Return five options in one line, one of them right, and the letter of that one."""
    near = [d.value + n for n in (-10, -5, -4, -3, -2, -1, 1, 2, 3, 4, 5, 10)]
    wrong = [n for n in dict.fromkeys(d.figures + near) if n >= 1 and n != d.value]
    options = [*d.rng.sample(wrong, 4), d.value]
    d.rng.shuffle(options)
    text = " ".join(f"{name}) {plain(n)}" for name, n in zip("ABCDE", options, strict=True))
    return text, "ABCDE"[options.index(d.value)]


def _row(rng: random.Random, steps: int) -> dict[str, str]:
    """Draw one row of so many steps, or raise `Misfit` if it comes out too short or too long."""
    draft = write(rng, steps)
    instruction, output = _instruction(draft), _solution(draft)
    said, answer = plain(draft.value), str(float(draft.value))
    if rng.random() < _MULTIPLE_CHOICE:
        options, letter = _choices(draft)
        instruction += f" {options}"
        output += f" {spin(rng, 'option|choice').capitalize()} {letter} says {said}."
        said = answer = letter
    output += f" The answer is {said}."
    if not 60 <= len(instruction) <= 400 or len(output) > 300:
        raise Misfit
    return {"instruction": instruction, "input": "", "output": output, "answer": answer}


def generate(rows: int, seed: int) -> list[dict[str, str]]:
    """Draw word problems in the columns of Math10K.

    Args:
        rows: How many to draw.
        seed: What the draw depends on; the same `rows` and `seed` give the same list everywhere.

    Returns:
        Rows of instruction (the question), input (always empty), output (the worked solution, which
        ends "The answer is ...") and answer (a number such as "12.0", or the letter of the right
        option in multiple choice). No two instructions are the same.

    Raises:
        ValueError: `rows` is negative.
    """
    if rows < 0:
        raise ValueError(f"The number of rows must not be negative, and it is {rows}.")
    rng = random.Random(seed)
    seen: set[str] = set()
    found: list[dict[str, str]] = []
    while len(found) < rows:
        steps = rng.choices((1, 2, 3, 4), (65, 25, 8, 2))[0]
        row = None
        while row is None or row["instruction"] in seen:  # `steps` stays, to keep the shares above
            with suppress(Misfit):
                row = _row(rng, steps)
        seen.add(row["instruction"])
        found.append(row)
    return found
