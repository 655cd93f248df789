"""notebooks/here.py: the first line of every notebook, in the right Python and in a wrong one."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.ground import paths, words

FIRST = "from here import Tutorial; print(Tutorial.__name__)"
# IPython's way with an exception, without IPython.
SHOWN = """
try:
    from here import Tutorial
except Exception as error:
    print(*error._render_traceback_(), sep="\\n")
"""


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that has nothing of the tutorial's."""
    folder = tmp_path_factory.mktemp("other")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    return folder / "bin/python"


def asked(python: Path | str, code: str, folder: Path) -> str:
    done = subprocess.run(
        [python, "-c", code], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout that is not set up."""
    (tmp_path / "notebooks").mkdir()
    shutil.copy(paths.NOTEBOOKS / "here.py", tmp_path / "notebooks")
    (tmp_path / "helpers").symlink_to(paths.ROOT / "helpers")
    return tmp_path


@pytest.mark.parametrize("language", words.languages())
def test_the_right_python_has_the_tutorial(language: str) -> None:
    folder = paths.edition(paths.NOTEBOOKS, language)
    assert asked(sys.executable, FIRST, folder) == "Tutorial"


@pytest.mark.parametrize("language", words.languages())
def test_a_wrong_python_finds_it_in_every_edition(
    other: Path, checkout: Path, language: str
) -> None:
    folder = paths.edition(checkout / "notebooks", language)
    if not folder.exists():
        folder.mkdir()
        source = paths.edition(paths.NOTEBOOKS, language) / "here.py"
        shutil.copy(source, folder, follow_symlinks=False)
    assert str(checkout) in asked(other, SHOWN, folder)


def test_a_wrong_python_says_which_it_is_and_what_to_choose(other: Path, checkout: Path) -> None:
    (checkout / ".venv").mkdir()
    (checkout / ".venv/.kernel").touch()
    english, chinese = asked(other, SHOWN, checkout / "notebooks").splitlines()
    version = ".".join(map(str, sys.version_info[:3]))
    for sentence in (english, chinese):
        assert version in sentence
        assert str(other) in sentence
        assert "LoRA against QLoRA" in sentence
    assert "choose the kernel" in english
    assert "请选择内核" in chinese


def test_before_the_set_up_it_says_how_to_set_up(other: Path, checkout: Path) -> None:
    english, chinese = asked(other, SHOWN, checkout / "notebooks").splitlines()
    for sentence in (english, chinese):
        assert "make setup" in sentence
        assert str(checkout) in sentence


def test_another_checkouts_python_is_a_wrong_one(checkout: Path) -> None:
    """It has a package of that name, which is not this checkout's."""
    (checkout / "helpers").unlink()
    (checkout / "helpers").mkdir()
    (checkout / "helpers/__init__.py").touch()
    assert "make setup" in asked(sys.executable, SHOWN, checkout / "notebooks")
