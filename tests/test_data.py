"""The problems: the article's split to the byte, and files and rows that are bad."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import data, settings, wordproblems
from helpers.errors import TutorialError


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


@given(rows=st.integers(10, 5000), share=st.floats(0.01, 1))
def test_samples_never_meet(rows: int, share: float) -> None:
    cut = int(rows * 0.9)
    train, held_out = data.split_indices(
        rows, max(1, int(cut * share)), max(1, int((rows - cut) * share))
    )
    assert max(train) < cut <= min(held_out)
    assert len(set(train)) == len(train)
    assert len(set(held_out)) == len(held_out)


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
        assert not (runs / "test" / "data" / "about.json").exists()


def test_a_few_unusable_rows_are_listed_and_left_out(runs: Path, tmp_path: Path) -> None:
    rows = [dict(row) for row in wordproblems.generate(400, seed=1)]
    train, _ = data.split_indices(400, 300, 30)
    rows[train[0]]["answer"] = None
    chosen, facts = prepared_from(parquet(tmp_path / "rows.parquet", rows), 300, 30)
    assert facts.train == 299
    assert facts.unusable == [f"row {train[0]} (math_train): no answer"]
    assert len(data.load(chosen.run.data, data.TRAIN)) == 299


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
