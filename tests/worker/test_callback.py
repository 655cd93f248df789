"""What a training tells of itself: its frozen weights, where it is, and its peaks."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import make_answers, make_training, smoke_with_data

from helpers.calls import factory, training
from helpers.ground import paths
from helpers.ground.errors import TutorialError
from helpers.ground.files import sha256_file
from helpers.inputs import recipes, settings
from helpers.programs import process
from helpers.records.schema import FrozenWeights
from helpers.results import checks
from helpers.worker import callback, events

# A bit of one quantised weight, after the last step and before the last evaluation. Python imports
# `sitecustomize` when it starts, in the training's process as well.
ALTERED = """
import torch
from transformers.trainer_callback import DefaultFlowCallback

def alter(self, args, state, control, model=None, **rest):
    frozen = [p for p in model.parameters() if getattr(p, "quant_state", None)]
    frozen[-1].data.view(torch.uint8)[-1] ^= 1

DefaultFlowCallback.on_train_end = alter
"""


@pytest.fixture
def tiny() -> torch.nn.Module:
    """A module with a trainable part, a frozen one, a buffer, and 4-bit weights."""
    from bitsandbytes.nn import Params4bit

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 8), torch.nn.Linear(8, 8))
    model[0].requires_grad_(False)
    weight = Params4bit(torch.randn(64, 64), compress_statistics=True, quant_type="nf4")
    model[2].weight = weight.to("cpu")
    model.register_buffer("positions", torch.arange(4.0), persistent=False)
    return model


def test_every_frozen_byte_counts_and_no_trainable_one(tiny: torch.nn.Module) -> None:
    state = tiny[2].weight.quant_state
    frozen = [tiny[0].weight.data, tiny[0].bias.data, tiny.positions, tiny[2].weight.data,
              state.absmax, state.code, state.state2.absmax, state.state2.code]  # fmt: skip
    sound = callback.digest(tiny)
    for tensor in frozen:
        last = tensor.view(-1).view(torch.uint8)[-1:]
        last ^= 1
        assert callback.digest(tiny)["digest"] != sound["digest"]
        last ^= 1
        assert callback.digest(tiny) == sound
    state.offset += 1e-3
    assert callback.digest(tiny)["digest"] != sound["digest"]
    state.offset -= 1e-3
    tiny[1].weight.data += 1
    assert callback.digest(tiny) == sound
    assert sound["bytes"] == sum(tensor.nbytes for tensor in frozen)


def test_equal_weights_have_equal_digests_and_swapped_ones_have_not() -> None:
    first, second = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)
    for layer in (first, second):
        layer.requires_grad_(False)
        layer.weight.data = torch.arange(16.0).view(4, 4)
        layer.bias.data = torch.zeros(4)
    assert callback.digest(first) == callback.digest(second)
    second.weight.data = second.weight.data[[1, 0, 2, 3]]
    assert callback.digest(first)["digest"] != callback.digest(second)["digest"]


@pytest.fixture(scope="module")
def chosen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[settings.Settings]:
    """The smoke profile with its model and data."""
    with smoke_with_data(tmp_path_factory.mktemp("runs")) as found:
        yield found


def file_size(chosen: settings.Settings) -> int:
    return (chosen.model.path / "model.safetensors").stat().st_size


def trained(method: str, chosen: settings.Settings) -> list[events.Event]:
    """Train two steps, with an evaluation after each, and return what the process told."""
    used = recipes.for_training(method, chosen) | {"max_steps": 2, "use_swanlab": False}
    factory.call("train", method, used | {"eval_steps": 1}, chosen)
    return events.read(chosen.run.adapter(method) / events.FILE)


def frozen(told: list[events.Event]) -> FrozenWeights:
    found = training.frozen_weights(told)
    assert found
    return found


def test_altered_weights_in_a_real_training_fail_the_check(
    chosen: settings.Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(ALTERED)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    told = frozen(trained("qlora", chosen))
    assert told.before.tensors == told.after.tensors > 40
    facts = make_training(frozen_weights=told)
    with pytest.raises(TutorialError, match="frozen weights are the same bits as before: digest"):
        checks.conclude(checks.of_training(facts, make_answers([True]), make_answers([False])))


def test_a_sound_training_of_16_bit_weights_leaves_them_alone(chosen: settings.Settings) -> None:
    told = trained("lora", chosen)
    weights = frozen(told)
    assert weights.before == weights.after
    state = json.loads((chosen.run.adapter("lora") / "trainer_state.json").read_text())
    assert state["global_step"] == 2
    # The whole base model is frozen: its file without the header, and the rotary tables.
    with (chosen.model.path / "model.safetensors").open("rb") as file:
        header = 8 + int.from_bytes(file.read(8), "little")
    assert weights.before.bytes > file_size(chosen) - header
    check_order(told)
    # Two steps: the last one is measured, and the evaluation after it.
    peaks = training.peaks(told)
    assert peaks.training
    assert peaks.evaluation
    assert peaks.training > peaks.evaluation > weights.before.bytes
    assert peaks.loading
    assert peaks.evaluation > peaks.loading > weights.before.bytes


def check_order(told: list[events.Event]) -> None:
    """Check that everything was told, once and in order."""
    names = [e["event"] for e in told if e["event"] not in ("evaluating", "peak", "measuring")]
    taken = [e["seconds"] for e in told if e["event"] == "measuring"]
    assert 0 < taken[0] < taken[-1] < 60
    a_step = ["step", "log"]
    ends = ["train_end", "digest", "evaluated", "losses", "digest"]
    # The weights of the last step are evaluated once, after it.
    assert names == ["loaded", "train_begin", *a_step, "evaluated", *a_step, *ends]
    assert [e["step"] for e in told if e["event"] == "step"] == [1, 2]
    assert {e["total"] for e in told if e["event"] == "train_begin"} == {2}
    ended = [e for e in told if e["event"] == "evaluating" and e["done"] == e.get("total")]
    assert len(ended) == 2  # each evaluation is followed to its last batch
    assert all(e["seconds"] > 0 and e["loss"] > 0 for e in told if e["event"] == "evaluated")
    assert [e["at"] for e in told] == sorted(e["at"] for e in told)


def test_an_adapter_is_bit_for_bit_that_of_a_training_that_tells_nothing(
    chosen: settings.Settings, tmp_path: Path
) -> None:
    trained("qlora", chosen)
    file = chosen.run.adapter("qlora") / "adapter_model.safetensors"
    env = process.environment("cpu", chosen.run.cache, chosen.environment)
    assert events.VARIABLE not in env
    recipe = paths.in_recipe(chosen.run.recipes / "qlora.yaml")
    process.run([factory.CLI, "train", recipe, f"output_dir={tmp_path}"], tmp_path / "log", env=env)
    assert not (tmp_path / events.FILE).exists()
    assert sha256_file(tmp_path / file.name) == sha256_file(file)


@pytest.mark.parametrize(
    ("step", "changes", "evaluates"),
    [
        (11, {}, True),
        (12, {}, False),
        (12, {"do_eval": False}, True),  # nothing would evaluate the last weights
        (12, {"load_best_model_at_end": True}, True),  # they would not be among the best
    ],
)
def test_the_last_weights_are_not_evaluated_twice(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: int,
    changes: dict[str, bool],
    evaluates: bool,
) -> None:
    monkeypatch.setenv(events.VARIABLE, str(tmp_path / events.FILE))
    watching = callback._callback()()
    args = SimpleNamespace(**{"do_eval": True, "load_best_model_at_end": False} | changes)
    control = SimpleNamespace(should_evaluate=True)
    state = SimpleNamespace(global_step=step, max_steps=12)
    watching.peaks = SimpleNamespace(end=lambda what: None, wants_evaluation=lambda: False)
    watching.on_step_end(args, state, control)
    assert control.should_evaluate == evaluates


def test_nothing_is_registered_where_no_file_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers import trainer

    monkeypatch.delenv(events.VARIABLE, raising=False)
    before = list(trainer.DEFAULT_CALLBACKS)
    callback.register()
    assert before == trainer.DEFAULT_CALLBACKS
