"""The boundary: whatever fails behind the face or a command ends in one sentence and a log."""

from __future__ import annotations

import dataclasses
import errno
import inspect
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from helpers import Tutorial
from helpers.calls import notebooks
from helpers.face import boundary, method, outcomes, tutorial, views
from helpers.ground import paths
from helpers.ground.errors import TutorialError
from helpers.inputs import data, models, settings
from helpers.machine import hardware

ROOMS = (tutorial, method, outcomes, views)
CLASSES = [
    kind for room in ROOMS for kind in vars(room).values()
    if inspect.isclass(kind) and kind.__module__ == room.__name__
]  # fmt: skip


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_all_that_readers_call_lies_within_the_boundary(kind: type) -> None:
    """A class that is added without it is found here."""
    fields = {field.name for field in dataclasses.fields(kind)} if (
        dataclasses.is_dataclass(kind)) else set()  # fmt: skip
    for name in dir(kind):
        if (name.startswith("_") and name != "_repr_mimebundle_") or name in fields:
            continue
        member = inspect.getattr_static(kind, name)
        function = member.fget if isinstance(member, property) else member
        assert hasattr(function, "bounded"), f"{kind.__name__}.{name}"


FOREIGN = [
    ValueError("odd"), KeyError("train_loss"), IndexError(), ZeroDivisionError("division by zero"),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), AssertionError(),
    RecursionError("too deep"), AttributeError("no such"), OSError(errno.EIO, "Input/output error"),
    NotImplementedError("no locks here"),
]  # fmt: skip


def fails_with(error: BaseException) -> Callable[..., Any]:
    def fail(*arguments: object, **named: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize("error", FOREIGN, ids=lambda error: type(error).__name__)
def test_what_nobody_foresaw_is_one_sentence_and_a_log(
    error: Exception, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = Tutorial("smoke", run="test")
    monkeypatch.setattr(data, "prepare", fails_with(error))
    with pytest.raises(TutorialError) as caught:
        chosen.prepare()
    said = caught.value
    assert "\n" not in said.message
    assert "prepare()" in said.message
    assert type(error).__name__ in said.message
    assert "report it with the log" in said.message
    assert "test_boundary.py" in said.message or "helpers/" in said.message  # the place
    assert said.log == runs / "test" / "logs" / "error.log"
    assert "Traceback" in said.log.read_text()
    assert "Traceback" not in str(said)


def test_a_stop_and_an_error_that_is_a_sentence_pass(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = Tutorial("smoke", run="test")
    for error in (KeyboardInterrupt(), SystemExit(3), TutorialError("As it is: leave it.")):
        monkeypatch.setattr(data, "prepare", fails_with(error))
        with pytest.raises(type(error)) as caught:
            chosen.prepare()
        assert caught.value is error
    assert not (runs / "test" / "logs" / "error.log").exists()


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "full"), "The disk is full"),
        (OSError(errno.ENAMETOOLONG, "long", "/x/" + "a" * 300), "shorter RUN=name"),
        (OSError(errno.EMFILE, "many"), "ulimit -n 4096"),
        (OSError(errno.ELOOP, "loop", "/x/link"), "/x/link is a symbolic link"),
        (PermissionError(errno.EACCES, "no", __file__), r"test_boundary\.py (cannot be|belongs)"),
        (FileNotFoundError(errno.ENOENT, "no", "/x/file"), "/x/file is not there"),
        (RuntimeError("CUDA out of memory. Tried to allocate"), "The GPU ran out of memory"),
        (MemoryError(), "The machine ran out of memory"),
        (
            ModuleNotFoundError("No module named 'peft'"),
            "run 'make setup'",
        ),  # `make clean` meanwhile
    ],
)
def test_what_is_known_of_a_machine_has_its_own_sentence(
    error: Exception, words: str, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = Tutorial("smoke", run="test")
    monkeypatch.setattr(data, "prepare", fails_with(error))
    with pytest.raises(TutorialError, match=words) as caught:
        chosen.prepare()
    assert "\n" not in caught.value.message
    assert "report it" not in caught.value.message


def test_making_one_and_showing_one_lie_within_it(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "load_profile", fails_with(ValueError("odd")))
    with pytest.raises(TutorialError, match="Tutorial came upon"):
        Tutorial("smoke")
    assert (runs / "error.log").is_file()
    monkeypatch.undo()
    monkeypatch.setattr(paths, "RUNS", runs)
    view = views.MachineView(hardware.describe())
    monkeypatch.setattr(hardware.Hardware, "table", fails_with(TypeError("odd")))
    for show in (view._repr_mimebundle_, view.plain, view.markdown, view.__str__):
        with pytest.raises(TutorialError, match=r"MachineView came upon|shown\(\) came upon"):
            show()


def test_where_no_log_can_be_written_the_sentence_stays(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.gettempdir", lambda: "/proc/xx")
    told = boundary.explained(ValueError("odd"), "train()", Path("/proc/yy"))
    assert told.log is None
    assert "ValueError: odd" in told.message


def test_a_secret_is_in_neither(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWANLAB_API_KEY", "swan-key-0123456789")
    told = boundary.explained(ValueError("swan-key-0123456789"), "train()", runs)
    assert told.log is not None
    assert "swan-key" not in told.message + told.log.read_text()


def test_a_notebook_shows_the_sentence_alone_and_papermill_fails_on_it(
    smoke: settings.Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a cell's call, and in showing what it returned: no traceback either way.

    Nor is another package called helpers on PYTHONPATH taken for this one.
    """
    (tmp_path / "foreign" / "helpers").mkdir(parents=True)
    (tmp_path / "foreign" / "helpers" / "__init__.py").write_text("")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "foreign"))
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "1")
    monkeypatch.setenv("TUTORIAL_RUNS", str(paths.RUNS))
    monkeypatch.setattr(paths, "NOTEBOOKS", tmp_path / "notebooks")
    monkeypatch.setattr(paths, "NOTEBOOK_NAMES", ("01_env",))
    (tmp_path / "notebooks").mkdir()
    broken = "from helpers.machine import hardware\nhardware.describe = lambda: 1 / 0\n"
    shown = "from helpers.machine import hardware\nhardware.Hardware.table = lambda self: 1 / 0\n"
    for code in (broken, shown):
        code += "from helpers import Tutorial\nTutorial('smoke', run='test').machine"
        file = tmp_path / "notebooks" / "01_env.ipynb"
        cell = new_code_cell(code)
        kernel = {"kernelspec": {"name": "python3", "display_name": "x", "language": "python"}}
        nbformat.write(new_notebook(cells=[cell], metadata=kernel), file)
        with pytest.raises(TutorialError, match=r"came upon .*ZeroDivisionError") as caught:
            notebooks.run_notebooks(smoke, {}, lambda line: None)
        assert "Traceback" not in str(caught.value)
        executed = nbformat.read(smoke.run.notebooks / "01_env.ipynb", as_version=4)
        [error] = [o for c in executed.cells for o in c.get("outputs", [])
                   if o.output_type == "error"]  # fmt: skip
        assert "Traceback" not in "\n".join(error.traceback)
        assert len(error.traceback) <= 3


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("from helpers import Tutorial; Tutorial('smok')", "There is no profile 'smok'"),
        ("from helpers import Tutorial; 1 / 0", "Traceback"),
    ],
)
def test_a_script_ends_in_one_sentence_where_the_error_is_ours(script: str, said: str) -> None:
    done = subprocess.run([sys.executable, "-c", script], cwd=paths.ROOT, capture_output=True,
                          text=True)  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith(said)
    assert said == "Traceback" or len(done.stderr.splitlines()) == 1


def command(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("TUTORIAL_")}
    return subprocess.run(
        [sys.executable, "-m", "helpers", *words], env=clean | env, cwd=paths.ROOT,
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("words", "env", "code", "says"),
    [
        (["plan", "--profile", "smoke"], {"CARD_GIB": "nan"}, 1, "CARD_GIB=nan is not the memory"),
        (["plan", "--profile", "smoke"], {"CARD_GIB": "-1"}, 1, "CARD_GIB=-1.0 is not the memory"),
        (["plan", "--card-gib", "abc"], {}, 2, "Invalid value for '--card-gib'"),
        (["plann"], {}, 2, "No such command 'plann'. Did you mean 'plan'?"),
        (["data", "--nonsense"], {}, 2, "No such option"),
        (["data", "--profile", "smoke"], {"TUTORIAL_RUNS": "/proc/xx"}, 1, "/proc/xx is not there"),
        (["data", "--profile", "smoke"], {"TUTORIAL_RUNS": "/tmp/" + "a" * 300}, 1, "shorter"),
        (["data", "--profile", "smoke", "--run", "x\x1b[31m"], {}, 1, "cannot name a folder"),
    ],
)  # fmt: skip
def test_a_command_ends_in_one_sentence(
    words: list[str], env: dict[str, str], code: int, says: str
) -> None:
    done = command(*words, **env)
    assert done.returncode == code
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Traceback" not in done.stdout + done.stderr
    assert "\x1b" not in done.stderr


def test_ctrl_c_in_a_command_says_what_is_kept(tmp_path: Path) -> None:
    """typer would end without a word."""
    code = (
        "import sys; from helpers import __main__ as main\n"
        "def stop(*a, **k): raise KeyboardInterrupt\n"
        "main.Tutorial.examine = stop; sys.argv[1:] = ['doctor']; sys.exit(main.main())"
    )
    env = os.environ | {"TUTORIAL_RUNS": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], cwd=paths.ROOT, env=env,
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 130
    assert done.stderr.strip() == "Stopped. Finished steps are kept; the same command goes on."


def test_a_model_that_cannot_be_read_is_refused_by_obtain(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The boundary knows a file by the error's own name for it."""
    error = PermissionError(errno.EACCES, "no", __file__)
    monkeypatch.setattr(models, "obtain", fails_with(error))
    with pytest.raises(TutorialError, match=r"test_boundary\.py (cannot be|belongs)"):
        Tutorial("smoke", run="test").obtain()
