"""A member of a tree that ends while it is asked fails no test."""

from __future__ import annotations

import socket
import subprocess
import sys

import psutil
from family import asked, family, listening


def test_who_has_ended_has_no_answer_and_the_others_have() -> None:
    going = subprocess.Popen([sys.executable, "-c", ""])
    seen = [psutil.Process(), psutil.Process(going.pid)]
    going.wait()
    assert [member for member, _ in asked(seen, psutil.Process.cmdline)] == seen[:1]
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert server.getsockname() in listening(seen)


def test_children_are_of_the_family() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert psutil.Process(child.pid) in family(psutil.Process().pid)
        child.communicate()
