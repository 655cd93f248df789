"""Whatever readers read is made through the catalogue; a sentence beside it is found."""
# ruff: noqa: RUF001

from __future__ import annotations

import ast
import os
import re
import string
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.ground import catalogues, paths, words
from helpers.programs import faults

PROSE = re.compile(r"[A-Za-z]{2,}[^A-Za-z]* [A-Za-z]{2,}")
# Where a reader's words go in: calls by name, with the arguments that are words.
SHOWN = {"TutorialError", "Check", "Sentence", "Table", "facts", "say", "_say", "print", "ok",
         "warn", "fail", "set_title", "set_xlabel", "set_ylabel", "suptitle", "set",
         "new_figure", "legend", "append_row", "Entry", "Option", "command"}  # fmt: skip


def _name(call: ast.Call) -> str:
    function = call.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def untranslated(text: str) -> Iterator[tuple[int, str]]:
    """Yield the line and text of every sentence that goes to a reader without `tr`."""

    def walk(node: ast.AST, line: int) -> Iterator[tuple[int, str]]:
        if isinstance(node, ast.Call) and _name(node) in ("tr", "trn", "sentence"):
            return  # ... or asked for by its name: the sentence of a fault
        if isinstance(node, ast.JoinedStr):
            text = "".join(
                str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values
            )
            if PROSE.search(text):
                yield line, text
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if PROSE.search(node.value):
                yield line, node.value
            return
        for child in ast.iter_child_nodes(node):
            yield from walk(child, getattr(child, "lineno", line))

    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and _name(node) in SHOWN:
            # The name of a fault is a code.
            given = [*node.args, *(k.value for k in node.keywords if k.arg != "fault")]
            for argument in given:
                yield from walk(argument, node.lineno)


def calls_of_tr(text: str) -> Iterator[ast.Call]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call) and _name(node) == "tr":
            yield node


MODULES = [
    *sorted((paths.ROOT / "helpers").rglob("*.py")),
    *sorted((paths.ROOT / "book").glob("*.py")),
]


@pytest.mark.parametrize("file", MODULES, ids=[paths.shown(file) for file in MODULES])
def test_no_sentence_goes_past_the_catalogue(file: Path) -> None:
    assert list(untranslated(file.read_text("utf-8"))) == []


@pytest.mark.parametrize(
    "line",
    ["raise TutorialError('The disk is full.')", "say(f'Doing {name} again')",
     "Table(['the heading'], rows)", "figure.suptitle('Loss so far')",
     "typer.Option(help='takes the two files')"],
)  # fmt: skip
def test_a_planted_sentence_is_found(line: str) -> None:
    assert list(untranslated(line))


def test_no_command_says_what_its_docstring_says() -> None:
    """typer would show it to readers as it stands."""
    tree = ast.parse((paths.ROOT / "helpers/__main__.py").read_text("utf-8"))
    commands = [call for call in ast.walk(tree) if isinstance(call, ast.Call)
                and ast.unparse(call.func) == "app.command"]  # fmt: skip
    assert len(commands) > 8
    for call in commands:
        assert "help" in [keyword.arg for keyword in call.keywords], call.lineno


def test_what_goes_through_it_is_not_found() -> None:
    assert not list(untranslated("say(tr('Doing {name} again', name=name))"))


@pytest.mark.parametrize("file", MODULES, ids=[paths.shown(file) for file in MODULES])
def test_sentences_are_literal_and_their_placeholders_are_given(file: Path) -> None:
    for call in calls_of_tr(file.read_text("utf-8")):
        first = call.args[0]
        if not (isinstance(first, ast.Constant) and isinstance(first.value, str)):
            # A sentence out of a data file, which Babel reads by itself.
            assert "fault" in ast.unparse(first), ast.unparse(call)
            continue
        given = {keyword.arg for keyword in call.keywords}
        fields = {name for _, name, _, _ in string.Formatter().parse(first.value) if name}
        names = {re.split(r"[.\[!]", field)[0] for field in fields}
        assert None in given or names == given, ast.unparse(call)


def test_a_sentence_is_chosen_when_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    class Loud:
        def gettext(self, text: str) -> str:
            return text.upper().replace("{NAME}", "{name}")

    monkeypatch.setattr(words, "_catalogue", lambda language: Loud())
    assert words.tr("no profile {name}", name="x") == "NO PROFILE x"


MAKEFILE = (paths.ROOT / "Makefile").read_text("utf-8")


def test_the_makefile_says_everything_in_chinese_too() -> None:
    chinese = (words.CATALOGUES / "zh/make.mk").read_text("utf-8")
    targets = [re.findall(rf"^{mark}([a-z]+):.*## .", text, re.MULTILINE)
               for mark, text in (("", MAKEFILE), ("# ", chinese))]  # fmt: skip
    assert targets[0] == targets[1]
    figures = [
        [re.findall(r"\d[\d.]*|[A-Z_]{3,}(?==)", line) for line in re.findall(mark, text, re.M)]
        for mark, text in ((r"^[a-z]+:.*## (.*)", MAKEFILE), (r"^# [a-z]+:.*## (.*)", chinese))
    ]
    assert figures[0] == figures[1]
    said = [dict(re.findall(r"^(\w+_SAYS) = (.*)$", text, re.M)) for text in (MAKEFILE, chinese)]
    assert said[0].keys() == said[1].keys()
    for name, english in said[0].items():
        kept = [
            sorted(re.findall(r"\$\([A-Z_]+(?=[:)])|'[^']+'", text))
            for text in (english, said[1][name])
        ]
        assert kept[0] == kept[1]


@pytest.mark.parametrize(
    ("variables", "chinese"),
    [({"LANG": "zh_CN.UTF-8"}, True), ({"LANG": "C.UTF-8"}, False), ({}, False)],
)
def test_make_speaks_the_readers_language(variables: dict[str, str], chinese: bool) -> None:
    kept = {"PATH": os.environ["PATH"]} | variables
    for arguments, wanted in (([], chinese), (["LANGUAGE=zh"], True), (["LANGUAGE=en"], False)):
        done = subprocess.run(
            ["make", "help", *arguments], cwd=paths.ROOT, env=kept, capture_output=True, check=True
        )
        assert ("运行六个 notebook" in done.stdout.decode()) is wanted
        assert b"\nrun " in done.stdout


def test_sentences_have_room_between_them_and_chinese_ones_bring_their_own() -> None:
    assert words.sentences(["One.", "", "Two."]) == "One. Two."
    assert words.sentences(iter(["一。", "Two.", "三！", "四"])) == "一。Two. 三！四"
    assert words.sentences([]) == ""


@pytest.mark.parametrize(
    ("language", "told"),
    [
        ("en", ("lora, qlora", "one; two", "step 3, loss 0.4, 5 s left")),
        ("zh", ("lora、qlora", "one；two", "step 3，loss 0.4，5 s left")),
    ],
)
def test_a_language_joins_in_its_own_way(language: str, told: tuple[str, ...]) -> None:
    with words.spoken(language):
        assert words.series(["lora", "qlora"]) == told[0]
        assert words.clauses(["one", "two"]) == told[1]
        assert words.phrases(iter(["step 3", "loss 0.4", "5 s left"])) == told[2]
        assert words.series([]) == words.clauses([]) == words.phrases([]) == ""


def test_full_width_signs_of_what_is_filled_in_bring_their_own_room() -> None:
    label = "LoRA（合并后）"
    assert words.tr("of {label} and {x:.1f}: {y!r} {{z}}", label=label, x=2, y="a") == (
        "of LoRA（合并后）and 2.0: 'a' {z}"
    )
    assert words.tr("{a} {label} {b}", a="a", label="（a）", b="b") == "a（a）b"
    assert words.tr("{a} {b}.", a="one", b="two") == "one two."


def joins(text: str) -> Iterator[int]:
    """Yield the lines that join what readers read with a comma or a semicolon of English."""
    for node in ast.walk(ast.parse(text)):
        function = node.func if isinstance(node, ast.Call) else None
        if isinstance(function, ast.Attribute) and function.attr == "join":
            glue = function.value
            if isinstance(glue, ast.Constant) and re.search(r"[,;:.] ", str(glue.value)):
                yield node.lineno


@pytest.mark.parametrize("file", MODULES, ids=[paths.shown(file) for file in MODULES])
def test_nothing_is_joined_past_the_catalogue(file: Path) -> None:
    assert list(joins(file.read_text("utf-8"))) == []


def test_a_planted_join_is_found() -> None:
    assert list(joins("tr('{x}', x='; '.join(names))"))
    assert not list(joins("' '.join(command) + ''.join(lines) + tr(', ').join(names)"))


def test_numbers_choose_their_form() -> None:
    assert words.trn("{n} card", "{n} cards", 1) == "1 card"
    assert words.trn("{n} card of {of}", "{n} cards of {of}", 2, of=8) == "2 cards of 8"


def test_babel_finds_every_sentence() -> None:
    found = {
        text
        for message in catalogues.entries(catalogues.said())
        for text in catalogues.forms(message.id)
    }
    said = {
        call.args[0].value
        for file in MODULES
        for call in calls_of_tr(file.read_text("utf-8"))
        if isinstance(call.args[0], ast.Constant)
    }
    assert said <= found
    assert {fault.sentence for fault in faults.known()} <= found
