"""Training: what is read from a finished call, and what readers are told about it."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from conftest import DIGEST

from helpers.calls import checkpoints, factory, training
from helpers.ground.errors import TutorialError
from helpers.ground.files import write_json
from helpers.inputs import data, settings
from helpers.machine import hardware
from helpers.machine.memory import MemoryTrace
from helpers.programs.making import Making
from helpers.records import schema
from helpers.worker import events

FALLBACK = (
    "CAUTION: The operator 'aten::isin.Tensor_Tensor' is not currently supported on the NPU "
    "backend and will fall back to run on the CPU."
)


@pytest.fixture
def ready(smoke: settings.Settings) -> settings.Settings:
    """A run with data and a model folder, as 01_env and 02_data leave it."""
    smoke.model.path.mkdir(parents=True)
    (smoke.model.path / "config.json").write_text('{"model_type": "qwen2"}')
    (smoke.model.path / "model.safetensors").write_text("weights")
    data.prepare(smoke, say=lambda line: None)
    return smoke


TOLD: tuple[events.Event, ...] = (
    {"event": "loaded", "at": 1.0, **DIGEST},
    {"event": "train_begin", "at": 2.0, "step": 0, "total": 12},
    {"event": "evaluated", "at": 3.0, "step": 12, "loss": 1.5, "seconds": 1.25},
    {"event": "train_end", "at": 8.0, "step": 12},
    {"event": "digest", "at": 8.0, **DIGEST},
    {"event": "peak", "at": 8.0, "of": "loading", "bytes": 90, "longest": False},
    {"event": "peak", "at": 8.0, "of": "training", "bytes": 70, "longest": True},
    {"event": "peak", "at": 9.0, "of": "training", "bytes": 60, "longest": True},
    {"event": "digest", "at": 9.0, **DIGEST},
    {"event": "losses", "at": 9.0, "step": 4, "nats": [9.0], "tokens": [1]},
    {"event": "losses", "at": 9.5, "step": 12, "nats": [2.5, 4.0], "tokens": [5, 8]},
)  # fmt: skip


def pretend(
    monkeypatch: pytest.MonkeyPatch, log_text: str, adapter: bool = True, eval_loss: float = 1.5
) -> None:
    """Let llamafactory-cli's call leave what a real one leaves, without training."""

    def call(
        command: str,
        name: str,
        recipe: dict,
        chosen: settings.Settings,
        making: Making,
        **more: object,
    ) -> factory.Call:
        folder = making.place(chosen.run.adapter(name))
        rows = [{"step": i, "loss": 3.0 - i / 10} for i in (1, 2)]
        rows.append({"step": 12, "eval_loss": eval_loss, "eval_runtime": 2.0})
        write_json(folder / "all_results.json", {"eval_loss": eval_loss, "train_runtime": 6.0})
        write_json(folder / "trainer_state.json", {"global_step": 12, "log_history": rows})
        lines = [json.dumps(event) for event in TOLD]
        (folder / events.FILE).write_text("\n".join(lines) + "\n")
        if adapter:
            (folder / "adapter_model.safetensors").write_bytes(b"12345")
        log = chosen.run.logs / f"{name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(log_text)
        return factory.Call(9.0, MemoryTrace(measure="resident", bytes_used=[7], seconds=[1]), log)

    monkeypatch.setattr(factory, "call", call)


def test_the_facts_of_a_training(ready: settings.Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, "all well")
    trained = training.train("lora", ready, say=lambda line: None)
    assert [point.loss for point in trained.loss] == [2.9, 2.8]
    assert [(p.step, p.loss) for p in trained.eval_loss] == [(12, 1.5)]
    assert (trained.optimizer_steps, trained.samples) == (12, 48)
    assert (trained.train_seconds, trained.evaluation_seconds) == (6.0, 2.0)
    assert trained.samples_per_second == 48 / 4.0
    assert (trained.peaks.training, trained.peaks.evaluation) == (70, None)
    assert trained.peaks.loading == 90
    assert trained.frozen_weights.before == trained.frozen_weights.after
    assert trained.frozen_weights.before.digest == DIGEST["digest"]
    assert (trained.origin.run, trained.origin.machine) == ("test", hardware.describe())
    assert (trained.call_seconds, trained.adapter_bytes) == (9.0, 5)
    assert [(one.nats, one.tokens) for one in trained.problem_losses] == [(2.5, 5), (4.0, 8)]
    assert training.read("lora", ready) == trained


def test_operators_that_fall_back_to_the_cpu_are_told(
    ready: settings.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    pretend(monkeypatch, FALLBACK)
    training.train("lora", ready, said.append)
    assert any("WARNING" in line and "aten::isin" in line for line in said)
    said.clear()
    pretend(monkeypatch, "all well")
    training.train("qlora", ready, said.append)
    assert not any("WARNING" in line for line in said)


def test_a_call_without_an_adapter_is_a_failure(
    ready: settings.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, "all well", adapter=False)
    with pytest.raises(TutorialError, match="without an adapter"):
        training.train("lora", ready, say=lambda line: None)
    with pytest.raises(TutorialError, match="03_lora"):
        training.read("lora", ready)


@pytest.mark.parametrize("kept", [None, 0, 1, 4])
def test_a_call_that_tells_nothing_of_its_frozen_weights_is_a_failure(
    ready: settings.Settings, monkeypatch: pytest.MonkeyPatch, kept: int | None
) -> None:
    pretend(monkeypatch, "all well")
    told = factory.call

    def silent(*arguments: object, making: Making, **more: object) -> factory.Call:
        done = told(*arguments, making=making, **more)
        file = making.place(ready.run.adapter("lora")) / events.FILE
        lines = file.read_text().splitlines(keepends=True)
        file.unlink() if kept is None else file.write_text("".join(lines[:kept]))
        return done

    monkeypatch.setattr(factory, "call", silent)
    with pytest.raises(TutorialError, match="run 'make setup'"):
        training.train("lora", ready, say=lambda line: None)


def test_a_loss_that_is_no_number_is_a_failure(
    ready: settings.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As seen with learning_rate=1e30: exit code 0, an adapter, training losses of 0.0."""
    pretend(monkeypatch, "all well", eval_loss=float("nan"))
    with pytest.raises(TutorialError, match="NaN or infinite: lower learning_rate"):
        training.train("lora", ready, say=lambda line: None)
    with pytest.raises(TutorialError, match="03_lora"):
        training.read("lora", ready)
    pretend(monkeypatch, "all well")
    assert training.train("lora", ready, say=lambda line: None).final_eval_loss == 1.5


def test_a_failure_after_going_on_says_how_to_start_anew(
    ready: settings.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object, **more: object) -> factory.Call:
        raise TutorialError("It failed.")

    monkeypatch.setattr(factory, "call", fail)
    with pytest.raises(TutorialError, match=r"^It failed\.$"):
        training.train("lora", ready, say=lambda line: None)
    monkeypatch.setattr(checkpoints, "last_whole", lambda folder: folder / "checkpoint-8")
    made = ready.run.making / "lora" / "lora" / "checkpoint-8"
    made.mkdir()
    (made / "trainer_state.json").write_text("{}")
    with pytest.raises(
        TutorialError, match=r"went on from checkpoint-8; .* move runs/test/making/lora away"
    ):
        training.train("lora", ready, say=lambda line: None)


@pytest.mark.parametrize("fails", ["call", "adapter", "loss", "killed"])
def test_a_failed_successor_leaves_the_adapter_in_use_and_says_so(
    ready: settings.Settings, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    """As with resume_from_checkpoint=/nonexistent, do_train=false, or Ctrl-C."""
    pretend(monkeypatch, "all well")
    before = training.train("lora", ready, say=lambda line: None)
    kept = {file: file.read_bytes() for file in ready.run.root.rglob("*") if file.is_file()}
    said: list[str] = []

    def fail(*arguments: object, making: Making, **more: object) -> factory.Call:
        (making.place(ready.run.adapter("lora")) / "adapter_model.safetensors").write_bytes(b"1")
        raise KeyboardInterrupt if fails == "killed" else TutorialError("It failed.")

    if fails in ("call", "killed"):
        monkeypatch.setattr(factory, "call", fail)
    else:
        loss = float("nan") if fails == "loss" else 1.5
        pretend(monkeypatch, "all well", adapter=fails != "adapter", eval_loss=loss)
    other = dataclasses.replace(ready, overrides={"learning_rate": 0.5})
    with pytest.raises((TutorialError, KeyboardInterrupt)):
        training.train("lora", other, said.append)
    assert said[0] == "Doing lora again: recipe.learning_rate changed."
    assert said[1].startswith("lora was not done: what there is of it, from ")
    assert {file: file.read_bytes() for file in kept} == kept
    assert training.train("lora", ready, said.append) == before
    assert said[2].startswith("Re-using lora")


@pytest.mark.parametrize(
    ("steps", "examples", "samples"),
    [
        (3, 48, 48),  # one epoch
        (3, 47, 47),  # ... whose last step is a part of one
        (6, 47, 94),
        (2, 47, 32),  # max_steps, or a part of an epoch
        (4, 47, 63),  # max_steps beyond num_train_epochs, which counts for nothing then
        (7, 5, 35),
    ],
)
def test_each_example_counts_as_often_as_it_was_seen(
    steps: int, examples: int, samples: int
) -> None:
    used = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 8}
    assert training.samples_seen(steps, examples, used) == samples


def test_training_needs_its_data(smoke: settings.Settings, tmp_path: Path) -> None:
    with pytest.raises(TutorialError, match="02_data"):
        training.train("lora", smoke)


def test_a_form_of_facts_that_is_not_todays_is_trained_anew(
    ready: settings.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, "all well")
    said: list[str] = []
    training.train("lora", ready, said.append)
    monkeypatch.setattr(schema, "FORM", schema.FORM + 1)
    training.train("lora", ready, said.append)
    assert "Doing lora again: form changed." in said


def test_cards_that_held_the_whole_model_against_the_setting_are_one_sentence(
    ready: settings.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, "")
    chosen = dataclasses.replace(ready, cards=2, sharded=True)
    with pytest.raises(TutorialError, match="the whole model, although SHARDED=yes") as caught:
        training.train("lora", chosen, lambda line: None)
    assert len(str(caught.value).splitlines()) == 2  # and where the log is
    assert not training.is_there("lora", chosen)
