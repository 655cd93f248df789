"""Whatever a text says, it is text: in terminals, in Markdown and its HTML, in YAML, in figures."""

from __future__ import annotations

import io
import re
import shutil
import subprocess
from html.parser import HTMLParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import ClassVar

import nbformat
import numpy as np
import pytest
import yaml
from PIL import Image
from rich.console import Console

from helpers.ground import drawing, escaping, files
from helpers.ground.errors import TutorialError
from helpers.ground.shown import Code, Dialogue, Entry, Picture, Several, Shown, Table

# Problems made of markup of each kind.
HOSTILE = {
    "script": "<script>document.title='ran'</script>",
    "image": '<img src="http://127.0.0.1:9/x.png" onerror="document.title=\'ran\'">',
    "Markdown image": "![x](http://127.0.0.1:9/x.png)",
    "Markdown link": "[press](javascript:alert(1)) <javascript:alert(2)>",
    "entity": "&lt;script&gt; &#60;b&#62;",
    "formula": r"$\href{javascript:alert(1)}{x}$ $$y$$ \(z\) \[w\] \begin{a}b\end{a}",
    "money": "It costs $5, and 3 cost $15",
    "table": "a | b\n|---|---|\n| c | d |",
    "heading": "# one\n## two\n---\n> three\n- four\n1. five",
    "code": "```\nfence\n``` and `tick`",
    "rich": "[bold red]loud[/] [link=file:///etc/passwd]x[/link] :smile:",
    "terminal": "\x1b[2J\x1b]0;title\x07\x1b]8;;http://a\x07x\x1b]8;;\x07 \x9b31m \x00 \b\b",
    "direction": "abc\u202egnp.exe\u2066",
    "line ends": "one\rtwo\x0bthree\x0cfour\x85five\u2028six",
    "half a character": "name \udcff.txt",
    "YAML": "key: [value\n- &a *a !!python/object:os.system",
    "mathtext": r"$\frac{1}{0$ $x^",
}
ACTIVE = {"script", "img", "iframe", "a", "svg", "math", "object", "style", "link"}


def shown_as(text: str) -> Shown:
    """Return everything that shows text, showing it."""
    return Several(
        [
            Table([text, "b"], [[text, text]], title=text, note=text, heads=True),
            Dialogue([Entry(text, [(text[:3], text, text)])], note=text),
            Code(text, "yaml"),
        ]
    )


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.pieces: list[str] = []
        self.in_code = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.in_code += tag == "pre"

    def handle_endtag(self, tag: str) -> None:
        self.in_code -= tag == "pre"

    def handle_data(self, data: str) -> None:
        if not self.in_code:  # MathJax leaves listings alone
            self.pieces.append(data)


def as_html(shown: Shown) -> str:
    """Return what nbconvert, which renders as JupyterLab does, makes of it: one output's HTML."""
    from nbconvert.filters import markdown2html

    return str(markdown2html(shown.markdown()))


@pytest.mark.parametrize("kind", HOSTILE)
def test_markup_is_text_in_the_html_made_of_it(kind: str) -> None:
    found = _Tags()
    found.feed(as_html(shown_as(HOSTILE[kind])))
    assert not ACTIVE & set(found.tags)
    # MathJax looks through the finished page, one piece of text at a time.
    for piece in found.pieces:
        assert not re.search(r"\$[^$]+\$|\\[(\[]|\\begin", piece)


@pytest.mark.parametrize("kind", [kind for kind in HOSTILE if kind != "code"])
def test_a_table_and_a_dialogue_show_every_word_of_it(kind: str) -> None:
    text = HOSTILE[kind]
    found = _Tags()
    found.feed(as_html(Table(["a"], [[text]])))
    assert escaping.line(text) in " ".join("".join(found.pieces).split())


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_terminal_and_a_log_get_nothing_to_obey(kind: str) -> None:
    buffer = io.StringIO()
    shown_as(HOSTILE[kind]).print(Console(file=buffer, width=200, force_terminal=True))
    # rich's own colours, and nothing else.
    printed = re.sub(r"\x1b\[[0-9;]*m", "", buffer.getvalue())
    for said in (printed, shown_as(HOSTILE[kind]).plain(), str(TutorialError(HOSTILE[kind]))):
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e\udcff]", said)
        said.encode()
    if kind == "rich":
        assert ":smile:" in printed
        assert "[bold red]" in printed


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_yaml_header_is_a_comment_whatever_it_says(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    value = {"model_name_or_path": HOSTILE[kind].replace("\udcff", "")}
    files.write_yaml(file, value, f"To repeat it:\n  cat {HOSTILE[kind]}")
    assert files.read_yaml(file) == value
    head = file.read_text("utf-8").partition("model_name_or_path")[0]
    assert all(line.startswith("#") for line in head.splitlines())
    assert yaml.safe_load(head) is None


def drawn(title: str) -> np.ndarray:
    figure, [ax] = drawing.new_figure(1, title, note=title)
    ax.bar(["x"], [1], label=title)
    ax.set_title(title)
    ax.set_ylabel(title)
    ax.legend()
    return np.asarray(Image.open(io.BytesIO(drawing.as_png(figure))))


@pytest.mark.parametrize("kind", ["mathtext", "formula", "money", "terminal", "half a character"])
def test_a_figure_draws_the_text_itself(kind: str) -> None:
    assert drawn(HOSTILE[kind]).std() > 0


def test_a_logarithmic_axis_keeps_its_powers() -> None:
    figure, [ax] = drawing.new_figure(1, "x")
    ax.plot([1, 2], [1, 1e6])
    ax.set_yscale("log")
    drawing.as_png(figure)
    assert any(label.get_parse_math() for label in ax.get_yticklabels())


def test_a_picture_says_what_it_shows_and_nothing_else() -> None:
    picture = Picture(b"png", HOSTILE["terminal"] + HOSTILE["script"], Path("x.png"))
    _, meta = picture._repr_mimebundle_()
    assert "\x1b" not in meta["image/png"]["alt"]
    assert "<script" not in picture.markdown()


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


class _Counting(BaseHTTPRequestHandler):
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        self.send_error(404)

    def log_message(self, format: str, *args: object) -> None:
        pass


def opened(markdown: str, folder: Path) -> str:
    """Return what becomes of a notebook's HTML in a browser that reaches this machine alone."""
    from nbconvert import HTMLExporter
    from nbformat.v4 import new_code_cell, new_notebook, new_output

    output = new_output("display_data", data={"text/markdown": markdown, "text/plain": "x"})
    notebook = new_notebook(cells=[new_code_cell("t", outputs=[output])])
    nbformat.validate(notebook)
    page = folder / "page.html"
    page.write_text(HTMLExporter().from_notebook_node(notebook)[0], "utf-8")
    done = subprocess.run(
        [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom",
         "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
         "--virtual-time-budget=3000", f"--user-data-dir={folder / 'profile'}", page.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    return done.stdout


@pytest.mark.skipif(CHROMIUM is None, reason="the Debian package chromium is not installed")
def test_in_chromium_nothing_runs_and_nothing_is_fetched(tmp_path: Path) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Counting)
    Thread(target=server.serve_forever, daemon=True).start()
    here = f"127.0.0.1:{server.server_port}"
    try:
        texts = [text.replace("127.0.0.1:9", here).replace("\udcff", "?")
                 for text in HOSTILE.values()]  # fmt: skip
        # As it is, it runs and fetches: else the browser would prove nothing.
        assert "<title>ran" in opened(texts[0], tmp_path)
        opened(texts[1], tmp_path)
        assert "/x.png" in _Counting.asked
        _Counting.asked.clear()
        shown = Several([shown_as(text) for text in texts]).markdown()
        assert "<title>ran" not in opened(shown, tmp_path)
        assert _Counting.asked == []
    finally:
        server.shutdown()
