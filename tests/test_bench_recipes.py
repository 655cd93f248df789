"""What measuring memory costs: from calls with it and without, and on the results page."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest

from helpers.ground import paths
from helpers.worker.events import Event


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(paths.ROOT / "benchmarks"))
    import bench_recipes

    return bench_recipes


def test_a_calls_pieces_are_its_whole_time(bench: ModuleType) -> None:
    told: list[Event] = [
        {"event": "loaded", "at": 12.0},
        {"event": "evaluating", "at": 13.0, "done": 1},  # as often as the clock has it
        {"event": "step", "at": 15.0},
        {"event": "peak", "at": 16.0, "of": "training"},  # of a measured call alone
    ]
    assert bench.pieces(10.0, told, 17.5) == [2.0, 3.0, 2.5]


def calls(**pieces: list[list[float]]) -> dict[str, list[dict[str, Any]]]:
    return {
        kind: [
            {"call_seconds": sum(each), "pieces": each, "seconds_of_measuring": 1.5}
            for each in found
        ]
        for kind, found in pieces.items()
    }


def test_a_pause_in_one_call_is_no_cost_of_measuring(bench: ModuleType) -> None:
    plain = [[10.0, 90.0]] * 3
    found = bench.cost_of_measuring(
        calls(measured=[[11.0, 90.0], [11.0, 190.0], [31.0, 90.0]], plain=plain)
    )
    assert found["call_seconds"] == {"measured": 121.0, "plain": 100.0}
    assert (found["cost"], found["cost_spread"]) == (0.21, [0.01, 1.01])
    assert (found["cost_of_pieces"], found["seconds_of_pieces"]) == (0.01, 1.0)
    assert found["seconds_of_measuring"] == 1.5


def test_the_page_tells_it_in_both_languages(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    import table

    monkeypatch.syspath_prepend(str(paths.ROOT / "book"))
    import book_results

    each = {
        "call_seconds": {"plain": 200.0, "measured": 202.0}, "cost": 0.011,
        "cost_spread": [-0.01, 0.02], "cost_of_pieces": 0.0104,
        "seconds_of_pieces": 2.08, "seconds_of_measuring": 1.52,
    }  # fmt: skip
    origin = table.load("recipes")
    methods = {"lora": each, "qlora": each}
    monkeypatch.setattr(table, "load", lambda name: origin | {"methods": methods})
    english = table.measuring()
    assert (
        "| LoRA | 200.0 s | 202.0 s | +1.1 % (-1.0 to +2.0) | +1.0 %, +2.1 s | 1.5 s |" in english
    )
    known = book_results.catalogue(paths.ROOT / "book/zh/results.po")
    assert "202.0" in book_results.translated(english, known, "results.po")
