"""Messages, in LLaMA-Factory's terms: whose turn is whose, calls of functions, and tools.

ShareGPT's names are taken (from, value; human, gpt, function_call, observation, system) and
OpenAI's (role, content; user, assistant with or without `tool_calls`, tool, system). Where no tool
speaks, a conversation is an Alpaca row with a history; else it goes to LLaMA-Factory in ShareGPT's
form, OpenAI's turned into it as LLaMA-Factory's own converter does. That converter also writes
"detailed thinking off" into the system text of every row, which is for one family of models: it is
not asked to.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Literal

from helpers.inputs.values import Fault, text_of

_SPEAKERS = {
    "system": "system", "human": "user", "user": "user", "gpt": "assistant",
    "assistant": "assistant", "function_call": "function_call", "observation": "observation",
    "tool": "observation",
}  # fmt: skip
# Who may speak at even places, counted from 0 without the system's text, and who at odd ones: a
# person or a tool, then the model. The second of each is what a tool turn is.
_SIDES = (("user", "observation"), ("assistant", "function_call"))
_SHAREGPT = (("human", "observation"), ("gpt", "function_call"))
# What LLaMA-Factory's converter puts between the results of calls that were made at once.
_NEXT_RESULT = "\n</tool_response>\n<tool_response>\n"
# What a call may stand in, or follow: the words that most of LLaMA-Factory's templates know.
_TAGGED = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)
_THOUGHT = re.compile(r"<think>\n.*?\n</think>\n\n", re.DOTALL)

_COLUMN = "messages"


def turns(value: Any) -> dict[str, Any] | Fault:
    """Return messages in the terms of a row: the last question and answer, and what was before.

    Args:
        value: what stands in the column.

    Returns:
        The fields of helpers/inputs/rows.py's Row that it gives, or why it is none.
    """
    if value is None:
        return Fault(code="missing", column=_COLUMN)
    if not isinstance(value, list):
        kind = "text" if isinstance(value, str) else type(value).__name__
        return Fault(code="kind", column=_COLUMN, detail=kind)
    system, before = "", ""
    texts: list[str] = []
    of_tools: list[int] = []
    for number, turn in enumerate(value, 1):
        if not isinstance(turn, dict):
            return Fault(code="kind", column=_COLUMN, detail=type(turn).__name__)
        said, speaker, text = _turn(turn)
        if isinstance(text, Fault):
            return text
        if speaker == "system" and number == 1:
            system = text
            continue
        if said == before == "tool":
            texts[-1] += _NEXT_RESULT + text
            continue
        side = _SIDES[len(texts) % 2]
        if speaker not in side:
            return Fault(code="turns", column=_COLUMN, detail=str(number))
        if speaker == "function_call" and not _is_call(text):
            return Fault(code="call", column=_COLUMN, detail=str(number))
        if speaker == side[1]:
            of_tools.append(len(texts))
        texts.append(text)
        before = said
    if not texts or len(texts) % 2:
        return Fault(code="turns", column=_COLUMN, detail=str(len(value) + 1))
    pairs = [texts[at : at + 2] for at in range(0, len(texts), 2)]
    question, answer = pairs.pop()
    return {
        "instruction": question,
        "output": answer,
        "system": system,
        "history": pairs,
        "of_tools": of_tools,
    }


def _turn(turn: Mapping[str, Any]) -> tuple[str, str | None, str | Fault]:
    """Return who speaks by the file's own word, by ours, and what; None: nobody that is known."""
    said = turn.get("role") or turn.get("from")
    said = said if isinstance(said, str) else ""
    speaker = _SPEAKERS.get(said)
    calls = turn.get("tool_calls")
    if speaker == "assistant" and isinstance(calls, list) and calls:
        functions = [call.get("function") if isinstance(call, dict) else None for call in calls]
        return said, "function_call", text_of(_json(functions), _COLUMN) or ""
    text = text_of(turn.get("content", turn.get("value")), _COLUMN, numbers=False)
    return said, speaker, text or ""


def _is_call(text: str) -> bool:
    """Return whether LLaMA-Factory's templates can put a text as one call of a function, or more.

    They fail on any other, and the whole training with them.
    """
    tagged = _TAGGED.search(text)
    calls = _parsed(tagged[1] if tagged else _THOUGHT.sub("", text, count=1))
    calls = calls if isinstance(calls, list) else [calls]
    return bool(calls) and all(
        isinstance(call, dict) and isinstance(call.get("name"), str) and "arguments" in call
        for call in calls
    )


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


def _parsed(text: str | bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


# ---- tools --------------------------------------------------------------------------------------


def tools(value: Any) -> str | Fault:
    """Return the tools of a row as LLaMA-Factory takes them, a JSON list; "" where there are none.

    They are what the file has, to the letter, unless one has no parameters with properties, as a
    tool that takes nothing: these are added, empty, for LLaMA-Factory's own tool format fails
    without.

    Args:
        value: what stands in the column: a list, or one written as JSON.
    """
    given = value
    if isinstance(value, str | bytes):
        text = text_of(value, "tools", numbers=False)
        if isinstance(text, Fault):
            return text
        given = _parsed(value) if value.strip() else []
        if given is None:
            return Fault(code="tools", column="tools")
    if given is None or given == []:
        return ""
    whole = [_whole(tool) for tool in given] if isinstance(given, list) else [None]
    if None in whole:
        return Fault(code="tools", column="tools")
    as_it_is = value if isinstance(value, str) and whole == given else _json(whole)
    return text_of(as_it_is, "tools", numbers=False) or ""


def _whole(tool: Any) -> dict[str, Any] | None:
    """Return a tool with its parameters, or None where it is none."""
    if not isinstance(tool, dict):
        return None
    wrapped = tool.get("type") == "function"
    inner = tool.get("function") if wrapped else tool
    if not isinstance(inner, dict) or not isinstance(inner.get("name"), str):
        return None
    parameters = inner.get("parameters") or {"type": "object"}
    properties = (parameters.get("properties") or {}) if isinstance(parameters, dict) else None
    if not isinstance(properties, dict):
        return None
    # Parquet gives each tool the properties of all others, without a value.
    taken = {name: facts for name, facts in properties.items() if facts is not None}
    if not all(isinstance(facts, dict) for facts in taken.values()):
        return None
    full = inner | {"parameters": parameters | {"properties": taken}}
    return tool | {"function": full} if wrapped else full


# ---- what LLaMA-Factory is given ----------------------------------------------------------------


def sharegpt(texts: list[str], of_tools: list[int]) -> list[dict[str, str]]:
    """Return turns in ShareGPT's form.

    Args:
        texts: what was said, in turn, the system's text left out.
        of_tools: the places, from 0, at which a tool is called or answers.
    """
    return [
        {"from": _SHAREGPT[place % 2][place in of_tools], "value": text}
        for place, text in enumerate(texts)
    ]


def as_alpaca(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of a set in ShareGPT's form as readers see it: what was asked, and the answer.

    What was asked begins with the last turn of a person: after it come a tool's, if any.
    """
    said = row["conversations"]
    asked = [place for place, turn in enumerate(said) if turn["from"] == "human"]
    start = asked[-1] if asked else 0
    texts = [turn["value"] for turn in said]
    history = [texts[at : at + 2] for at in range(0, start, 2)]
    more = {name: row[name] for name in ("system", "tools") if row.get(name)}
    problem = {"instruction": "\n".join(texts[start:-1]), "input": "", "output": texts[-1]}
    return problem | more | ({"history": history} if history else {})


Formatting = Literal["alpaca", "sharegpt"]
_REGISTERED: dict[Formatting, dict[str, str]] = {
    "alpaca": {"prompt": "instruction", "query": "input", "response": "output"},
    "sharegpt": {"messages": "conversations"},
}
MORE = ("history", "system", "tools")  # columns that a set has where one of its rows has them


def registered(file: str, formatting: Formatting, more: set[str]) -> dict[str, Any]:
    """Return a set's entry in dataset_info.json.

    Args:
        file: the file's name.
        formatting: which form its rows have.
        more: those of MORE that it has.
    """
    columns = _REGISTERED[formatting] | {name: name for name in sorted(more)}
    entry: dict[str, Any] = {"file_name": file, "columns": columns}
    return entry if formatting == "alpaca" else entry | {"formatting": formatting}
