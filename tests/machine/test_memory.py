"""Memory: sampled from the process tree, and named for what it is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from helpers.machine import memory

ALLOCATE = """
import subprocess, sys, time
if len(sys.argv) > 1:
    child = subprocess.Popen([sys.executable, '-c', sys.argv[1]])
block = bytearray(60_000_000)
time.sleep(3)
"""


def sampled(code: list[str]) -> memory.MemoryTrace:
    sampler = memory.Sampler(replace(memory.reader("cpu"), interval_seconds=0.05))
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
    assert memory.reader("cpu").measure == "resident"
    assert memory.named("resident") == "resident memory of the training process"


def test_a_process_that_has_ended_takes_nothing() -> None:
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    process.wait()
    assert memory.process_tree_bytes(process.pid) == 0


def test_on_an_npu_the_card_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = Path(__file__).parents[1] / "fixtures" / "npu_smi"
    tool = tmp_path / "npu-smi"
    tool.write_text(f"#!/bin/sh\ncat {next(recorded.glob('*910b2*'))}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    how = memory.reader("npu")
    assert how.measure == "npu_smi"
    assert "HBM" in memory.named(how.measure)
    assert how.read(0) == 29954 * 2**20


def test_without_npu_smi_the_measure_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert memory.reader("npu").measure == "resident"


def test_a_sample_that_fails_is_left_out() -> None:
    def broken(pid: int) -> int:
        raise OSError

    sampler = memory.Sampler(memory.Reader("resident", broken, 0.01))
    sampler.start(0)
    time.sleep(0.1)
    assert sampler.stop().bytes_used == []


def test_what_a_forked_child_shares_is_counted_once() -> None:
    child = os.fork()
    if not child:
        time.sleep(20)
        os._exit(0)
    try:
        alone = psutil.Process().memory_info().rss
        assert memory.process_tree_bytes(os.getpid()) < alone + 50_000_000 < 2 * alone
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
