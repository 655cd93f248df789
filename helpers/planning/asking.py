"""Questions that are answered in a process of its own, because answering them loads torch."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from helpers.programs import process


def ask(program: str, questions: Sequence[BaseModel], log: Path) -> list[Any]:
    """Answer questions in one process, about 12 s of which go into importing the libraries.

    Args:
        program: a module of helpers/planning that takes a file of questions and one for answers.
        questions: of the kind that it answers.
        log: takes what it prints.

    Raises:
        TutorialError: one cannot be answered; the log says why.
    """
    # One thread: nothing is computed, and a trace is Python code.
    env = process.environment("cpu") | {"OMP_NUM_THREADS": "1"}
    return run(program, [each.model_dump() for each in questions], [], log, env)


def run(
    program: str, asked: Any, arguments: Sequence[str], log: Path, env: Mapping[str, str]
) -> Any:
    """Run a module of helpers/planning on a JSON, and return the JSON that it answers with.

    Args:
        program: its name.
        asked: what goes into the file of its first argument.
        arguments: those after it; the file for the answer is the last one.
        log: takes what it prints.
        env: its environment.
    """
    with tempfile.TemporaryDirectory() as folder:
        questions, answers = Path(folder) / "questions.json", Path(folder) / "answers.json"
        questions.write_text(json.dumps(asked))
        command = [sys.executable, "-m", f"helpers.planning.{program}", str(questions), *arguments,
                   str(answers)]  # fmt: skip
        process.run(command, log, env=env)
        return json.loads(answers.read_text())
