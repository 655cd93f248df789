"""Training: what is read from a finished call, and what readers are told about it."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import DIGEST, make_training

from helpers import checkpoints, data, factory, frozen_weights, settings, show, training
from helpers.errors import TutorialError
from helpers.files import write_json
from helpers.memory import MemoryTrace

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


def pretend(
    monkeypatch: pytest.MonkeyPatch, log_text: str, adapter: bool = True, eval_loss: float = 1.5
) -> None:
    """Let llamafactory-cli's call leave what a real one leaves, without training."""

    def call(
        command: str, name: str, recipe: dict, chosen: settings.Settings, **more: object
    ) -> factory.Call:
        folder = chosen.run.adapter(name)
        rows = [{"step": i, "loss": 3.0 - i / 10} for i in (1, 2)]
        rows.append({"step": 12, "eval_loss": eval_loss})
        write_json(folder / "all_results.json", {"eval_loss": eval_loss, "train_runtime": 6.0})
        write_json(folder / "trainer_state.json", {"global_step": 12, "log_history": rows})
        write_json(folder / frozen_weights.FILE, {"before": DIGEST, "after": DIGEST})
        if adapter:
            (folder / "adapter_model.safetensors").write_bytes(b"12345")
        log = chosen.run.logs / f"{name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(log_text)
        return factory.Call(9.0, MemoryTrace(measure="memory", bytes_used=[7], seconds=[1]), log)

    monkeypatch.setattr(factory, "call", call)


def test_the_facts_of_a_training(ready: settings.Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, "all well")
    trained = training.train("lora", ready, say=lambda line: None)
    assert [point.loss for point in trained.loss] == [2.9, 2.8]
    assert [(p.step, p.loss) for p in trained.eval_loss] == [(12, 1.5)]
    assert (trained.optimizer_steps, trained.samples) == (12, 48)
    assert trained.samples_per_second == 48 / 6.0
    assert (trained.call_seconds, trained.adapter_bytes) == (9.0, 5)
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


def test_a_call_that_tells_nothing_of_its_frozen_weights_is_a_failure(
    ready: settings.Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, "all well")
    told = factory.call

    def silent(*arguments: object, **more: object) -> factory.Call:
        done = told(*arguments, **more)
        (ready.run.adapter("lora") / frozen_weights.FILE).unlink()
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
    made = ready.run.adapter("lora") / "checkpoint-8"
    made.mkdir()
    (made / "trainer_state.json").write_text("{}")
    with pytest.raises(TutorialError, match=r"went on from checkpoint-8; .* delete runs/test/lora"):
        training.train("lora", ready, say=lambda line: None)


def test_training_needs_its_data(smoke: settings.Settings, tmp_path: Path) -> None:
    with pytest.raises(TutorialError, match="02_data"):
        training.train("lora", smoke)


def test_a_training_that_went_on_says_so() -> None:
    def names(**changes: object) -> list[str]:
        return [name for name, _ in show.training_facts(make_training(**changes))]

    assert not any("interrupted" in name for name in names())
    assert any("interrupted" in name for name in names(resumed_at=[8]))
