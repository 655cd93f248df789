"""Conversations with tools: what is taken, and that LLaMA-Factory is given what it would take."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from helpers.ground.errors import TutorialError
from helpers.inputs import answers, conversations, data, data_tables, rows, settings
from helpers.inputs.readers import Source
from helpers.inputs.rows import Row
from helpers.inputs.values import Fault
from helpers.worker import short_training

TAKEN = {"type": "object", "properties": {"city": {"type": "string"}}}
WEATHER = {"name": "weather", "description": "Of a city.", "parameters": TAKEN}
CALL = json.dumps({"name": "weather", "arguments": {"city": "Paris"}})
LAYOUT = rows.layout(
    [Source(Path("/a.json"), "json", ("messages", "tools", "answer"), 1, False)], {}
)


def sharegpt(*turns: tuple[str, Any]) -> list[dict[str, Any]]:
    return [{"from": speaker, "value": text} for speaker, text in turns]


def row_of(messages: list[dict[str, Any]], **more: Any) -> Row | Fault:
    return rows.row_of({"messages": messages, **more}, LAYOUT)


def good(messages: list[dict[str, Any]], **more: Any) -> Row:
    found = row_of(messages, **more)
    assert isinstance(found, Row), found
    return found


ASKED = ("human", "Warm in Paris?")
ANSWERED = sharegpt(ASKED, ("function_call", CALL), ("observation", '{"c": 30}'), ("gpt", "Yes."))


def test_calls_and_what_comes_of_them_keep_their_places() -> None:
    row = good([*sharegpt(("system", "Be brief.")), *ANSWERED])
    assert row == Row('{"c": 30}', "", "Yes.", system="Be brief.",
                      history=[["Warm in Paris?", CALL]], of_tools=[1, 2])  # fmt: skip
    assert Row.unpacked(row.packed()) == row
    assert row.example("Yes.", "sharegpt") == {"conversations": ANSWERED, "system": "Be brief."}
    assert not row.ends_in_call
    assert good(ANSWERED[:2]).ends_in_call


def test_openais_calls_and_results_are_those_of_sharegpt() -> None:
    function = {"name": "weather", "arguments": '{"city": "Paris"}'}
    calls = [{"id": "1", "type": "function", "function": function}] * 2
    row = good([
        {"role": "user", "content": "Warm in Paris?"},
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "content": "30"},
        {"role": "tool", "content": "31"},
        {"role": "assistant", "content": "Yes.", "tool_calls": None},
    ])  # fmt: skip
    assert row.instruction == "30\n</tool_response>\n<tool_response>\n31"
    assert json.loads(row.history[0][1]) == [function, function]
    assert row.of_tools == [1, 2]


@pytest.mark.parametrize(
    ("messages", "code", "detail"),
    [
        (sharegpt(ASKED, ("function_call", "weather(Paris)"), ("observation", "30")), "call", "2"),
        (sharegpt(ASKED, ("function_call", '{"name": "weather"}')), "call", "2"),
        (sharegpt(ASKED, ("function_call", "[]")), "call", "2"),
        (sharegpt(ASKED, ("observation", "30")), "turns", "2"),
        (sharegpt(ASKED, ("function_call", CALL), ("gpt", "Yes.")), "turns", "3"),
        (ANSWERED[:3], "turns", "4"),
        # one result a call in ShareGPT's form, as LLaMA-Factory has it
        ([*ANSWERED[:3], *ANSWERED[2:]], "turns", "4"),
        (sharegpt(ASKED, ("function_call", {"name": "weather"})), "kind", "dict"),
        ([{"role": "user", "content": "a"}, {"role": "assistant", "tool_calls": ["x"]}],
         "call", "2"),
    ],
)  # fmt: skip
def test_turns_that_llamafactory_would_drop_or_fail_on(
    messages: list[dict[str, Any]], code: str, detail: str
) -> None:
    found = row_of(messages)
    assert isinstance(found, Fault)
    assert (found.code, found.detail) == (code, detail)


@pytest.mark.parametrize(
    "call",
    [CALL, f"[{CALL}, {CALL}]", f"<think>\nParis.\n</think>\n\n{CALL}",
     f"I look.<tool_call>{CALL}</tool_call>"],
)  # fmt: skip
def test_a_call_as_templates_take_it(call: str) -> None:
    assert good(sharegpt(ASKED, ("function_call", call))).output == call


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        (None, ""), ("", ""), ("[]", ""), ([], ""),
        (f"[{json.dumps(WEATHER)}]", f"[{json.dumps(WEATHER)}]"),
        ([WEATHER], f"[{json.dumps(WEATHER)}]"),
        ([{"type": "function", "function": WEATHER}],
         json.dumps([{"type": "function", "function": WEATHER}])),
        # without properties LLaMA-Factory's own tool format fails
        ('[{"name": "now"}]',
         '[{"name": "now", "parameters": {"type": "object", "properties": {}}}]'),
    ],
)  # fmt: skip
def test_tools_are_a_json_list_to_the_letter(given: Any, taken: str) -> None:
    assert good(ANSWERED, tools=given).tools == taken


@pytest.mark.parametrize(
    "given",
    ["weather", '{"name": "weather"}', "[1]", "[{}]", {"name": "weather"}, 5,
     '[{"type": "function"}]', '[{"name": "a", "parameters": {"properties": {"b": 1}}}]'],
)  # fmt: skip
def test_tools_that_are_none(given: Any) -> None:
    found = row_of(ANSWERED, tools=given)
    assert isinstance(found, Fault)
    assert found.words() == "tools holds no JSON list of tools with their names"


def test_a_call_at_the_end_is_never_followed_by_an_answer() -> None:
    called = good(sharegpt(ASKED, ("function_call", CALL)), answer="30")
    assert answers.settled(called, "none") == (None, CALL)
    found = answers.settled(called, "column")
    assert isinstance(found, Fault)
    assert (
        found.words()
        == "messages end with a function call, which no answer to be scored can follow"
    )
    survey = answers.Survey()
    for number in range(100):  # a number in its arguments is none
        survey.see(good(sharegpt(ASKED, ("function_call", CALL.replace("Paris", str(number))))))
    assert survey.scoring() == "none"
    assert survey.with_tools == 100


# ---- a whole set --------------------------------------------------------------------------------


def openai(number: int) -> list[dict[str, Any]]:
    call = {"name": "weather", "arguments": {"city": f"Paris {number}"}}
    return [
        {"role": "user", "content": f"Warm in Paris {number}?"},
        {"role": "assistant", "content": "",
         "tool_calls": [{"type": "function", "function": call}]},
        {"role": "tool", "content": '{"c": 30}'},
        *([{"role": "tool", "content": '{"c": 31}'}] if number % 3 else []),
        {"role": "assistant", "content": "It is warm.", "tool_calls": []},
    ]  # fmt: skip


def share(number: int) -> list[dict[str, Any]]:
    asked = ("human", f"Warm in Paris {number}?")
    plain = sharegpt(asked, ("gpt", "I cannot know."))
    return [plain, [*sharegpt(asked), *ANSWERED[1:]], [*sharegpt(asked), ANSWERED[1]]][number % 3]


def written(folder: Path, form: str) -> Path:
    file = folder / f"{form}.jsonl"
    name, turns = ("messages", openai) if form == "openai" else ("conversations", share)
    tools: Any = [WEATHER] if form == "openai" else json.dumps([WEATHER])
    found = [{name: turns(n), "tools": tools} for n in range(100)]
    file.write_text("".join(json.dumps(row) + "\n" for row in found))
    return file


BY_LLAMAFACTORY = """
import json, sys
from datasets import load_dataset
from llamafactory.data import converter
from llamafactory.data.parser import DatasetAttr, get_dataset_list
from llamafactory.data.template import TEMPLATES
ours, theirs, form = sys.argv[1:]
def converted(rows, attr):
    found = [converter.DATASET_CONVERTERS[attr.formatting](attr, None)(row) for row in rows]
    return [[row["_prompt"], row["_response"], row["_tools"]] for row in found]
(attr,) = get_dataset_list(["math_train"], ours)
a = converted(load_dataset("json", data_files=f"{ours}/math_train.json", split="train"), attr)
given = DatasetAttr("file", "x", formatting=form, tools="tools")
if form == "openai":
    given.messages, given.role_tag, given.content_tag = "messages", "role", "content"
    given.user_tag, given.assistant_tag, given.observation_tag = "user", "assistant", "tool"
b = converted(map(json.loads, open(theirs)), given)
assert len(a) == 90, len(a)
for row in a:
    assert row in b, row
kinds = {turn["role"] for row in a for turn in row[0] + row[1]}
assert kinds == {"user", "assistant", "function", "observation"}, kinds
# The templates' own formatters take every call and every list of tools.
for name in ("default", "qwen"):
    for prompt, response, tools in a:
        TEMPLATES[name].format_tools.apply(content=tools)
        for turn in prompt + response:
            if turn["role"] == "function":
                TEMPLATES[name].format_function.apply(content=turn["content"])
"""


@pytest.mark.parametrize("form", ["openai", "sharegpt"])
def test_llamafactory_is_given_what_it_makes_of_the_file_itself(
    runs: Path, tmp_path: Path, form: str
) -> None:
    file = written(tmp_path, form)
    chosen = settings.resolve("smoke", run="test", data=str(file), train=90, evaluate=10)
    chosen.profile.data.curve = 5
    facts = data.prepare(chosen, say=lambda line: None)
    assert (facts.unusable, facts.scored) == ([], False)
    registered = json.loads(data.registration_file(chosen.run).read_text())
    assert set(registered) == {data.TRAIN, data.EVAL, data.CURVE}
    assert {entry["formatting"] for entry in registered.values()} == {"sharegpt"}
    subprocess.run(
        [sys.executable, "-c", BY_LLAMAFACTORY, str(chosen.run.data), str(file), form],
        check=True, env=os.environ | {"HF_HOME": str(tmp_path / "cache")},
    )  # fmt: skip
    # Readers see the question, with what tools said to it, and the answer.
    shown = data.load(chosen.run.data, data.EVAL)
    assert data.load(chosen.run.data, data.CURVE) == shown[:5]
    assert all(row["instruction"].startswith("Warm in Paris") for row in shown)
    assert {row["output"] for row in shown} <= {"It is warm.", "Yes.", "I cannot know.", CALL}
    assert all("tools" in row for row in shown)
    assert str(facts.with_tools) in data_tables.facts_table(facts).plain()
    assert facts.with_tools == (100 if form == "openai" else sum(n % 3 > 0 for n in range(100)))


def test_tools_of_a_file_that_are_none_are_refused_with_what_would_be_right(
    runs: Path, tmp_path: Path
) -> None:
    file = tmp_path / "a.jsonl"
    found = [{"instruction": f"{n}?", "output": "a", "tools": "hammer"} for n in range(100)]
    file.write_text("".join(json.dumps(row) + "\n" for row in found))
    asked = {"run": "test", "data": str(file), "train": 90, "evaluate": 10}
    with pytest.raises(TutorialError, match=r'leave that column out with COLUMNS="tools="'):
        data.prepare(settings.resolve("smoke", **asked), say=lambda line: None)
    chosen = settings.resolve("smoke", columns="tools=", **asked)
    assert data.prepare(chosen, say=lambda line: None).unusable == []


def test_readers_see_a_conversation_from_the_last_question_on() -> None:
    said = [*sharegpt(("human", "Hi"), ("gpt", "Hello")), *ANSWERED]
    assert conversations.as_alpaca({"conversations": said, "system": None}) == {
        "instruction": f'Warm in Paris?\n{CALL}\n{{"c": 30}}', "input": "", "output": "Yes.",
        "history": [["Hi", "Hello"]],
    }  # fmt: skip


def test_the_longest_conversation_counts_with_all_that_it_says() -> None:
    row = {"conversations": ANSWERED, "tools": "[]", "system": "Be brief."}
    assert short_training.whole_text(row).split("\n") == [
        "Be brief.", "[]", "Warm in Paris?", CALL, '{"c": 30}', "Yes.",
    ]  # fmt: skip
    plain = {"instruction": "a", "input": "", "output": "b"}
    assert short_training.whole_text(plain) == "a\nb"
    assert short_training.whole_text(plain | {"history": [["c", "d"]]}) == "c\nd\na\nb"
