"""What a study shows: where its trials are, what the methods came to, and a verdict a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import make_answers, make_training
from results import made

from helpers.calls import progress, repeats
from helpers.face import study_view
from helpers.face.outcomes import ComparisonView
from helpers.face.tutorial import Tutorial
from helpers.ground import paths
from helpers.ground.errors import TutorialError
from helpers.inputs import data
from helpers.inputs.settings import Settings
from helpers.machine import hardware
from helpers.records import store
from helpers.records.schema import ProblemLoss, Record, SeedResult
from helpers.results import comparison, run_report
from helpers.study import outcome, planned, record, scheduling
from helpers.study.asked import Asked, settings_of, trials
from helpers.study.record import Refusal, Row, Study

GIB = 2**30


def record_of(settings: Settings, method: str, seed: int) -> Record:
    """Return the record of a small training."""
    facts = data.DataFacts(
        source="generated", source_rows=10, source_sha256="2", train=6, eval=4, train_sha256="3",
        eval_sha256="4", unusable=[],
    )  # fmt: skip
    return Record(
        subject=method, profile="smoke", device="cpu", model="tiny", model_source="test",
        model_sha256="1", data=facts, overrides={}, versions={"torch": "2.10.0"},
        recipes={"train": {"seed": seed}, "predict": {}}, hardware=hardware.describe(),
        training=make_training(), merge=None,
        answers=make_answers([True, True, False, False], method),
    )  # fmt: skip


def result_of(method: str, right: list[bool], loss: float) -> SeedResult:
    """Return what a training came to: right or wrong a problem, and the loss of each."""
    return SeedResult(
        method=method, seed=42, held_out_loss=loss, correct=sum(right), n=len(right), right=right,
        losses=[ProblemLoss(nats=10 * loss, tokens=10)] * len(right), call_seconds=100.0,
        tensors=10**9,
    )  # fmt: skip


@pytest.fixture
def study(runs: Path) -> Study:
    """Two models, two methods, two seeds; all done but one that failed and two that do not fit."""
    wanted = Asked(
        profile="smoke", models=["Qwen2-0.5B", "Qwen2.5-3B"], methods=["lora", "qlora"], seeds=2
    )
    rows = []
    for trial in trials("s", wanted):
        row = Row(trial=trial, made_from="1", planned_bytes=GIB, state="done", seconds=360.0)
        rows.append(row)
        settings = settings_of(trial, wanted)
        store.write(settings.run, record_of(settings, trial.method, trial.seed))
    rows[6].state = rows[7].state = "refused"
    rows[6].refusal = rows[7].refusal = Refusal(
        needed_bytes=9 * GIB, usable_bytes=4 * GIB, micro_batch=0, methods=["lora"]
    )
    rows[5].state = "failed"
    log = scheduling.log_of(rows[5])
    log.parent.mkdir(parents=True)
    log.write_text("much\nThe disk is full: make room.\n\n")
    return Study(name="s", asked=wanted, workers=1, rows=rows)


def test_every_trial_has_its_line_and_says_what_is_wrong(study: Study) -> None:
    board = outcome.board(study)
    assert len(board.rows) == 8
    assert board.rows[5][1:] == ["failed", "", 0, "The disk is full: make room."]
    assert board.rows[6][-1] == "needs 9.00 GiB of 4.00; LoRA would fit"
    refused = study.rows[6].model_copy()
    assert refused.refusal
    refused.refusal = refused.refusal.model_copy(update={"micro_batch": 1})
    assert outcome.said(refused).endswith("per_device_train_batch_size=1 would fit")
    refused.refusal = refused.refusal.model_copy(update={"micro_batch": 0, "methods": []})
    assert outcome.said(refused).endswith("a smaller model would fit")


def test_what_is_done_stands_side_by_side_with_the_spread_over_seeds(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = iter([1.0, 2.0, 3.0, 5.0, 7.0])
    monkeypatch.setattr(
        repeats, "result",
        lambda method, one: result_of(method, [True, False], next(losses)),
    )  # fmt: skip
    study.price = 10.0
    outcome.gather(study)
    assert [(one.model, one.method, one.seeds) for one in study.outcomes] == [
        ("Qwen2-0.5B", "lora", [42, 43]), ("Qwen2-0.5B", "qlora", [42, 43]),
        ("Qwen2.5-3B", "lora", [42]),
    ]  # fmt: skip
    shown = outcome.table(study.outcomes)
    assert [row[4] for row in shown.rows] == [
        "1.5000 (1.0000 to 2.0000)", "4.0000 (3.0000 to 5.0000)", "7.0000",
    ]  # fmt: skip
    assert [row[-1] for row in shown.rows] == ["1.00"] * 3  # six minutes at 10 an hour
    measured = "0.931 (0.931 to 0.931)"  # as their records say, of other steps than the longest
    assert shown.rows[0][5:7] == ["1", f"{measured} (without the longest example)"]
    of_all = study.outcomes[0].model_copy(update={"longest": True})
    assert outcome.table([of_all]).rows[0][5:7] == ["1", measured]
    record.write(study)
    assert record.read("s") == study


def test_a_model_has_a_verdict_over_its_seeds_where_both_methods_are_done(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    def result(method: str, one: object) -> SeedResult:
        right = [True] * 40 if method == "lora" else [False] * 40
        return result_of(method, right, 1.0)

    monkeypatch.setattr(repeats, "result", result)
    outcome.gather(study)
    assert list(study.verdicts) == ["Qwen2-0.5B"]
    verdict = study.verdicts["Qwen2-0.5B"]
    assert verdict.seeds == 2
    assert verdict.judgements["qlora"].better == "first"
    words = outcome.judged(verdict, "Qwen2-0.5B")
    assert "LoRA is the better method" in words
    assert "does not tell" not in words  # of larger models the study itself tells
    study.rows[0].state = "failed"  # one seed of LoRA, two of QLoRA
    outcome.gather(study)
    assert study.verdicts == {}


def test_trials_that_were_not_made_alike_are_not_compared(study: Study) -> None:
    row = study.rows[0]
    settings = settings_of(row.trial, study.asked)
    one = store.read(settings.run, settings.subject(row.trial.method))
    store.write(settings.run, one.model_copy(update={"model_sha256": "another"}))
    with pytest.raises(TutorialError, match=r"The trials of Qwen2-0\.5B were made"):
        outcome.gather(study)


def test_the_figure_has_a_line_a_method(study: Study) -> None:
    outcome.gather(study)
    picture = outcome.figure(study, paths.RunFolder("s"))
    axes = picture.figure.get_axes()
    assert [len(ax.containers) for ax in axes if ax.get_ylabel() == "held-out loss"] == [2]
    assert picture.file == paths.RunFolder("s").figures / "study.png"


def test_a_model_in_a_folder_is_shown_by_its_name(study: Study, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    study.asked.models = [str(mine)]
    study.rows = study.rows[:1]
    before, study.rows[0].trial = study.rows[0].trial, trials("s", study.asked)[0]
    read = store.read(paths.RunFolder(before.run), settings_of(before, study.asked).subject("lora"))
    store.write(paths.RunFolder(study.rows[0].trial.run), read)
    outcome.gather(study)
    assert study.outcomes[0].label == "mine"
    assert str(tmp_path) not in outcome.shown(study).plain()


def test_a_run_of_the_same_name_shows_the_study_in_its_report_and_beside_its_comparison(
    study: Study,
) -> None:
    record.write(study)
    chosen = made.chosen()
    made.write(chosen)
    comparison.compare(chosen)
    alone = ComparisonView(comparison.read(chosen.run.comparison), chosen)
    assert "Qwen2.5-3B" not in alone.plain()
    named = replace(chosen, run=paths.RunFolder("s"))
    assert "Qwen2.5-3B" in ComparisonView(alone.facts, named).plain()
    page = run_report.write(named.run, study_view.reported).read_text("utf-8")
    assert "The study" in page
    assert "needs 9.00 GiB of 4.00; LoRA would fit" in page
    assert "data:image/svg+xml" in page
    assert "The verdict" not in page  # there is no comparison of this name


def test_a_notebook_shows_a_table_that_changes_when_there_is_news(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[str] = []

    class Handle:
        def update(self, content: object) -> None:
            shown.append(str(content))

    def display(content: object, display_id: bool) -> Handle:
        shown.append(str(content))
        return Handle()

    def run(now: Study, tick: Callable[[Study, list[Row]], None], address: str) -> None:
        tick(now, [])
        tick(now, [])
        now.rows[0].state = "running"
        tick(now, now.rows[:1])

    monkeypatch.setattr("IPython.display.display", display)
    monkeypatch.setattr(progress, "is_headless", lambda: False)
    monkeypatch.setattr(planned, "make", lambda *_: study)
    monkeypatch.setattr(scheduling, "run", run)
    found = Tutorial("smoke", run=study.name).study("Qwen2-0.5B Qwen2.5-3B", seeds="2")
    assert isinstance(found, study_view.StudyView)
    assert len(shown) == 2
    assert [text.count("running") for text in shown] == [0, 1]
