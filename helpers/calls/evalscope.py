"""evalscope as a second judge: it puts problems to a served model and scores the answers itself.

It lives in a `.venv-evalscope` of its own (`make evalscope` sets it up), needs no torch, and speaks
to the model over HTTP as to any OpenAI-compatible server.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from helpers.calls import serving
from helpers.ground import paths
from helpers.ground.errors import TutorialError
from helpers.ground.files import read_yaml, sha256_file, write_bytes
from helpers.ground.words import tr
from helpers.inputs import conversations, data
from helpers.inputs.answers import final_answer
from helpers.inputs.settings import Settings
from helpers.programs import process, steps
from helpers.programs.making import Making
from helpers.records import store
from helpers.records.schema import Benchmark, Score

PROGRAM = paths.ROOT / ".venv-evalscope" / "bin" / "evalscope"
LOCK = paths.ROOT / "requirements-evalscope.lock"
LIMIT = 20
AUTO: Final = "auto"
HELD_OUT: Final = "held_out"
GSM8K: Final = "gsm8k"
_GSM8K_ON_MODELSCOPE = "AI-ModelScope/gsm8k"
_GSM8K_TOKENS = 512
_NUMBER = re.compile(r"-?\d[\d,]*\.?\d*")


class _Metric(BaseModel):
    num: int
    score: float


class _Report(BaseModel):
    """The part of evalscope's report that is read."""

    metrics: list[_Metric]


@dataclass(frozen=True)
class Problems:
    """Problems in GSM8K's form, in a folder that evalscope reads."""

    benchmark: Benchmark
    folder: Path
    available: int
    arguments: dict[str, Any]  # evalscope's, for its gsm8k benchmark
    most_tokens: int


def _check_installed() -> None:
    if not PROGRAM.is_file():
        raise TutorialError(tr("evalscope is not set up: run 'make evalscope' in the repository."))


def _jsonl(rows: Sequence[dict[str, str]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def numeric(example: dict[str, str]) -> bool:
    """Return whether a held-out problem asks for a number: evalscope's gsm8k compares nothing else.

    Math10K has letters as answers too.
    """
    return bool(_NUMBER.fullmatch(final_answer(example["output"])))


def held_out(settings: Settings) -> Problems:
    """Write the run's held-out problems that ask for a number, in GSM8K's form.

    They are put as in training: the problem and nothing else, no examples before it.

    Raises:
        TutorialError: 02_data has not prepared them, or none of them asks for a number.
    """
    run = settings.run
    scored, examples = data.facts_of(run).scored, data.load(run.data, data.EVAL)
    # One that has a system text, earlier turns or tools cannot be put as it was in training.
    alone = scored and not any(row.keys() & set(conversations.MORE) for row in examples)
    rows = [
        {
            "question": "\n".join(part for part in (row["instruction"], row["input"]) if part),
            "answer": row["output"],
        }
        for row in examples
        if alone and numeric(row)
    ]
    if not rows:
        raise TutorialError(
            tr(
                "No held-out problem of run {run!r} is a question by itself with a number for its "
                "answer, and evalscope compares nothing else: set BENCHMARK=gsm8k.",
                run=run.name,
            )
        )
    folder = run.root / "evalscope" / HELD_OUT
    write_bytes(folder / "test.jsonl", _jsonl(rows))
    most_tokens = int(serving.recipe_of("base", settings)["max_new_tokens"])
    arguments = {"few_shot_num": 0, "prompt_template": "{question}"}
    return Problems(HELD_OUT, folder, len(rows), arguments, most_tokens)


def gsm8k(settings: Settings) -> Problems:
    """Bring GSM8K to this machine, for evalscope's own prompt and its four examples.

    Raises:
        TutorialError: ModelScope could not be reached, or a file is not what it should be.
    """
    run = settings.run
    source = paths.MODELS / "GSM8K"
    done = source / ".complete"
    if not done.is_file():
        process.run(
            [
                str(Path(sys.executable).with_name("modelscope")),
                *("download", _GSM8K_ON_MODELSCOPE, "--repo-type", "dataset"),
                *("--local-dir", str(source), "--include", "main/*.parquet"),
            ],
            run.logs / "gsm8k.log",
        )
    import pyarrow.parquet as pq

    folder = run.root / "evalscope" / GSM8K
    available = 0
    for split in ("train", "test"):
        files = sorted((source / "main").glob(f"{split}-*.parquet"))
        if not files:
            raise TutorialError(
                tr(
                    "{folder} holds no {files}: GSM8K has moved; set BENCHMARK=held_out.",
                    folder=paths.shown(source),
                    files=f"main/{split}-*.parquet",
                )
            )
        rows = [row for file in files for row in pq.read_table(file).to_pylist()]
        write_bytes(folder / f"{split}.jsonl", _jsonl(rows))
        available = len(rows)
    write_bytes(done, b"")
    return Problems(GSM8K, folder, available, {}, _GSM8K_TOKENS)


def problems(benchmark: str, settings: Settings, say: Callable[[str], None] = print) -> Problems:
    """Return the problems to put: GSM8K, the held-out ones, or whichever can be had.

    Args:
        benchmark: gsm8k, held_out, or auto: GSM8K, and the held-out problems of the run where
            ModelScope cannot be reached.
        settings: the run's settings.
        say: takes the line that tells so.

    Raises:
        TutorialError: there is no such benchmark, or it cannot be had.
    """
    if benchmark == HELD_OUT:
        return held_out(settings)
    if benchmark not in (GSM8K, AUTO):
        raise TutorialError(
            tr(
                "There is no benchmark {benchmark!r}: choose {auto}, {gsm8k} or {held_out}.",
                benchmark=benchmark,
                auto=AUTO,
                gsm8k=GSM8K,
                held_out=HELD_OUT,
            )
        )
    try:
        return gsm8k(settings)
    except TutorialError as error:
        if benchmark == GSM8K or error.fault != "no network":
            raise
        say(
            tr(
                "ModelScope could not be reached, so the run's held-out problems take GSM8K's "
                "place."
            )
        )
        return held_out(settings)


def put(
    server: serving.Server, asked: Problems, limit: int, settings: Settings, making: Making
) -> Score:
    """Have evalscope put the first problems to a served model, and return its score.

    Args:
        server: the model.
        asked: the problems.
        limit: how many of them.
        settings: the run's settings.
        making: the place of the step; evalscope's own reports change places with its outcome.

    Raises:
        TutorialError: evalscope is missing or failed, or its report cannot be read.
    """
    _check_installed()
    run = settings.run
    name = f"{server.name}_{asked.benchmark}"
    out = making.place(run.root / "evalscope" / name)
    arguments = {"local_path": str(asked.folder), "subset_list": ["default"], **asked.arguments}
    env = process.environment("cpu", run.cache) | {
        "EVALSCOPE_CACHE": str(run.cache / "evalscope"),
        "NO_PROXY": serving.HOST,
        "no_proxy": serving.HOST,
    }
    log = run.logs / f"{name}_evalscope.log"
    n = min(limit, asked.available)
    seconds = process.run(
        [
            str(PROGRAM), "eval", "--eval-type", "openai_api",
            "--model", server.name, "--api-url", server.address, "--api-key", "EMPTY",
            "--datasets", "gsm8k", "--dataset-args", json.dumps({"gsm8k": arguments}),
            "--generation-config",
            json.dumps({"temperature": 0, "max_tokens": asked.most_tokens}),
            "--limit", str(n), "--eval-batch-size", "1",
            "--work-dir", str(out), "--no-timestamp",
        ],
        log,
        env=env,
    )  # fmt: skip
    metric = _read(out / "reports" / server.name / "gsm8k.json", n, log)
    version = str(read_yaml(out / "configs" / "task_config.yaml")["evalscope_version"])
    return Score(
        subject=server.name,
        benchmark=asked.benchmark,
        n=n,
        share=metric.score,
        seconds=round(seconds, 2),
        evalscope=version,
        ours=_ours(server.name, n, settings) if asked.benchmark == HELD_OUT else None,
    )


def _read(report: Path, n: int, log: Path) -> _Metric:
    """Return the accuracy of a report, once it is known to be of all problems that were put."""
    try:
        metric = _Report.model_validate_json(report.read_text("utf-8")).metrics[0]
    except (OSError, ValidationError, IndexError) as error:
        raise TutorialError(
            tr(
                "evalscope left no report that can be read: remove .venv-evalscope and run "
                "'make evalscope' again."
            ),
            log=log,
            tail=process.tail(log),
        ) from error
    if metric.num != n:
        raise TutorialError(
            tr(
                "evalscope scored {scored} of {n} problems: its log says why it left the others "
                "out; correct the cause and run this again.",
                scored=metric.num,
                n=n,
            ),
            log=log,
            tail=process.tail(log),
        )
    return metric


def _ours(subject: str, n: int, settings: Settings) -> int | None:
    """Return how many of the same problems the subject's record counts as right.

    The count without the demand for "####" is taken: evalscope makes none either.
    """
    items = store.read(settings.run, settings.subject(subject)).answers.items
    same = [item for item in items if _NUMBER.fullmatch(item.expected)][:n]
    return sum(item.correct_without_mark for item in same) if len(same) == n else None


def evaluate(
    subjects: Sequence[str],
    settings: Settings,
    benchmark: str = AUTO,
    limit: int = LIMIT,
    say: Callable[[str], None] = print,
) -> list[Score]:
    """Serve models one after the other and have evalscope score each, unless that was done before.

    Args:
        subjects: names of the run's subjects.
        settings: the run's settings.
        benchmark: gsm8k, held_out or auto, see `problems`.
        limit: how many problems, from the first.
        say: takes the lines that tell what happens.

    Raises:
        TutorialError: evalscope is not set up, a subject has not been made, or a step failed.
    """
    _check_installed()
    for subject in subjects:
        settings.subject(subject)
    run = settings.run
    identities = {subject: serving.identity(subject, settings) for subject in subjects}
    asked = problems(benchmark, settings, say)
    scores = []
    for subject, identity in identities.items():
        name = f"{subject}_{asked.benchmark}"
        file = run.root / "evalscope" / f"{name}.json"
        inputs = identity | {
            "problems": sha256_file(asked.folder / "test.jsonl"),
            "arguments": asked.arguments,
            "most_tokens": asked.most_tokens,
            "limit": limit,
            "evalscope": sha256_file(LOCK),
        }

        def action(making: Making, subject: str = subject, file: Path = file) -> None:
            say(
                tr(
                    "Serving {subject}; evalscope puts {n} problems to it.",
                    subject=subject,
                    n=min(limit, asked.available),
                )
            )
            with serving.serving(subject, settings) as server:
                score = put(server, asked, limit, settings, making)
            write_bytes(making.place(file), score.model_dump_json(indent=1).encode())

        steps.done_once(run, f"{name}_evalscope", inputs, file, action, say)
        scores.append(Score.model_validate_json(file.read_text("utf-8")))
    return scores


def read(settings: Settings) -> list[Score]:
    """Return the scores of a run's subjects that lie in its folder, in the comparison's order."""
    files = sorted((settings.run.root / "evalscope").glob("*.json"))
    found = [Score.model_validate_json(file.read_text("utf-8")) for file in files]
    order = list(settings.subjects)
    known = [score for score in found if score.subject in order]
    return sorted(known, key=lambda score: (score.benchmark, order.index(score.subject)))
