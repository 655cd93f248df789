"""Faults as the machine makes them: full and read-only disks, lost memory, taken ports.

tests/FAULTS.md lists these with all others.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import nbformat
import psutil
import pytest
from conftest import make_training
from nbformat.v4 import new_code_cell, new_notebook

from helpers.calls import factory, prediction, publishing
from helpers.calls import notebooks as runner
from helpers.calls import training as trainings
from helpers.ground import files, paths
from helpers.ground.errors import TutorialError
from helpers.inputs import data, settings
from helpers.programs import process
from helpers.records import store as records
from helpers.results import comparison as compare


def mount(*arguments: str) -> None:
    """Mount something, or skip the test where that is not allowed."""
    try:
        done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command here")
    if done.returncode:
        pytest.skip(f"mounting is not allowed here: {done.stderr.strip()}")


def unmount(folder: Path) -> None:
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def small_disk(runs: Path) -> Iterator[Path]:
    """A disk of a few megabytes, where the runs lie."""
    runs.mkdir()
    mount("-t", "tmpfs", "-o", "size=4m", "tmpfs", str(runs))
    yield runs
    unmount(runs)


def with_rows(train: int) -> settings.Settings:
    chosen = settings.resolve("smoke", run="test")
    chosen.profile.data = chosen.profile.data.model_copy(update={"train": train})
    return chosen


def test_a_full_disk_loses_nothing_that_was_finished(small_disk: Path) -> None:
    few, many = with_rows(48), with_rows(9_000)
    before = data.prepare(few, say=lambda line: None)
    filler = small_disk / "filler"
    free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
    filler.write_bytes(bytes(free - 200_000))
    said: list[str] = []
    with pytest.raises(TutorialError, match="The disk is full") as caught:
        data.prepare(many, said.append)
    assert "\n" not in caught.value.message
    assert any("Re-using source" in line for line in said)
    left = [file for file in few.run.root.rglob("*") if file.name.startswith(".math")]
    assert left == []  # nothing half-written lies about
    filler.unlink()
    assert data.prepare(few, said.append) == before


def test_a_program_on_a_full_disk_is_one_sentence(small_disk: Path, tmp_path: Path) -> None:
    code = f"open('{small_disk}/weights', 'wb').write(bytes(8 << 20))"
    with pytest.raises(TutorialError, match="The disk is full: make room"):
        process.run([sys.executable, "-c", code], tmp_path / "log")


def test_a_log_that_cannot_say_it_any_more_says_it_too(small_disk: Path) -> None:
    """The log lies on the full disk itself, so that the program's last words are lost."""
    code = "while True: print('x' * 999)"
    with pytest.raises(TutorialError, match="The disk is full: make room"):
        process.run([sys.executable, "-c", code], small_disk / "log")


def test_a_read_only_folder_is_one_sentence_and_results_can_still_be_read(runs: Path) -> None:
    chosen = with_rows(48)
    facts = data.prepare(chosen, say=lambda line: None)
    mount("--bind", str(runs), str(runs))
    try:
        mount("-o", "remount,bind,ro", str(runs))
        assert data.prepare(chosen, say=lambda line: None) == facts
        with pytest.raises(TutorialError, match="read-only"):
            data.prepare(with_rows(50), say=lambda line: None)
    finally:
        unmount(runs)
    assert data.facts_of(chosen.run) == facts


def test_a_process_that_gets_no_memory_is_one_sentence(tmp_path: Path) -> None:
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (1 << 28, 1 << 28));"
        "bytearray(1 << 30)"
    )
    assert resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY
    with pytest.raises(TutorialError, match="The machine ran out of memory"):
        process.run([sys.executable, "-c", code], tmp_path / "log")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("RuntimeError('NPU out of memory. Tried to allocate 52.00 MiB')", "The NPU ran out"),
        ("RuntimeError('CUDA out of memory. Tried to allocate 2 GiB')", "The GPU ran out"),
    ],
)
def test_a_device_out_of_memory_names_what_to_lower(tmp_path: Path, error: str, words: str) -> None:
    with pytest.raises(TutorialError, match=f"{words}.*lower per_device_train_batch_size"):
        process.run([sys.executable, "-c", f"raise {error}"], tmp_path / "log")


def test_a_taken_port_is_one_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code = f"import socket; socket.create_server(('127.0.0.1', {taken.getsockname()[1]}))"
        with pytest.raises(TutorialError, match="port is in use"):
            process.run([sys.executable, "-c", code], tmp_path / "log")


def test_no_network_is_one_sentence(tmp_path: Path) -> None:
    """A port that nothing listens on refuses, as a hub that cannot be reached does."""
    code = "import urllib.request as r; r.urlopen('http://127.0.0.1:9')"
    env = os.environ | {"no_proxy": "127.0.0.1"}
    with pytest.raises(TutorialError, match="could not be reached"):
        process.run([sys.executable, "-c", code], tmp_path / "log", env=env)


Read = Callable[[paths.RunFolder], object]


def about(run: paths.RunFolder) -> tuple[Path, Read]:
    return run.data / "about.json", data.facts_of


def record(run: paths.RunFolder) -> tuple[Path, Read]:
    base = settings.resolve("smoke", run=run.name).subject("base")
    return records.file_of(run, "base"), lambda run: records.read(run, base)


def comparison(run: paths.RunFolder) -> tuple[Path, Read]:
    return run.comparison, lambda run: compare.read(run.comparison)


def training(run: paths.RunFolder) -> tuple[Path, Read]:
    def read(run: paths.RunFolder) -> object:
        return trainings.read("lora", settings.resolve("smoke", run=run.name))

    return run.adapter("lora") / "training.json", read


@pytest.mark.parametrize("kept", [0, 1, 40])
@pytest.mark.parametrize("what", [about, record, comparison, training])
def test_a_half_written_result_is_never_taken_for_a_whole_one(
    smoke: settings.Settings, what: Callable[[paths.RunFolder], tuple[Path, Read]], kept: int
) -> None:
    file, read = what(smoke.run)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(make_training().model_dump_json().encode()[:kept] + b"\xe4" * bool(kept))
    with pytest.raises(TutorialError, match=r"run the notebook 0\d_\w+ again") as caught:
        read(smoke.run)
    assert "\n" not in caught.value.message


def test_a_killed_write_leaves_the_old_file_and_the_next_one_clears_up(tmp_path: Path) -> None:
    """SIGKILL in the middle of writing a file and of filling a folder."""
    file, folder = tmp_path / "facts.json", tmp_path / "model"
    files.write_json(file, {"whole": True})
    code = f"""
import os, signal
from pathlib import Path
from helpers.ground import files
with files.folder_aside(Path({str(folder)!r})) as aside, files.whole_file(Path({str(file)!r})) as f:
    (aside / "half").write_text("half")
    f.write(b'{{"whole": ')
    f.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", code], cwd=paths.ROOT, check=False)
    assert killed.returncode == -9
    assert files.read_yaml(file) == {"whole": True}
    assert not folder.exists()
    with files.folder_aside(folder) as aside:
        (aside / "whole").write_text("whole")
    assert [path.name for path in folder.iterdir()] == ["whole"]
    assert not [path for path in tmp_path.iterdir() if path.is_dir() and path != folder]


@pytest.mark.parametrize(
    ("step", "notebook"),
    [
        (lambda chosen: data.facts_of(chosen.run), "02_data"),
        (lambda chosen: trainings.read("lora", chosen), "03_lora"),
        (lambda chosen: trainings.read("qlora", chosen), "04_qlora"),
        (lambda chosen: records.read(chosen.run, chosen.subject("lora_merged")), "05_merge"),
        (lambda chosen: prediction.answer("base", chosen), "02_data"),
        (lambda chosen: compare.compare(chosen), "03_lora"),
    ],
)
def test_a_notebook_without_its_predecessor_names_it(
    smoke: settings.Settings, step: Callable[[settings.Settings], object], notebook: str
) -> None:
    with pytest.raises(TutorialError, match=notebook) as caught:
        step(smoke)
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("value", ["abc", None, 0, -1, True, [1], float("nan"), float("inf")])
def test_a_count_that_is_none_is_refused_before_anything_starts(
    smoke: settings.Settings, value: object
) -> None:
    with pytest.raises(TutorialError, match="must be a number above zero"):
        factory.call("train", "lora", {"per_device_train_batch_size": value}, smoke)
    assert not smoke.run.root.exists()


def test_a_stale_venv_is_brought_up_to_date_before_anything_runs(tmp_path: Path) -> None:
    """What `make run` would do, with a lock that is newer and one that is older than .venv."""
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        (tmp_path / name).write_bytes((paths.ROOT / name).read_bytes())
        os.utime(tmp_path / name, (1_000, 1_000))
    shutil.copytree(paths.ROOT / "helpers", tmp_path / "helpers")  # what the kernel is made from
    ready = tmp_path / ".venv" / ".ready"
    ready.parent.mkdir()
    ready.write_text("requirements.lock\n")

    def planned() -> str:
        done = subprocess.run(
            ["make", "--dry-run", "run"], cwd=tmp_path, capture_output=True, text=True, check=True
        )
        return done.stdout

    assert "pip sync" not in planned()
    os.utime(ready, (500, 500))
    assert 0 < planned().index("pip sync") < planned().index("helpers run")


def test_a_killed_kernel_is_one_sentence(
    smoke: settings.Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"
    write_notebook(tmp_path / "notebooks" / "03_lora.ipynb", code)
    monkeypatch.setattr(paths, "NOTEBOOKS", tmp_path / "notebooks")
    monkeypatch.setattr(paths, "NOTEBOOK_NAMES", ("03_lora",))
    monkeypatch.setenv("TUTORIAL_HEADLESS", "1")
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "1")
    with pytest.raises(TutorialError, match="kernel of the notebook 03_lora was killed") as caught:
        runner.run_notebooks(smoke, {}, lambda line: None)
    assert "\n" not in caught.value.message
    with pytest.raises(TutorialError, match="was not executed to its end"):
        publishing.publish(smoke)
    (smoke.run.notebooks / "03_lora.ipynb").write_text('{"cells": [')
    with pytest.raises(TutorialError, match="was not written to its end"):
        publishing.publish(smoke)


def write_notebook(file: Path, code: str) -> None:
    file.parent.mkdir()
    nbformat.write(new_notebook(cells=[new_code_cell(code)]), file)


NOTEBOOKS = """
import signal, sys
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
from helpers.calls import notebooks as runner
from helpers.ground import paths
from helpers.inputs import settings
paths.NOTEBOOKS, paths.NOTEBOOK_NAMES = Path(sys.argv[1]), ("03_lora",)
try:
    runner.run_notebooks(settings.resolve("smoke", run="test"), {})
except KeyboardInterrupt:
    sys.exit(130)
"""
TRAINS = """
import sys
from pathlib import Path
from helpers.programs import process
worker = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; "
worker += "time.sleep(60)'], start_new_session=True); time.sleep(60)"
process.run([sys.executable, "-c", worker], Path("log"))
"""


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)]
)
def test_a_stopped_run_leaves_no_orphan(tmp_path: Path, number: int, code: int) -> None:
    """The runner killed or interrupted: its kernel, the program and its workers all end."""
    write_notebook(tmp_path / "notebooks" / "03_lora.ipynb", TRAINS)
    env = {"TUTORIAL_RUNS": str(tmp_path / "runs"), "JUPYTER_PREFER_ENV_PATH": "1"}
    run = subprocess.Popen(
        [sys.executable, "-c", NOTEBOOKS, str(tmp_path / "notebooks")],
        cwd=paths.ROOT, env=os.environ | env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    family: list[psutil.Process] = []
    while len(family) < 4:  # kernel, guard, program, worker
        assert run.poll() is None
        time.sleep(0.1)
        family = psutil.Process(run.pid).children(recursive=True)
    run.send_signal(number)
    assert run.wait(timeout=30) == code
    _, alive = psutil.wait_procs(family, timeout=10)
    assert [member for member in alive if member.status() != psutil.STATUS_ZOMBIE] == []
