"""The doctor on made-up machines: each guard is shown to fire, and to keep still."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import made_up
import pytest
from made_up import CANN_MISSING, CPU, NPU, complaints, seen_by
from typer.testing import CliRunner

import helpers.__main__
from helpers.doctor import examination as doctor
from helpers.doctor import findings
from helpers.doctor.host import Check, Status, failed
from helpers.doctor.probe import Probe
from helpers.ground import paths
from helpers.machine import cards, hardware
from helpers.programs import process

bare_machine, root, ascend = made_up.bare_machine, made_up.root, made_up.ascend


def test_a_cpu_machine_in_good_order(root: Path) -> None:
    found = seen_by("smoke", CPU, root, "tiny-random-qwen2")
    assert complaints(found) == {}
    assert not failed(list(found.values()))


def test_an_ascend_host_in_good_order(ascend: Path) -> None:
    found = seen_by("npu", NPU, ascend)
    assert complaints(found) == {}
    assert "25.5.1; npu-smi shows 1 x 910B2" in found["Ascend driver"].finding
    assert "they go together" in found["torch, torch_npu, CANN"].finding


def test_an_npu_profile_without_an_npu(root: Path) -> None:
    found = seen_by("npu", Probe(torch="2.10.0", cards=0), root)
    assert complaints(found) == {
        "Ascend driver": Status.FAIL,
        "CANN": Status.FAIL,
        "set_env.sh": Status.FAIL,
        "torch, torch_npu, CANN": Status.FAIL,
        "NPU in torch": Status.FAIL,
        "free device memory": Status.WARN,
    }
    assert failed(list(found.values()))


def test_what_an_npu_host_lacks_is_no_failure_of_a_cpu_run(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cards, "npu_device_files", lambda: [Path("/dev/davinci0")])
    found = seen_by("cpu", CPU, root)
    assert complaints(found)["CANN"] is Status.WARN
    assert not failed(list(found.values()))


def test_torch_that_dies_on_import_is_explained(ascend: Path) -> None:
    found = seen_by("npu", Probe(output=CANN_MISSING), ascend)
    assert found["import torch"].status is Status.FAIL
    assert "Failed to load the backend extension" in found["import torch"].finding
    assert "set_env.sh" in found["import torch"].remedy
    assert "NPU in torch" not in found  # a consequence


def test_several_npus_of_which_one_is_used(ascend: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASCEND_RT_VISIBLE_DEVICES", "0,1")
    found = seen_by("npu", NPU.model_copy(update={"cards": 2}), ascend)
    assert complaints(found) == {}
    assert found["NPU in torch"].finding.startswith("2 cards are visible, and only the first")
    assert process.environment("npu")["ASCEND_RT_VISIBLE_DEVICES"] == "0"  # so no torchrun


@pytest.mark.parametrize("status", list(Status))
def test_the_command_lists_each_check_and_its_exit_code_tells_of_a_failure(
    monkeypatch: pytest.MonkeyPatch, status: Status
) -> None:
    check = Check("CANN", status, "what was found", "What to do.")
    monkeypatch.setattr(doctor, "examine", lambda settings: [check])
    told = CliRunner().invoke(helpers.__main__.app, ["doctor", "--profile", "smoke"])
    assert told.exit_code == (status is Status.FAIL)


def test_a_cuda_machine(root: Path) -> None:
    seen = NPU.model_copy(update={"torch_npu": None, "cann": None, "cards": 2, "name": "H200"})
    found = seen_by("cuda", seen, root)
    assert complaints(found) == {}
    assert found["CUDA in torch"].finding == "2 cards are visible, and only the first is used: H200"


def test_the_doctor_itself_does_not_import_torch() -> None:
    code = "import sys, helpers.doctor.examination; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=paths.ROOT).returncode == 0


def test_a_cpu_profile_says_which_numbers_it_computes_in(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same question decides the recipe (settings) and what is said of it (the doctor)."""
    for has_bf16, numbers in ((True, "bf16"), (False, "float32")):
        monkeypatch.setattr(hardware, "has_bf16", lambda has_bf16=has_bf16: has_bf16)
        check = seen_by("cpu", CPU, root)["number format"]
        assert check.status is Status.OK
        assert check.finding.startswith(numbers)


def test_findings_are_a_table_of_text() -> None:
    bad = Check("a|b", Status.FAIL, "<script>", "Do [this](x).")
    table = findings.table([bad, Check("CANN", Status.OK, "9.1.0")])
    assert table.header == ["check", "status", "finding", "what to do"]
    assert "FAIL" in table.plain()
    assert "<script>" not in table.markdown()
