"""The Chinese edition is what its source and catalogue give, cell by cell; faults name the cell."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from babel.messages.catalog import Message

from helpers.calls import editions
from helpers.ground import catalogues, paths, words
from helpers.ground.errors import TutorialError

NAME = "02_data"
CELL = "02-12"


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The notebooks and their catalogues, to be changed."""
    shutil.copytree(paths.NOTEBOOKS, tmp_path / "notebooks")
    shutil.copytree(words.CATALOGUES, tmp_path / "words", ignore=shutil.ignore_patterns("*.otf"))
    monkeypatch.setattr(paths, "NOTEBOOKS", tmp_path / "notebooks")
    monkeypatch.setattr(words, "CATALOGUES", tmp_path / "words")
    return tmp_path


def change_entry(change: Callable[[Message], object]) -> None:
    file = editions.catalogue_file(NAME, "zh")
    catalogue = catalogues.read(file)
    [entry] = [each for each in catalogue if each.context == CELL]
    change(entry)
    catalogues.write(file, catalogue)


def change_english(old: str, new: str) -> None:
    file = paths.NOTEBOOKS / f"{NAME}.ipynb"
    notebook = nbformat.read(file, as_version=4)
    [cell] = [each for each in notebook.cells if each.id == CELL]
    assert old in cell.source
    cell.source = cell.source.replace(old, new)
    nbformat.write(notebook, file)


def notebook(language: str, name: str = NAME) -> dict[str, Any]:
    file = paths.edition(paths.NOTEBOOKS, language) / f"{name}.ipynb"
    return json.loads(file.read_text("utf-8"))


@pytest.mark.parametrize("name", paths.NOTEBOOK_NAMES)
def test_the_edition_is_what_its_source_and_catalogue_give(name: str) -> None:
    assert editions.cell_faults(name, "zh") == []
    assert editions.is_built(name, "zh")


@pytest.mark.parametrize("name", paths.NOTEBOOK_NAMES)
def test_code_ids_tags_and_parameters_are_the_same_in_both(name: str) -> None:
    english, chinese = notebook("en", name), notebook("zh", name)
    assert english["metadata"] == chinese["metadata"]
    for one, other in zip(english["cells"], chinese["cells"], strict=True):
        same = ["id", "cell_type", "metadata"] + ["source"] * (one["cell_type"] == "code")
        assert {key: one[key] for key in same} == {key: other[key] for key in same}


@pytest.mark.parametrize("name", paths.NOTEBOOK_NAMES)
def test_links_lead_to_the_same_places_and_text_is_chinese(name: str) -> None:
    for one, other in zip(*(notebook(each, name)["cells"] for each in ("en", "zh")), strict=True):
        if one["cell_type"] != "markdown":
            continue
        english, chinese = "".join(one["source"]), "".join(other["source"])
        assert re.search("[\u4e00-\u9fff]", chinese), chinese
        targets = []
        for text, folder in ((english, paths.NOTEBOOKS), (chinese, paths.NOTEBOOKS / "zh")):
            found = re.findall(r"\]\(([^)\s]+)\)", text)
            for link in found:
                assert link.startswith("http") or (folder / link).exists(), link
            targets.append({Path(link).name for link in found})
        assert targets[0] == targets[1]


def test_an_untranslated_cell_stops_the_building_and_is_named(copied: Path) -> None:
    change_entry(lambda entry: setattr(entry, "string", ""))
    wanted = f"zh, cell {CELL} of {NAME}: it is not translated"
    assert editions.faults("zh") == [wanted]
    with pytest.raises(TutorialError, match=wanted):
        editions.build(NAME, "zh")


def test_a_fuzzy_cell_stops_the_building_and_is_named(copied: Path) -> None:
    change_entry(lambda entry: entry.flags.add("fuzzy"))
    [fault] = editions.cell_faults(NAME, "zh")
    assert f"cell {CELL} of {NAME}: it is fuzzy" in fault


def test_a_stale_cell_stops_the_building_until_it_is_translated_anew(copied: Path) -> None:
    change_english("by name", "by its name")
    [fault] = editions.cell_faults(NAME, "zh")
    assert f"cell {CELL} of {NAME}: it is stale" in fault
    entry = next(each for each in editions.gather(NAME, "zh") if each.context == CELL)
    assert entry.fuzzy
    assert "by name" in entry.previous_id[0]
    assert entry.string
    [fault] = editions.cell_faults(NAME, "zh")
    assert "it is fuzzy" in fault
    change_entry(lambda entry: entry.flags.discard("fuzzy"))
    assert editions.cell_faults(NAME, "zh") == []


def test_cells_that_come_and_go_are_named(copied: Path) -> None:
    file = paths.NOTEBOOKS / f"{NAME}.ipynb"
    source = nbformat.read(file, as_version=4)
    next(cell for cell in source.cells if cell.id == CELL)["id"] = "02-new"
    nbformat.write(source, file)
    new, gone = editions.cell_faults(NAME, "zh")
    assert "cell 02-new of 02_data: it is not in the catalogue" in new
    assert f"02_data has no cell {CELL}" in gone


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("`dataset_info.json`", "`dataset.json`", "inline code"),
        ("## ", "# ", "headings"),
        ("LLaMA-Factory", "LLaMA-Factory 3.5", "numbers"),
        ("LLaMA-Factory", "[LLaMA-Factory](01_env.ipynb)", "links"),
        ("LLaMA-Factory", "![](a.png) LLaMA-Factory", "pictures"),
    ],
)
def test_what_needs_no_translation_is_the_same(
    copied: Path, old: str, new: str, fault: str
) -> None:
    change_entry(lambda entry: setattr(entry, "string", str(entry.string).replace(old, new, 1)))
    [*_, told] = editions.cell_faults(NAME, "zh")
    assert told.startswith(f"zh, cell {CELL} of {NAME}: its ")
    assert fault in "; ".join(editions.cell_faults(NAME, "zh"))


def test_a_catalogue_that_does_not_parse_is_one_sentence(
    copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    editions.catalogue_file(NAME, "zh").write_text('msgid "open\nmsgstr ""\n')
    assert editions.main("check") == 1
    said = capsys.readouterr().err
    assert re.search(r"02_data\.po does not parse", said)
    assert len(said.splitlines()) == 1


def test_lint_lists_the_faults_and_fails(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change_entry(lambda entry: setattr(entry, "string", ""))
    assert editions.main("check") == 1
    assert f"cell {CELL} of {NAME}" in capsys.readouterr().out


def test_outputs_stay_where_the_code_that_made_them_is_the_same(copied: Path) -> None:
    file = paths.NOTEBOOKS / "zh" / f"{NAME}.ipynb"
    edition = nbformat.read(file, as_version=4)
    code = [cell for cell in edition.cells if cell.cell_type == "code"]
    for number, cell in enumerate(code, 1):
        cell.execution_count = number
        cell.outputs = [nbformat.v4.new_output("stream", text=f"{number}")]
    code[3].source = "t.something_else()"
    nbformat.write(edition, file)
    editions.write(NAME, "zh")
    built = [cell for cell in notebook("zh")["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in built[:5]] == [1, 2, 3, None, 5]
    assert built[3]["outputs"] == []
    assert built[4]["outputs"]


def test_an_edition_that_somebody_has_changed_is_found(copied: Path) -> None:
    file = paths.NOTEBOOKS / "zh" / f"{NAME}.ipynb"
    text = file.read_text("utf-8")
    file.write_text(text.replace("数据", "数剧", 1), "utf-8")
    assert editions.faults("zh") == [
        f"{paths.shown(file)} is not what its source gives: run 'make words'."
    ]
    file.write_text("{", "utf-8")
    with pytest.raises(TutorialError, match="not a notebook any more"):
        editions.build(NAME, "zh")


def test_gathering_builds_what_is_whole_and_says_what_is_left(
    copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change_english("by name", "by its name")
    before = (paths.NOTEBOOKS / "zh" / f"{NAME}.ipynb").read_bytes()
    other = paths.NOTEBOOKS / "zh/01_env.ipynb"
    other.unlink()
    assert editions.main("gather") == 0
    assert "1 entry is left" in capsys.readouterr().out
    assert (paths.NOTEBOOKS / "zh" / f"{NAME}.ipynb").read_bytes() == before
    assert other.is_file()
