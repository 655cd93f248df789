"""The problems: the article's split to the byte, and files and rows that are bad."""

from __future__ import annotations

import io
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as settings_of_hypothesis
from hypothesis import strategies as st

from helpers.ground import paths
from helpers.ground.errors import TutorialError
from helpers.inputs import data, settings, wordproblems
from helpers.inputs.rows import COLUMNS, split_indices


def parquet(path: Path, rows: list[dict[str, object]]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def prepared_from(
    file: Path, train: int, held_out: int
) -> tuple[settings.Settings, data.DataFacts]:
    chosen = settings.resolve("smoke", run="test", data=str(file))
    wanted = chosen.profile.data.model_copy(update={"train": train, "eval": held_out})
    chosen.profile.data = wanted
    return chosen, data.prepare(chosen, say=lambda line: None)


def article_split(file: Path, train: int, held_out: int) -> tuple[str, str]:
    """The article's split, written as plainly as can be: the truth to compare with."""
    rows = pq.read_table(file).to_pylist()
    first, last = rows[: int(len(rows) * 0.9)], rows[int(len(rows) * 0.9) :]
    random.seed(42)
    samples = random.sample(first, train), random.sample(last, held_out)
    texts = [
        json.dumps(
            [
                {
                    "instruction": row["instruction"],
                    "input": row["input"],
                    "output": row["output"] + "\n#### " + row["answer"],
                }
                for row in sample
            ],
            ensure_ascii=False,
            indent=2,
        )
        + "\n"
        for sample in samples
    ]
    return texts[0], texts[1]


def test_split_equals_the_articles_on_real_rows_byte_for_byte(runs: Path, real_rows: Path) -> None:
    chosen, facts = prepared_from(real_rows, 2000, 200)
    train, held_out = article_split(real_rows, 2000, 200)
    assert (chosen.run.data / "math_train.json").read_text("utf-8") == train
    assert (chosen.run.data / "math_eval.json").read_text("utf-8") == held_out
    assert (facts.train, facts.eval, facts.unusable) == (2000, 200, [])


def test_split_equals_the_articles_on_generated_rows(runs: Path, tmp_path: Path) -> None:
    rows = wordproblems.generate(303, seed=5)
    rows[0]["output"] += " 价格为五元 naïve ½"  # UTF-8, and not escaped
    file = parquet(tmp_path / "rows.parquet", rows)
    chosen, _ = prepared_from(file, 272, 31)
    train, held_out = article_split(file, 272, 31)
    assert (chosen.run.data / "math_train.json").read_text("utf-8") == train
    assert (chosen.run.data / "math_eval.json").read_text("utf-8") == held_out
    assert "价格" in train


def test_data_are_registered_in_the_runs_own_folder(runs: Path, tmp_path: Path) -> None:
    file = parquet(tmp_path / "rows.parquet", wordproblems.generate(60, seed=1))
    chosen, _ = prepared_from(file, 10, 5)
    registered = json.loads((chosen.run.data / "dataset_info.json").read_text())
    assert set(registered) == {data.TRAIN, data.EVAL}
    for entry in registered.values():
        assert (chosen.run.data / entry["file_name"]).is_file()


def test_changed_rows_are_prepared_again(runs: Path, tmp_path: Path) -> None:
    file = tmp_path / "rows.parquet"
    parquet(file, wordproblems.generate(60, seed=1))
    _, first = prepared_from(file, 10, 5)
    parquet(file, wordproblems.generate(60, seed=2))
    _, second = prepared_from(file, 10, 5)
    assert first.train_sha256 != second.train_sha256


def rows_with(**change: object) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = [dict(row) for row in wordproblems.generate(50, seed=1)]
    return [row | change for row in rows]


def bad_files(folder: Path) -> list[tuple[Path, str]]:
    without = [{k: v for k, v in row.items() if k != "answer"} for row in rows_with()]
    cut = parquet(folder / "whole.parquet", rows_with()).read_bytes()
    (folder / "cut.parquet").write_bytes(cut[: len(cut) // 2])
    (folder / "text.parquet").write_text("not parquet")
    (folder / "empty.parquet").write_bytes(b"")
    return [
        (parquet(folder / "columns.parquet", without), "no column answer"),
        (parquet(folder / "floats.parquet", rows_with(answer=1.5)), "must hold text"),
        (folder / "cut.parquet", "damaged"),
        (folder / "text.parquet", "damaged"),
        (folder / "empty.parquet", "damaged"),
        (folder / "absent.parquet", "no file"),
        (parquet(folder / "few.parquet", rows_with()[:5]), "too few"),
        (parquet(folder / "none.parquet", rows_with(answer="")), "cannot be used"),
        (parquet(folder / "words.parquet", rows_with(answer="seven")), "neither a number"),
        (parquet(folder / "blank.parquet", rows_with(instruction=" ")), "empty instruction"),
    ]


def test_bad_files_end_in_one_sentence_and_leave_no_data(runs: Path, tmp_path: Path) -> None:
    for file, words in bad_files(tmp_path):
        with pytest.raises(TutorialError, match=words) as caught:
            prepared_from(file, 10, 5)
        assert "\n" not in caught.value.message
        assert "delete" not in caught.value.message  # it is the reader's own
        assert not (runs / "test" / "data" / "about.json").exists()


def test_only_what_the_tutorial_fetched_is_to_be_fetched_anew(runs: Path) -> None:
    file = paths.MODELS / "Math10K" / data.MATH10K_FILE
    file.parent.mkdir(parents=True)
    file.write_text("half of it")
    chosen = settings.resolve("smoke", run="test", data="math10k")
    with pytest.raises(TutorialError, match="what was fetched is damaged: delete it"):
        data.prepare(chosen, say=lambda line: None)


@pytest.mark.parametrize(
    ("source", "name", "words"),
    [
        ("math10k", data.MATH10K, "Math10K (ModelScope, lmms-lab/Math10K)"),
        ("generated", "", "generated word problems"),
        ("file", "rows.parquet", "file rows.parquet"),
    ],
)
def test_where_the_problems_come_from_is_a_code_and_has_words(
    source: str, name: str, words: str, runs: Path, tmp_path: Path
) -> None:
    file = parquet(tmp_path / "rows.parquet", wordproblems.generate(60, seed=1))
    _, facts = prepared_from(file, 10, 5)
    assert (facts.source, facts.name) == ("file", "rows.parquet")
    assert facts.model_copy(update={"source": source, "name": name}).words() == words


def test_data_of_another_form_are_prepared_again(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = parquet(tmp_path / "rows.parquet", wordproblems.generate(60, seed=1))
    chosen, first = prepared_from(file, 10, 5)
    said: list[str] = []
    monkeypatch.setattr(data, "FORM", data.FORM + 1)
    assert data.prepare(chosen, said.append) == first
    assert said == ["Doing data again: form changed."]


def test_a_few_unusable_rows_are_listed_and_left_out(runs: Path, tmp_path: Path) -> None:
    rows = [dict(row) for row in wordproblems.generate(400, seed=1)]
    train, _ = split_indices(400, 300, 30)
    rows[train[0]]["answer"] = None
    chosen, facts = prepared_from(parquet(tmp_path / "rows.parquet", rows), 300, 30)
    assert facts.train == 299
    (found,) = facts.unusable
    assert (found.row, found.set, found.fault.code) == (train[0], data.TRAIN, "missing")
    assert found.words() == f"row {train[0]} (math_train): no answer"
    assert len(data.load(chosen.run.data, data.TRAIN)) == 299


def with_bad_row(folder: Path, column: str, value: object) -> tuple[Path, int]:
    """Return a file of 400 rows of which one that is sampled is bad, and its number."""
    rows = [dict(row) for row in wordproblems.generate(400, seed=1)]
    bad = split_indices(400, 300, 30)[0][7]
    table = pa.Table.from_pylist(rows)
    if isinstance(value, bytes):
        texts = [row[column].encode() for row in rows]
        texts[bad] = value
        # Text to parquet and to Arrow, whatever the bytes are.
        texts = pa.array(texts, pa.binary()).view(pa.string())
    else:
        texts = pa.array([value if i == bad else row[column] for i, row in enumerate(rows)])
    table = table.set_column(table.schema.get_field_index(column), column, texts)
    file = folder / "rows.parquet"
    pq.write_table(table, file)
    return file, bad


@pytest.mark.parametrize(
    ("column", "value", "reason"),
    [
        ("instruction", None, "no instruction"),
        ("instruction", " \n", "empty instruction"),
        ("instruction", "x" * 9_000, "characters, over 8000"),
        ("instruction", "five apples #### 5", "'####' in instruction"),
        ("instruction", b"caf\xe9", "instruction is not UTF-8 text"),
        ("input", "\x07", "control character '\\x07' in input"),
        ("output", None, "no output"),
        ("output", "first\n#### 5\nsecond", "'####' in output"),
        ("output", "a\x00b", "control character '\\x00' in output"),
        ("answer", None, "no answer"),
        ("answer", "", "neither a number nor a letter"),
        ("answer", "seven", "neither a number nor a letter"),
        ("answer", "nan", "neither a number nor a letter"),
        ("answer", "9" * 500, "neither a number nor a letter"),
        ("answer", "\u0663", "neither a number nor a letter"),  # an Arabic three is no [0-9]
        ("answer", "AB", "neither a number nor a letter"),
    ],
)
def test_a_bad_row_is_listed_and_left_out(
    runs: Path, tmp_path: Path, column: str, value: object, reason: str
) -> None:
    file, bad = with_bad_row(tmp_path, column, value)
    chosen, facts = prepared_from(file, 300, 30)
    (found,) = facts.unusable
    line = found.words()
    assert line.startswith(f"row {bad} (math_train): ")
    assert reason in line
    assert facts.train == len(data.load(chosen.run.data, data.TRAIN)) == 299


def test_no_worked_steps_and_no_input_are_no_fault(runs: Path, tmp_path: Path) -> None:
    """As in Math10K: the article trains on such rows."""
    for column, value in (("output", ""), ("input", None), ("input", "5 km\tand\r\n6 km")):
        file, _ = with_bad_row(tmp_path, column, value)
        assert prepared_from(file, 300, 30)[1].unusable == []


CELL = st.none() | st.text(max_size=40) | st.sampled_from(["5", "C", "-1.5", "#### 5", "x" * 9000])
SOUND = wordproblems.generate(40, seed=1)


@settings_of_hypothesis(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    rows=st.lists(
        st.fixed_dictionaries({name: CELL for name in COLUMNS}) | st.sampled_from(SOUND),
        max_size=40,
    ),
    sound=st.integers(0, 400),
)
def test_whatever_the_rows_are_they_are_counted_or_refused(
    runs: Path, tmp_path: Path, rows: list[dict[str, object]], sound: int
) -> None:
    """No row is lost: those written and those listed are those asked for."""
    rows = (SOUND * 10)[:sound] + rows
    columns = {name: pa.array([row[name] for row in rows], pa.string()) for name in COLUMNS}
    pq.write_table(pa.table(columns), tmp_path / "rows.parquet")
    train, held_out = max(1, len(rows) // 2), max(1, len(rows) // 20)
    try:
        chosen, facts = prepared_from(tmp_path / "rows.parquet", train, held_out)
    except TutorialError as error:
        refused = error.message
    else:
        refused = ""
    assert "\n" not in refused
    if refused:
        return
    assert facts.train + facts.eval + len(facts.unusable) == train + held_out
    for name, count in ((data.TRAIN, facts.train), (data.EVAL, facts.eval)):
        written = data.load(chosen.run.data, name)
        assert len(written) == count
        assert all(data.final_answer(row["output"]) for row in written)
        assert sum(data.kinds(written).values()) == count
        data.contradictions(written)


def parquet_bytes() -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(wordproblems.generate(200, seed=1)), file)
    return file.getvalue()


WHOLE_PARQUET = parquet_bytes()


@settings_of_hypothesis(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(place=st.floats(0, 1, exclude_max=True), change=st.integers(1, 255), cut=st.booleans())
def test_a_corrupted_parquet_file_is_one_sentence(
    runs: Path, tmp_path: Path, place: float, change: int, cut: bool
) -> None:
    """A byte changed or the end lost, anywhere: rows as they were, or one sentence."""
    content = bytearray(WHOLE_PARQUET)
    at = int(place * len(content))
    content[at] ^= change
    file = tmp_path / "rows.parquet"
    file.write_bytes(content[:at] if cut else content)
    try:
        _, facts = prepared_from(file, 100, 10)
    except TutorialError as error:
        refused = error.message
    else:
        refused = ""
        assert facts.train + facts.eval + len(facts.unusable) == 110
    assert "\n" not in refused
    assert refused or not cut


PREPARE = """
import re, sys, time
from pathlib import Path
from helpers.inputs import data, settings
chosen = settings.resolve("smoke", run=sys.argv[1], data=sys.argv[2])
rows = int(sys.argv[3])
chosen.profile.data = chosen.profile.data.model_copy(
    update={"train": rows * 9 // 10, "eval": rows // 10})
start = time.process_time()
facts = data.prepare(chosen, say=lambda line: None)
assert facts.train + facts.eval == rows
# ru_maxrss would begin with what the process that started this one holds.
peak = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())
print(time.process_time() - start, int(peak[1]) / 1024)
"""


def test_time_and_memory_grow_with_the_rows_and_no_faster(tmp_path: Path) -> None:
    """A million rows were measured by hand: 31 s and 731 MB. Here, that the slope is no steeper."""
    rows = pa.Table.from_pylist(wordproblems.generate(5_000, seed=5))
    costs = {}
    for times in (10, 20):
        file = tmp_path / f"{times}.parquet"
        pq.write_table(pa.concat_tables([rows] * times), file)
        done = subprocess.run(
            [sys.executable, "-c", PREPARE, f"r{times}", str(file), str(5_000 * times)],
            capture_output=True, text=True, check=True, cwd=paths.ROOT,
            env=os.environ | {"TUTORIAL_RUNS": str(tmp_path / "runs")},
        )  # fmt: skip
        costs[times] = [float(word) for word in done.stdout.split()]
    (seconds, megabytes), (twice_seconds, twice_megabytes) = costs[10], costs[20]
    assert twice_seconds < 3 * seconds
    # 20 times what 50,000 further rows take must fit beside what the imports take.
    assert megabytes + 19 * (twice_megabytes - megabytes) < 1_000


def test_without_data_the_sentence_names_the_notebook(runs: Path) -> None:
    with pytest.raises(TutorialError, match="02_data"):
        data.facts_of(settings.resolve("smoke", run="test").run)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("a\n#### 50.0", "50.0"),
        ("#### 5\nand more", "5"),
        ("about #### in a text\n#### C", "C"),
        ("no mark", ""),
        ("#### ", ""),
    ],
)
def test_final_answer(text: str, answer: str) -> None:
    assert data.final_answer(text) == answer


def test_contradictions_finds_steps_that_end_in_another_number() -> None:
    wrong = {"output": "7 - 3 = 4 spoons. The answer is 8.\n#### 10.0"}
    right = {"output": "The answer is $1,200.\n#### 1200.0"}
    letter = {"output": "The answer is C.\n#### C"}
    assert data.contradictions([wrong, right, letter]) == [wrong]
