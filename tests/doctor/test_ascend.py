"""An Ascend host below torch: driver, npu-smi, versions, who holds the card."""

from __future__ import annotations

from pathlib import Path

import made_up
import pytest
from made_up import FIXTURES, NPU, npu_smi_says, seen_by, write

from helpers.doctor import ascend as ascend_host
from helpers.doctor.host import Status
from helpers.doctor.probe import Probe
from helpers.machine import generations

bare_machine, root, ascend = made_up.bare_machine, made_up.root, made_up.ascend


def test_who_holds_the_card(ascend: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    npu_smi_says(tmp_path, monkeypatch, f"cat {FIXTURES}/910b3_25.5.1_busy.txt")
    check = seen_by("npu", NPU, ascend)["free device memory"]
    assert check.status is Status.WARN
    assert "process 2290156 (VLLMEngineCore) with 56630 MB" in check.finding


def test_a_full_card_is_measured_by_npu_smi(
    ascend: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    npu_smi_says(tmp_path, monkeypatch, f"cat {FIXTURES}/910b3_25.5.1_busy.txt")
    full = Probe(torch="2.10.0", torch_npu="2.10.0.post2", output="NPU out of memory.")
    found = seen_by("npu", full, ascend)
    assert found["NPU in torch"].status is Status.FAIL
    assert found["free device memory"].finding.startswith("5.6 of 68.7 GB; held by")


def test_memory_of_another_card_is_not_counted(
    ascend: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    npu_smi_says(tmp_path, monkeypatch, f"cat {FIXTURES}/910_a3_25.3_phy_id.txt")
    monkeypatch.setenv("ASCEND_RT_VISIBLE_DEVICES", "1")
    assert seen_by("npu", NPU, ascend)["free device memory"].status is Status.OK
    monkeypatch.setenv("ASCEND_RT_VISIBLE_DEVICES", "0")
    assert "VLLMWorker_TP" in seen_by("npu", NPU, ascend)["free device memory"].finding


@pytest.mark.parametrize(
    ("script", "status", "words"),
    [
        (f"cat {FIXTURES}/dcmi_8005.txt; exit 1", Status.FAIL, "-8005"),
        (f"cat {FIXTURES}/dcmi_8020.txt; exit 1", Status.FAIL, "another container"),
        ("echo '| a new table |'", Status.WARN, "cannot be read"),
        (f"cat {FIXTURES}/910b3_24.1_idle.txt", Status.WARN, "NPU 5: Warning"),
    ],
)
def test_npu_smi_in_trouble(
    ascend: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    script: str,
    status: Status,
    words: str,
) -> None:
    npu_smi_says(tmp_path, monkeypatch, script)
    check = seen_by("npu", NPU, ascend)["Ascend driver"]
    assert check.status is status
    assert words in check.finding + check.remedy


def test_a_driver_without_npu_smi(ascend: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert seen_by("npu", NPU, ascend)["Ascend driver"].status is Status.WARN


@pytest.mark.parametrize(
    ("torch", "torch_npu", "cann", "status"),
    [
        ("2.10.0+cpu", "2.10.0.post2", "9.1.0", Status.OK),
        ("2.6.0", "2.6.0", "8.2.rc1", Status.OK),
        ("2.10.0", "2.10.0.post3", "9.1.0", Status.WARN),
        ("2.10.0", "2.10.0.post2", "8.5.0", Status.FAIL),
        ("2.7.1", "2.7.1.post2", "8.5.2", Status.OK),
        ("2.10.0", "2.10.0.post2", "9.0.0", Status.OK),
        ("2.9.0", "2.10.0.post2", "9.1.0", Status.FAIL),
        (None, "2.10.0.post2", "9.1.0", Status.FAIL),
        ("2.10.0", None, "9.1.0", Status.FAIL),
        ("2.10.0", "2.10.0.post2", None, Status.WARN),
        ("2.10.0", "2.10.0.post2", "10.0.0", Status.WARN),
    ],
)
def test_versions_that_go_together(
    torch: str | None, torch_npu: str | None, cann: str | None, status: Status
) -> None:
    assert ascend_host.check_compatibility(torch, torch_npu, cann).status is status


def test_the_pinned_versions_go_together() -> None:
    for one in generations.generations():
        check = ascend_host.check_compatibility(one.torch, one.torch_npu, one.cann)
        assert check.status is Status.OK


@pytest.mark.parametrize(
    ("driver", "status", "words"),
    [
        ("25.2.0", Status.OK, "on driver 25.2.0"),
        ("25.0.rc1.1", Status.FAIL, "choose a host whose driver is 25.2 or later"),
        ("24.1.rc3", Status.FAIL, "24.1.rc3 carries (8.2)"),
    ],
)
def test_the_driver_carries_the_cann_or_another_host_does(
    ascend: Path, driver: str, status: Status, words: str
) -> None:
    write(ascend / "usr/local/Ascend/driver/version.info", f"Version={driver}\n")
    check = seen_by("npu", NPU, ascend)["CANN"]
    assert check.status is status
    assert words in check.finding + check.remedy


def test_another_generation_of_torch_is_brought_by_the_set_up(ascend: Path) -> None:
    older = NPU.model_copy(update={"torch": "2.7.1", "torch_npu": "2.7.1.post2"})
    check = seen_by("npu", older, ascend)["torch, torch_npu, CANN"]
    assert check.status is Status.WARN
    assert "make setup" in check.remedy
    assert "8.5.0" in check.remedy


def test_two_canns_in_one_shell(ascend: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    latest = ascend / "usr/local/Ascend/ascend-toolkit/latest"
    other = ascend / "data/cann-8.5.0"
    for folder in (latest / "lib64", other / "lib64"):
        folder.mkdir(parents=True)
    monkeypatch.setenv("LD_LIBRARY_PATH", f"{other}/lib64:{latest}/lib64")
    check = seen_by("npu", NPU, ascend)["set_env.sh"]
    assert check.status is Status.FAIL
    assert "two CANNs are mixed" in check.finding
