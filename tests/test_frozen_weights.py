"""The digest of the frozen weights: what it notices, and a training in which they are altered."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from conftest import make_answers, make_training, smoke_with_data

from helpers import checks, factory, frozen_weights, recipe, settings
from helpers.errors import TutorialError
from helpers.records import FrozenWeights

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
    sound = frozen_weights.digest(tiny)
    for tensor in frozen:
        last = tensor.view(-1).view(torch.uint8)[-1:]
        last ^= 1
        assert frozen_weights.digest(tiny)["digest"] != sound["digest"]
        last ^= 1
        assert frozen_weights.digest(tiny) == sound
    state.offset += 1e-3
    assert frozen_weights.digest(tiny)["digest"] != sound["digest"]
    state.offset -= 1e-3
    tiny[1].weight.data += 1
    assert frozen_weights.digest(tiny) == sound
    assert sound["bytes"] == sum(tensor.nbytes for tensor in frozen)


def test_equal_weights_have_equal_digests_and_swapped_ones_have_not() -> None:
    first, second = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)
    for layer in (first, second):
        layer.requires_grad_(False)
        layer.weight.data = torch.arange(16.0).view(4, 4)
        layer.bias.data = torch.zeros(4)
    assert frozen_weights.digest(first) == frozen_weights.digest(second)
    second.weight.data = second.weight.data[[1, 0, 2, 3]]
    assert frozen_weights.digest(first)["digest"] != frozen_weights.digest(second)["digest"]


@pytest.fixture(scope="module")
def chosen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[settings.Settings]:
    """The smoke profile with its model and data."""
    with smoke_with_data(tmp_path_factory.mktemp("runs")) as found:
        yield found


def file_size(chosen: settings.Settings) -> int:
    return (chosen.model.path / "model.safetensors").stat().st_size


def trained(method: str, chosen: settings.Settings) -> FrozenWeights:
    """Train two steps and return what the process told of its frozen weights."""
    folder = chosen.run.adapter(method)
    used = recipe.for_training(method, chosen) | {"max_steps": 2, "use_swanlab": False}
    factory.call("train", method, used, chosen)
    return FrozenWeights.model_validate_json((folder / frozen_weights.FILE).read_text())


def test_altered_weights_in_a_real_training_fail_the_check(
    chosen: settings.Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(ALTERED)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    told = trained("qlora", chosen)
    assert told.before.tensors == told.after.tensors > 40
    facts = make_training(frozen_weights=told)
    with pytest.raises(TutorialError, match="frozen weights are the same bits as before: digest"):
        checks.conclude(checks.of_training(facts, make_answers([True]), make_answers([False])))


def test_a_sound_training_of_16_bit_weights_leaves_them_alone(chosen: settings.Settings) -> None:
    told = trained("lora", chosen)
    assert told.before == told.after
    state = json.loads((chosen.run.adapter("lora") / "trainer_state.json").read_text())
    assert state["global_step"] == 2
    # The whole base model is frozen: its file without the header, and the rotary tables.
    with (chosen.model.path / "model.safetensors").open("rb") as file:
        header = 8 + int.from_bytes(file.read(8), "little")
    assert told.before.bytes > file_size(chosen) - header
