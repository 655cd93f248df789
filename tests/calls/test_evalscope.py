"""evalscope: its own set-up, the problems it gets, and its report.

That it really scores a served model is in test_serving.py, where a server is up.
"""

from __future__ import annotations

import io
import json
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import Mock

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import make_answers
from modelscope_server import serving as modelscope
from test_setup import MAIN_LOCK, pins

from helpers.calls import evalscope, serving
from helpers.ground.errors import TutorialError
from helpers.ground.files import write_json
from helpers.inputs import data, settings
from helpers.records import schema, store

ROWS = [{"question": f"How much is {i} + 1?", "answer": f"It is.\n#### {i + 1}"} for i in range(5)]


def test_its_lock_agrees_with_the_main_one_and_needs_no_torch() -> None:
    main, own = pins(MAIN_LOCK), pins(evalscope.LOCK)
    assert "evalscope" in own
    assert not {name for name in own if name == "torch" or name.startswith("nvidia")}
    both = main.keys() & own.keys()
    assert len(both) > 50
    assert {name: own[name] for name in both} == {name: main[name] for name in both}


def test_its_lock_names_no_host_and_hashes_every_file() -> None:
    text = evalscope.LOCK.read_text()
    assert "://" not in text
    assert len(re.findall(r"^[a-z0-9._-]+==", text, re.MULTILINE)) == len(
        re.findall(r"^[a-z0-9._-]+==[^\n]*\\\n    --hash", text, re.MULTILINE)
    )


@pytest.fixture
def prepared(smoke: settings.Settings) -> settings.Settings:
    """A run with four held-out problems, of which one asks for a letter."""
    answers = ["7.0", "B", "-1,200", "0.5"]
    rows = [
        {"instruction": f"problem {i}", "input": "more" * (i == 0), "output": f"so\n#### {answer}"}
        for i, answer in enumerate(answers)
    ]
    write_json(smoke.run.data / f"{data.EVAL}.json", rows)
    facts = data.DataFacts(
        source="generated", source_rows=4, source_sha256="1", train=0, eval=4, train_sha256="2",
        eval_sha256="3", unusable=[],
    )  # fmt: skip
    write_json(smoke.run.data / "about.json", facts.model_dump())
    smoke.model.path.mkdir(parents=True)
    (smoke.model.path / "config.json").write_text('{"model_type": "qwen2"}')
    return smoke


def test_problems_that_ask_for_no_number_are_one_sentence(prepared: settings.Settings) -> None:
    row = {"instruction": "Why?", "input": "", "output": "Because it is so."}
    write_json(prepared.run.data / f"{data.EVAL}.json", [row])
    with pytest.raises(TutorialError, match="with a number for its answer"):
        evalscope.held_out(prepared)


def test_letters_are_left_out_and_the_problem_is_put_as_in_training(
    prepared: settings.Settings,
) -> None:
    asked = evalscope.held_out(prepared)
    rows = [json.loads(line) for line in (asked.folder / "test.jsonl").open()]
    assert [row["question"] for row in rows] == ["problem 0\nmore", "problem 2", "problem 3"]
    assert asked.available == 3
    assert asked.arguments == {"few_shot_num": 0, "prompt_template": "{question}"}
    assert asked.most_tokens == 16  # the smoke profile's


def parquet(rows: list[dict[str, str]]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), buffer)
    return buffer.getvalue()


def use(endpoint: str, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", endpoint)
    monkeypatch.setenv("MODELSCOPE_CACHE", str(cache))
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def test_gsm8k_comes_from_modelscope_and_stays(
    prepared: settings.Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {f"main/{split}-00000-of-00001.parquet": parquet(ROWS) for split in ("train", "test")}
    with modelscope(files | {"gsm8k.py": b"import os"}) as endpoint:
        use(endpoint, monkeypatch, tmp_path)
        asked = evalscope.problems("auto", prepared)
    assert (asked.benchmark, asked.available, asked.arguments) == ("gsm8k", 5, {})
    assert [json.loads(line) for line in (asked.folder / "train.jsonl").open()] == ROWS
    assert not list(tmp_path.rglob("gsm8k.py"))  # a script is not even fetched
    assert evalscope.problems("gsm8k", prepared) == asked  # and no server is needed now


def test_without_modelscope_the_held_out_problems_take_its_place_and_say_so(
    prepared: settings.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    # That modelscope's client fails with this sentence is in test_models.py: it takes its time.
    unreachable = TutorialError("Whatever is said of it.", fault="no network")
    damaged = TutorialError("A downloaded file is not the expected one", fault="wrong hash")
    monkeypatch.setattr(evalscope, "gsm8k", Mock(side_effect=[unreachable, unreachable, damaged]))
    said: list[str] = []
    assert evalscope.problems("auto", prepared, said.append).benchmark == "held_out"
    assert "held-out problems take GSM8K's place" in said[0]
    with pytest.raises(TutorialError, match="Whatever is said of it"):
        evalscope.problems("gsm8k", prepared)
    with pytest.raises(TutorialError, match="not the expected one"):
        evalscope.problems("auto", prepared)


def test_another_layout_of_gsm8k_is_one_sentence(
    prepared: settings.Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with modelscope({"main/train-00000-of-00001.parquet": parquet(ROWS)}) as endpoint:
        use(endpoint, monkeypatch, tmp_path)
        with pytest.raises(TutorialError, match=r"holds no main/test-\*"):
            evalscope.problems("auto", prepared)


STAND_IN = """#!{python}
import json, pathlib, sys
given = dict(zip(sys.argv[2::2], sys.argv[3::2]))
work = pathlib.Path(given["--work-dir"])
report = work / "reports" / given["--model"] / "gsm8k.json"
report.parent.mkdir(parents=True)
report.write_text({report!r} or json.dumps(
    {{"metrics": [{{"num": int(given["--limit"]) - {missing}, "score": 0.3333}}]}}))
(work / "configs").mkdir()
(work / "configs" / "task_config.yaml").write_text("evalscope_version: 9.9")
{after}
"""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that puts a stand-in in evalscope's place."""

    def put(report: str = "", missing: int = 0, after: str = "") -> None:
        program = tmp_path / "evalscope"
        code = STAND_IN.format(python=sys.executable, report=report, missing=missing, after=after)
        program.write_text(code)
        program.chmod(0o755)
        monkeypatch.setattr(evalscope, "PROGRAM", program)

    return put


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Models are only said to be served; the list tells which."""
    names: list[str] = []

    @contextmanager
    def pretend(subject: str, chosen: settings.Settings) -> Iterator[serving.Server]:
        names.append(subject)
        yield serving.Server(subject, 1, 1, chosen.run.logs / "none", 16)

    monkeypatch.setattr(serving, "serving", pretend)
    return names


def test_scores_are_kept_and_read(
    prepared: settings.Settings,
    stand_in: Callable[..., None],
    served: list[str],
    make_record: Callable[..., schema.Record],
) -> None:
    stand_in()
    for subject in ("base", "lora"):
        right = [subject == "lora", True, False, True]
        store.write(prepared.run, make_record(subject, answers=make_answers(right)))
    said: list[str] = []
    scores = evalscope.evaluate(["lora", "base"], prepared, "held_out", 20, said.append)
    assert served == ["lora", "base"]
    assert [(one.n, one.correct, one.ours, one.evalscope) for one in scores] == [
        (3, 1, 2, "9.9"),
        (3, 1, 1, "9.9"),
    ]
    found = evalscope.read(prepared)
    assert [one.subject for one in found] == ["base", "lora"]
    # Again: nothing is served. With another number of problems: all is.
    assert evalscope.evaluate(["lora", "base"], prepared, "held_out", 20, said.append) == scores
    assert len(served) == 2
    assert said[-1].startswith("Re-using base_held_out_evalscope")
    evalscope.evaluate(["base"], prepared, "held_out", 2, said.append)
    assert len(served) == 3


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"report": "{}"}, "no report that can be read"),
        ({"report": '{"metrics": []}'}, "no report that can be read"),
        ({"missing": 1}, "scored 2 of 3 problems"),
        ({"after": "sys.exit('APIConnectionError: no one there')"}, "APIConnectionError"),
    ],
)
def test_what_evalscope_gets_wrong_is_one_sentence_and_no_score(
    fault: dict[str, object],
    words: str,
    prepared: settings.Settings,
    stand_in: Callable[..., None],
    served: list[str],
    make_record: Callable[..., schema.Record],
) -> None:
    stand_in(**fault)
    store.write(prepared.run, make_record("base"))
    with pytest.raises(TutorialError, match=words):
        evalscope.evaluate(["base"], prepared, "held_out", say=lambda line: None)
    assert evalscope.read(prepared) == []


def test_what_cannot_be_asked_for_is_one_sentence(
    prepared: settings.Settings,
    stand_in: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(evalscope, "PROGRAM", tmp_path / "none")
    with pytest.raises(TutorialError, match="make evalscope"):
        evalscope.evaluate(["base"], prepared)
    stand_in()
    with pytest.raises(TutorialError, match="This run has no 'lorra': it has base, lora, qlora"):
        evalscope.evaluate(["lorra"], prepared)
    with pytest.raises(TutorialError, match="run the notebook 03_lora first"):
        evalscope.evaluate(["lora"], prepared)
    with pytest.raises(TutorialError, match="no benchmark 'mmlu'"):
        evalscope.problems("mmlu", prepared)
