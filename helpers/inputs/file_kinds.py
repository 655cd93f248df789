"""What a file of rows is: by its name, by its first bytes, and whether its text is UTF-8."""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import Literal

from helpers.ground import paths
from helpers.ground.errors import TutorialError
from helpers.ground.words import series, tr
from helpers.inputs import json_rows

Kind = Literal["parquet", "json", "jsonl", "csv"]
KINDS: dict[str, Kind] = {".parquet": "parquet", ".json": "json", ".jsonl": "jsonl",
                          ".ndjson": "jsonl", ".csv": "csv", ".tsv": "csv"}  # fmt: skip
# Lists of rows and rows on lines go by either name, for LLaMA-Factory too.
_ALIKE = ({"json", "jsonl"}, {"csv"}, {"parquet"})
# As people write them.
SPELT: dict[Kind, str] = {"parquet": "parquet", "json": "JSON", "jsonl": "JSON Lines", "csv": "CSV"}
_BLOCK = 1 << 20  # bytes


def named_kind(file: Path) -> Kind | None:
    """Return what a file's name says that it holds, or None."""
    return KINDS.get(file.suffix.lower())


def _contents(file: Path) -> tuple[Kind | None, str]:
    """Return what a file holds by its first bytes, and its name where it is none of ours.

    Raises:
        TutorialError: it holds nothing.
    """
    with file.open("rb") as opened:
        head = opened.read(4096)
        while head and not head.strip(b"\xef\xbb\xbf \t\r\n"):
            head = opened.read(4096)
    if not head:
        raise TutorialError(
            tr(
                "{file} is empty: DATA= takes a file with one row a problem.",
                file=paths.shown(file),
            )
        )
    if head.startswith(b"PAR1"):
        return "parquet", ""
    for start, name in ((b"PK\x03\x04", tr("a zip archive or an Excel workbook")),
                        (b"\x1f\x8b", tr("compressed with gzip")),
                        (b"ARROW1", tr("an Arrow file")),
                        (b"\xff\xfe", "UTF-16"), (b"\xfe\xff", "UTF-16")):  # fmt: skip
        if head.startswith(start):
            return None, name
    if b"\0" in head:
        return None, tr("neither text nor parquet")
    return ("json" if head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"[", b"{") else "csv"), ""


def checked(file: Path) -> Kind:
    """Return what a file holds.

    Raises:
        TutorialError: it is of no kind that can be read, or holds another than its name says.
    """
    named, (held, other) = named_kind(file), _contents(file)
    shown, known = paths.shown(file), series(KINDS)
    if named is None:
        raise TutorialError(
            tr(
                "The name of {file} does not say what it holds: DATA= takes files that end in "
                "{known}.",
                file=shown,
                known=known,
            )
        )
    if other:
        raise TutorialError(
            tr(
                "{file} is {found}, and no {named} file as its name says: save what it holds as "
                "parquet, or as JSON, JSON Lines or CSV in UTF-8.",
                file=shown,
                found=other,
                named=SPELT[named],
            )
        )
    assert held
    if not any({named, held} <= alike for alike in _ALIKE):
        if held == "csv":  # any text might be
            raise TutorialError(
                tr(
                    "{file} holds text that is no {named}: give it a name that ends in .csv if it "
                    "is a table, or save it as {named} in full.",
                    file=shown,
                    named=SPELT[named],
                )
            )
        raise TutorialError(
            tr(
                "{file} holds {found}, and its name says {named}: rename it to {right}.",
                file=shown,
                found=SPELT[held],
                named=SPELT[named],
                right=file.with_suffix(f".{held}").name,
            )
        )
    return held if held != "json" else json_rows.kind(file)


def check_utf8(file: Path) -> None:
    """Check that a text file is UTF-8 throughout.

    Raises:
        TutorialError: it is not; the sentence names the line.
    """
    decoder, lines = codecs.getincrementaldecoder("utf-8")(), 0
    with file.open("rb") as opened:
        while True:
            block = opened.read(_BLOCK)
            try:
                decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                before = error.object[: error.start]
                number = lines + before.count(b"\n") + 1
                line = error.object[before.rfind(b"\n") + 1 :].split(b"\n")[0]
                byte = error.object[error.start]
                raise TutorialError(_encoding(file, number, line, byte)) from error
            if not block:
                return
            lines += block.count(b"\n")


def _encoding(file: Path, number: int, line: bytes, byte: int) -> str:
    shown = paths.shown(file)
    try:
        as_gbk = line.decode("gb18030")
    except UnicodeDecodeError:
        as_gbk = ""
    if sum("\u4e00" <= letter <= "\u9fff" for letter in as_gbk) > 1:
        return tr(
            "{file} is not UTF-8 (line {line}) but GBK by the look of it: save it as UTF-8, with "
            "'iconv -f GB18030 -t UTF-8' or in Excel as 'CSV UTF-8'.",
            file=shown,
            line=number,
        )
    return tr(
        "{file} is not UTF-8: line {line} holds the byte {byte}; save it as UTF-8, with iconv or "
        "in Excel as 'CSV UTF-8'.",
        file=shown,
        line=number,
        byte=f"0x{byte:02x}",
    )
