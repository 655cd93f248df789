"""The committed notebooks pass every gate, and every gate is shown to fire."""
# ruff: noqa: RUF001

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import notebook_gates as gates
import pytest

from helpers.ground import paths, words


def shipped(name: str, language: str = "en") -> Path:
    return paths.edition(paths.NOTEBOOKS, language) / f"{name}.ipynb"


@pytest.mark.parametrize("language", words.languages())
@pytest.mark.parametrize("name", paths.NOTEBOOK_NAMES)
def test_a_shipped_notebook_has_no_fault(name: str, language: str) -> None:
    assert gates.all_faults(shipped(name, language)) == []


@pytest.mark.parametrize("language", words.languages())
def test_there_are_six_and_their_parameters_are_the_same(language: str) -> None:
    folder = shipped("", language).parent
    assert sorted(f.stem for f in folder.glob("*.ipynb")) == list(paths.NOTEBOOK_NAMES)
    cells = set()
    for name in paths.NOTEBOOK_NAMES:
        notebook = json.loads(shipped(name, language).read_text("utf-8"))
        cells |= {
            gates.source(cell)
            for cell in gates.code_cells(notebook)
            if "parameters" in cell["metadata"].get("tags", [])
        }
    assert len(cells) == 1


def test_no_module_imports_a_notebook() -> None:
    for file in [*(paths.ROOT / "helpers").rglob("*.py"), *(paths.ROOT / "tests").rglob("*.py")]:
        text = file.read_text("utf-8")
        assert "import_ipynb" not in text or file.name == "test_notebook_files.py", file


def plant_null_count(notebook: dict[str, Any]) -> None:
    gates.code_cells(notebook)[2]["execution_count"] = None


def plant_order(notebook: dict[str, Any]) -> None:
    first, second = gates.code_cells(notebook)[:2]
    first["execution_count"], second["execution_count"] = 2, 1


def plant_error(notebook: dict[str, Any]) -> None:
    gates.code_cells(notebook)[0]["outputs"] = [{"output_type": "error"}]


def plant_lost_figure(notebook: dict[str, Any]) -> None:
    for cell in gates.code_cells(notebook):
        cell["outputs"] = [out for out in cell["outputs"] if "image/png" not in json.dumps(out)]


def plant_path(notebook: dict[str, Any]) -> None:
    text = {"output_type": "stream", "name": "stdout", "text": ["in /home/me/runs"]}
    gates.code_cells(notebook)[0]["outputs"] = [text]


def plant_key(notebook: dict[str, Any]) -> None:
    gates.code_cells(notebook)[0]["source"] = "api_key = 'abcdef123456'"


def plant_second_parameters(notebook: dict[str, Any]) -> None:
    gates.code_cells(notebook)[0]["metadata"]["tags"] = ["parameters"]
    gates.code_cells(notebook)[1]["metadata"]["tags"] = ["parameters"]


def plant_import(notebook: dict[str, Any]) -> None:
    gates.code_cells(notebook)[0]["source"] += "\nimport torch"


def plant_kernel(notebook: dict[str, Any]) -> None:
    notebook["metadata"]["kernelspec"]["name"] = "python3"


def plant_logic(notebook: dict[str, Any]) -> None:
    gates.code_cells(notebook)[2]["source"] = "def f():\n    return 1"


def plant_loop(notebook: dict[str, Any]) -> None:
    gates.code_cells(notebook)[2]["source"] = "for each in t.methods:\n    each.train()"


def plant_unpacking(notebook: dict[str, Any]) -> None:
    gates.code_cells(notebook)[2]["source"] = "header, rows = t.machine"


def plant_f_string(notebook: dict[str, Any]) -> None:
    gates.code_cells(notebook)[2]["source"] = "t.method(f'{name}')"


def plant_prose(notebook: dict[str, Any]) -> None:
    gates.code_cells(notebook)[2]["source"] = "t.show('The two methods')"


def plant_comment(notebook: dict[str, Any]) -> None:
    gates.code_cells(notebook)[2]["source"] = "t.compare()  # all of them"


def plant_long_cell(notebook: dict[str, Any]) -> None:
    gates.code_cells(notebook)[2]["source"] = "t.compare()\n" * 6


def plant_many_lines(notebook: dict[str, Any]) -> None:
    for cell in gates.written_by_hand(notebook):
        cell["source"] += "\nt.machine" * (4 - len(gates.source(cell).splitlines()))


def plant_other_language(notebook: dict[str, Any]) -> None:
    text = {"output_type": "stream", "name": "stdout", "text": ["检查：全部通过"]}
    notebook["cells"][-2]["outputs"] = [text]


def plant_bare_opening(notebook: dict[str, Any]) -> None:
    notebook["cells"][0]["source"] = "# Title"


def plant_size(notebook: dict[str, Any]) -> None:
    notebook["metadata"]["padding"] = "x" * gates.MOST_BYTES


@pytest.mark.parametrize(
    ("plant", "told"),
    [
        (plant_null_count, "None"),
        (plant_order, "execution counts"),
        (plant_error, "shows an error"),
        (plant_lost_figure, "a figure is not shown"),
        (plant_path, "absolute path /home/"),
        (plant_key, "secret"),
        (plant_second_parameters, "2 cells are tagged"),
        (plant_import, "import torch"),
        (plant_kernel, "kernel is python3"),
        (plant_logic, "logic of its own: FunctionDef"),
        (plant_loop, "logic of its own: For"),
        (plant_unpacking, "unpacks"),
        (plant_f_string, "f-string"),
        (plant_prose, "prose: 'The two methods'"),
        (plant_comment, "a comment"),
        (plant_long_cell, "a code cell of 6 lines"),
        (plant_many_lines, "at the median"),
        (plant_other_language, "in another language"),
        (plant_bare_opening, "You will learn"),
        (plant_size, "bytes"),
    ],
)
def test_a_planted_fault_is_found(
    plant: Callable[[dict[str, Any]], None], told: str, tmp_path: Path
) -> None:
    notebook = copy.deepcopy(json.loads(shipped("02_data").read_text("utf-8")))
    plant(notebook)
    file = tmp_path / "planted.ipynb"
    file.write_text(json.dumps(notebook))
    assert told in "; ".join(gates.all_faults(file))
