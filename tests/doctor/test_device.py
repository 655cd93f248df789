"""torch and the device: what is seen, its numbers, its 4-bit kernels, its memory."""

from __future__ import annotations

import pytest
from made_up import GIB, NPU

from helpers.doctor import device
from helpers.doctor.host import Status
from helpers.machine import hardware


def test_a_card_that_cannot_be_asked() -> None:
    seen = NPU.model_copy(
        update={"device_fault": "RuntimeError: NPU out of memory. Tried to allocate 2.00 MiB"}
    )
    check = device.check_device("npu", seen)
    assert check.status is Status.FAIL
    assert "ran out of memory" in check.remedy


def test_no_bf16() -> None:
    assert device.check_bf16(NPU.model_copy(update={"bf16": False})).status is Status.FAIL


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"nf4_error": 0.122}, Status.FAIL, "0.122"),  # what FP4 gives
        ({"nf4_error": float("nan")}, Status.FAIL, "nan"),
        ({"nf4_error": None, "nf4_fault": "No module named 'bitsandbytes'"}, Status.FAIL, "make"),
        (
            {"output": "CAUTION: The operator 'aten::gather' is not currently supported on the "
             "NPU backend and will fall back to run on the CPU."},
            Status.WARN,
            "aten::gather",
        ),
    ],
)  # fmt: skip
def test_a_bad_round_trip(change: dict[str, object], status: Status, words: str) -> None:
    check = device.check_nf4("npu", NPU.model_copy(update=change))
    assert check.status is status
    assert words in check.finding + check.remedy


def test_device_memory() -> None:
    check = device.check_device_memory
    assert check(58 * GIB, 61 * GIB, 21e9).status is Status.OK
    assert check(58 * GIB, 61 * GIB, None).status is Status.OK
    assert check(8 * GIB, 61 * GIB, 21e9).status is Status.WARN
    assert check(None, None, 21e9).status is Status.WARN


@pytest.mark.parametrize(
    ("has_bf16", "computes_in", "words"),
    [
        (True, "bf16", "bf16; the processor has bf16"),
        (False, "float32", "float32, as the processor has no bf16"),
        (False, "bf16", "emulated and slow"),
    ],
)
def test_a_processor_with_and_without_bf16(
    monkeypatch: pytest.MonkeyPatch, has_bf16: bool, computes_in: str, words: str
) -> None:
    monkeypatch.setattr(hardware, "has_bf16", lambda: has_bf16)
    check = device.check_processor(computes_in)
    assert check.status is Status.OK
    assert words in check.finding
