"""Other programs: their environment, their log, their failures, and no orphans."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from helpers.ground import paths
from helpers.ground.errors import TutorialError
from helpers.programs import process


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_a_failure_is_one_sentence_with_the_log(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "step.log"
    code = "import sys; print('before'); sys.exit('ValueError: no such thing')"
    with pytest.raises(TutorialError, match=r"failed \(ValueError: no such thing\)") as caught:
        process.run(python(code), log)
    assert caught.value.log == log
    assert "before" in caught.value.tail
    assert "Traceback" not in caught.value.message


def test_a_known_fault_is_answered_with_its_remedy(tmp_path: Path) -> None:
    code = "raise RuntimeError('NPU out of memory. Tried to allocate 52.00 MiB')"
    with pytest.raises(TutorialError, match="lower per_device_train_batch_size"):
        process.run(python(code), tmp_path / "log")


def test_a_failure_is_named_after_its_fault(tmp_path: Path) -> None:
    code = "import sys; sys.exit('Temporary failure in name resolution')"
    with pytest.raises(TutorialError, match="could not be reached") as caught:
        process.run(python(code), tmp_path / "log")
    assert caught.value.fault == "no network"


def test_a_killed_program_is_told_from_a_failing_one(tmp_path: Path) -> None:
    with pytest.raises(TutorialError, match="killed from outside"):
        process.run(python("import os; os.kill(os.getpid(), 9)"), tmp_path / "log")


def test_a_missing_program_names_the_set_up(tmp_path: Path) -> None:
    with pytest.raises(TutorialError, match="make setup"):
        process.run(["/no/such/program"], tmp_path / "log")


def test_an_interrupt_ends_the_program_and_its_children(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys, time\n"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print('up', flush=True); time.sleep(60)"
    )
    family: list[psutil.Process] = []

    def interrupt() -> None:
        parent = psutil.Process(pids[0])
        if parent.children():
            family.extend([parent, *parent.children()])
            raise KeyboardInterrupt

    pids: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        process.run(
            python(code), tmp_path / "log", on_start=pids.append, on_tick=interrupt,
            tick_seconds=0.1,
        )  # fmt: skip
    assert len(family) == 2
    assert not [member for member in family if member.is_running()]


FAMILY = """
import subprocess, sys, time
child = "import time; time.sleep(60)"
subprocess.Popen([sys.executable, "-c", child])
subprocess.Popen([sys.executable, "-c", child], start_new_session=True)  # as torchrun's workers
print("up", flush=True)
time.sleep(60)
"""
PARENT = """
import sys, threading
from pathlib import Path
from helpers.programs import process
# Not from the main thread: that a thread has ended must not be taken for the end of its process.
run = lambda: process.run([sys.executable, "-c", sys.argv[1]], Path(sys.argv[2]))
threading.Thread(target=run).start()
"""


def wait_for(what: Callable[[], bool], seconds: float = 20) -> bool:
    end = time.monotonic() + seconds
    while not what() and time.monotonic() < end:
        time.sleep(0.05)
    return what()


def ended(member: psutil.Process) -> bool:
    try:
        return member.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.parametrize("whom", ["parent", "guard", "program"])
def test_no_orphan_is_left_whoever_is_killed(tmp_path: Path, whom: str) -> None:
    log = tmp_path / "log"
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, FAMILY, str(log)], cwd=paths.ROOT, stderr=subprocess.DEVNULL
    )
    try:
        assert wait_for(lambda: log.is_file() and "up" in log.read_text())
        guard, program, *children = psutil.Process(parent.pid).children(recursive=True)
        assert len(children) == 2
        killed = {"parent": parent, "guard": guard, "program": program}[whom]
        killed.kill()
        # Where the guard itself is killed, the program goes, and only its own session with it.
        gone = [guard, program] if whom == "guard" else [guard, program, *children]
        assert wait_for(lambda: all(map(ended, gone)), 5)
    finally:
        for child in children:
            if not ended(child):
                child.kill()
        parent.kill()
        parent.wait()


def test_what_a_finished_program_left_running_is_ended(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys\n"
        "left = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'],\n"
        "                        start_new_session=True)\n"
        "print(left.pid)"
    )
    process.run(python(code), tmp_path / "log")
    left = int((tmp_path / "log").read_text())
    assert wait_for(lambda: not psutil.pid_exists(left) or ended(psutil.Process(left)), 5)


def test_the_block_ends_the_program_it_runs(tmp_path: Path) -> None:
    with process.running(python("import time; time.sleep(60)"), tmp_path / "log") as program:
        itself = psutil.Process(program.pid)
        waited_until = time.monotonic() + 10  # it is told before it becomes the program
        while not itself.cmdline() and time.monotonic() < waited_until:
            time.sleep(0.01)
        assert "sleep(60)" in " ".join(itself.cmdline())
        assert program.guard.poll() is None
    assert ended(itself)


def test_a_signal_that_ends_a_program_is_told_as_such(tmp_path: Path) -> None:
    for signal_, words in ((signal.SIGTERM, "SIGTERM"), (signal.SIGSEGV, "SIGSEGV")):
        code = f"import os; os.kill(os.getpid(), {int(signal_)})"
        with pytest.raises(TutorialError, match=f"ended by {words}"):
            process.run(python(code), tmp_path / "log")


def test_ticks_come_while_it_runs(tmp_path: Path) -> None:
    ticks: list[float] = []
    process.run(
        python("import time; time.sleep(0.6)"), tmp_path / "log",
        on_tick=lambda: ticks.append(time.monotonic()), tick_seconds=0.1,
    )  # fmt: skip
    assert len(ticks) >= 3


def test_one_device_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASCEND_RT_VISIBLE_DEVICES", "3,4")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    on_npu, on_cpu = process.environment("npu"), process.environment("cpu")
    assert (on_npu["ASCEND_RT_VISIBLE_DEVICES"], on_npu["CUDA_VISIBLE_DEVICES"]) == ("3", "")
    assert (on_cpu["ASCEND_RT_VISIBLE_DEVICES"], on_cpu["CUDA_VISIBLE_DEVICES"]) == ("", "")
    assert process.environment("cuda")["CUDA_VISIBLE_DEVICES"] == "0"


@pytest.mark.parametrize("told", [None, "FASTEST_FIRST"])
def test_cuda_counts_its_cards_as_nvml_does(
    monkeypatch: pytest.MonkeyPatch, told: str | None
) -> None:
    monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
    if told:
        monkeypatch.setenv("CUDA_DEVICE_ORDER", told)
    assert process.environment("cuda")["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"


def test_the_readers_environment_wins_over_the_profiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    env = process.environment("cpu", extra={"OMP_NUM_THREADS": "2", "TUTORIAL_TEST": "1"})
    assert (env["OMP_NUM_THREADS"], env["TUTORIAL_TEST"]) == ("7", "1")


def test_a_key_in_a_log_is_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SWANLAB_API_KEY", "s3cr3t-value")
    with pytest.raises(TutorialError) as caught:
        process.run(
            python("import os, sys; sys.exit('bad key ' + os.environ['SWANLAB_API_KEY'])"),
            tmp_path / "log",
        )
    assert "s3cr3t-value" not in str(caught.value)
    assert "<SWANLAB_API_KEY>" in str(caught.value)


def test_the_tail_shows_a_progress_bar_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("start\n" + "".join(f"\r{i}/99 [" for i in range(100)) + "\nend\n")
    assert process.tail(log).splitlines() == ["start", "99/99 [", "end"]


def test_a_log_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("a file where the folder should be")
    with pytest.raises(TutorialError, match="something else already has that name"):
        process.run(python("pass"), tmp_path / "logs" / "step.log")


def test_what_was_run_is_accounted_for_where_that_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = tmp_path / "journal.jsonl"
    process.run([sys.executable, "-c", "pass"], tmp_path / "log")
    assert not journal.exists()
    monkeypatch.setenv(process.JOURNAL, str(journal))
    process.run([sys.executable, "-c", "pass"], tmp_path / "log")
    [line] = map(json.loads, journal.read_text().splitlines())
    assert line["command"][1:] == ["-c", "pass"]
    assert 0 < line["seconds"] < 60


def test_another_package_called_helpers_is_not_taken_for_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """bitsandbytes loads ours in every training: another one would tell nothing of itself."""
    (tmp_path / "helpers").mkdir()
    (tmp_path / "helpers" / "__init__.py").write_text("raise ImportError('foreign')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    code = "from helpers.ground import paths; print(paths.ROOT)"
    command = [sys.executable, "-P", "-c", code]
    process.run(command, tmp_path / "log", env=process.environment("cpu"))
    assert (tmp_path / "log").read_text().strip() == str(paths.ROOT)
