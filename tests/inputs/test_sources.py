"""Where problems come from: what DATA= names, folders, and ModelScope's own client."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from modelscope_server import serving

from helpers import Tutorial
from helpers.ground import paths
from helpers.ground.errors import TutorialError
from helpers.inputs import data, settings, sources
from helpers.inputs.sources import Obtained

ROWS = [{"instruction": f"Add 1 and {n}.", "output": f"That is {n + 1}"} for n in range(100)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("math10k", "math10k"),
        ("generated", "generated"),
        ("owner/A-data.set_2", "owner/A-data.set_2"),
        ("mine.json", None),
        ("data.csv/none", None),  # no owner is called so
        ("owner/rows.parquet", None),  # a file's name
        ("tests/no-such-folder", None),  # a folder that is here
        ("./owner/set", None),
        ("/owner/set", None),
        ("~/owner/set", None),
        ("a/b/c", None),
        ("no-such-file", None),
        ("helpers/inputs", None),
    ],
)
def test_a_path_is_never_taken_for_an_id(text: str, named: str | None) -> None:
    found = sources.named(text)
    if named is None:
        assert Path(found).is_absolute()
        assert not sources.from_hub(found)
    else:
        assert found == named
        assert sources.from_hub(found) == (found != "generated")


@pytest.mark.parametrize("text", ["no-such-file", "tests/no-such-folder", "/no/such/file.json"])
def test_a_path_that_does_not_exist_says_so(runs: Path, text: str) -> None:
    chosen = settings.resolve("smoke", run="test", data=text)
    with pytest.raises(TutorialError, match="There is no file or folder") as caught:
        data.prepare(chosen, say=lambda line: None)
    assert Path(text).name in caught.value.message


def test_it_says_so_before_a_model_is_fetched(runs: Path) -> None:
    tutorial = Tutorial("smoke", run="test", data="no-such-file")
    for act in (tutorial.obtain, lambda: tutorial.run_notebooks({})):
        with pytest.raises(TutorialError, match="There is no file or folder"):
            act()
    assert not paths.MODELS.exists()
    assert not runs.exists()


def obtained(folder: Path, said: list[str]) -> Obtained:
    return sources.obtain(str(folder), paths.RunFolder("test"), said.append)


def more(word: str) -> str:
    """Return as many rows again, none of them among `ROWS`."""
    return "".join(json.dumps(row | {"input": word}) + "\n" for row in ROWS)


def filled(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(LINES)
    return folder


def test_a_folder_of_files_is_read_as_one(runs: Path, tmp_path: Path) -> None:
    said: list[str] = []
    folder = filled(tmp_path / "sums", "a.jsonl", "b/c.jsonl", ".hidden.jsonl", "dataset_info.json")
    found = obtained(folder, said)
    assert (found.source, found.name) == ("folder", "sums")
    assert [file.name for file in found.files] == ["a.jsonl", "c.jsonl"]
    assert "these are not: dataset_info.json" in said[0]
    (folder / "b" / "c.jsonl").write_text(more("again"))
    chosen = settings.resolve("smoke", run="test", data=str(folder), train=180, evaluate=20)
    facts = data.prepare(chosen, said.append)
    assert (facts.files, facts.source_rows, facts.leaked) == (2, 200, 0)


def test_a_row_of_a_folder_is_named_by_its_file(runs: Path, tmp_path: Path) -> None:
    folder = filled(tmp_path / "sums", "a.jsonl")
    (folder / "b.jsonl").write_text('{"instruction": " ", "output": "5"}\n' + more("again"))
    chosen = settings.resolve("smoke", run="test", data=str(folder), train=180, evaluate=20)
    found = data.prepare(chosen, say=lambda line: None).unusable
    assert [each.words() for each in found] == [
        f"row 1 of {folder}/b.jsonl (math_train): empty instruction"
    ]


def test_of_a_set_that_is_split_already_the_training_part_is_read(
    runs: Path, tmp_path: Path
) -> None:
    said: list[str] = []
    folder = filled(tmp_path, "data/train-0.jsonl", "data/test-0.jsonl", "README.md")
    assert [file.name for file in obtained(folder, said).files] == ["train-0.jsonl"]
    assert "README.md, data/test-0.jsonl" in said[0]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["a.json", "b.csv", "c.csv"], r"several kinds \(1 JSON, 2 CSV\)"),
        (["README.md"], "holds no file of rows"),
        ([], "holds no file of rows"),
    ],
)
def test_a_folder_that_cannot_be_read_as_one(
    runs: Path, tmp_path: Path, names: list[str], words: str
) -> None:
    (tmp_path / "mine").mkdir()
    with pytest.raises(TutorialError, match=words):
        obtained(filled(tmp_path / "mine", *names), [])


def test_a_folder_that_may_not_be_read(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(TutorialError, match="may not be read by this user"):
        obtained(tmp_path, [])


def use(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", endpoint)
    monkeypatch.setenv("MODELSCOPE_CACHE", str(paths.MODELS / "cache"))
    monkeypatch.setenv("MODELSCOPE_DOWNLOAD_MAX_RETRIES", "0")  # they wait for seconds
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def test_a_set_of_modelscopes_is_fetched_once_and_whole(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = settings.resolve("smoke", run="test", data="somebody/Sums", train=90, evaluate=10)
    files = {"data/train.jsonl": LINES.encode(), "data/test.jsonl": b"{}", "code.py": b"pass"}
    with serving(files, cut=True) as endpoint:
        use(endpoint, monkeypatch)
        with pytest.raises(TutorialError, match="no file or folder somebody/Sums here") as caught:
            data.prepare(chosen, say=lambda line: None)
        assert "\n" not in caught.value.message
    with serving(files) as endpoint:
        use(endpoint, monkeypatch)
        facts = data.prepare(chosen, say=lambda line: None)
    assert (facts.source, facts.name, facts.source_rows) == ("modelscope", "somebody/Sums", 100)
    folder = paths.MODELS / "datasets" / "somebody" / "Sums"
    assert not (folder / "code.py").exists()
    assert data.prepare(chosen, say=lambda line: None) == facts  # and no server is needed now
    (folder / "data" / "train.jsonl").write_text("{half")
    with pytest.raises(
        TutorialError, match="what was fetched is damaged: move it away and run this"
    ):
        data.prepare(chosen, say=lambda line: None)
