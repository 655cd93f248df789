"""Reading npu-smi: the shapes of public reports, generated tables, and damaged ones."""

import contextlib
import random
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.machine import npu_smi
from helpers.machine.npu_smi import Card, Process, UnreadableOutput, parse

FIXTURES = Path(__file__).parents[1] / "fixtures" / "npu_smi"
TABLES = sorted(path for path in FIXTURES.glob("*.txt") if not path.name.startswith("dcmi"))


def fixture(name: str) -> str:
    return (FIXTURES / f"{name}.txt").read_text("utf-8")


def answer_with(monkeypatch: pytest.MonkeyPatch, folder: Path, script: str) -> None:
    """Put an npu-smi on PATH that is this shell script."""
    program = folder / "npu-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_one_card_with_a_figure_that_touches_the_slash() -> None:
    info = parse(fixture("910b2_23.0.7"))
    assert info.version == "23.0.7"
    assert info.cards == (Card(0, 0, "910B2", "OK", 96.5, 36, 0, 29954, 65536, "0000:C1:00.0"),)
    assert info.processes == ()


def test_a_process_and_an_id_that_is_not_0() -> None:
    info = parse(fixture("910b3_25.5.1_busy"))
    assert info.cards == (Card(5, 0, "910B3", "OK", 100.8, 44, 12, 60156, 65536, "0000:02:00.0"),)
    assert info.processes == (Process(5, 0, 2290156, "VLLMEngineCore", 56630),)


def test_idle_cards() -> None:
    info = parse(fixture("910b3_24.1_idle"))
    assert [(card.npu_id, card.health) for card in info.cards] == [(2, "OK"), (5, "Warning")]
    assert info.processes == ()


def test_two_chips_a_card_with_phy_id() -> None:
    info = parse(fixture("910_a3_25.3_phy_id"))
    assert [(card.npu_id, card.chip_id) for card in info.cards] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert [card.power_w for card in info.cards] == [166.9, None, 162.1, None]
    assert [card.hbm_used_mb for card in info.cards] == [46536, 2896, 3128, 2885]
    assert info.processes == (Process(0, 0, 824166, "VLLMWorker_TP", 43316),)


def test_wide_columns_and_a_fifth_process_column() -> None:
    info = parse(fixture("910_a3_26.0_container"))
    assert [(card.npu_id, card.hbm_used_mb) for card in info.cards] == [(7, 15503), (7, 15242)]
    assert info.processes == (
        Process(7, 0, 692318, "python3", 12417),
        Process(7, 1, 692318, "python3", 12156),
    )


def test_cards_without_hbm() -> None:
    info = parse(fixture("310p3_24.1_no_hbm"))
    assert [(card.npu_id, card.chip_id, card.name) for card in info.cards] == [
        (1, 0, "310P3"),
        (1, 1, "310P3"),
    ]
    assert {(card.power_w, card.hbm_used_mb, card.hbm_total_mb) for card in info.cards} == {
        (None, None, None)
    }
    assert [card.temperature_c for card in info.cards] == [59, 58]


def test_no_chip_ids() -> None:
    info = parse(fixture("950_npu_id_only"))
    assert info.cards == (Card(3, 0, "950PR", "OK", 210.4, 41, 88, 70156, 131072, "0000:C1:00.0"),)
    assert info.processes == (Process(3, 0, 4711, "python", 66012),)


def test_blank_names_and_figures() -> None:
    info = parse(fixture("blank_names"))
    assert info.cards == (Card(4, 0, "", "OK", None, None, None, None, None, None),)
    assert info.processes == (
        Process(4, 0, 395864, "", 5118),
        Process(4, 0, 395865, "a|b", None),
    )


def test_a_blank_power_does_not_move_the_temperature_into_its_place() -> None:
    text = fixture("910b2_23.0.7").replace("96.5", "    ")
    (card,) = parse(text).cards
    assert (card.power_w, card.temperature_c, card.hbm_used_mb) == (None, None, 29954)


def test_a_heading_that_comes_again_is_no_card() -> None:
    text = fixture("910b3_25.5.1_busy")
    info = parse(text + text)
    assert [card.npu_id for card in info.cards] == [5, 5]
    assert len(info.processes) == 2


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda text: "", "no card"),
        (lambda text: "npu-smi: command failed", "no card"),
        (lambda text: text.replace("| 0     910B2", "| x     910B2"), "NPU id"),
        (lambda text: text.replace("29954/ 65536", "             "), "usages"),
        (lambda text: "\n".join(text.splitlines()[:7]), "second row"),
    ],
)
def test_what_cannot_be_read_is_refused(damage, reason: str) -> None:
    with pytest.raises(UnreadableOutput, match=reason):
        parse(damage(fixture("910b2_23.0.7")))


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(TABLES), st.randoms(use_true_random=False), st.integers(1, 30))
def test_damaged_tables_raise_nothing_else(path: Path, chance: random.Random, cuts: int) -> None:
    text = list(path.read_text("utf-8"))
    for _ in range(cuts):
        at = chance.randrange(len(text))
        kind = chance.randrange(4)
        if kind == 0:
            text[at] = chance.choice("|+=-/ 09xNA\n\u00b2\u0663")
        elif kind == 1:
            del text[at : at + chance.randrange(1, 120)]
        elif kind == 2:
            text.insert(at, chance.choice(["|", "\n", "| |", "99999999999999", "HBM-Usage(MB)"]))
        else:
            text[at:at] = text[max(0, at - 200) : at]
        text = text or [" "]
    with contextlib.suppress(UnreadableOutput):
        parse("".join(text))


WORD = st.text("ABCDEFxyz0123456789_-.", min_size=1, max_size=12)
FIGURE = st.integers(0, 999_999)


@st.composite
def cards(draw: st.DrawFn) -> Card:
    return Card(
        npu_id=draw(st.integers(0, 40_000)),
        chip_id=draw(st.integers(0, 3)),
        name=draw(st.one_of(st.just(""), WORD)),
        health=draw(st.sampled_from(["OK", "Warning", "Alarm", "Critical", "UNKNOWN"])),
        power_w=draw(st.one_of(st.none(), st.integers(0, 9999).map(lambda tenth: tenth / 10))),
        temperature_c=draw(st.one_of(st.none(), st.integers(0, 120))),
        aicore_percent=draw(st.integers(0, 100)),
        hbm_used_mb=draw(FIGURE),
        hbm_total_mb=draw(FIGURE),
        bus_id=draw(st.sampled_from(["0000:C1:00.0", "0001:02:00.1"])),
    )


@st.composite
def processes(draw: st.DrawFn) -> Process:
    return Process(
        npu_id=draw(st.integers(0, 40_000)),
        chip_id=draw(st.integers(0, 3)),
        pid=draw(st.integers(1, 4_194_304)),
        name=draw(st.one_of(st.just(""), WORD)),
        memory_mb=draw(FIGURE),
    )


def shown(figure: float | None, blank: str) -> str:
    return blank if figure is None else f"{figure}"


@st.composite
def tables(draw: st.DrawFn) -> tuple[str, list[Card], list[Process]]:
    """A table of random cards, column widths, blanks and touching slashes; and what it says."""
    wanted = draw(st.lists(cards(), min_size=1, max_size=4))
    held = draw(st.lists(processes(), max_size=3))
    wide = [draw(st.integers(1, 30)) for _ in range(6)]
    slash = draw(st.sampled_from(["/", "/ ", " / ", "    / "]))
    blank = draw(st.sampled_from(["-", "NA"]))
    phy = draw(st.booleans())
    rule = draw(st.sampled_from(["+====+====+", "+----+----+"]))
    lines = [
        "| npu-smi 1.0   Version: 1.0 |",
        "| NPU   Name | Health | Power(W)  Temp(C)  Hugepages-Usage(page)|",
        f"| Chip {'Phy-ID' if phy else ''} | Bus-Id | AICore(%) Memory-Usage(MB) HBM-Usage(MB)|",
        rule,
    ]
    for card in wanted:
        power, temperature = shown(card.power_w, blank), shown(card.temperature_c, blank)
        lines += [
            f"| {card.npu_id:<{wide[0]}} {card.name:<{wide[1]}}| {card.health:<{wide[2]}}|"
            f" {power:<{wide[3]}} {temperature:<{wide[4]}} 0{slash}0 |",
            f"| {card.chip_id:<{wide[0]}} {'9' if phy else '':<{wide[1]}}| {card.bus_id} |"
            f" {card.aicore_percent:<{wide[3]}} 0{slash}0 {card.hbm_used_mb}{slash}"
            f"{card.hbm_total_mb:<{wide[5]}}|",
            rule,
        ]
    lines.append("| NPU     Chip   | Process id    | Process name | Process memory(MB)   |")
    lines += [
        f"| {one.npu_id:<{wide[0]}} {one.chip_id} | {one.pid:<{wide[3]}} | {one.name:<{wide[4]}}|"
        f" {one.memory_mb} |"
        for one in held
    ]
    return "\n".join([*lines, rule]), wanted, held


@settings(max_examples=200, deadline=None)
@given(tables())
def test_generated_tables_read_back(table: tuple[str, list[Card], list[Process]]) -> None:
    text, wanted, held = table
    info = parse(text)
    assert list(info.cards) == wanted
    assert list(info.processes) == held


def test_query_runs_npu_smi(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    answer_with(monkeypatch, tmp_path, f"test $1 = info && cat {FIXTURES}/910b3_25.5.1_busy.txt")
    assert npu_smi.query().cards[0].npu_id == 5
    assert npu_smi.hbm_used_bytes(5) == 60156 * 2**20
    with pytest.raises(UnreadableOutput, match="NPU 0"):
        npu_smi.hbm_used_bytes(0)


def test_query_keeps_what_a_failing_npu_smi_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    answer_with(monkeypatch, tmp_path, f"cat {FIXTURES}/dcmi_8005.txt; exit 1")
    with pytest.raises(UnreadableOutput, match="exit code 1") as refused:
        npu_smi.query()
    assert "-8005" in refused.value.output


def test_query_without_npu_smi(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FileNotFoundError):
        npu_smi.query()


@pytest.mark.parametrize(("content", "mode"), [("not a program", 0o755), ("#!/bin/sh", 0o644)])
def test_query_of_what_cannot_be_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str, mode: int
) -> None:
    program = tmp_path / "npu-smi"
    program.write_text(content)
    program.chmod(mode)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnreadableOutput, match="cannot be run"):
        npu_smi.query()


def test_query_does_not_wait_for_a_hung_driver(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    answer_with(monkeypatch, tmp_path, "exec sleep 20")
    with pytest.raises(subprocess.TimeoutExpired):
        npu_smi.query(timeout=0.3)


@pytest.mark.parametrize(("visible", "npu_id"), [(None, 2), ("", 2), ("1", 5), ("1,0", 5)])
def test_the_card_in_use_is_counted_from_0(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, npu_id: int
) -> None:
    monkeypatch.delenv("ASCEND_RT_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("ASCEND_RT_VISIBLE_DEVICES", visible)
    assert npu_smi.card_in_use(parse(fixture("910b3_24.1_idle"))).npu_id == npu_id


@pytest.mark.parametrize("visible", ["2", "a"])
def test_a_card_that_is_not_shown(monkeypatch: pytest.MonkeyPatch, visible: str) -> None:
    monkeypatch.setenv("ASCEND_RT_VISIBLE_DEVICES", visible)
    with pytest.raises(UnreadableOutput):
        npu_smi.card_in_use(parse(fixture("910b3_24.1_idle")))
