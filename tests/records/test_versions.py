"""Versions: what counts as a change, and what a record says besides."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from helpers.machine import cann, hardware, npu_smi
from helpers.records import versions


@pytest.fixture
def on_an_npu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(hardware, "detect_device", lambda: "npu")
    monkeypatch.setattr(cann, "driver_version", lambda root: "25.5.1")
    monkeypatch.setattr(cann, "installations", lambda root: {root: "8.5.0"})
    versions.versions.cache_clear()
    yield
    versions.versions.cache_clear()


def test_a_time_out_of_npu_smi_is_no_change(
    on_an_npu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(npu_smi, "query", lambda: SimpleNamespace(version="25.5.1"))
    answered = versions.versions()
    assert versions.recorded() == answered | {"npu-smi": "25.5.1"}

    def hangs() -> None:
        raise subprocess.TimeoutExpired(["npu-smi"], 10)

    monkeypatch.setattr(npu_smi, "query", hangs)
    versions.versions.cache_clear()
    assert versions.versions() == answered
    assert versions.recorded() == answered
    assert (answered["driver"], answered["CANN"]) == ("25.5.1", "8.5.0")
    assert "torch" in answered


def test_what_cannot_be_found_out_is_none_and_in_no_record(
    on_an_npu: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cann, "driver_version", lambda root: None)
    monkeypatch.setattr(npu_smi, "query", lambda: SimpleNamespace(version="25.5.1"))
    assert versions.versions()["driver"] is None
    assert "driver" not in versions.recorded()


def test_the_code_that_decides_figures_has_one_hash() -> None:
    first = versions.code("worker/divergence.py", "worker/loaded.py")
    assert first == versions.code("worker/divergence.py", "worker/loaded.py")
    assert first != versions.code("worker/divergence.py")


def test_without_an_npu_it_is_packages_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "detect_device", lambda: "cpu")
    versions.versions.cache_clear()
    assert set(versions.recorded()) <= set(versions.PACKAGES)
    versions.versions.cache_clear()
