"""tests/FAULTS.md is complete, and names tests that exist."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from helpers.programs import faults

TABLE = Path(__file__).parents[1] / "FAULTS.md"
# What a run of hours must survive, in the words of the table.
REQUIRED = (
    "the training is killed", "kernel is killed", "papermill", "two notebooks", "disk full",
    "read-only", "a download breaks off", "wrong hash", "corrupted parquet", "NPU out of memory",
    "GPU out of memory", "loss is not a number", "port in use", "no network", "a stale .venv",
    "a checkpoint is half-written", "comparison.json is half-written", "bad rows",
    "killed by the kernel for its memory", "unknown recipe key", "a wrong value",
    "before its predecessor", "lacks a shard",
)  # fmt: skip


def rows(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def faults_of(text: str) -> list[str]:
    """Return what is wrong with a table, in words."""
    found = []
    table = rows(text)
    names = [row[0] for row in table]
    found += [f"{row[0]}: {len(row)} cells" for row in table if len(row) != 4 or not all(row)]
    found += [f"{row[0]}: kind {row[1]}" for row in table if row[1] not in ("real", "text")]
    found += [f"{name} stands twice" for name in set(names) if names.count(name) > 1]
    for row in table:
        file, _, test = row[-1].partition("::")
        path = TABLE.parent / file
        tree = ast.parse(path.read_text("utf-8") if path.is_file() else "")
        if test not in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}:
            found.append(f"{row[-1]} does not exist")
    found += [f"{fault.name} is missing" for fault in faults.known() if fault.name not in names]
    found += [f"{words} is missing" for words in REQUIRED if not any(words in n for n in names)]
    return found


def test_every_fault_has_its_test_and_is_one_of_at_least_25() -> None:
    text = TABLE.read_text("utf-8")
    assert faults_of(text) == []
    assert len({row[-1] for row in rows(text)}) >= 25


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("::test_any_profile", "::test_no_such_thing", "does not exist"),
        ("test_properties.py::test_any_name", "test_absent.py::test_any_name", "does not exist"),
        ("| HCCL busy |", "| hccl |", "HCCL busy is missing"),
        ("a stale .venv", "an old .venv", "a stale .venv is missing"),
        ("| odd profiles | real |", "| odd profiles | perhaps |", "kind perhaps"),
        ("| odd overrides | real |", "| odd overrides |", "3 cells"),
        ("| odd overrides |", "| odd profiles |", "stands twice"),
    ],
)
def test_a_fault_of_the_table_itself_is_found(old: str, new: str, words: str) -> None:
    text = TABLE.read_text("utf-8")
    assert old in text
    assert words in "; ".join(faults_of(text.replace(old, new)))
