"""Sixty hostile situations of tests/fuzz.py, all that once did not hold, and the judge itself.

`make fuzz` tries 600.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fuzz
import pytest
from fuzz import Case

from helpers.ground import files, paths
from helpers.ground.errors import TutorialError
from helpers.inputs import methods

SEEDS = range(60)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A sandbox with a finished run."""
    folder = tmp_path_factory.mktemp("fuzz")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("TUTORIAL_LANGUAGE", raising=False)
        yield fuzz.prepare(folder)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_hostile_situation_ends_in_one_sentence_and_loses_nothing(
    prepared: Path, seed: int
) -> None:
    case = fuzz.make(seed, quick=True)
    assert fuzz.try_case(case, prepared) == [], case


# What did not hold when it was found, and what was expected not to.
FIXED: dict[str, Case] = {
    "data is no text": Case(19, act="views", parameters={"data": 2}),
    "run is no text": Case(24, act="commands", parameters={"run": None}),
    "overrides are no mapping": Case(25, act="views", parameters={"overrides": "lora_rank=4"}),
    "methods are a number": Case(153, act="prepare", parameters={"methods": float("inf")}),
    "files may not be large": Case(77, act="verify", limits={"size": 2000}, overrides={"seed": 7}),
    "half an answer of a program": Case(
        57, command=["run"], end="half left", at=3, overrides={"lora_rank": 16}
    ),
    "half a block of a program": Case(
        98, command=["run"], end="half left", at=5, overrides={"lora_rank": 4}
    ),
    "half of what was found of the overrides": Case(
        4, command=["data"], end="half left", overrides={"lora_rank": 4}
    ),
    "runs two thousand folders deep": Case(
        168, act="commands", env={"TUTORIAL_RUNS": "/tmp/" + "b/" * 2000}
    ),
    "the recipes' folder is a file": Case(
        2102, command=["run"], damage=[["folder is a file", 172307]], overrides={"lora_rank": 16}
    ),
    "the run of somebody else": Case(114, command=["run"], nobody=True),
    "the notebooks of somebody else": Case(9, command=["publish"], nobody=True),
    "a lock that is a folder": Case(1, act="train", damage=[["lock is a folder", 3]],
                                    overrides={"lora_rank": 4}),
    "a long place for temporary files": Case(2, command=["run"], env={"TMPDIR": "/" + "t" * 130}),
    "CARD_GIB=nan": Case(3, command=["plan"], env={"CARD_GIB": "nan"}),
    "runs where no folders can be": Case(4, command=["data"], env={"TUTORIAL_RUNS": "/proc/xx"}),
    "runs at a path too long": Case(5, command=["run"], env={"TUTORIAL_RUNS": "/tmp/" + "a" * 300}),
    "output_dir": Case(6, command=["run"], overrides={"output_dir": "/tmp/x"}),
    "resume_from_checkpoint": Case(7, command=["run"], overrides={"resume_from_checkpoint": "/x"}),
    "do_train=false": Case(8, command=["run"], overrides={"do_train": False}),
    "val_size": Case(10, command=["run"], overrides={"val_size": 0.1}),
    "max_steps": Case(11, act="train", overrides={"max_steps": 3}),
    "num_train_epochs=0.01": Case(12, act="train", overrides={"num_train_epochs": 0.01}),
    "two profiles into one run": Case(13, command=["run"], env={"TUTORIAL_PROFILE": "cpu"}),
    "the clock set back": Case(
        14, command=["run"], damage=[["of the future", n] for n in range(9)]
    ),
    "the clock set forward": Case(15, command=["run"], damage=[["old", n] for n in range(9)]),
    "a run on a merged model": Case(
        16, act="prepare", parameters={"model": "MERGED", "run": "second"}
    ),
    "the programs are gone (make clean)": Case(17, command=["data"], env={"PATH": ""}),
    "a foreign helpers": Case(18, command=["run"], env={"PYTHONPATH": "/tmp"}),
}  # fmt: skip


@pytest.mark.parametrize("name", FIXED)
def test_what_once_did_not_hold_holds(prepared: Path, name: str) -> None:
    case = FIXED[name]
    if case.parameters.get("model") == "MERGED":
        merged = prepared / "runs" / fuzz.RUN / "lora_merged"
        case.parameters["model"] = str(merged)
    assert fuzz.try_case(case, prepared) == [], case


def test_cases_are_the_same_for_a_seed_and_kept_as_json() -> None:
    assert fuzz.make(7) == fuzz.make(7) != fuzz.make(8)
    kinds: set[str] = set()
    for seed in range(300):
        case = fuzz.make(seed)
        json.dumps(vars(case))
        kinds |= {name for name, value in vars(case).items() if value}
    assert kinds >= {"command", "act", "env", "overrides", "damage", "end", "limits", "nobody"}


def test_a_run_of_more_methods_than_the_notebooks_tell_of_is_whole(tmp_path: Path) -> None:
    """All six notebooks, with stand-ins for the programs."""
    asked = ("lora", "qlora", "dora")
    box = fuzz.prepare(tmp_path, TUTORIAL_METHODS=" ".join(asked))
    run = box / "runs" / fuzz.RUN
    found = json.loads((run / "comparison.json").read_text("utf-8"))
    assert [method["name"] for method in found["methods"]] == list(asked)
    assert {f"{name}_merged" for name in asked} <= found["accuracy"].keys()
    for name in asked:
        assert (run / "steps" / f"{name}_answers.json").is_file()


def test_no_method_can_have_the_name_of_another_step(prepared: Path) -> None:
    done = {file.stem for file in (prepared / "runs" / fuzz.RUN / "steps").glob("*.json")}
    assert {"plan", "divergence", "lora_answers", "lora_layer", "qlora_block"} <= done
    # ... and those of a run that is tuned, talks, and has a second judge.
    done |= {"article_memory", "base_chat", "lora_evalscope"}
    for name in done - {"lora", "qlora"}:
        with pytest.raises(TutorialError, match="cannot name a method"):
            methods.load(name)


# ---- the judge -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "out", "err", "words"),
    [
        (1, "", "Traceback (most recent call last):\n  x\nKeyError: 'x'", "a traceback"),
        (-11, "", "", "exit code -11"),
        (70, "", "x", "exit code 70"),
        (1, "", "", "without a word"),
        (1, "", "It broke: mend it.\nAnd more.", "more than one sentence"),
        (1, "", "It broke \x1b[31m", "control characters"),
        (1, "", "x came upon what this tutorial does not foresee", "nobody foresaw"),
    ],
)
def test_the_judge_sees_what_is_wrong(code: int, out: str, err: str, words: str) -> None:
    assert any(words in wrong for wrong in fuzz._said_wrong(code, out, err))


def test_the_judge_lets_a_sentence_with_its_log_pass() -> None:
    said = "It broke: mend it.\nThe last lines of the log:\n"
    said += "Traceback (most recent call last):\nx\nLog: y"
    assert list(fuzz._said_wrong(1, "", said)) == []


def changed(prepared: Path, tmp_path: Path) -> Path:
    run = tmp_path / "mine"
    shutil.copytree(prepared / "runs" / fuzz.RUN, run)
    return run


def test_the_judge_sees_what_is_lost(prepared: Path, tmp_path: Path) -> None:
    before, run = prepared / "runs" / fuzz.RUN, changed(prepared, tmp_path)
    assert list(fuzz._lost(before, run, set())) == []
    adapter = run / "lora" / "adapter_model.safetensors"
    adapter.write_bytes(b"other")
    assert list(fuzz._lost(before, run, set())) == [
        "lora/adapter_model.safetensors is not what its marker has"
    ]
    assert list(fuzz._lost(before, run, {adapter})) == []
    adapter.unlink()
    assert "is gone" in next(fuzz._lost(before, run, set()))
    (run / "steps" / "lora.json").unlink()
    assert "the marker of lora is gone" in list(fuzz._lost(before, run, set()))


def test_the_judge_sees_what_lies_outside(prepared: Path, tmp_path: Path) -> None:
    box = tmp_path / "box"
    shutil.copytree(prepared, box)
    before = fuzz._names(box)
    (box / "runs" / fuzz.RUN / "new").write_text("x")
    assert fuzz._outside(before, box) == []
    (box / "stray").write_text("x")
    assert fuzz._outside(before, box) == ["stray"]


def test_a_listening_port_is_seen(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    kept: list[socket.socket] = []

    def listen(*arguments: Any) -> int:
        kept.append(socket.create_server(("0.0.0.0", 0)))
        return 0

    monkeypatch.setattr(fuzz, "_within", listen)
    assert fuzz.try_case(Case(0), prepared) == ["listens on ['0.0.0.0']"]


def test_a_command_that_hangs_is_ended(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fuzz, "SECONDS", 0.3)
    monkeypatch.setattr(fuzz, "_within", lambda *_: __import__("time").sleep(9))
    assert fuzz.try_case(Case(0), prepared) == ["it hung for 0.3 s"]


# ---- the repository itself ------------------------------------------------------------------


def data_from(root: Path, runs: Path) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("TUTORIAL_")}
    where = {"TUTORIAL_RUNS": str(runs), "TUTORIAL_MODELS": str(runs.parent / "models")}
    return subprocess.run(
        [sys.executable, "-m", "helpers", "data", "--profile", "smoke", "--run", "there"],
        cwd=root, env=clean | where, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def model_at(models: Path) -> None:
    folder = models / "tiny-random-qwen2"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "qwen2"}')
    (folder / "model.safetensors").write_bytes(b"tiny")


def test_the_repository_through_a_link_is_the_repository(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(paths.ROOT)
    model_at(tmp_path / "models")
    done = data_from(tmp_path / "link", tmp_path / "runs")
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "runs" / "there" / "data" / "about.json").is_file()


def test_a_repository_at_a_very_long_path_works(tmp_path: Path) -> None:
    root = tmp_path.joinpath(*["d" * 200] * 6)
    root.mkdir(parents=True)
    for name in ("helpers", "configs"):
        shutil.copytree(
            paths.ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__")
        )
    model_at(tmp_path / "models")
    done = data_from(root, root / "runs")
    assert (done.returncode, done.stderr) == (0, "")
    assert (root / "runs" / "there" / "data" / "about.json").is_file()


def test_a_disk_that_fills_while_a_file_changes_places_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    file = tmp_path / "facts.json"
    files.write_json(file, {"old": True})

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        with pytest.raises(TutorialError, match="The disk is full"):
            files.write_json(file, {"old": False})
    assert json.loads(file.read_text()) == {"old": True}
    assert list(tmp_path.iterdir()) == [file]


def test_make_with_several_jobs_sets_up_once(tmp_path: Path) -> None:
    """`make -j4 run test` in a fresh clone, as make would do it."""
    for name in ("Makefile", "requirements.lock", "requirements-evalscope.lock", "pyproject.toml"):
        shutil.copy(paths.ROOT / name, tmp_path)
    shutil.copytree(paths.ROOT / "helpers", tmp_path / "helpers")
    planned = subprocess.run(
        ["make", "--dry-run", "-j4", "run", "test"], cwd=tmp_path, capture_output=True, text=True,
        check=True,
    ).stdout  # fmt: skip
    synced = [line for line in planned.splitlines() if "pip sync" in line]
    assert len([line for line in synced if "requirements.lock" in line]) == 1
    assert len([line for line in synced if "requirements-evalscope.lock" in line]) <= 1
    assert planned.index("pip sync") < planned.index("-m helpers run")
    assert planned.index("pip sync") < planned.index("-m pytest")
