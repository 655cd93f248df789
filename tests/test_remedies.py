"""No remedy that cannot be followed: what a sentence tells readers to do is there to be done."""

from __future__ import annotations

import importlib.util
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from babel.messages.extract import extract_from_dir

from helpers.ground import paths
from helpers.inputs import keys

MAKEFILE = (paths.ROOT / "Makefile").read_text("utf-8")
TARGETS = set(re.findall(r"^([a-z]+):", MAKEFILE, re.MULTILINE))
MAPPING = [("**.py", "python"), ("programs/faults.toml", "helpers.ground.words:sentences_of")]


def gathered() -> list[str]:
    """Return every sentence that readers can read, in English."""
    found = extract_from_dir(
        paths.ROOT / "helpers", MAPPING, keywords={"tr": None, "trn": (1, 2)}
    )  # what `make words` gathers
    texts = [
        text for _, _, message, *_ in found
        for text in ([message] if isinstance(message, str) else message) if text
    ]  # fmt: skip
    return sorted(set(texts))


SENTENCES = gathered()
SOURCES = "\n".join(
    file.read_text("utf-8") for file in sorted((paths.ROOT / "helpers").rglob("*.py"))
)
# Variables that other programs read, and which.
OF_OTHERS = {
    "MASTER_PORT": "torchrun", "GRADIO_SERVER_PORT": "gradio", "PATH": "the shell",
    "ASCEND_HOME_PATH": "CANN", "TMPDIR": "Python",
}  # fmt: skip
# Words with an underscore that are no recipe keys.
OTHER_WORDS = {"torch_npu", "http_proxy", "https_proxy", "set_env", "no_proxy", "npu_smi",
               "model_type", "network_turbo", "held_out"}  # fmt: skip
PROGRAMS = {"make", "export", "unset", "source", "git", "sudo", "ulimit", "apt", "npu-smi",
            ".venv/bin/python"}  # fmt: skip


def faults_of(sentence: str) -> Iterator[str]:
    """Yield what a sentence tells readers to do that cannot be done, in words."""
    for command in re.findall(r"(?<!\w)'([^'{}]+(?:\{[^}]*\}[^'{}]*)*)'(?!\w)", sentence):
        first, *words = command.split() or [""]
        if first == "make":
            targets = [word for word in words if re.fullmatch(r"[a-z]+", word)]
            yield from (f"make {word}" for word in targets if word not in TARGETS)
            if not words:
                yield "make what?"
        module = words[1] if first == ".venv/bin/python" and words[0] == "-m" else "helpers"
        if importlib.util.find_spec(module) is None:
            yield f"no module {module}"
        if first in PROGRAMS - {"make", "export", "unset", "source", "ulimit", "npu-smi", "apt"}:
            there = (paths.ROOT / first).exists() or shutil.which(first)
            if not there and first != "sudo":
                yield f"no program {first}"
    bare = re.sub(r"\{[^}]*\}", "", sentence)
    for name in re.findall(r"\b([A-Z][A-Z0-9_]{2,})=", bare):
        exported = re.search(rf"\$\({name}\)|^export {name}\b|\b{name}\?? *[?:]?=", MAKEFILE,
                             re.MULTILINE)  # fmt: skip
        if not exported and name not in SOURCES.replace(sentence, "") and name not in OF_OTHERS:
            yield f"nothing reads {name}="
    for name in re.findall(r"\b[A-Z]+(?:_[A-Z0-9]+)+\b", bare):
        quoted = re.search(rf"[\"'(]{name}[\"')]", SOURCES + MAKEFILE)
        if not quoted and f"{name} " not in MAKEFILE and name not in OF_OTHERS:
            yield f"nothing reads {name}"
    for name in re.findall(r"\b(?:configs|benchmarks|helpers|notebooks)/[\w./-]+\w", bare):
        if not (paths.ROOT / name).exists():
            yield f"there is no {name}"
    for name in re.findall(r"\b0\d_[a-z]+\b", bare):
        if name not in paths.NOTEBOOK_NAMES:
            yield f"there is no notebook {name}"
    for name in re.findall(r"(?<![\w/.-])[a-z]+(?:_[a-z]+)+(?![\w/*(-]|\.\w)", bare):
        if name not in keys.known() and name not in OTHER_WORDS:
            yield f"no recipe key {name}"
    if re.search(r"\bdelete\b|\brm -", bare):
        yield "it tells readers to delete what is theirs"


def test_there_are_sentences_to_look_at() -> None:
    assert len(SENTENCES) > 400
    assert sum("'make " in text for text in SENTENCES) > 8


def test_every_remedy_can_be_followed() -> None:
    found = {sentence: list(faults_of(sentence)) for sentence in SENTENCES}
    assert {sentence: wrong for sentence, wrong in found.items() if wrong} == {}


@pytest.mark.parametrize(
    ("sentence", "fault"),
    [
        ("It broke: run 'make mend'.", "make mend"),
        ("It broke: run 'make clean mend'.", "make mend"),
        ("It broke: run '.venv/bin/python -m no_such_module x'.", "no module no_such_module"),
        ("It broke: choose another RUNN=name.", "nothing reads RUNN="),
        ("It broke: set TUTORIAL_NONSENSE.", "nothing reads TUTORIAL_NONSENSE"),
        ("It broke: as in configs/absent.yaml.", "there is no configs/absent.yaml"),
        ("It broke: run 07_more again.", "there is no notebook 07_more"),
        ("It broke: lower train_batch.", "no recipe key train_batch"),
        ("It broke: delete it.", "delete what is theirs"),
    ],
)
def test_a_remedy_that_cannot_be_followed_is_found(sentence: str, fault: str) -> None:
    assert fault in "; ".join(faults_of(sentence))


def test_folders_that_sentences_name_are_those_of_the_project() -> None:
    assert Path(paths.ROOT / "runs").name in " ".join(SENTENCES)
    assert Path(paths.ROOT / "models").name in " ".join(SENTENCES)
