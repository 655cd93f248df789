"""A study while it runs: what is handed to the scheduler, and what its events come to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from helpers.ground.errors import TutorialError
from helpers.programs import process
from helpers.study import record, scheduling
from helpers.study.asked import Asked, trials
from helpers.study.record import Row, Study


@pytest.fixture
def study(runs: Path) -> Study:
    wanted = Asked(profile="smoke", models=["tiny-random-qwen2"], methods=["lora", "qlora"])
    rows = [
        Row(trial=trial, made_from="1", load=load) for load, trial in enumerate(trials("s", wanted))
    ]
    return Study(name="s", asked=wanted, workers=2, rows=rows)


def test_what_is_left_is_handed_over_the_longest_first_each_with_settings_of_its_own(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUTORIAL_OVERRIDES", "lora_rank=4")
    plan = scheduling.plan_of(study, tmp_path / "told", tmp_path, 2)
    assert [each["name"] for each in plan["trials"]] == [
        "s-tiny-random-qwen2-qlora-42", "s-tiny-random-qwen2-lora-42",
    ]  # fmt: skip
    first = plan["trials"][0]
    assert first["command"][-6:] == ["--profile", "smoke", "--model", "tiny-random-qwen2", "--run",
                                     "s-tiny-random-qwen2-qlora-42"]  # fmt: skip
    assert first["env"]["TUTORIAL_METHODS"] == "qlora"
    assert first["env"]["TUTORIAL_OVERRIDES"].split() == ["lora_rank=4", "seed=42"]
    assert (plan["kind"], plan["cards"], plan["workers"], plan["retries"]) == ("cpu", 0, 2, 2)
    study.rows[1].state = "done"
    assert len(scheduling.plan_of(study, tmp_path / "told", tmp_path, 2)["trials"]) == 1


def test_events_become_rows_and_a_file(study: Study, tmp_path: Path) -> None:
    told = tmp_path / "told"
    follower = scheduling.Follower(study, told)
    assert follower.look() == []
    one, other = (row.trial.run for row in study.rows)

    def tell(at: float, run: str, **event: object) -> None:
        with told.open("a") as file:
            file.write(json.dumps({"at": at, "trial": run, **event}) + "\n")

    tell(10, one, event="running", attempt=1, where="npu 1")
    tell(11, other, event="running", attempt=1, where="npu 0")
    assert [row.state for row in follower.look()] == ["running", "running"]
    tell(20, one, event="ended", code=-9, again=True)
    assert follower.look()[0].state == "waiting"
    tell(30, one, event="running", attempt=2, where="npu 0")
    tell(42.5, one, event="ended", code=0, again=False)
    tell(43, other, event="ended", code=1, again=False)
    with told.open("a") as file:
        file.write('{"at": 44, "trial"')  # not all of a line is there yet
    assert len(follower.look()) == 3
    assert [row.state for row in study.rows] == ["done", "failed"]
    assert (study.rows[0].attempts, study.rows[0].where, study.rows[0].seconds) == (
        2,
        "npu 0",
        12.5,
    )
    assert record.read("s") == study


def test_a_study_that_is_done_starts_nothing(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "run", lambda *args, **kwargs: pytest.fail("it was started"))
    for row in study.rows:
        row.state = "done"
    scheduling.run(study, lambda now, changed: None)
    assert record.read("s") == study


def test_without_ray_it_is_one_sentence(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduling, "PYTHON", tmp_path / "python")
    with pytest.raises(TutorialError, match="Ray is not installed yet: run 'make study'"):
        scheduling.run(study, lambda now, changed: None)


def test_a_cluster_that_takes_no_trials_is_its_sentence_and_nothing_is_lost(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(command: list[str], log: Path, **how: object) -> None:
        plan = json.loads(Path(command[2]).read_text())
        assert plan["address"] == "10.0.0.1:6379"
        Path(plan["told"]).write_text('{"at": 1, "event": "refused", "why": "silent"}\n')
        log.write_text("InvalidAuthToken: Authentication token is missing or incorrect")

    monkeypatch.setattr(process, "run", run)
    monkeypatch.setattr(scheduling, "PYTHON", Path(__file__))
    study.rows[0].state = "done"
    with pytest.raises(TutorialError, match=r"10\.0\.0\.1:6379 refuses this machine's token"):
        scheduling.run(study, lambda now, changed: None, "10.0.0.1:6379")
    kept = record.read("s")
    assert kept
    assert [row.state for row in kept.rows] == ["done", "waiting"]


def test_a_log_without_a_line_says_nothing(tmp_path: Path) -> None:
    assert record.last_line(tmp_path / "none") == ""
    (tmp_path / "log").write_text("one\ntwo\n\n")
    assert record.last_line(tmp_path / "log") == "two"
