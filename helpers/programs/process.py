"""Starting other programs: their environment, their log, and what becomes of a failure."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from helpers.ground import paths
from helpers.ground.errors import TutorialError
from helpers.ground.files import refusals_explained
from helpers.ground.words import tr
from helpers.machine import cards
from helpers.programs import faults

# Names a file that takes a line for each program that was run; benchmarks/pipeline.py counts them.
JOURNAL = "TUTORIAL_JOURNAL"
TAIL_LINES = 12
_NO_ROOM = 1 << 20  # free bytes below which a failure is put down to a full disk
_GUARD = str(Path(__file__).with_name("guard.py"))
_SECRET_NAME = re.compile(r"(API_?KEY|TOKEN|SECRET|PASSWORD)$", re.IGNORECASE)


# The kernel takes 107 bytes for the path of a socket; below this folder come names such as
# "pymp-01234567/listener-01234567" (multiprocessing), "lora-1234567-01234567/kernel-5".
_SOCKET_FOLDER = 107 - 36


def python_path(env: Mapping[str, str]) -> str:
    """Return a PYTHONPATH on which this project stands before another package called helpers."""
    return os.pathsep.join(filter(None, [str(paths.ROOT), env.get("PYTHONPATH", "")]))


def _place_of_sockets() -> str:
    """Return the folder for temporary files, or another one if its path is too long for sockets.

    Raises:
        TutorialError: none is short enough.
    """
    usual = tempfile.gettempdir()
    for place in (usual, "/tmp", "/dev/shm"):
        if len(os.fsencode(place)) <= _SOCKET_FOLDER and os.access(place, os.W_OK | os.X_OK):
            return place
    raise TutorialError(
        tr(
            "The path of the folder for temporary files, {folder}, is too long for sockets: run "
            "'export TMPDIR=/folder' with a short one that can be written, then this again.",
            folder=usual,
        )
    )


@contextmanager
def socket_folder() -> Iterator[Path]:
    """Give a folder of this user alone for sockets, whose paths may only be short.

    Its name tells whose it is: what a killed process has left is taken away by the next one.

    Raises:
        TutorialError: no place for temporary files has a path that is short enough.
    """
    place = _place_of_sockets()
    for left in Path(place).glob("lora-*-*"):
        number = left.name.split("-")[1]
        if number.isdecimal() and not psutil.pid_exists(int(number)):
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"lora-{os.getpid()}-", dir=place) as folder:
        yield Path(folder)


def environment(
    device: str,
    cache: Path | None = None,
    extra: Mapping[str, str] | None = None,
    count: int = 1,
) -> dict[str, str]:
    """Return the environment of a llamafactory-cli call on one device.

    Args:
        device: npu, cuda or cpu.
        cache: where Hugging Face's libraries may cache; None leaves their own choice.
        extra: more variables, which give way to those that the reader has set.
        count: so many cards are shown. With more than one LLaMA-Factory starts torchrun and trains
            on all of them, which is another experiment unless it was asked for.
    """
    env = dict(extra or {}) | dict(os.environ)
    for kind, variable in cards.VARIABLES.items():
        env[variable] = cards.visible(variable, count, env) if device == kind else ""
    # CUDA counts the fastest card first, unless it is told to count as NVML and nvidia-smi do: the
    # card whose memory is read would be another than the one that trains.
    env["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    env["USE_MODELSCOPE_HUB"] = "1"
    env["HF_HUB_OFFLINE"] = "1"  # models and data lie in folders: nothing asks a hub by accident
    env["TOKENIZERS_PARALLELISM"] = "false"
    env["PYTHONUNBUFFERED"] = "1"
    env["PYTHONPATH"] = python_path(env)
    env["TMPDIR"] = _place_of_sockets()
    if cache is not None:
        env["HF_DATASETS_CACHE"] = str(cache)
    return env


def redacted(text: str) -> str:
    """Return `text` with the values of secret environment variables replaced."""
    for name, value in os.environ.items():
        if _SECRET_NAME.search(name) and len(value) >= 6:
            text = text.replace(value, f"<{name}>")
    return text


def tail(log: Path, lines: int = TAIL_LINES) -> str:
    """Return the last lines of a log, progress bars reduced to their last state."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 20_000))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return ""
    kept = [line.rsplit("\r", 1)[-1].rstrip() for line in text.split("\n")]
    return redacted("\n".join([line for line in kept if line][-lines:]))


def end_tree(process: subprocess.Popen[bytes]) -> None:
    """End a process and all its children: politely, after five seconds by force."""
    try:
        family = [psutil.Process(process.pid)]
        family += family[0].children(recursive=True)
    except psutil.NoSuchProcess:
        return
    # The guard goes by itself once what it guards has gone.
    for member in family[1:]:
        with suppress(psutil.NoSuchProcess):
            member.terminate()
    _, alive = psutil.wait_procs(family, timeout=5)
    for member in alive:
        with suppress(psutil.NoSuchProcess):
            member.kill()
    process.wait()


@dataclass(frozen=True)
class Running:
    """A program under its guard, which ends as the program does, with the same code."""

    guard: subprocess.Popen[bytes]
    pid: int  # the program's own


def _keep_account(command: Sequence[str], seconds: float) -> None:
    """Add a line to the file that JOURNAL names: what was run, and for how many seconds."""
    if file := os.environ.get(JOURNAL):
        line = {"command": [Path(part).name for part in command], "seconds": round(seconds, 3)}
        with Path(file).open("a", encoding="utf-8") as journal:
            journal.write(json.dumps(line) + "\n")


@contextmanager
def running(
    command: Sequence[str], log: Path, *, env: Mapping[str, str] | None = None
) -> Iterator[Running]:
    """Run a program from the repository's root for as long as the block runs.

    It and everything it starts end with the block, and with this process, even where that is
    killed (helpers/programs/guard.py sees to it).

    Args:
        command: the program and its arguments.
        log: the file that takes what it prints; started anew.
        env: its whole environment; None passes on this process's.

    Raises:
        TutorialError: the program is missing, or the log cannot be written.
    """
    if not shutil.which(command[0], path=(env or os.environ).get("PATH")):
        raise TutorialError(
            tr(
                "{program} is not installed: run 'make setup' in the repository.",
                program=Path(command[0]).name,
            )
        )
    with refusals_explained(log):
        log.parent.mkdir(parents=True, exist_ok=True)
        output = log.open("wb")
    begin = time.monotonic()
    told, tell = os.pipe()
    with output, os.fdopen(told, "rb") as pid_told:
        try:
            guard = subprocess.Popen(
                [sys.executable, "-I", "-S", _GUARD, str(tell), *command],
                stdin=subprocess.PIPE,  # never written to: that it ends tells the guard
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=paths.ROOT,
                env=dict(env) if env is not None else None,
                pass_fds=(tell,),
                start_new_session=True,  # Ctrl-C reaches this process alone, which ends the child
            )
        finally:
            os.close(tell)
        assert guard.stdin
        with guard.stdin:
            try:
                yield Running(guard, int(pid_told.read() or guard.pid))
            finally:
                end_tree(guard)
                _keep_account(command, time.monotonic() - begin)


def failure(command: Sequence[str], log: Path, code: int) -> TutorialError:
    """Return the error for a program that ended with `code`, which its log explains."""
    name = " ".join(Path(part).name for part in command[:2])
    if command[1:2] == ["-m"]:
        name = command[2]
    text = log.read_text(encoding="utf-8", errors="replace")
    seen = faults.recognise(text)
    if seen:
        fault, sentence = seen.name, seen.sentence
    elif shutil.disk_usage(log.parent).free < _NO_ROOM:  # a log on that disk cannot say so
        fault, sentence = "disk full", faults.sentence("disk full")
    else:
        fault, sentence = "", faults.explain(text, name, code)
    return TutorialError(sentence, log=log, tail=tail(log), fault=fault)


def run(
    command: Sequence[str],
    log: Path,
    *,
    env: Mapping[str, str] | None = None,
    on_start: Callable[[int], None] | None = None,
    on_tick: Callable[[], None] | None = None,
    tick_seconds: float = 0.5,
) -> float:
    """Run a program from the repository's root until it ends; return its wall time in seconds.

    Args:
        command: the program and its arguments.
        log: the file that takes what it prints; started anew.
        env: its whole environment; None passes on this process's.
        on_start: called once with the process id.
        on_tick: called every `tick_seconds` while the program runs.

    Raises:
        TutorialError: the program is missing or failed; where the log shows a known fault, the
            error is named after it and has its sentence.
    """
    start = time.monotonic()
    with running(command, log, env=env) as program:
        if on_start:
            on_start(program.pid)
        while True:
            try:
                code = program.guard.wait(timeout=tick_seconds if on_tick else None)
                break
            except subprocess.TimeoutExpired:
                if on_tick:
                    on_tick()
    if code != 0:
        raise failure(command, log, code)
    return time.monotonic() - start
