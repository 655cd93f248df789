"""The notebooks' kernel: registered for the user, started in the notebook's own checkout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import start_new_kernel

from helpers.ground import paths
from helpers.programs import kernel

REPOSITORY = paths.ROOT


@pytest.fixture
def registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the user's registration; nothing of this machine's user or CANN is touched."""
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(tmp_path / "user"))
    for name in ("ASCEND_HOME_PATH", "ASCEND_TOOLKIT_HOME"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "user/kernels" / kernel.NAME


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Return a function that makes a checkout set up, whose Python tells how it was called."""

    def make(name: str) -> Path:
        folder = tmp_path / name
        for inner in ("notebooks", "helpers/programs", ".venv/bin"):
            (folder / inner).mkdir(parents=True)
        (folder / "helpers/programs/kernel.py").touch()
        python = folder / ".venv/bin/python"
        python.write_text('#!/bin/sh\necho "$0" "$@"\n')
        python.chmod(0o755)
        monkeypatch.setattr(paths, "ROOT", folder)
        kernel.register(folder / ".venv", tmp_path / "no CANN")
        return folder

    return make


def started(registered: Path, folder: Path) -> str:
    """Return what is called when a kernel is started for a notebook in a folder."""
    spec = json.loads((registered / "kernel.json").read_text())
    words = [word.replace("{connection_file}", "/the/file") for word in spec["argv"]]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_every_checkout_starts_its_own_kernel(
    registered: Path, checkout: Callable[[str], Path]
) -> None:
    for folder in (checkout("first"), checkout("the second")):
        for inside in (folder / "notebooks", folder):
            assert started(registered, inside) == (
                f"{folder}/.venv/bin/python -P -m helpers.programs.kernel start /the/file"
            )


def test_a_checkout_without_set_up_gets_a_kernel_that_can_say_so(
    registered: Path, checkout: Callable[[str], Path], tmp_path: Path
) -> None:
    first = checkout("first")
    bare = tmp_path / "bare/notebooks"
    bare.mkdir(parents=True)
    assert started(registered, bare) == (
        f"{first}/.venv/bin/python -m ipykernel_launcher -f /the/file"
    )


def test_the_last_checkout_takes_the_registration_back(
    registered: Path, checkout: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = checkout("first"), checkout("second")
    kernel.unregister(second / ".venv")
    assert (registered / "checkouts").read_text() == f"{first}\n"
    assert str(first) in started(registered, first / "notebooks")
    kernel.unregister(second / ".venv")  # nothing is left to take back
    monkeypatch.setattr(paths, "ROOT", first)
    kernel.unregister(first / ".venv")
    assert not registered.exists()


def test_make_clean_takes_it_back_with_any_python(
    registered: Path, checkout: Callable[[str], Path]
) -> None:
    """The checkout's own .venv may be what is broken."""
    folder = checkout("first")
    (folder / ".venv/bin/python").unlink()
    shutil.rmtree(folder / "helpers")
    shutil.copytree(REPOSITORY / "helpers", folder / "helpers")
    shutil.copy(REPOSITORY / "Makefile", folder)
    command = ["make", "clean", f"PYTHON={sys.executable}"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    assert not registered.exists()
    assert not (folder / ".venv").exists()
    assert (REPOSITORY / ".venv").exists()


def test_a_checkout_that_was_removed_holds_nothing_back(
    registered: Path, checkout: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = checkout("first"), checkout("second")
    (first / ".venv").rename(first / "gone")
    monkeypatch.setattr(paths, "ROOT", second)
    kernel.unregister(second / ".venv")
    assert not registered.exists()


def test_where_nothing_can_be_registered_the_set_up_says_what_to_do(
    registered: Path, checkout: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    registered.parent.parent.write_text("a file in the way")
    folder = checkout("first")
    assert "could not be registered" in capsys.readouterr().out
    own = folder / ".venv/share/jupyter/kernels" / kernel.NAME / "kernel.json"
    assert json.loads(own.read_text())["argv"][0] == f"{folder}/.venv/bin/python"
    kernel.unregister(folder / ".venv")


SET_ENV = """
export ASCEND_TOOLKIT_HOME={home}
export ASCEND_HOME_PATH=$ASCEND_TOOLKIT_HOME
export ASCEND_OPP_PATH=$ASCEND_TOOLKIT_HOME/opp
export LD_LIBRARY_PATH=$ASCEND_TOOLKIT_HOME/lib64:$LD_LIBRARY_PATH
export PATH=$ASCEND_TOOLKIT_HOME/bin:$PATH
"""


@pytest.fixture
def with_cann(registered: Path, tmp_path: Path) -> Path:
    """This checkout's kernel, registered in a folder of its own on a machine that has CANN."""
    home = tmp_path / "usr/local/Ascend/cann"
    home.mkdir(parents=True)
    (home / "set_env.sh").write_text(SET_ENV.format(home=home))
    venv = tmp_path / "venv"
    venv.mkdir()
    (venv / "bin").symlink_to(Path(sys.executable).parent)
    kernel.register(venv, tmp_path)
    return venv


def test_cann_reaches_a_process_that_no_shell_prepared(
    with_cann: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "usr/local/Ascend/cann"
    monkeypatch.setenv("LD_LIBRARY_PATH", "/my/own")
    changed = kernel.cann_changes(with_cann)
    assert changed["ASCEND_HOME_PATH"] == str(home)
    assert changed["LD_LIBRARY_PATH"] == f"/my/own:{home}/lib64"
    monkeypatch.setenv("ASCEND_HOME_PATH", "/another/cann")
    assert kernel.cann_changes(with_cann) == {}


def test_a_cann_that_has_gone_is_not_set(with_cann: Path, tmp_path: Path) -> None:
    (tmp_path / "usr/local/Ascend/cann/set_env.sh").unlink()
    assert kernel.cann_changes(with_cann) == {}
    (with_cann / "cann.json").write_text("half writ")
    assert kernel.cann_changes(with_cann) == {}


ASK = """
import os, subprocess, sys
from here import Tutorial
program = "import os; print(os.environ['ASCEND_HOME_PATH'])"
print(Tutorial.__name__, sys.prefix, os.environ["LD_LIBRARY_PATH"])
print(subprocess.check_output([sys.executable, "-c", program], text=True))
"""


def test_the_kernel_of_any_server_has_the_tutorial_and_cann(
    registered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real kernel, started as a server in another environment starts it."""
    home = tmp_path / "cann"
    home.mkdir()
    (home / "set_env.sh").write_text(SET_ENV.format(home=home))
    setting = {"value": f"{home}/lib64", "adds": True}
    kept = {"LD_LIBRARY_PATH": setting, "ASCEND_HOME_PATH": {"value": str(home), "adds": False}}
    file = tmp_path / "cann.json"
    file.write_text(json.dumps({"script": str(home / "set_env.sh"), "settings": kept}))
    monkeypatch.setenv("VIRTUAL_ENV", "/of/the/server")
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    code = (
        "import sys; from pathlib import Path; from helpers.programs import kernel; "
        f"kernel._CANN = {str(file)!r}; kernel.start(sys.argv[1])"
    )
    argv = [sys.executable, "-P", "-c", code, "{connection_file}"]
    registered.mkdir(parents=True)
    (registered / "kernel.json").write_text(json.dumps(kernel._specification(argv)))
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "0")
    assert KernelSpecManager().find_kernel_specs()[kernel.NAME] == str(registered)
    said: list[str] = []

    def take(message: dict) -> None:
        content = message["content"]
        said.append(content.get("text") or "\n".join(content.get("traceback", [])))

    manager, client = start_new_kernel(kernel_name=kernel.NAME, cwd=str(paths.NOTEBOOKS))
    try:
        client.execute_interactive(ASK, output_hook=take, timeout=60)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    text = "".join(said)
    assert f"Tutorial {paths.ROOT / '.venv'} {home}/lib64" in text
    assert text.rstrip().endswith(str(home))


def test_the_set_up_writes_what_the_launcher_looks_for() -> None:
    """A kernel of this checkout, by the launcher, as far as the process that it becomes."""
    launcher = kernel._LAUNCHER.read_text("utf-8")
    assert f"$folder/.venv/{kernel._STAMP}" in launcher
    assert f"/{kernel._CHECKOUTS}" in launcher
    assert os.access("/bin/sh", os.X_OK)
