"""The book's pages: gathered from what there is; what lacks is told in one sentence."""
# ruff: noqa: RUF001

from __future__ import annotations

import json
import re
import shutil
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

from helpers.ground import paths, words
from helpers.ground.errors import TutorialError

BOOK = paths.ROOT / "book"


@pytest.fixture
def pages(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BOOK)
    import book_pages

    return book_pages


@pytest.fixture
def results(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BOOK)
    import book_results

    return book_results


def notebook(count: int | None = 1, text: str = "# Title") -> str:
    cells = [
        {"cell_type": "markdown", "source": [text], "metadata": {}, "id": "a"},
        {"cell_type": "code", "source": "t", "outputs": [], "metadata": {}, "id": "b",
         "execution_count": count},
    ]  # fmt: skip
    return json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5})


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository of its own, whose notebooks have been run in both languages."""
    root = tmp_path / "project"
    copied = ("helpers", "benchmarks/results", "configs")
    for name in copied:
        shutil.copytree(paths.ROOT / name, root / name,
                        ignore=shutil.ignore_patterns("__pycache__"))  # fmt: skip
    for folder in ("notebooks", "notebooks/zh"):
        (root / folder).mkdir()
        for name in paths.NOTEBOOK_NAMES:
            (root / folder / f"{name}.ipynb").write_text(notebook())
    (root / "pyproject.toml").touch()
    for name in ("README.md", "README_zh.md"):
        text = (paths.ROOT / name).read_text("utf-8")
        (root / name).write_text(text, "utf-8")
        for link in re.findall(r"\]\(([^):#]+)\)", text):  # tests/test_readme.py sees to them
            (root / link).parent.mkdir(parents=True, exist_ok=True)
            if not (root / link).exists():
                (root / link).touch()
    for name, place in (("ROOT", "."), ("NOTEBOOKS", "notebooks"), ("CONFIGS", "configs")):
        monkeypatch.setattr(paths, name, (root / place).resolve())
    monkeypatch.setenv(words.LANGUAGE, "en")
    return root


def test_both_languages_have_the_same_pages(
    pages: ModuleType, project: Path, tmp_path: Path
) -> None:
    trees = pages.build(tmp_path / "sources", ["en", "zh"])
    found = {
        language: sorted(file.relative_to(tree).as_posix() for file in tree.rglob("*.*"))
        for language, tree in trees.items()
    }
    of_all = [sorted(name.replace("_zh", "") for name in names) for names in found.values()]
    assert of_all[0] == of_all[1]
    assert {"notebooks/06_compare.ipynb", "pictures/cpu_curves.png"} <= set(found["en"])
    for page in ("index.md", "walkthrough.md", "results.md", "faults.md", "recipes.md", "map.md"):
        headings = {
            language: re.search(r"^# (.*)$", (tree / page).read_text("utf-8"), re.M)
            for language, tree in trees.items()
        }
        assert headings["en"]
        assert headings["zh"]
        assert not re.search("[\u4e00-\u9fff]", headings["en"][1])
        assert re.search("[\u4e00-\u9fff]", headings["zh"][1])


def test_every_fault_and_the_limits_are_told_in_both(
    pages: ModuleType, project: Path, tmp_path: Path
) -> None:
    from helpers.programs import faults

    trees = pages.build(tmp_path / "sources", ["en", "zh"])
    for tree in trees.values():
        page = (tree / "faults.md").read_text("utf-8")
        assert all(f"| {fault.name.replace('_', chr(92) + '_')} |" in page
                   for fault in faults.known())  # fmt: skip
        assert "135M" in page


@pytest.mark.parametrize(
    ("link", "becomes"),
    [
        ("[x](03_lora.ipynb)", "[x](03_lora.ipynb)"),
        ("[x](../benchmarks/results/README.md)", "[x](../results.md)"),
        ("[x](../configs/lora.yaml)", "[x](../recipes.md#configslorayaml)"),
        ("[x](../requirements.lock)", "x"),
        ("[x](https://example.org/a)", "[x](https://example.org/a)"),
        ("`[x](nowhere.md)`", "`[x](nowhere.md)`"),
        ("```\n[x](nowhere.md)\n```", "```\n[x](nowhere.md)\n```"),
    ],
)
@pytest.mark.parametrize("folder", ["notebooks", "notebooks/zh"])
def test_links_lead_to_the_books_own_pages(
    pages: ModuleType, project: Path, tmp_path: Path, folder: str, link: str, becomes: str
) -> None:
    language = "en" if folder == "notebooks" else "zh"
    tree = pages.Tree(tmp_path / language, language)
    assert tree.linked(link, f"{folder}/01_env.ipynb", "notebooks/01_env") == becomes


@pytest.mark.parametrize(
    ("language", "file", "becomes"),
    [
        ("en", "notebooks/01_env.ipynb", "[x](notebooks/01_env.ipynb)"),
        ("zh", "notebooks/zh/01_env.ipynb", "[x](notebooks/01_env.ipynb)"),
        ("en", "notebooks/zh/01_env.ipynb",
         '<a href="../zh/notebooks/01_env.html" hreflang="zh">x</a>'),
        ("en", "helpers/README_zh.md", '<a href="../zh/map.html" hreflang="zh">x</a>'),
        ("zh", "helpers/README_zh.md", "[x](map.md)"),
        ("zh", "notebooks/01_env.ipynb",
         '<a href="../en/notebooks/01_env.html" hreflang="en">x</a>'),
    ],
)  # fmt: skip
def test_a_link_to_an_edition_leads_to_that_edition(
    pages: ModuleType, project: Path, tmp_path: Path, language: str, file: str, becomes: str
) -> None:
    tree = pages.Tree(tmp_path / language, language)
    assert tree.linked(f"[x]({file})", "README.md", "walkthrough.md") == becomes


def refused(pages: ModuleType, tmp_path: Path) -> str:
    with pytest.raises(TutorialError) as told:
        pages.build(tmp_path / "sources", ["en", "zh"])
    assert len(str(told.value).splitlines()) == 1
    return str(told.value)


def test_an_edition_that_is_missing_is_one_sentence(
    pages: ModuleType, project: Path, tmp_path: Path
) -> None:
    (project / "notebooks/zh/04_qlora.ipynb").unlink()
    assert re.search(r"notebooks/zh/04_qlora.ipynb is missing.*'make words'",
                     refused(pages, tmp_path))  # fmt: skip


def test_an_edition_that_was_never_run_is_one_sentence(
    pages: ModuleType, project: Path, tmp_path: Path
) -> None:
    (project / "notebooks/zh/02_data.ipynb").write_text(notebook(count=None))
    assert re.search(r"02_data.ipynb shows no outputs.*'make run LANGUAGE=zh'",
                     refused(pages, tmp_path))  # fmt: skip


def test_a_link_that_leads_nowhere_is_one_sentence(
    pages: ModuleType, project: Path, tmp_path: Path
) -> None:
    (project / "notebooks/01_env.ipynb").write_text(notebook(text="# T\n\n[x](gone.md)"))
    assert "leads to gone.md, which is not there" in refused(pages, tmp_path)


def test_a_readme_of_one_language_alone_is_one_sentence(
    pages: ModuleType, project: Path, tmp_path: Path
) -> None:
    (project / "helpers/README_zh.md").unlink()
    assert "helpers/README_zh.md is missing" in refused(pages, tmp_path)


def test_readmes_that_are_not_in_step_are_one_sentence(
    pages: ModuleType, project: Path, tmp_path: Path
) -> None:
    readme = project / "README_zh.md"
    readme.write_text(readme.read_text("utf-8") + "\n## 又一节\n", "utf-8")
    assert "have not the same sections" in refused(pages, tmp_path)


def test_a_results_page_that_has_grown_is_one_sentence(
    pages: ModuleType, project: Path, tmp_path: Path
) -> None:
    page = project / "benchmarks/results/README.md"
    page.write_text(page.read_text("utf-8") + "\nSomething measured 3 times.\n", "utf-8")
    told = refused(pages, tmp_path)
    assert "book/zh/results.po lacks 1 text of" in told.replace(str(BOOK), "book")
    assert "Something measured {1} times." in told


def test_a_fault_that_is_not_translated_is_one_sentence(
    pages: ModuleType, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from helpers.programs import faults

    more = faults.Fault("new fault", re.compile("x"), "Nobody has translated this yet.")
    monkeypatch.setattr(faults, "known", lambda: (more,))
    assert "'new fault' is not translated (zh)" in refused(pages, tmp_path)


# ---- the results page ---------------------------------------------------------------------------


def test_figures_are_taken_over_and_texts_looked_up(results: ModuleType) -> None:
    page = (
        "## Made in 3 of 4\n\nTook 1.50 s\nand -2 %.\n\n| a | b c |\n| --- | --- |\n| 1 | 5 s |\n"
    )
    known = {
        "## Made in {1} of {2}": "## {2} 次中的 {1} 次",
        "Took {1} s and {2} %.": "用时 {1} 秒，{2} %。",
        "a": "甲",
        "b c": "乙",
    }
    assert results.translated(page, known, "x.po") == (
        "## 4 次中的 3 次\n\n用时 1.50 秒，-2 %。\n\n| 甲 | 乙 |\n| --- | --- |\n| 1 | 5 s |\n"
    )


def test_the_results_page_is_translated_whole_with_every_figure(results: ModuleType) -> None:
    page = (paths.BENCHMARKS / "README.md").read_text("utf-8")
    known = results.catalogue(BOOK / "zh/results.po")
    told = results.translated(page, known, "results.po")
    number = r"(?<![\w.])\d+(?:[.,]\d+)*"
    for english, chinese in zip(page.split("\n\n"), told.split("\n\n"), strict=True):
        assert sorted(re.findall(number, english)) == sorted(re.findall(number, chinese))
    assert len(re.findall("[\u4e00-\u9fff]", told)) > 500


@pytest.mark.parametrize(
    ("entry", "words_told"),
    [
        ('msgid "took {1} s"\nmsgstr "用时"\n', "{1} stands in one of them alone"),
        ('#, fuzzy\nmsgid "took"\nmsgstr "用时"\n', "fuzzy"),
        ('msgid "took\n', "cannot be read"),
    ],
)
def test_a_catalogue_that_cannot_be_used_is_one_sentence(
    results: ModuleType, tmp_path: Path, entry: str, words_told: str
) -> None:
    file = tmp_path / "results.po"
    file.write_text('msgid ""\nmsgstr ""\n"Content-Type: text/plain; charset=utf-8\\n"\n\n' + entry)
    with pytest.raises(TutorialError, match=re.escape(words_told)) as told:
        results.catalogue(file)
    assert len(str(told.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("language", "told"),
    [("fr", "LANGUAGE='fr' is not understood"), ("zh", "缺少 notebooks/zh/04_qlora.ipynb")],
)
def test_it_speaks_the_readers_language_and_refuses_one_that_there_is_not(
    pages: ModuleType,
    project: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    language: str,
    told: str,
) -> None:
    import build

    (project / "notebooks/zh/04_qlora.ipynb").unlink()
    monkeypatch.setattr("sys.argv", ["build.py", "--folder", str(tmp_path / "book")])
    monkeypatch.setenv(words.LANGUAGE, language)
    assert build.main() == 1
    said = capsys.readouterr().err
    assert told in said
    assert len(said.splitlines()) == 1


def test_the_book_says_the_same_in_each_language() -> None:
    said = tomllib.loads((BOOK / "words.toml").read_text("utf-8"))
    assert tuple(said) == words.languages()
    assert len({tuple(each) for each in said.values()}) == 1


def test_nothing_of_the_settings_reaches_the_network() -> None:
    for file in BOOK.rglob("*"):
        if file.suffix in (".py", ".html", ".css", ".toml"):
            assert not re.search(r"https?://|//cdn", file.read_text("utf-8")), file
