"""Known faults: the text that shows each, and the sentence that helps; faults.toml lists them.

`python -m helpers.programs.faults LOG` explains a log where there are no packages yet.
"""

from __future__ import annotations

import re
import signal
import sys
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from helpers.ground.words import tr

TABLE = Path(__file__).with_name("faults.toml")


@dataclass(frozen=True)
class Fault:
    """One fault: `pattern` finds it in a log, `sentence` says cause and remedy, in English.

    The sentence may use the pattern's named groups.
    """

    name: str
    pattern: re.Pattern[str]
    sentence: str


@cache
def known() -> tuple[Fault, ...]:
    """Return the known faults, causes before what they lead to."""
    faults = []
    for entry in tomllib.loads(TABLE.read_text("utf-8"))["faults"]:
        patterns = entry["pattern"]
        pattern = patterns if isinstance(patterns, str) else "|".join(patterns)
        faults.append(Fault(entry["name"], re.compile(pattern, re.MULTILINE), entry["sentence"]))
    return tuple(faults)


@dataclass(frozen=True)
class Recognised:
    """A known fault that a text shows: its name, which is its code, and its sentence."""

    name: str
    sentence: str


def _of_first_failure(text: str) -> str:
    """Return a log as one process has it: of several cards', without those that failed in turn."""
    first = re.search(r"^Root Cause[\s\S]*?^ *rank +: (\d+)", text, re.MULTILINE)
    if first:
        text = re.sub(rf"^\[rank(?!{first[1]}\])\d+\]: .*\n", "", text, flags=re.MULTILINE)
    return re.sub(r"^\[rank\d+\]: ", "", text, flags=re.MULTILINE)


def recognise(text: str) -> Recognised | None:
    """Return the first known fault that `text` shows, or None."""
    text = _of_first_failure(text)
    for fault in known():
        match = fault.pattern.search(text)
        if match:
            return Recognised(fault.name, tr(fault.sentence, **match.groupdict()))
    return None


def sentence(name: str, **groups: str) -> str:
    """Return the sentence of a known fault.

    Args:
        name: its name in faults.toml.
        groups: what its pattern would have found, by the groups' names.

    Raises:
        KeyError: there is no such fault.
    """
    by_name = {fault.name: fault for fault in known()}
    fault = by_name[name]
    return tr(fault.sentence, **groups)


# By these, whoever has started a process says that it failed, and nothing of why.
_PASSED_ON = ("ChildFailedError", "CalledProcessError")
_CPU_FALLBACK = re.compile(
    r"The operator '([^']+)' is not currently supported on the NPU backend and will fall back"
)


def cpu_fallbacks(text: str) -> list[str]:
    """Return the operators that torch_npu says it runs on the CPU instead, each once.

    Such a run goes well, but slowly: a warning, not a fault.
    """
    return list(dict.fromkeys(_CPU_FALLBACK.findall(text)))


def explain(text: str, name: str, code: int) -> str:
    """Return one sentence on why a program failed.

    Args:
        text: what it printed.
        name: the program, as readers know it.
        code: its exit code; negative is the signal that ended it.
    """
    seen = recognise(text)
    if seen:
        return seen.sentence
    if code == -signal.SIGKILL:
        return tr(
            "{program} was killed from outside, most often because the machine ran out of memory: "
            "choose a smaller model or batch, or close other programs, and run this again.",
            program=name,
        )
    if code < 0:
        return tr(
            "{program} was ended by {signal}: run this again to go on.",
            program=name,
            signal=signal.Signals(-code).name,
        )
    text = _of_first_failure(text)
    errors = [
        found
        for found in re.findall(r"^(?:\w+\.)*(\w*(?:Error|Exception)): (.+)$", text, re.MULTILINE)
        if found[0] not in _PASSED_ON
    ]
    if errors:
        kind, said = errors[-1]
        return tr(
            "{program} failed ({error}): its log says more; correct the cause and run this again.",
            program=name,
            error=f"{kind}: {said.strip().rstrip('.')}",
        )
    return tr(
        "{program} failed (exit code {code}): its log says more; correct the cause and run this "
        "again.",
        program=name,
        code=code,
    )


if __name__ == "__main__":  # the Makefile asks, while there are no packages yet
    printed = Path(sys.argv[1]).read_text("utf-8", "replace")
    name = tr("The set-up")
    print(f"\n{explain(printed, name, 1)}")
