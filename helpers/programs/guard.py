"""Runs one program that must not outlive who asked for it: python guard.py PIPE PROGRAM ...

Standard input is the life line: it ends when the asking process does, however that ends, and then
the program and everything it has started is killed. Being told so by the kernel alone
(PR_SET_PDEATHSIG) would reach the program, but not the workers that it has started.

Only the standard library is imported, and little of it: this runs before every training.
"""

from __future__ import annotations

import ctypes
import os
import resource
import select
import signal
import sys
from pathlib import Path

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def _children() -> list[int]:
    """Return the direct children, those that lost their own parent included."""
    found = Path(f"/proc/self/task/{os.getpid()}/children")
    if found.is_file():
        return [int(pid) for pid in found.read_text().split()]
    mine = []  # a kernel without CONFIG_PROC_CHILDREN
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue
            if int(stat.rpartition(")")[2].split()[1]) == os.getpid():
                mine.append(int(entry.name))
    return mine


def _end_all() -> None:
    """Kill children until none is left: those of a killed one become this process's own."""
    while True:
        for pid in _children():
            os.kill(pid, signal.SIGKILL)
        try:
            os.wait()
        except ChildProcessError:
            return


def _start(command: list[str], tell: int) -> int:
    child = os.fork()
    if child:
        os.write(tell, b"%d" % child)
        os.close(tell)
        return child
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # should this process itself be killed
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(tell)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr, flush=True)
        os._exit(127)


def main(tell: int, command: list[str]) -> None:
    """Run `command` and end as it did, by the same exit code or the same signal.

    Args:
        tell: a file descriptor that takes the program's process id.
        command: the program and its arguments.
    """
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    wake, woken = os.pipe()
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(woken)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)  # only to be woken
    child = _start(command, tell)
    while True:
        ready, _, _ = select.select([0, wake], [], [])
        if 0 in ready and not os.read(0, 1):
            _end_all()
            sys.exit(1)
        if wake in ready:
            os.read(wake, 64)
        ended = 1
        while ended:
            try:
                ended, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                ended = 0
            if ended == child:
                _end_all()  # what a program leaves behind is an orphan too
                code = os.waitstatus_to_exitcode(status)
                if code < 0:
                    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the program has its own
                    signal.signal(-code, signal.SIG_DFL) if -code != signal.SIGKILL else None
                    os.kill(os.getpid(), -code)
                sys.exit(code)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
