"""Drawn rows: in the order of the draw, whatever the order and number of the files."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as settings_of_hypothesis
from hypothesis import strategies as st

from helpers.ground.errors import TutorialError
from helpers.inputs import readers, rows
from helpers.inputs.drawn import Drawn
from helpers.inputs.readers import Source
from helpers.inputs.values import Fault


def files(folder: Path, sizes: list[int]) -> list[Source]:
    """Write files of so many rows each, numbered through."""
    found, number = [], 0
    for size in sizes:
        lines = [{"instruction": f"Row {number + n}", "output": "x"} for n in range(size)]
        number += size
        file = folder / f"{len(found)}.jsonl"
        file.write_text("".join(json.dumps(line) + "\n" for line in lines))
        found.append(readers.examined(file, fetched=False))
    return found


@settings_of_hypothesis(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=4), seed=st.integers(0, 99))
def test_rows_come_in_the_order_of_the_draw(tmp_path: Path, sizes: list[int], seed: int) -> None:
    sources = files(tmp_path, sizes)
    indices = random.Random(seed).sample(range(sum(sizes)), max(1, sum(sizes) // 2))
    layout = rows.layout(sources, {})
    with Drawn(sources, layout, indices, tmp_path) as drawn:
        found = list(drawn.rows(range(len(indices))))
        assert [(place, row.instruction) for place, row in found] == [
            (place, f"Row {index}") for place, index in enumerate(indices)
        ]
        for place, index in enumerate(indices):
            file, number = drawn.where(place)
            before = sum(sizes[: int(Path(file).stem)])
            assert before + number - 1 == index
        drawn.reject(0, Fault(code="long"))
        assert [place for place, _ in drawn.rows(range(len(indices)))] == [*range(len(indices))][1:]
    assert {file.suffix for file in tmp_path.iterdir()} == {".jsonl"}  # nothing else is left


def test_the_same_problem_in_both_sets_is_found(tmp_path: Path) -> None:
    sources = files(tmp_path, [4, 2])
    (tmp_path / "1.jsonl").write_text(
        '{"instruction": "row  2", "output": "y"}\n{"instruction": "New", "output": "y"}\n'
    )
    with Drawn(sources, rows.layout(sources, {}), [3, 2, 1, 4, 5], tmp_path) as drawn:
        assert drawn.leaked(range(3), range(3, 5)) == [(3, 1)]
        drawn.reject(1, Fault(code="long"))  # not in the training set after all
        assert drawn.leaked(range(3), range(3, 5)) == []
        assert drawn.leaked(range(0), range(3, 5)) == []


def test_a_file_that_loses_rows_while_it_is_read(tmp_path: Path) -> None:
    sources = files(tmp_path, [5])
    sources[0].file.write_text('{"instruction": "Row 0", "output": "x"}\n')
    with pytest.raises(TutorialError, match=r"0\.jsonl changed while it was read"):
        Drawn(sources, rows.layout(sources, {}), [0, 4], tmp_path)
