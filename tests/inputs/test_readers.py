"""Files as people have them: what is read, and one sentence on what cannot be."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as settings_of_hypothesis
from hypothesis import strategies as st

from helpers.ground.errors import TutorialError
from helpers.inputs import json_rows, readers

ROWS = [{"instruction": f"Add 1 and {n}.", "output": f"1 + {n} = {n + 1}"} for n in range(30)]


def as_csv(rows: list[dict[str, Any]], delimiter: str = ",") -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def as_lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def written(file: Path, content: str | bytes) -> Path:
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def all_rows(file: Path) -> list[dict[str, Any]]:
    source = readers.examined(file, fetched=False)
    found = readers.read(source, source.columns, range(source.rows))
    return [row for _, row in found]


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("a.json", json.dumps(ROWS), "json"),
        ("a.json", "\ufeff\n" + json.dumps(ROWS, indent=2), "json"),
        ("a.json", as_lines(ROWS), "jsonl"),  # LLaMA-Factory takes both under both names
        ("a.jsonl", json.dumps(ROWS), "json"),
        ("a.jsonl", as_lines(ROWS).replace("\n", "\r\n\r\n"), "jsonl"),
        ("a.ndjson", as_lines(ROWS).rstrip(), "jsonl"),
        ("a.csv", as_csv(ROWS), "csv"),
        ("a.CSV", "\ufeff" + as_csv(ROWS, ";"), "csv"),  # Excel's
        ("a.tsv", as_csv(ROWS, "\t"), "csv"),
    ],
)
def test_the_same_rows_from_each_form(tmp_path: Path, name: str, content: str, kind: str) -> None:
    file = written(tmp_path / name, content)
    source = readers.examined(file, fetched=False)
    assert (source.kind, source.rows) == (kind, 30)
    assert source.columns == ("instruction", "output")
    assert all_rows(file) == ROWS


def test_rows_of_parquet_in_any_choice_and_number_from_1(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "a.parquet", row_group_size=7)
    source = readers.examined(tmp_path / "a.parquet", fetched=False)
    found = list(readers.read(source, ["output"], [0, 8, 29]))
    assert found == [(n + 1, {"output": ROWS[n]["output"]}) for n in (0, 8, 29)]


@settings_of_hypothesis(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    rows=st.lists(
        st.dictionaries(
            st.sampled_from("abc"),
            st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.text(), max_size=2),
            min_size=1,
        ),
        min_size=2,
    ),
    chunk=st.integers(1, 40),
    indent=st.none() | st.integers(0, 2),
)
def test_a_list_is_read_in_pieces_of_any_size(
    tmp_path: Path, rows: list[dict[str, Any]], chunk: int, indent: int | None
) -> None:
    file = written(tmp_path / "a.json", json.dumps(rows, indent=indent))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_rows, "_CHUNK", chunk)
        assert [row for _, row in json_rows.of_list(file)] == rows


def bad_files() -> list[tuple[str, str | bytes, str]]:
    table, chinese = as_csv(ROWS), as_csv([{"instruction": "价格是多少", "output": "五元"}] * 9)
    return [
        ("empty.json", "", "is empty"),
        ("blank.csv", " \n\r\n", "is empty"),
        ("header.csv", "instruction,output\n", "holds no row"),
        ("none.json", "[ ]", "holds no row"),
        ("ragged.csv", table + "1,2,3\n", r"Row 31 of .*ragged.csv \(line 32\) has 3 cells"),
        ("short.csv", table + "1\n", r"Row 31 .* has 1 cells, and the header has 2"),
        ("open.csv", table + '"open,1\n', r"Row 31 of .* \(from line 32\) is no CSV"),
        ("wide.csv", table + '"' + "x" * 200_000 + '",1\n', r"Row 31 .* \(field larger"),
        ("single.csv", table + '"x"y,1\n', "double quote is not closed, or stands single"),
        ("twice.csv", "a,b,a\n1,2,3\n", "more than one column called a"),
        ("gbk.csv", chinese.encode("gbk"), r"not UTF-8 \(line 2\) but GBK"),
        ("latin.csv", (table + "caf\u00e9,1\n").encode("latin-1"), "line 32 holds the byte 0xe9"),
        ("half.json", '[{"a": "价'.encode()[:-1], "line 1 holds the byte 0xe4"),
        ("wide.csv", table.encode("utf-16"), "is UTF-16"),
        ("json.csv", json.dumps(ROWS), "holds JSON, and its name says CSV: rename it to json.json"),
        ("rows.json", b"PAR1" + bytes(60), "rename it to rows.parquet"),
        ("rows.parquet", as_lines(ROWS), "rename it to rows.json"),
        ("table.json", table, "holds text that is no JSON"),
        ("book.csv", b"PK\x03\x04" + bytes(60), "zip archive or an Excel workbook"),
        ("packed.jsonl", gzip.compress(b"x", mtime=0), "compressed with gzip"),
        ("bytes.csv", b"a,b\n\0\0", "neither text nor parquet"),
        ("notes.txt", "a", "does not say what it holds"),
        ("data.json", json.dumps({"v": 1, "data": ROWS}), "rows nested under 'data'"),
        ("data.json", json.dumps({"data": ROWS}, indent=1), "rows nested under 'data'"),
        ("data.json", json.dumps({"v": 1, "of": "us", "data": ROWS}, indent=1), "under 'data'"),
        ("keys.json", json.dumps({f"r{n}": row for n, row in enumerate(ROWS)}), "under 'r0'"),
        ("keys.json", json.dumps({"r0": ROWS[0], "r1": ROWS[1]}, indent=1), "under 'r0'"),
        (
            "columns.json",
            json.dumps({"instruction": ["a", "b"], "output": ["1", "2"]}),
            "nested under 'instruction'",
        ),
        ("one.json", json.dumps(ROWS[0], indent=1), r"Row 1 .* \(line 1\) is no JSON"),
        ("cut.json", json.dumps(ROWS)[:-20], r"Row 30 of .* is no JSON \(Unterminated"),
        ("end.json", json.dumps(ROWS)[:-1], r"Row 30 .* \(a , or ] is missing"),
        ("comma.json", '[{"a": 1}\n{"a": 2}]', r"Row 1 .* \(line 2\) .* \(a , or ] is missing"),
        ("last.json", '[{"a": 1},\n]', r"Row 2 .* \(line 2\) is no JSON \(Expecting value"),
        ("more.json", '[{"a": 1}]\nx', "text follows the end of the list"),
        ("numbers.json", "[1, 2]", "Row 1 of .* holds 1, where an object"),
        ("lists.jsonl", '{"a": 1}\n["b"]\n', r'Row 2 of .* holds \["b"\], where an object'),
        ("cut.jsonl", as_lines(ROWS)[:-20], r"Row 30 of .* \(line 30\) is no JSON"),
        ("deep.json", "[" * 90_000, "recursion"),
        ("deep.jsonl", '{"a": 1}\n' + '{"a":' * 90_000, "recursion"),
        ("digits.jsonl", '{"a": ' + "9" * 5000 + "}", "4300 digits"),
    ]


@pytest.mark.parametrize(("name", "content", "words"), bad_files())
def test_a_readers_own_file_gets_one_sentence_and_stays(
    tmp_path: Path, name: str, content: str | bytes, words: str
) -> None:
    file = written(tmp_path / name, content)
    before = file.read_bytes()
    with pytest.raises(TutorialError, match=words) as caught:
        readers.examined(file, fetched=False)
    assert "\n" not in caught.value.message
    assert file.name in caught.value.message
    assert not {"delete", "remove"} & set(caught.value.message.split())
    assert file.read_bytes() == before
    with pytest.raises(TutorialError, match=r"move it away and run this again to fetch it anew"):
        readers.examined(file, fetched=True)


def test_two_columns_of_one_name_in_a_parquet_file(tmp_path: Path) -> None:
    table = pa.table([pa.array(["a"]), pa.array(["b"])], names=["output", "output"])
    pq.write_table(table, tmp_path / "two.parquet")
    with pytest.raises(TutorialError, match="more than one column called output: give each"):
        readers.examined(tmp_path / "two.parquet", fetched=False)


@pytest.fixture
def locked() -> Iterator[Path]:
    """Give a file that this user may not read: root becomes another for a while."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        file = written(Path(folder) / "mine.csv", as_csv(ROWS))
        file.chmod(0)
        was = os.geteuid()
        if was == 0:
            os.seteuid(65534)
        try:
            yield file
        finally:
            os.seteuid(was)


def test_a_file_that_may_not_be_read(locked: Path) -> None:
    with pytest.raises(TutorialError, match=r"may not be read by this user: .* 'chmod u\+r'"):
        readers.examined(locked, fetched=False)


def test_a_file_that_is_gone_when_it_is_read(tmp_path: Path) -> None:
    source = readers.examined(written(tmp_path / "mine.csv", as_csv(ROWS)), fetched=False)
    source.file.unlink()
    with pytest.raises(TutorialError, match=r"no file .*csv any more"):
        list(readers.read(source, source.columns, range(30)))


def test_many_columns_are_named_shortly() -> None:
    shown = readers.listed([f"column{n}" * 20 for n in range(500)] + ["\ud83d"])
    assert len(shown) < 1_000
    assert shown.endswith("...")
    readers.listed(["\ud83d"]).encode()
