"""Which kernels a device uses: asked for, kept from a measurement, or built in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from helpers.ground import paths
from helpers.worker import kernel_choice
from helpers.worker.kernel_choice import BUILT_IN, ON_CPU, Choice, Timing

CPU = torch.device("cpu")
TIMINGS = [Timing("pairs8", 1 << 20, 3.0), Timing("default", 1 << 22, 30.0)]


@pytest.fixture(autouse=True)
def nothing_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(paths, "RUNS", tmp_path)
    monkeypatch.delenv(kernel_choice.VARIABLE, raising=False)
    kernel_choice.current.cache_clear()
    return tmp_path / "kernels_4bit.json"


@pytest.mark.parametrize(
    ("text", "choice"),
    [
        ("pairs4", Choice("pairs4", BUILT_IN.piece)),
        ("pairs8:1048576", Choice("pairs8", 1 << 20)),
        ("default", Choice("default", BUILT_IN.piece)),
    ],
)
def test_a_choice_can_be_asked_for(
    text: str, choice: Choice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(kernel_choice.VARIABLE, text)
    assert kernel_choice.asked() == choice == kernel_choice.current(CPU)


@pytest.mark.parametrize("text", ["pairs", "pairs4:0", "pairs4:many", "pairs4:-4", ":1"])
def test_what_cannot_be_asked_for_is_refused_and_stops_no_training(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(kernel_choice.VARIABLE, text)
    with pytest.raises(ValueError, match=text):
        kernel_choice.asked()
    assert kernel_choice.current(CPU) == ON_CPU


def test_what_was_measured_is_kept_for_its_versions_alone(
    nothing_kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert kernel_choice.kept("cpu") is None
    kernel_choice.keep("cpu", Choice("pairs8", 1 << 20), TIMINGS)
    assert kernel_choice.kept("cpu") == (Choice("pairs8", 1 << 20), TIMINGS)
    kernel_choice.keep("cpu", Choice("pairs4", 1 << 21), TIMINGS)
    assert len(json.loads(nothing_kept.read_text())) == 1  # of the same versions, the last
    monkeypatch.setattr(torch.version, "cann", "9.9", raising=False)
    assert kernel_choice.kept("cpu") is None
    kernel_choice.keep("cpu", Choice("default", 1 << 20), TIMINGS)
    assert len(json.loads(nothing_kept.read_text())) == 2


@pytest.mark.parametrize("text", ["", "{", "[1]", "{}", '[{"holds_for": 1}]'])
def test_a_damaged_file_is_no_choice(nothing_kept: Path, text: str) -> None:
    nothing_kept.write_text(text)
    assert kernel_choice.kept("cpu") is None
    kernel_choice.keep("cpu", BUILT_IN, TIMINGS)
    assert kernel_choice.kept("cpu") == (BUILT_IN, TIMINGS)


@pytest.mark.parametrize("broken", [{"timings": [{"x": 1}]}, {"choice": "fast"}, {"choice": 1}])
def test_a_damaged_entry_is_no_choice(nothing_kept: Path, broken: dict[str, object]) -> None:
    kernel_choice.keep("cpu", BUILT_IN, TIMINGS)
    (entry,) = json.loads(nothing_kept.read_text())
    nothing_kept.write_text(json.dumps([entry | broken]))
    assert kernel_choice.kept("cpu") is None


def test_a_device_without_a_measurement_begins_with_what_is_built_in() -> None:
    assert kernel_choice.current(CPU) == ON_CPU
    assert kernel_choice.current(torch.device("meta")) == BUILT_IN
    assert BUILT_IN.formulation == "pairs4"
