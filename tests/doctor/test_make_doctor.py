"""`make doctor` and `make setup` where the set-up does not work."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from made_up import write

from helpers.ground import paths


def outside_make(changes: dict[str, str]) -> dict[str, str]:
    """Return the environment of a `make` that is not called by another one: `make test`."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS"))} | changes


@pytest.mark.parametrize("python", ["", "dangling", "silent"])
def test_make_doctor_needs_no_working_set_up(tmp_path: Path, python: str) -> None:
    """Without .venv, and with one whose Python has gone or does not start."""
    for name in ("Makefile", "helpers", "pyproject.toml", "requirements.lock"):
        (tmp_path / name).symlink_to(paths.ROOT / name)
    if python:
        write(tmp_path / ".venv/.ready", "")
        started = tmp_path / ".venv/bin/python"
        started.parent.mkdir()
        if python == "dangling":
            started.symlink_to("/nowhere/python3.11")
        else:
            write(started, "#!/bin/sh\nexit 1\n").chmod(0o755)
    bare_python = write(tmp_path / "python", f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    bare_python.chmod(0o755)
    done = subprocess.run(
        ["make", "-s", "doctor", "PROFILE=npu", f"PYTHON={bare_python}"],
        cwd=tmp_path, env=outside_make({"PATH": "/usr/bin:/bin"}), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert "FAIL packages" in done.stdout
    assert "FAIL CANN" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert (tmp_path / ".venv").exists() == bool(python)  # it looks, and makes nothing


@pytest.mark.parametrize(
    ("step", "printed", "words"),
    [
        ("pip install", "ERROR: Could not find a version that satisfies uv", "check the network"),
        ("uv pip sync", "cause: write failed: No space left on device (os error 28)", "make room"),
        ("uv pip install", "error: something new", "The set-up failed (exit code 1)"),
    ],
)
def test_a_set_up_that_fails_ends_with_a_sentence(
    tmp_path: Path, step: str, printed: str, words: str
) -> None:
    for name in ("Makefile", "helpers", "pyproject.toml", "requirements.lock"):
        (tmp_path / name).symlink_to(paths.ROOT / name)
    python = write(
        tmp_path / ".venv/bin/python",
        '#!/bin/sh\ncase "$*" in\n'
        f'*"-m helpers.programs.faults"*) exec {sys.executable} -S "$@" ;;\n'
        f'*"{step}"*) echo "{printed}" >&2; exit 1 ;;\nesac\n',
    )
    python.chmod(0o755)
    done = subprocess.run(
        ["make", "setup", f"PYTHON={sys.executable}"],
        cwd=tmp_path, env=outside_make({"PATH": "/usr/bin:/bin"}), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stdout.endswith(f"...\n{printed}\n")
    sentence = next(line for line in done.stderr.splitlines() if line)
    assert words in sentence
    assert not (tmp_path / ".venv/.ready").exists()


def test_make_doctor_with_another_python(tmp_path: Path) -> None:
    (tmp_path / "Makefile").symlink_to(paths.ROOT / "Makefile")
    old = write(tmp_path / "python", "#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    done = subprocess.run(
        ["make", "-s", "doctor", f"PYTHON={old}"],
        cwd=tmp_path, env=outside_make({"PATH": "/usr/bin:/bin"}), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("This needs Python 3.11, 3.12, 3.13, and")
