"""Memory: sampled from the process tree, and named for what it is."""

from __future__ import annotations

import subprocess
import sys
import time

from helpers import memory

ALLOCATE = """
import subprocess, sys, time
if len(sys.argv) > 1:
    child = subprocess.Popen([sys.executable, '-c', sys.argv[1]])
block = bytearray(60_000_000)
time.sleep(3)
"""


def sampled(code: list[str]) -> memory.MemoryTrace:
    sampler = memory.Sampler("cpu", interval=0.05)
    process = subprocess.Popen([sys.executable, "-c", *code])
    try:
        sampler.start(process.pid)
        time.sleep(1.2)
    finally:
        trace = sampler.stop()
        process.kill()
        process.wait()
    return trace


def test_samples_see_what_is_allocated() -> None:
    trace = sampled([ALLOCATE])
    assert trace.peak_bytes > 60_000_000
    assert len(trace.seconds) == len(trace.bytes_used) > 5
    assert trace.seconds == sorted(trace.seconds)


def test_children_are_counted() -> None:
    with_child = sampled([ALLOCATE, "import time; block = bytearray(90_000_000); time.sleep(3)"])
    assert with_child.peak_bytes > 150_000_000


def test_it_is_named_for_what_it_is() -> None:
    assert memory.reader("cpu")[0] == "resident memory of the training process"


def test_a_process_that_has_ended_takes_nothing() -> None:
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    process.wait()
    assert memory.process_tree_bytes(process.pid) == 0
