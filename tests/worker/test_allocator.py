"""The peak of tensors on a CPU: against tensors whose sizes are known."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import npusim
import pytest
import torch

from helpers.ground import paths
from helpers.worker import allocator
from helpers.worker.allocator import Meter, bytes_of, tensors_of

MIB = 2**20


def model_of(mebibytes: int) -> torch.nn.Module:
    model = torch.nn.Linear(512, 512 * mebibytes, bias=False)
    model.requires_grad_(False)
    return model


def test_the_peak_is_what_was_there_and_the_most_that_came_at_once() -> None:
    model = model_of(4)
    meter = Meter("cpu")
    meter.begin(model)
    first = torch.zeros(3 * MIB, dtype=torch.uint8)
    second = torch.zeros(2 * MIB, dtype=torch.uint8)
    del first
    third = torch.zeros(1 * MIB, dtype=torch.uint8)
    assert meter.end() == pytest.approx((4 + 5) * MIB, abs=1024)
    del second, third


def test_what_was_there_is_taken_to_stay() -> None:
    """As it does in a training: torch's CPU allocator forgets what it gave out before."""
    model = model_of(2)
    model.register_buffer("heavy", torch.zeros(8 * MIB, dtype=torch.uint8))
    meter = Meter("cpu")
    meter.begin(model)
    del model.heavy
    kept = torch.zeros(4 * MIB, dtype=torch.uint8)
    assert meter.end() == pytest.approx((2 + 8 + 4) * MIB, abs=1024)
    del kept


def test_an_address_used_again_is_not_taken_for_what_lay_there_before() -> None:
    meter = Meter("cpu")
    meter.begin(model_of(1))
    short = torch.zeros(2 * MIB, dtype=torch.uint8)
    meter.end()
    del short
    later = [torch.zeros(2 * MIB, dtype=torch.uint8) for _ in range(4)]
    meter.begin(model_of(1))
    del later
    kept = torch.zeros(3 * MIB, dtype=torch.uint8)
    assert meter.end() == pytest.approx((1 + 3) * MIB, abs=1024)
    del kept


def test_one_measurement_knows_nothing_of_the_last() -> None:
    model = model_of(1)
    meter = Meter("cpu")
    for size in (6, 2):
        meter.begin(model)
        kept = torch.zeros(size * MIB, dtype=torch.uint8)
        assert meter.end() == pytest.approx((1 + size) * MIB, abs=1024)
        del kept
    meter.begin(model)
    assert meter.end() == MIB


def test_gradients_scales_and_the_optimizers_state_are_there_too() -> None:
    from bitsandbytes.nn import Params4bit

    model = torch.nn.Sequential(torch.nn.Linear(64, 64, bias=False), torch.nn.Linear(64, 64))
    model[1].requires_grad_(False)
    weight = Params4bit(torch.randn(64, 64), compress_statistics=True, quant_type="nf4")
    model[1].weight = weight.to("cpu")
    optimizer = torch.optim.AdamW(model[0].parameters())
    model[0](torch.ones(1, 64)).sum().backward()
    optimizer.step()
    state = model[1].weight.quant_state
    own = 4 * 64 * 64 * 4 + 4  # weight, gradient, two moments, and the count of steps
    packed = 64 * 64 // 2 + state.absmax.nbytes + state.code.nbytes + state.offset.nbytes
    packed += state.state2.absmax.nbytes + state.state2.code.nbytes
    assert bytes_of(tensors_of(model, optimizer)) == own + packed + 64 * 4  # and a bias


def test_a_storage_that_two_tensors_share_counts_once() -> None:
    tensor = torch.zeros(MIB, dtype=torch.uint8)
    assert bytes_of([tensor, tensor[1:], tensor.view(2, -1)]) == MIB


LOADING = """
import json, torch, torch_npu
from helpers.worker.callback import _Peaks
full = torch.zeros(4 << 20, dtype=torch.uint8).to("npu:0")
packed = full[: 1 << 20].clone()
del full
print(json.dumps(_Peaks("npu", torch.nn.Module()).found))
"""


@pytest.mark.skipif(npusim.available() is not None, reason=str(npusim.available()))
def test_what_loading_took_is_known_where_the_device_counts_it() -> None:
    """Weights that are quantised on the way lie there whole for a moment."""
    done = subprocess.run(
        [sys.executable, "-c", LOADING], env=npusim.environment(), cwd=paths.ROOT,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1]) == {"loading": 5 << 20}


def test_what_loading_took_on_a_cpu_is_recorded_with_what_stays_mapped(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(bytes(2 * MIB))
    model: Any = torch.nn.Module()
    model.name_or_path = str(tmp_path)
    assert allocator.loaded(model) is None  # nobody watched
    model.register_buffer("before", torch.zeros(8 * MIB, dtype=torch.uint8))
    allocator.watch_loading()
    # A file is mapped twice, and no memory but the tensor's that stays is counted for it.
    mapped, again = (torch.from_file(str(file), size=2 * MIB, dtype=torch.uint8) for _ in range(2))
    model.register_buffer("mapped", mapped)
    whole = torch.zeros(4 * MIB, dtype=torch.uint8)
    model.register_buffer("packed", whole[:MIB].clone())
    del whole, again
    assert allocator.loaded(model) == pytest.approx((8 + 2 + 4 + 1) * MIB, abs=4096)
    assert allocator.loaded(model) is None  # that was the end of it
    assert Meter("cpu").until_now() is None
