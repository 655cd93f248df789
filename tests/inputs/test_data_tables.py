"""What readers see of the problems."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import forget_settings

from helpers.ground import paths
from helpers.inputs import data, data_tables, settings
from helpers.inputs.settings import Settings


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    with pytest.MonkeyPatch.context() as patch:
        forget_settings(patch)
        patch.setattr(paths, "RUNS", tmp_path_factory.mktemp("runs"))
        chosen = settings.resolve("smoke", run="test")
        data.prepare(chosen, say=lambda line: None)
        yield chosen


def test_where_they_come_from_and_how_many(prepared: Settings) -> None:
    rows = dict(data_tables.facts_table(data.facts_of(prepared.run)).rows)
    assert rows["source"] == "generated word problems"
    assert rows["rows in the source"] == "10,000"
    assert (rows["training problems"], rows["held-out problems"]) == ("48", "12")
    assert rows["form"] == "parquet, Alpaca columns"
    assert rows["columns"] == "instruction, input, output, answer"
    assert rows["answers come from"] == "the column answer (60)"
    assert rows["held-out problems that also stand in the training set"] == "0"


def test_examples_stand_on_one_line_each(prepared: Settings) -> None:
    table = data_tables.examples_table(prepared.run, 3)
    first = data.load(prepared.run.data, data.TRAIN)[0]
    assert len(table.rows) == 3
    assert table.rows[0] == (first["instruction"], first["output"].replace("\n", " ⏎ "))
    assert len(table.markdown().splitlines()) == 2 + 3


def test_answers_are_counted(prepared: Settings) -> None:
    rows = dict(data_tables.answers_table(prepared.run).rows)
    assert sum(list(rows.values())[:2]) == 48
    assert rows["the last number of the worked steps is not the answer"] == 0


def test_the_registration_is_llamafactorys_file(prepared: Settings) -> None:
    shown = data_tables.registration(prepared.run)
    assert shown.language == "json"
    assert set(json.loads(shown.text)) == {data.TRAIN, data.EVAL}


def test_what_has_no_answers_says_so(prepared: Settings, tmp_path: Path) -> None:
    file = tmp_path / "letters.jsonl"
    lines = [{"question": f"Write to person {n}.", "text": "Dear friend, ..."} for n in range(200)]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    chosen = settings.resolve(
        "smoke", run="letters", data=str(file), columns="instruction=question output=text"
    )
    said: list[str] = []
    rows = dict(data_tables.facts_table(data.prepare(chosen, said.append)).rows)
    assert rows["columns"] == "instruction = question, output = text"
    assert rows["form"] == "JSON Lines, Alpaca columns"
    assert "accuracy is left out" in rows["answers come from"]
    assert any("accuracy is left out" in line for line in said)
    assert data_tables.answers_table(chosen.run).rows == [
        ("problems without an answer that can be scored", 48)
    ]
