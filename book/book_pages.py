"""The book's pages, gathered from what the repository has: one source tree a language.

Nothing is written for the book alone but its titles (words.toml) and the results page's
translations: notebooks, READMEs, recipes and faults are taken as they are, and what a page links to
leads to a page of the book, where there is one. What a language lacks stops the building.
"""

from __future__ import annotations

import json
import posixpath
import re
import shutil
import tomllib
from collections.abc import Iterable
from pathlib import Path

import book_results

from helpers.ground import paths, words
from helpers.ground.errors import TutorialError
from helpers.ground.words import tr
from helpers.programs import faults

HERE = Path(__file__).resolve().parent
_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")
_CODE = re.compile(r"(^```.*?^```|`[^`\n]+`)", re.DOTALL | re.MULTILINE)
# Sections of README.md with a place of their own: the book's page on faults, and none.
_LIMITS, _ELSEWHERE = "Limits", ("For contributors",)


def titles(language: str) -> dict[str, str]:
    """Return what the book itself says in a language."""
    found: dict[str, str] = tomllib.loads((HERE / "words.toml").read_text("utf-8"))[language]
    return found


def edition(language: str) -> Path:
    """Return the folder of an edition's notebooks."""
    return paths.NOTEBOOKS if language == words.SOURCE else paths.NOTEBOOKS / language


def _of_language(file: str, language: str) -> str:
    """Return the file that says the same in a language: README.md, README_zh.md."""
    stem, _, suffix = file.rpartition(".")
    return file if language == words.SOURCE else f"{stem}_{language}.{suffix}"


def page_of(file: str) -> str | None:
    """Return the page on which a file of the repository stands in the book; None: on none.

    Args:
        file: relative to the repository.
    """
    name = posixpath.basename(file)
    stem = re.sub(r"_[a-z]{2}$", "", name.removesuffix(".md"))
    if file.startswith("notebooks/") and name.removesuffix(".ipynb") in paths.NOTEBOOK_NAMES:
        return f"notebooks/{name}"
    if file == "configs" or (file.startswith("configs/") and name.endswith(".yaml")):
        return "recipes.md"
    return {
        "README": "walkthrough.md",
        "helpers/README": "map.md",
        "benchmarks/results/README": "results.md",
        "tests/FAULTS": "faults.md",
    }.get(posixpath.join(posixpath.dirname(file), stem))


def _language_of(file: str) -> str | None:
    """Return the language of a notebook, or of a page that names its own; None: of any reader."""
    folder, name = posixpath.split(file)
    named = re.search(r"_([a-z]{2})\.md$", name)
    if named and named[1] in words.languages():
        return named[1]
    if not name.endswith(".ipynb"):
        return None
    edition_folder = posixpath.basename(folder)
    return edition_folder if edition_folder in words.languages() else words.SOURCE


def anchor(heading: str) -> str:
    """Return the anchor that MyST gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


class Tree:
    """One language's source tree."""

    def __init__(self, folder: Path, language: str) -> None:
        self.folder = folder
        self.language = language
        self.titles = titles(language)

    # ---- what is linked -------------------------------------------------------------------------

    def linked(self, text: str, source: str, page: str) -> str:
        """Return Markdown whose links and pictures lead to what the book has.

        Args:
            text: the Markdown.
            source: the file that it stands in, relative to the repository.
            page: the page of the book that it goes to.

        Raises:
            TutorialError: it leads to a file that there is not.
        """
        pieces = _CODE.split(text)
        for place in range(0, len(pieces), 2):  # between them stands code
            pieces[place] = _LINK.sub(lambda found: self._led(found, source, page), pieces[place])
        return "".join(pieces)

    def _led(self, found: re.Match[str], source: str, page: str) -> str:
        picture, label, target = found.groups()
        if re.match(r"[a-z]+:|#", target):
            return found[0]
        bare = target.partition("#")[0]
        file = self._named(source, bare)
        above = posixpath.dirname(page)
        if picture:
            kept = posixpath.join("pictures", posixpath.basename(file))
            (self.folder / kept).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(paths.ROOT / file, self.folder / kept)
            return f"![{label}]({posixpath.relpath(kept, above or '.')})"
        other = page_of(file)
        if other is None:
            return label  # it is in the repository, and no page
        language = _language_of(file)
        if language not in (None, self.language):
            up = "../" * (page.count("/") + 1)
            address = f"{up}{language}/{other.rpartition('.')[0]}.html"
            return f'<a href="{address}" hreflang="{language}">{label}</a>'
        to = posixpath.relpath(other, above or ".")
        if other == "recipes.md" and file != "configs":
            to += f"#{anchor(file)}"
        return f"[{label}]({to})"

    def _named(self, source: str, target: str) -> str:
        """Return a link's file, relative to the repository.

        An edition's cells are its English ones but for the words: so are their links.
        """
        folder = posixpath.dirname(source)
        for base in (folder, posixpath.dirname(folder)):
            file = posixpath.normpath(posixpath.join(base, target))
            there = page_of(file) is not None or (paths.ROOT / file).exists()
            if there and not file.startswith(".."):
                return file
        raise TutorialError(
            tr(
                "{source} leads to {target}, which is not there: correct the link, and build the "
                "book again.",
                source=source,
                target=target,
            )
        )

    # ---- pages ----------------------------------------------------------------------------------

    def _read(self, file: str) -> str:
        try:
            return (paths.ROOT / file).read_text("utf-8")
        except FileNotFoundError as error:
            raise TutorialError(
                tr(
                    "{file} is missing, so the book has no such page in {language}: write it, and "
                    "build the book again.",
                    file=file,
                    language=self.language,
                )
            ) from error

    def _write(self, page: str, text: str) -> None:
        file = self.folder / page
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, "utf-8")

    def build(self) -> None:
        """Write every page of the tree.

        Raises:
            TutorialError: something is missing in this language; the sentence names it.
        """
        for name in paths.NOTEBOOK_NAMES:
            self._notebook(name)
        self._readme()
        self._results()
        file = _of_language("helpers/README.md", self.language)
        body = re.sub(r"\n\[[^\]\n]+\]\(README\w*\.md\)\n", "\n", self._read(file), count=1)
        self._write("map.md", self.linked(body, file, "map.md"))
        self._recipes()

    def _notebook(self, name: str) -> None:
        file = edition(self.language) / f"{name}.ipynb"
        shown = paths.shown(file)
        if not file.is_file():
            raise TutorialError(
                tr(
                    "{notebook} is missing, so the book has no edition in {language}: run 'make "
                    "words', which builds what is translated, then 'make book' again.",
                    notebook=shown,
                    language=self.language,
                )
            )
        notebook = json.loads(file.read_text("utf-8"))
        code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
        if not all(cell["execution_count"] for cell in code):
            raise TutorialError(
                tr(
                    "{notebook} shows no outputs: run 'make run LANGUAGE={language}', then 'make "
                    "notebooks', then 'make book' again.",
                    notebook=shown,
                    language=self.language,
                )
            )
        for cell in notebook["cells"]:
            if cell["cell_type"] == "markdown":
                cell["source"] = self.linked("".join(cell["source"]), shown, f"notebooks/{name}")
        self._write(f"notebooks/{name}.ipynb", json.dumps(notebook, ensure_ascii=False))

    def _readme(self) -> None:
        file = _of_language("README.md", self.language)
        english = re.split(r"^## ", self._read("README.md"), flags=re.MULTILINE)
        lead, *sections = re.split(r"^## ", self._read(file), flags=re.MULTILINE)
        names = [section.partition("\n")[0] for section in english[1:]]
        if _LIMITS not in names or len(names) != len(sections):
            raise TutorialError(
                tr(
                    "README.md and {file} have not the same sections, '{limits}' among them: bring "
                    "them in step, and build the book again.",
                    file=file,
                    limits=_LIMITS,
                )
            )
        told = dict(zip(names, sections, strict=True))
        limits = told.pop(_LIMITS)
        walk = [text for name, text in told.items() if name not in _ELSEWHERE]
        page = f"# {self.titles['walkthrough']}\n\n" + "".join(f"## {text}" for text in walk)
        self._write("walkthrough.md", self.linked(page, file, "walkthrough.md"))
        self._faults(f"## {limits}", file)
        lead = re.sub(r"\n\[[^\]\n]+\]\(README\w*\.md\)\n", "\n", lead, count=1)
        contents = [
            ("notebooks", [f"notebooks/{name}" for name in paths.NOTEBOOK_NAMES]),
            ("reference", ["walkthrough", "results", "faults", "recipes", "map"]),
        ]
        trees = [
            "\n".join(["```{toctree}", ":maxdepth: 1", f":caption: {self.titles[name]}", "",
                       *pages, "```"])
            for name, pages in contents
        ]  # fmt: skip
        index = [lead.strip(), f"## {self.titles['lead']}", *trees]
        self._write("index.md", self.linked("\n\n".join(index), file, "index.md") + "\n")

    def _faults(self, limits: str, file: str) -> None:
        rows = [
            f"| {_cell(fault.name)} | {_cell(self._remedy(fault))} |" for fault in faults.known()
        ]
        head = [f"| {self.titles['fault']} | {self.titles['remedy']} |", "| --- | --- |"]
        page = "\n\n".join(
            [
                f"# {self.titles['faults']}",
                limits.strip(),
                f"## {self.titles['known']}",
                self.titles["known_lead"],
                "\n".join([*head, *rows]),
            ]
        )
        self._write("faults.md", self.linked(page, file, "faults.md") + "\n")

    def _remedy(self, fault: faults.Fault) -> str:
        """Return the sentence of a fault, with the names of what is filled in.

        Raises:
            TutorialError: it is not translated.
        """
        filled = {name: f"<{name}>" for name in fault.pattern.groupindex}
        with words.spoken(self.language):
            told = tr(fault.sentence, **filled)
        if self.language != words.SOURCE and told == fault.sentence.format_map(filled):
            raise TutorialError(
                tr(
                    "The sentence of the fault {fault!r} is not translated ({language}): 'make "
                    "lint' lists what is missing.",
                    fault=fault.name,
                    language=self.language,
                )
            )
        return told

    def _results(self) -> None:
        file = "benchmarks/results/README.md"
        page = self._read(file)
        if self.language != words.SOURCE:
            catalogue = HERE / self.language / "results.po"
            page = book_results.translated(
                page, book_results.catalogue(catalogue), paths.shown(catalogue)
            )
        self._write("results.md", self.linked(page, file, "results.md"))

    def _recipes(self) -> None:
        files = sorted(paths.CONFIGS.rglob("*.yaml"))
        shown = [
            f"## {paths.shown(file)}\n\n```yaml\n{file.read_text('utf-8').rstrip()}\n```"
            for file in files
        ]
        lead = [f"# {self.titles['recipes']}", self.titles["recipes_lead"]]
        self._write("recipes.md", "\n\n".join([*lead, *shown]) + "\n")


def _cell(text: str) -> str:
    """Return text as a table's cell: nothing in it is markup."""
    line = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_{}\[\]|$])", r"\\\1", line)


def build(folder: Path, languages: Iterable[str]) -> dict[str, Path]:
    """Write the source trees, and return them by language.

    Args:
        folder: where; emptied before.
        languages: which.

    Raises:
        TutorialError: a page is missing in one of them.
    """
    trees = {}
    shutil.rmtree(folder, ignore_errors=True)
    for language in languages:
        trees[language] = folder / language
        Tree(trees[language], language).build()
    return trees
