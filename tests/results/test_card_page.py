"""Pages and the table of real cards, from made-up ones."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest

from helpers.ground.errors import TutorialError
from helpers.records.card import Card, KernelRow, Operator, Steps
from helpers.results import card_page

GIB = 2**30
OPERATORS = [
    Operator(name="MatMulV2", core="AI_CORE", calls=10, microseconds=900.0),
    Operator(name="RightShift", core="AI_CPU", calls=2, microseconds=100.0),
]
TAKEN = {
    "seconds": [0.5, 0.4, 0.6], "loading_seconds": 2.0, "allocated_bytes": 3 * GIB,
    "planned_bytes": 2 * GIB, "tokens": 2048, "micro_batch": 2, "micro_batches": 2,
}  # fmt: skip


def made(**changes: Any) -> Card:
    """A card on which a LoRA and a QLoRA training were tried, and one setting."""
    facts: dict[str, Any] = {
        "day": date(2026, 11, 29), "profile": "npu", "device": "npu", "name": "Ascend910B2",
        "simulated": False, "total_bytes": 61 * GIB, "versions": {"CANN": "8.5.0", "torch": "2.9"},
        "length": 512, "checks": {"CANN": "OK", "bf16": "OK"}, "choice": "pairs4:8388608",
        "kernels": [KernelRow(matrix="m q", weights=64, formulation="pairs4", piece=8, equal=True,
                              nanoseconds=0.02, times_default=20.0)],
        "steps": [
            Steps(model="m", method="lora", kernels="", setting="", **TAKEN),
            Steps(model="m", method="qlora", kernels="chosen", setting="", operators=OPERATORS,
                  **TAKEN),
            Steps(model="m", method="lora", kernels="", setting="use_v1_kernels=True",
                  **TAKEN | {"seconds": [0.25]}),
            Steps(model="big", method="qlora", kernels="chosen", setting="", fault="out of memory"),
        ],
        "fallbacks": [], "seconds": 480.0,
    }  # fmt: skip
    return Card.model_validate(facts | changes)


def test_a_page_shows_what_was_found() -> None:
    page = card_page.page(made())
    assert "# Ascend910B2, 2026-11-29" in page
    assert "simulated" not in page.lower()
    assert "2 checks, all OK." in page
    assert "0.500 (0.400-0.600)" in page
    assert "| 1.500 |" in page  # allocated / planned
    assert "does not fit into the card's memory" in page
    assert "| 2.00 |" in page  # twice as fast with the setting
    assert "1 operator ran on the AICPU or the host, 10.0 % of the device's time" in page
    assert page.index("RightShift") < page.index("MatMulV2")  # what is slow comes first


def test_a_simulated_card_says_so_in_every_heading() -> None:
    page = card_page.page(made(simulated=True))
    headings = [line for line in page.splitlines() if line.startswith("#")]
    assert headings
    assert all(line.endswith("(simulated)") for line in headings)
    assert "nothing on this page was measured on a card" in page


def test_checks_that_fail_and_operators_that_fall_back_are_named() -> None:
    page = card_page.page(made(checks={"CANN": "FAIL", "a": "OK"}, fallbacks=["aten::nonzero"]))
    assert "| **CANN** | FAIL |" in page
    assert "1 more is OK." in page
    assert "Fell back to the host: `aten::nonzero`." in page


def test_the_table_of_real_cards_is_made_from_the_files(tmp_path: Path) -> None:
    assert "No real card was measured yet" in card_page.overview(card_page.read(tmp_path))
    (tmp_path / "a.json").write_text(made().model_dump_json())
    (tmp_path / "b.json").write_text(made(simulated=True, name="simulated").model_dump_json())
    cards = card_page.read(tmp_path)
    assert [card.name for card in cards] == ["Ascend910B2"]
    table = card_page.overview(cards)
    assert table.count("Ascend910B2") == 2  # what was tried with the article's settings, and ran
    assert "| 4096 | 3.00 | 2.00 |" in table


def test_a_file_that_is_no_cards_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(TutorialError, match=r"a\.json is no card's"):
        card_page.read(tmp_path)
