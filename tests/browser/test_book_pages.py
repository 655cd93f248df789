"""Every page of the book in a browser that reaches nothing but the book."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import unquote, urldefrag, urlsplit

import pytest

from helpers.ground import paths, words

CHROMIUM = shutil.which("chromium")
if CHROMIUM is None:
    pytest.skip("no browser: 'apt-get install chromium' brings it", allow_module_level=True)
sync_api = pytest.importorskip("playwright.sync_api", reason="run 'make setup' for playwright")
PYTHON = paths.ROOT / ".venv-book/bin/python"
if not PYTHON.is_file():
    pytest.skip("no Sphinx: 'make book' brings it", allow_module_level=True)

MOST_SECONDS = 120
MOST_BYTES = 30_000_000
CHINESE = re.compile("[\u4e00-\u9fff]")
SEARCHED = {"en": "adapter", "zh": "适配器"}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built in time."""
    folder = tmp_path_factory.mktemp("book")
    begin = time.monotonic()
    done = subprocess.run(
        [PYTHON, paths.ROOT / "book/build.py", "--folder", folder],
        cwd=paths.ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - begin < MOST_SECONDS
    return folder / "site"


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def address(built: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(built)))
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


class Reader:
    """A browser that refuses all but the book, and keeps what it is told."""

    def __init__(self, browser: Any, address: str) -> None:
        self.address = address
        self.refused: list[str] = []
        self.faults: list[str] = []
        self.page = browser.new_page(viewport={"width": 1200, "height": 900})
        self.page.route("**/*", self._answer)
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on(
            "response",
            lambda got: self.faults.append(f"{got.status} {got.url}") if got.status > 399 else None,
        )

    def _answer(self, route: Any) -> None:
        url = route.request.url
        if url.startswith(self.address):
            route.continue_()
            return
        self.refused.append(url)
        route.abort()

    def _console(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.faults.append(message.text)

    def open(self, page: str) -> None:
        self.page.goto(self.address + page, wait_until="load")

    def all(self, selector: str, script: str) -> list[Any]:
        found: list[Any] = self.page.eval_on_selector_all(
            selector, f"elements => elements.map(each => {script})"
        )
        return found


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def reader(browser: Any, address: str) -> Iterator[Reader]:
    found = Reader(browser, address)
    yield found
    found.page.close()


def pages_of(site: Path, language: str = "*") -> list[str]:
    return sorted(file.relative_to(site).as_posix() for file in site.glob(f"{language}/**/*.html")
                  if "_static" not in file.parts)  # fmt: skip


def test_it_is_small_and_both_languages_have_the_same_pages(built: Path) -> None:
    size = sum(file.stat().st_size for file in built.rglob("*") if file.is_file())
    assert size < MOST_BYTES
    found = {
        language: [page.removeprefix(f"{language}/") for page in pages_of(built, language)]
        for language in words.languages()
    }
    assert found["en"] == found["zh"]
    notebooks = {f"notebooks/{name}.html" for name in paths.NOTEBOOK_NAMES}
    assert notebooks | {"index.html", "search.html", "walkthrough.html", "results.html",
                        "faults.html", "map.html"} <= set(found["en"])  # fmt: skip


def test_every_page_opens_without_a_fault_and_reaches_nothing_else(
    reader: Reader, built: Path
) -> None:
    told = {}
    for page in pages_of(built):
        reader.open(page)
        language = page.partition("/")[0]
        wrong = [*reader.faults, *(f"asks for {url}" for url in reader.refused)]
        lost = reader.all(
            "img", "each.complete && each.naturalWidth > 0 ? null : each.currentSrc || each.src"
        )
        wrong += [f"no picture {source}" for source in lost if source]
        [heading] = reader.all("h1", "each.innerText")[:1] or [""]
        if not heading or bool(CHINESE.search(heading)) != (language == "zh"):
            wrong.append(f"its heading is {heading!r}")
        if not (reader.page.get_attribute("html", "lang") or "").startswith(language):
            wrong.append("its language is another")
        if wrong:
            told[page] = wrong
        reader.faults.clear()
        reader.refused.clear()
    assert told == {}


def test_no_link_inside_the_book_is_dead(reader: Reader, built: Path, address: str) -> None:
    links: dict[str, set[str]] = {}
    anchors: dict[str, set[str]] = {}
    for page in ["index.html", *pages_of(built)]:
        reader.open(page)
        links[page] = set(reader.all("a[href]", "each.href"))
        anchors[page] = set(reader.all("[id]", "each.id"))
    dead = []
    for page, targets in links.items():
        for target in targets:
            if not target.startswith(address):
                assert urlsplit(target).scheme in ("http", "https", "mailto"), target
                continue
            bare, fragment = urldefrag(target.removeprefix(address))
            name = unquote(bare.partition("?")[0])
            name = name + "index.html" if name.endswith("/") or not name else name
            if not (built / name).is_file():
                dead.append(f"{page}: {target}")
            elif fragment and name in anchors and unquote(fragment) not in anchors[name]:
                dead.append(f"{page}: {target} (no such anchor)")
    assert dead == []
    assert sum(map(len, links.values())) > 500


def test_every_page_leads_to_itself_in_the_other_language(reader: Reader, built: Path) -> None:
    for page in pages_of(built):
        language, _, rest = page.partition("/")
        other = {"en": "zh", "zh": "en"}[language]
        reader.open(page)
        targets = reader.all("a.language-switch", "each.href")
        assert set(targets) == {f"{reader.address}{other}/{rest}"}, page


@pytest.mark.parametrize("language", list(SEARCHED))
def test_a_search_finds_something(reader: Reader, language: str) -> None:
    reader.open(f"{language}/search.html?q={SEARCHED[language]}")
    reader.page.wait_for_selector("ul.search li a", timeout=20_000)
    found = reader.all("ul.search li a", "each.href")
    assert any("notebooks/" in target for target in found), found
    assert reader.refused == []


def test_a_picture_and_a_request_that_should_not_be_are_found(
    reader: Reader, built: Path, address: str
) -> None:
    """Else what stands above would prove nothing."""
    planted = built / "en" / "planted.html"
    planted.write_text(
        '<html lang="en"><h1>x</h1><img src="gone.png">'
        '<script src="https://cdn.example.org/x.js"></script><script>lost()</script>'
    )
    reader.open("en/planted.html")
    planted.unlink()
    assert reader.refused == ["https://cdn.example.org/x.js"]
    assert any("lost is not defined" in fault for fault in reader.faults)
    assert any(f"{address}en/gone.png" in fault for fault in reader.faults)
