"""What the processes of a tree say of themselves, while some of them end.

Between a look at a tree and a question to one of its members that one may have ended: a shell that
a program had started for a moment, say. Whoever has ended has no answer, and that fails no test.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TypeVar

import psutil

T = TypeVar("T")


def family(pid: int) -> list[psutil.Process]:
    """Return a process and all below it."""
    parent = psutil.Process(pid)
    return [parent, *parent.children(recursive=True)]


def asked(
    members: Iterable[psutil.Process], question: Callable[[psutil.Process], T]
) -> list[tuple[psutil.Process, T]]:
    """Return each member that is there, with its answer."""
    found = []
    for member in members:
        with suppress(psutil.NoSuchProcess):  # or a zombie, which has ended as well
            found.append((member, question(member)))
    return found


def listening(members: Iterable[psutil.Process]) -> set[tuple[str, int]]:
    """Return the addresses and ports on which any of the members takes connections."""
    answers = asked(members, lambda member: member.net_connections("inet"))
    return {
        (found.laddr.ip, found.laddr.port)
        for _, connections in answers
        for found in connections
        if found.status == psutil.CONN_LISTEN
    }
