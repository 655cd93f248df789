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
from helpers.inputs import answers, data, settings, sources, wordproblems
from helpers.inputs.answers import final_answer
from helpers.inputs.rows import split_indices
from helpers.results import checks

COLUMNS = ("instruction", "input", "output", "answer")


def parquet(path: Path, rows: list[dict[str, object]]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def prepared_from(
    file: Path, train: int, held_out: int, columns: str = ""
) -> tuple[settings.Settings, data.DataFacts]:
    chosen = settings.resolve(
        "smoke", run="test", data=str(file), train=train, evaluate=held_out, columns=columns
    )
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
    without = [{k: v for k, v in row.items() if k != "output"} for row in rows_with()]
    cut = parquet(folder / "whole.parquet", rows_with()).read_bytes()
    (folder / "cut.parquet").write_bytes(cut[: len(cut) // 2])
    (folder / "text.parquet").write_text("not parquet")
    (folder / "empty.parquet").write_bytes(b"")
    some = rows_with()
    for row in some[::3]:
        row["answer"] = "seven"
    return [
        (parquet(folder / "columns.parquet", without), "no column output"),
        (parquet(folder / "floats.parquet", rows_with(instruction=1.5)), "holds a number"),
        (folder / "cut.parquet", "damaged or not complete"),
        (folder / "text.parquet", "text that is no parquet"),
        (folder / "empty.parquet", "is empty"),
        (folder / "absent.parquet", "no file"),
        (parquet(folder / "few.parquet", rows_with()[:5]), r"TRAIN=4 EVAL=1"),
        (parquet(folder / "one.parquet", rows_with()[:1]), "have 1 row"),
        (parquet(folder / "some.parquet", some), "neither a number"),
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
    file = paths.MODELS / "Math10K" / sources.MATH10K_FILE
    file.parent.mkdir(parents=True)
    file.write_text("half of it")
    chosen = settings.resolve("smoke", run="test", data="math10k")
    with pytest.raises(TutorialError, match="what was fetched is damaged: move it away"):
        data.prepare(chosen, say=lambda line: None)


@pytest.mark.parametrize(
    ("source", "name", "words"),
    [
        ("math10k", sources.MATH10K, "Math10K (ModelScope, lmms-lab/Math10K)"),
        ("generated", "", "generated word problems"),
        ("file", "rows.parquet", "file rows.parquet"),
        ("folder", "sums", "folder sums"),
        ("modelscope", "owner/sums", "ModelScope, owner/sums"),
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
    file = parquet(tmp_path / "rows.parquet", rows)
    chosen, facts = prepared_from(file, 300, 30)
    assert facts.train == 299
    (found,) = facts.unusable
    assert (found.row, found.set, found.fault.code) == (train[0] + 1, data.TRAIN, "missing")
    assert found.words() == f"row {train[0] + 1} of {file} (math_train): no answer"
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
    assert line.startswith(f"row {bad + 1} of {file} (math_train): ")
    assert reason in line
    assert facts.train == len(data.load(chosen.run.data, data.TRAIN)) == 299


def test_no_worked_steps_and_no_input_are_no_fault(runs: Path, tmp_path: Path) -> None:
    """As in Math10K: the article trains on such rows."""
    for column, value in (("output", ""), ("input", None), ("input", "5 km\tand\r\n6 km")):
        file, _ = with_bad_row(tmp_path, column, value)
        assert prepared_from(file, 300, 30)[1].unusable == []


# ---- a third set, duplicates, answers that are none ---------------------------------------------


def test_the_curves_set_is_the_first_of_the_held_out_ones_where_it_is_asked_for(
    runs: Path, tmp_path: Path
) -> None:
    file = parquet(tmp_path / "rows.parquet", wordproblems.generate(60, seed=1))
    chosen, plain = prepared_from(file, 10, 5)
    assert plain.curve is None
    assert not (chosen.run.data / "math_curve.json").exists()
    for wanted, found in ((3, 3), (25, 5)):
        chosen.profile.data.curve = wanted
        facts = data.prepare(chosen, say=lambda line: None)
        assert facts.curve == found
        held_out = data.load(chosen.run.data, data.EVAL)
        assert data.load(chosen.run.data, data.CURVE) == held_out[:found]
        registered = json.loads(data.registration_file(chosen.run).read_text())
        assert list(registered) == [data.TRAIN, data.EVAL, data.CURVE]
        assert (facts.train_sha256, facts.eval_sha256) == (plain.train_sha256, plain.eval_sha256)
        assert all(each.holds for each in checks.of_data(chosen))


def doubled(copies: int) -> list[dict[str, object]]:
    """Return 400 rows of which so many of the held-out ones stand in the training set as well."""
    rows: list[dict[str, object]] = [dict(row) for row in wordproblems.generate(400, seed=1)]
    train, held_out = split_indices(400, 300, 40)
    for there, here in list(zip(train, held_out, strict=False))[:copies]:
        rows[here] = rows[there] | {"instruction": f" {rows[there]['instruction']}".upper()}
    return rows


def test_duplicates_across_the_split_are_counted_told_and_refused_over_a_twentieth(
    runs: Path, tmp_path: Path
) -> None:
    said: list[str] = []
    file = parquet(tmp_path / "rows.parquet", doubled(2))
    chosen, facts = prepared_from(file, 300, 40)
    assert (facts.leaked, facts.repeated) == (2, 0)
    chosen.profile.data.curve = 5  # and so it is prepared anew
    data.prepare(chosen, said.append)
    assert "2 of 40 held-out problems stand in the training set as well." in said
    train, held_out = split_indices(400, 300, 40)
    place = f"row {held_out[0] + 1} of {file} is row {train[0] + 1} of {file}"
    parquet(file, doubled(3))
    with pytest.raises(TutorialError, match=r"3 of 40 held-out problems \(7\.5 %\)") as caught:
        prepared_from(file, 300, 40)
    assert place in caught.value.message
    assert "\n" not in caught.value.message


def test_training_problems_that_stand_twice_are_counted(runs: Path, tmp_path: Path) -> None:
    rows = wordproblems.generate(100, seed=1)
    rows[7] = dict(rows[8])
    _, facts = prepared_from(parquet(tmp_path / "rows.parquet", rows), 90, 10)
    assert (facts.leaked, facts.repeated) == (0, 1)


def letters(folder: Path, count: int = 100) -> Path:
    file = folder / "letters.json"
    turns = [
        [{"from": "system", "value": "Be polite."}] * (number % 2)
        + [{"from": "human", "value": f"Who is {number}?"}, {"from": "gpt", "value": "A man."}]
        + [{"from": "human", "value": f"Write to {number}."}, {"from": "gpt", "value": "#### Dear"}]
        for number in range(count)
    ]
    file.write_text(json.dumps([{"conversations": each} for each in turns]))
    return file


def test_without_answers_texts_stay_as_they_are_and_nothing_is_scored(
    runs: Path, tmp_path: Path
) -> None:
    chosen, facts = prepared_from(letters(tmp_path), 90, 10)
    assert not facts.scored
    assert (facts.form, facts.answers) == ("messages", {})
    for row in data.load(chosen.run.data, data.TRAIN):
        number = int(row["instruction"].strip(".").split()[-1])
        assert row["output"] == "#### Dear"
        assert row["history"] == [[f"Who is {number}?", "A man."]]
        assert row.get("system", "") == "Be polite." * (number % 2)
    assert [each.statement for each in checks.of_data(chosen) if not each.holds] == []
    assert "####" not in " ".join(each.statement for each in checks.of_data(chosen))


BY_LLAMAFACTORY = """
import json, sys
from datasets import load_dataset
from llamafactory.data.converter import AlpacaDatasetConverter, SharegptDatasetConverter
from llamafactory.data.parser import DatasetAttr, get_dataset_list
ours, theirs = sys.argv[1:]
def converted(file, attr, converter):
    rows = load_dataset("json", data_files=file, split="train")
    found = [converter(attr, None)(row) for row in rows]
    return [[row["_prompt"], row["_response"], row["_system"] or ""] for row in found]
(attr,) = get_dataset_list(["math_train"], ours)
a = converted(f"{ours}/math_train.json", attr, AlpacaDatasetConverter)
b = converted(theirs, DatasetAttr("file", "x", formatting="sharegpt"), SharegptDatasetConverter)
assert len(a) == 90, len(a)
assert all(row in b for row in a), a[0]
"""


def test_llamafactory_reads_the_same_conversations_as_from_the_file_itself(
    runs: Path, tmp_path: Path
) -> None:
    file = letters(tmp_path)
    chosen, _ = prepared_from(file, 90, 10)
    subprocess.run(
        [sys.executable, "-c", BY_LLAMAFACTORY, str(chosen.run.data), str(file)],
        check=True, env=os.environ | {"HF_HOME": str(tmp_path / "cache")},
    )  # fmt: skip


def test_answers_that_are_taken_from_outputs_are_told(runs: Path, tmp_path: Path) -> None:
    rows = [{"q": f"1 + {n}?", "a": f"That is 1 + {n}, so \\boxed{{{n + 1}}}."} for n in range(100)]
    file = tmp_path / "sums.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    chosen = settings.resolve(
        "smoke", run="test", data=str(file), train=90, evaluate=10,
        columns="instruction=q output=a",
    )  # fmt: skip
    said: list[str] = []
    facts = data.prepare(chosen, said.append)
    assert facts.answers == {"boxed": 100}
    assert said == ["Where the answers come from: \\boxed{} (100)."]
    first = data.load(chosen.run.data, data.TRAIN)[0]
    assert first[
        "output"
    ] == f"{rows[split_indices(100, 90, 10)[0][0]]['a']}\n#### " + final_answer(first["output"])


def test_many_answers_that_are_none_are_refused_with_what_would_be_right(
    runs: Path, tmp_path: Path
) -> None:
    rows = rows_with()
    for row in rows[::3]:
        row["answer"] = "seven"
    file = parquet(tmp_path / "rows.parquet", rows)
    with pytest.raises(TutorialError, match=r'leave that column out with COLUMNS="answer="'):
        prepared_from(file, 40, 5)
    _, facts = prepared_from(file, 40, 5, "answer=")  # the remedy helps
    assert facts.answers == {"last_number": 45}


CELL = st.none() | st.text(max_size=40) | st.sampled_from(["5", "C", "-1.5", "#### 5", "x" * 9000])
SOUND = wordproblems.generate(400, seed=1)


@settings_of_hypothesis(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    rows=st.lists(
        st.fixed_dictionaries({name: CELL for name in COLUMNS}) | st.sampled_from(SOUND[-20:]),
        max_size=40,
    ),
    sound=st.integers(0, 380),
)
def test_whatever_the_rows_are_they_are_counted_or_refused(
    runs: Path, tmp_path: Path, rows: list[dict[str, object]], sound: int
) -> None:
    """No row is lost: those written and those listed are those asked for."""
    rows = SOUND[:sound] + rows
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
        assert all(final_answer(row["output"]) for row in written) or not facts.scored
        assert sum(answers.kinds(written).values()) == count
        answers.contradictions(written)


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
file, rows = sys.argv[1], int(sys.argv[2])
chosen = settings.resolve(
    "smoke", run=f"r{rows}", data=file, train=rows * 9 // 10, evaluate=rows // 10)
start = time.process_time()
facts = data.prepare(chosen, say=lambda line: None)
assert facts.train + facts.eval == rows
# ru_maxrss would begin with what the process that started this one holds.
peak = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())
print(time.process_time() - start, int(peak[1]) / 1024)
"""


@pytest.mark.parametrize("suffix", ["parquet", "json"])
def test_time_and_memory_grow_with_the_rows_and_no_faster(tmp_path: Path, suffix: str) -> None:
    """By hand, a million rows: JSON Lines 79 s, 222 MB; parquet 75 s, 377 MB. Here: the slope."""
    few = wordproblems.generate(2_000, seed=5)
    costs = {}
    for times in (5, 10):
        rows = [
            row | {"instruction": f"{row['instruction']} ({number})"}
            for number in range(times)
            for row in few
        ]
        file = tmp_path / f"{times}.{suffix}"
        if suffix == "parquet":
            parquet(file, rows)
        else:
            file.write_text(json.dumps(rows))
        done = subprocess.run(
            [sys.executable, "-c", PREPARE, str(file), str(2_000 * times)],
            capture_output=True, text=True, check=True, cwd=paths.ROOT,
            env=os.environ | {"TUTORIAL_RUNS": str(tmp_path / "runs")},
        )  # fmt: skip
        costs[times] = [float(word) for word in done.stdout.split()]
    (seconds, megabytes), (twice_seconds, twice_megabytes) = costs[5], costs[10]
    assert twice_seconds < 3 * seconds
    # 100 times what 10,000 further rows take must fit beside what the imports take.
    assert megabytes + 99 * (twice_megabytes - megabytes) < 1_000


def test_without_data_the_sentence_names_the_notebook(runs: Path) -> None:
    with pytest.raises(TutorialError, match="02_data"):
        data.facts_of(settings.resolve("smoke", run="test").run)


@pytest.mark.parametrize("content", [None, "", '[{"instruction": ', "[1]", "\xff"])
def test_a_prepared_set_that_is_damaged_names_the_notebook(
    tmp_path: Path, content: str | None
) -> None:
    if content is not None:
        (tmp_path / "math_eval.json").write_text(content, "latin-1")
    with pytest.raises(TutorialError, match="missing or damaged: run the notebook 02_data again"):
        data.load(tmp_path, data.EVAL)


def test_contradictions_finds_steps_that_end_in_another_number() -> None:
    wrong = {"output": "7 - 3 = 4 spoons. The answer is 8.\n#### 10.0"}
    right = {"output": "The answer is $1,200.\n#### 1200.0"}
    letter = {"output": "The answer is C.\n#### C"}
    assert answers.contradictions([wrong, right, letter]) == [wrong]
