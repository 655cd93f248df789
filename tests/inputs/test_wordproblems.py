"""The generated word problems: their form, their arithmetic and their variety."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections import Counter
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.inputs import wordproblem_stories as stories
from helpers.inputs import wordproblem_worlds as worlds
from helpers.inputs import wordproblems
from helpers.inputs.wordproblem_worlds import PEOPLE, WORLDS
from helpers.inputs.wordproblems import generate

NUMBER = r"\d+(?:\.\d+)?"
EQUATION = re.compile(rf"({NUMBER}) ([-+*/]) ({NUMBER}) = ({NUMBER})(?![\d.]*\d)")
OPTION = re.compile(rf"([A-E])\) ({NUMBER})")
NAME = re.compile(r"\b(?:" + "|".join(person.name for person in PEOPLE) + r")\b")
# Of the rows as they were before people and phrasings moved into wordproblems.toml.
PINNED = "da24ac349a5012eb320f29680b5e9dd0935c7f67c7bfee7c4a940803d541c7d3"


@pytest.fixture(scope="module")
def rows() -> list[dict[str, str]]:
    return generate(2000, 3)


def equations(text: str) -> list[tuple[Decimal, str, Decimal, Decimal]]:
    found = EQUATION.findall(text)
    assert len(found) == text.count("="), text  # none that the pattern would pass over
    return [(Decimal(a), sign, Decimal(b), Decimal(c)) for a, sign, b, c in found]


def holds(a: Decimal, sign: str, b: Decimal, c: Decimal) -> bool:
    if sign == "/":
        return a == b * c
    return {"+": a + b, "-": a - b, "*": a * b}[sign] == c


def skeleton(text: str) -> str:
    return NAME.sub("N", re.sub(NUMBER, "0", text))


def bare_skeleton(text: str) -> str:
    """Mask the counted things and their containers as well."""
    nouns = {
        form
        for world in WORLDS
        for noun in (*world.nouns, *world.boxes)
        for form in (noun.one, noun.many)
    }
    longest_first = sorted(nouns, key=lambda form: (-len(form), form))
    return re.sub(r"\b(?:" + "|".join(longest_first) + r")\b", "T", skeleton(text))


def unseen(mask, fresh: list[dict[str, str]], known: list[dict[str, str]]) -> float:
    seen = {mask(row["instruction"]) for row in known}
    return sum(mask(row["instruction"]) not in seen for row in fresh) / len(fresh)


def check(row: dict[str, str]) -> None:
    """Assert all that must be true of a single row."""
    assert list(row) == ["instruction", "input", "output", "answer"]
    assert all(isinstance(text, str) for text in row.values())
    instruction, output, answer = row["instruction"], row["output"], row["answer"]
    assert row["input"] == ""
    assert 60 <= len(instruction) <= 400
    assert len(output) <= 320
    for text in (instruction, output):
        assert not re.search(r"#### |  |[{}\[\]|]| [.,?]|\.\.|\bNone\b", text), text
        assert not re.search(r"(?:^|[.?!] )[a-z]", text), text
        assert not re.search(r"(?<![\d.])1 (?!less|is)\w+s\b", text), text
    steps = equations(output)
    assert 1 <= len(steps) <= 4
    for step in steps:
        assert holds(*step), output
        assert all(number > 0 and number * 100 % 1 == 0 for number in (step[0], step[2], step[3]))
    for line, result in zip(steps, EQUATION.finditer(output), strict=True):
        unit = output[result.end() :].strip()
        assert line[3] % 1 == 0 or unit.startswith("dollars"), output
    result = steps[-1][3]
    if options := OPTION.findall(instruction):
        assert re.search(r"\? A\) \S+ B\) \S+ C\) \S+ D\) \S+ E\) \S+$", instruction)
        assert len({Decimal(number) for _, number in options}) == 5
        assert Decimal(dict(options)[answer]) == result
        assert output.endswith(f" The answer is {answer}.")
    else:
        assert instruction.endswith("?")
        assert answer == str(float(result))
        said = re.search(rf" The answer is ({NUMBER})\.$", output)
        assert said is not None
        assert Decimal(said[1]) == result


def test_every_row_is_sound(rows):
    for row in rows:
        check(row)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**40), count=st.integers(0, 12))
def test_every_seed_gives_sound_and_distinct_rows(seed, count):
    found = generate(count, seed)
    assert len(found) == count
    assert len({row["instruction"] for row in found}) == count
    assert found == generate(count, seed)
    for row in found:
        check(row)


def test_the_draw_is_the_same_everywhere():
    text = json.dumps(generate(10_000, 42))
    assert hashlib.sha256(text.encode()).hexdigest() == PINNED


def test_what_decides_the_rows_is_named():
    """Whatever module of ours takes part is one of SOURCES, and so is the file of phrasings."""
    modules = {worlds.__file__, stories.__file__, wordproblems.__file__}
    assert {str(file) for file in wordproblems.SOURCES} == modules | {str(worlds.FILE)}


def test_worlds_say_only_what_stories_ask_for():
    """A phrasing under a name that is no operation's, question's or step's would never be drawn."""
    facts = {operation.fact for operation in stories.OPERATIONS}
    asks = {operation.ask for operation in stories.OPERATIONS} | {"ask"}
    steps = {f"so_{step}" for step in worlds.STEPS}
    for world in WORLDS:
        assert {"scene", "ask"} & set(world.lines)
        unknown = set(world.lines) - facts - asks - steps - {"scene", "next"}
        assert not unknown


def test_seeds_differ():
    assert generate(20, 1) != generate(20, 2)


def test_instructions_are_distinct(rows):
    assert len({row["instruction"] for row in rows}) == len(rows)


def test_no_rows_and_a_negative_number_of_them():
    assert generate(0, 1) == []
    with pytest.raises(ValueError, match="must not be negative"):
        generate(-1, 1)


def test_fresh_rows_have_skeletons_that_others_lack(rows):
    fresh = generate(200, 99)
    assert unseen(skeleton, fresh, rows) > 0.8
    assert unseen(bare_skeleton, fresh, rows) > 0.6


def test_multiple_choice_is_near_six_percent(rows):
    letters = [row["answer"] for row in rows if row["answer"] in "ABCDE"]
    assert 0.04 < len(letters) / len(rows) < 0.08
    assert set(letters) == set("ABCDE")


def test_most_problems_take_few_steps(rows):
    steps = Counter(len(equations(row["output"])) for row in rows)
    for count, share in {1: 0.65, 2: 0.25, 3: 0.08, 4: 0.02}.items():
        assert abs(steps[count] / len(rows) - share) < 0.04


def test_most_results_are_small(rows):
    results = [step[3] for row in rows for step in equations(row["output"])]
    assert max(results) <= 200
    assert sum(result <= 100 for result in results) / len(results) > 0.85


def test_ten_thousand_rows_take_under_three_seconds():
    start = time.process_time()
    generate(10_000, 5)
    assert time.process_time() - start < 3
