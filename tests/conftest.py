"""Fixtures shared by the tests: a run folder of their own, small records to compare."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import pytest

from helpers.ground import paths
from helpers.inputs import data, models, settings
from helpers.inputs.subjects import Weights
from helpers.machine import hardware
from helpers.machine.memory import MemoryTrace
from helpers.records import schema, scoring

# In whatever language the developer is spoken to: tests read English, unless they say otherwise.
os.environ["LC_ALL"] = "C.UTF-8"
os.environ.pop("LANGUAGE", None)

SHARED_DATA = paths.ROOT.parent / "shared" / "data" / "math-real-3260.parquet"


# Whole runs and real trainings, for `make check`; `make test` does the others.
LONG = ("test_npu_run", "test_jupyterlab", "test_resume", "test_plans_are_true", "test_npusim",
        "test_attached", "test_merging", "test_callback", "test_inside", "test_serving",
        "test_ai_core",
        "test_book_pages", "test_whole_study", "test_on_ray", "test_several_cards")  # fmt: skip
# The longest first: begun last, one of them would keep one core busy while the other idles.
SLOW = (*LONG, "test_run", "test_fuzz")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is long, and put the slow files first; the others stay in order."""
    places = {name: place for place, name in enumerate(SLOW)}
    items.sort(key=lambda item: places.get(item.path.stem, len(SLOW)))
    for item in items:
        if item.path.stem in LONG:
            item.add_marker("long")


def forget_settings(patch: pytest.MonkeyPatch) -> None:
    """Take the settings that `make` passes on out of the environment."""
    for name in ("PROFILE", "MODEL", "RUN", "DATA", "OVERRIDES", "TUNED", "SEEDS", "METHODS",
                 "TRAIN", "EVAL", "COLUMNS", "CARDS", "SHARDED", "LANGUAGE"):  # fmt: skip
        patch.delenv(f"TUTORIAL_{name}", raising=False)


@contextmanager
def smoke_with_data(folder: Path) -> Iterator[settings.Settings]:
    """Give the smoke profile with its model and data, the runs lying in `folder`."""
    with pytest.MonkeyPatch.context() as patch:
        forget_settings(patch)
        patch.setattr(paths, "RUNS", folder)
        found = settings.resolve("smoke", run="test")
        models.obtain(found.model, found.run.logs / "model.log")
        data.prepare(found, say=lambda line: None)
        yield found


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put the runs and the models of a test into a folder of its own."""
    forget_settings(monkeypatch)
    monkeypatch.setattr(paths, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(paths, "MODELS", tmp_path / "models")
    return tmp_path / "runs"


@pytest.fixture
def smoke(runs: Path) -> settings.Settings:
    """The smoke profile, in a run folder of its own."""
    return settings.resolve("smoke", run="test")


@pytest.fixture
def real_rows() -> Path:
    """3,260 real rows of Math10K; skipped where they are not at hand."""
    if not SHARED_DATA.is_file():
        pytest.skip("real rows are not at hand: ../shared/data is not part of the project")
    return SHARED_DATA


ORIGIN = schema.Origin(
    machine=hardware.describe(), run="test", day=date(2026, 7, 29), environment={}
)
DIGEST = {"digest": "0123456789abcdef", "tensors": 2, "bytes": 64}


def make_answers(correct: list[bool], prefix: str = "") -> schema.Answers:
    """Return answers to len(correct) problems, right or wrong as told."""
    items = [
        scoring.score(f"problem {i}", "so it is\n#### 7.0", f"{prefix}\n#### {7 if right else 8}")
        for i, right in enumerate(correct)
    ]
    right = sum(correct)
    return schema.Answers(
        n=len(items), correct=right, correct_without_mark=right, seconds=1.0, items=items,
        origin=ORIGIN,
    )  # fmt: skip


def make_training(**changes: object) -> schema.Training:
    """Return the facts of a training in which all is well, with some of them changed."""
    points = [schema.LossPoint(step=i, loss=2.0 / i) for i in range(1, 9)]
    facts: dict[str, object] = {
        "loss": points,
        "eval_loss": [schema.LossPoint(step=8, loss=0.5)],
        "final_eval_loss": 0.5,
        "optimizer_steps": 8,
        "samples": 64,
        "train_seconds": 10.0,
        "evaluation_seconds": 2.0,
        "call_seconds": 20.0,
        "samples_per_second": 8.0,
        "memory": MemoryTrace(measure="resident", seconds=[0.5], bytes_used=[10**9]),
        "peaks": {"training": 4 * 10**8, "evaluation": 3 * 10**8},
        "frozen_weights": {"before": DIGEST, "after": DIGEST},
        "adapter_bytes": 10,
        "adapter_sha256": "0",
        "origin": ORIGIN,
    }
    return schema.Training.model_validate(facts | changes)


def make_merge(
    same_answer: int = 4, kl: float = 0.0, n: int = 4, weights: Weights = "original"
) -> schema.Merge:
    """Return what merging gave where all is well, with some of it changed."""
    return schema.Merge(
        weights=weights, seconds=1, bytes_on_disk=2, model_sha256="5",
        same_answer=same_answer, same_text=same_answer, n=n,
        divergence=schema.Divergence(kl=kl, same_token=1.0, tokens=100),
        origin=ORIGIN,
    )  # fmt: skip


@pytest.fixture
def make_record() -> Callable[..., schema.Record]:
    """Return a function that makes a record, with some of its facts changed."""

    def make(subject: str, **changes: object) -> schema.Record:
        found = settings.resolve("smoke", run="test", methods="lora qlora dora").subject(subject)
        adapter = found.kind == "adapter"
        facts: dict[str, object] = {
            "subject": subject,
            "profile": "smoke",
            "device": "cpu",
            "model": "tiny",
            "model_source": "test",
            "model_sha256": "1",
            "data": data.DataFacts(
                source="generated", source_rows=10, source_sha256="2", train=6, eval=4,
                train_sha256="3", eval_sha256="4", unusable=[],
            ),
            "overrides": {},
            "recipes": {"train": found.method.recipe} if adapter and found.method else {},
            "versions": {"torch": "2.10.0"},
            "hardware": hardware.describe(),
            "training": make_training() if adapter else None,
            "merge": make_merge(weights=found.weights) if found.weights else None,
            "answers": make_answers([subject != "base", True, False, False]),
        }  # fmt: skip
        return schema.Record.model_validate(facts | changes)

    return make
