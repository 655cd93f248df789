"""Reading `npu-smi info`: which NPUs there are, what they use, and which processes hold memory.

The tables differ between drivers and chips. So nothing here counts characters: columns are found
by their headings, rows by their bars. The shapes covered are those of public reports (drivers 22 to
26) and of the tool's own printf formats; tests/fixtures/npu_smi holds one of each.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

from helpers.ground.words import tr, trn
from helpers.machine import cards

MEGABYTE = 1 << 20  # npu-smi's MB: a 64 GiB card has 65536 of them

_USAGE_NAME = re.compile(r"(\S+)-Usage\(")
_USAGE = re.compile(r"(\d+|NA|N/A|-)\s*/\s*(\d+|NA|N/A|-)")
_NUMBER = re.compile(r"\d{1,9}(\.\d{1,9})?")


class UnreadableOutput(ValueError):
    """npu-smi said something that is not one of its tables; `output` is what it said."""

    def __init__(self, reason: str, output: str = "") -> None:
        self.output = output
        super().__init__(reason)


@dataclass(frozen=True)
class Card:
    """One chip with its own memory. Figures that npu-smi does not give are None."""

    npu_id: int
    chip_id: int
    name: str
    health: str
    power_w: float | None
    temperature_c: int | None
    aicore_percent: int | None
    hbm_used_mb: int | None
    hbm_total_mb: int | None
    bus_id: str | None


@dataclass(frozen=True)
class Process:
    """One process that holds memory of a chip."""

    npu_id: int
    chip_id: int
    pid: int
    name: str
    memory_mb: int | None


@dataclass(frozen=True)
class Info:
    """What `npu-smi info` showed; the cards in its order, which is that of the device numbers."""

    version: str
    cards: tuple[Card, ...]
    processes: tuple[Process, ...]


def _cells(line: str) -> list[str]:
    """Return the cells of a table row; none for rules and for lines outside the table."""
    line = line.strip()
    if len(line) < 2 or line[0] != "|" or line[-1] != "|":
        return []
    return [cell.strip() for cell in line[1:-1].split("|")]


def _whole(text: str, what: str) -> int:
    if not re.fullmatch(r"[0-9]{1,10}", text):
        raise UnreadableOutput(tr("{what} {text!r} is not a number", what=what, text=text))
    return int(text)


def _figure(text: str) -> float | None:
    """Return a figure, or None for what npu-smi prints where it has none ("-", "NA", nothing)."""
    return float(text) if _NUMBER.fullmatch(text) else None


def _figures(cell: str, count: int) -> list[float | None]:
    """Return the `count` figures that stand before the usages of a cell; None each if they differ.

    A blank figure leaves no trace between the others, so it cannot be told which one is missing.
    """
    words = _USAGE.sub("", cell).split()
    return [_figure(word) for word in words] if len(words) == count else [None] * count


def _rounded(figure: float | None) -> int | None:
    return None if figure is None else round(figure)


def _memory(text: str, usages: list[str]) -> tuple[int | None, int | None]:
    """Return used and total HBM in MB from the last cell of a chip's second row.

    Args:
        text: the cell, such as "0           0    / 0          29954/ 65536".
        usages: the names before "-Usage" in the heading above, such as ["Memory", "HBM"].
    """
    pairs = _USAGE.findall(text)
    if len(pairs) != len(usages):
        raise UnreadableOutput(
            tr("{text!r} does not hold the {n} usages of its heading", text=text, n=len(usages))
        )
    if "HBM" not in usages:
        return None, None
    used, total = pairs[usages.index("HBM")]
    return _rounded(_figure(used)), _rounded(_figure(total))


def _card(first: list[str], second: list[str], usages: list[str]) -> Card:
    """Return the card that two rows describe.

    The last cell holds the figures, the one before it health or bus. What stands before those is
    one cell or (Ascend 950) two: id and name, chip and Phy-ID.
    """
    if len(first) < 3 or len(second) != len(first):
        raise UnreadableOutput(tr("a card's two rows do not have the same cells"))
    npu, _, name = " ".join(first[:-2]).strip().partition(" ")
    chip = " ".join(second[:-2]).split()
    power, temperature = _figures(first[-1], 2)
    (aicore,) = _figures(second[-1], 1)
    bus = second[-2]
    used, total = _memory(second[-1], usages)
    return Card(
        npu_id=_whole(npu, tr("the NPU id")),
        chip_id=_whole(chip[0], tr("the chip id")) if chip else 0,
        name=name.strip(),
        health=first[-2],
        power_w=power,
        temperature_c=_rounded(temperature),
        aicore_percent=_rounded(aicore),
        hbm_used_mb=used,
        hbm_total_mb=total,
        bus_id=bus if re.fullmatch(r"[0-9A-Fa-f:.]+", bus) else None,
    )


def _process(cells: list[str], heading: list[str]) -> Process:
    """Return the process that a row describes, its columns found by the heading."""
    name_at = heading.index("Process name")
    behind = len(heading) - name_at - 1
    # A "|" in a process's own name makes the row longer: the name takes the surplus.
    name_end = len(cells) - behind
    memory_at = heading.index("Process memory(MB)") + len(cells) - len(heading)
    ids = cells[0].split()
    if name_end <= name_at or not ids:
        raise UnreadableOutput(tr("a row of the process table has too few cells"))
    return Process(
        npu_id=_whole(ids[0], tr("the NPU id")),
        chip_id=_whole(ids[1], tr("the chip id")) if len(ids) > 1 else 0,
        pid=_whole(cells[heading.index("Process id")], tr("the process id")),
        name="|".join(cells[name_at:name_end]),
        memory_mb=_rounded(_figure(cells[memory_at])),
    )


def _rows(text: str) -> Iterator[tuple[str, list[str], list[str]]]:
    """Yield (table, heading, cells) for each row: "card" or "process" and the last heading row."""
    table, heading = "", [""]
    for line in text.splitlines():
        cells = _cells(line)
        if not cells or cells[0].startswith(("No running process", "npu-smi ")):
            continue
        if "Health" in cells or "Bus-Id" in cells:
            table, heading = "card", cells
        elif "Process id" in cells:
            table, heading = "process", cells
        elif table:
            yield table, heading, cells


def parse(text: str) -> Info:
    """Return what `npu-smi info` printed.

    Raises:
        UnreadableOutput: the text is not such a table, or its ids cannot be read.
    """
    version = re.search(r"npu-smi\s+(\S+)", text)
    cards: list[Card] = []
    processes: list[Process] = []
    waiting: list[str] = []
    for table, heading, cells in _rows(text):
        if table == "process":
            if not {"Process name", "Process memory(MB)"} <= set(heading):
                raise UnreadableOutput(tr("the process table has other columns"))
            processes.append(_process(cells, heading))
        elif waiting:
            cards.append(_card(waiting, cells, _USAGE_NAME.findall(heading[-1])))
            waiting = []
        else:
            waiting = cells
    if waiting:
        raise UnreadableOutput(tr("a card's second row is missing"))
    if not cards:
        raise UnreadableOutput(tr("it lists no card"))
    return Info(version[1] if version else "", tuple(cards), tuple(processes))


def query(timeout: float = 10) -> Info:
    """Return what `npu-smi info` shows now. It needs a second or so.

    Args:
        timeout: seconds to wait; a driver in trouble can hang.

    Raises:
        FileNotFoundError: there is no npu-smi.
        UnreadableOutput: it failed, or printed something else than its table.
        subprocess.TimeoutExpired: it did not answer in time.
    """
    try:
        done = subprocess.run(
            ["npu-smi", "info"], capture_output=True, text=True, errors="replace", timeout=timeout
        )
    except FileNotFoundError:
        raise
    except OSError as error:  # not for this user, or not a program of this machine
        reason = tr("it cannot be run: {reason}", reason=error.strerror)
        raise UnreadableOutput(reason, str(error)) from error
    output = done.stdout + done.stderr
    if done.returncode != 0:
        raise UnreadableOutput(tr("it ended with exit code {code}", code=done.returncode), output)
    try:
        return parse(output)
    except UnreadableOutput as error:
        raise UnreadableOutput(str(error), output) from error


def card_in_use(info: Info) -> Card:
    """Return the card that torch calls npu:0.

    ASCEND_RT_VISIBLE_DEVICES counts the cards in npu-smi's order from 0, whatever their ids are
    (in a container they need not start at 0).

    Raises:
        UnreadableOutput: the variable names a card that npu-smi does not show.
    """
    first = cards.visible("ASCEND_RT_VISIBLE_DEVICES", 1)
    position = _whole(first, "ASCEND_RT_VISIBLE_DEVICES")
    if position >= len(info.cards):
        raise UnreadableOutput(
            trn(
                "ASCEND_RT_VISIBLE_DEVICES asks for card {position}, and {n} is shown",
                "ASCEND_RT_VISIBLE_DEVICES asks for card {position}, and {n} are shown",
                len(info.cards),
                position=position,
            )
        )
    return info.cards[position]


def hbm_used_bytes(npu_id: int, chip_id: int = 0) -> int:
    """Return the HBM in use on a card, whoever holds it, driver included, in bytes.

    Raises:
        UnreadableOutput: npu-smi shows no such card, or none of its HBM.
        FileNotFoundError, subprocess.TimeoutExpired: as `query`.
    """
    for card in query().cards:
        if (card.npu_id, card.chip_id) == (npu_id, chip_id) and card.hbm_used_mb is not None:
            return card.hbm_used_mb * MEGABYTE
    raise UnreadableOutput(
        tr("it shows no HBM for NPU {npu}, chip {chip}", npu=npu_id, chip=chip_id)
    )
