"""The child process that imports torch: what it sees, and what it leaves when it dies."""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

import pytest
from made_up import CANN_MISSING, write

from helpers.doctor import device, probe
from helpers.doctor.host import Status
from helpers.doctor.probe import Probe


def test_the_real_probe_on_this_cpu() -> None:
    seen = probe.ask("cpu")
    assert (seen.torch or "").startswith(metadata.version("torch"))
    assert seen.nf4_error is not None
    assert 0.08 < seen.nf4_error <= device.NF4_ERROR_BOUND
    assert seen.nf4_fault == ""


def probe_with(monkeypatch: pytest.MonkeyPatch, folder: Path, script: str) -> Probe:
    """Return the probe's answer where the child Python is a shell script."""
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    python = write(folder / "python", f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    return probe.ask("npu")


def test_a_child_that_crashes_leaves_what_it_saw(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first = Probe(torch="2.10.0").model_dump_json()
    seen = probe_with(
        monkeypatch, tmp_path, f"echo '{first}'; echo noise; echo drvRetCode=87 >&2; kill -SEGV $$"
    )
    assert seen.torch == "2.10.0"
    check = device.check_device("npu", seen)
    assert check.status is Status.FAIL
    assert "signal 11" in check.finding
    assert "driver does not answer" in check.remedy


def test_a_child_that_dies_on_import(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen = probe_with(monkeypatch, tmp_path, f"cat >&2 <<'END'\n{CANN_MISSING}END\nexit 1")
    assert seen.torch is None
    assert "set_env.sh" in device.check_torch(seen).remedy


def test_a_child_that_hangs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(probe, "PROBE_SECONDS", 0.3)
    seen = probe_with(monkeypatch, tmp_path, 'echo \'{"torch": "2.10.0"}\'; exec sleep 20')
    assert seen.torch == "2.10.0"
    assert "more than 0.3 s" in device.check_device("npu", seen).finding


def test_a_broken_quantiser_is_noticed() -> None:
    """The figure that the bound guards: neighbours swapped, as a wrong nibble order does."""
    import torch
    from bitsandbytes import functional

    assert probe._nf4_error(torch, "cpu") <= device.NF4_ERROR_BOUND
    with pytest.MonkeyPatch.context() as patch:
        right = functional.dequantize_4bit

        def swapped(*arguments: torch.Tensor) -> torch.Tensor:
            return right(*arguments).view(-1, 2).flip(1).view(256, 1024)

        patch.setattr(functional, "dequantize_4bit", swapped)
        assert probe._nf4_error(torch, "cpu") > 1
