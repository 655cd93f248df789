"""Which torch_npu goes with which CANN, Python and driver, and what is said where none does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from packaging.version import Version

from helpers.ground.errors import TutorialError
from helpers.machine import generations
from helpers.machine.generations import NPU_ARCHITECTURE


@pytest.fixture(autouse=True)
def bare_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell that sourced no CANN, on a machine without npu-smi."""
    for name in ("ASCEND_HOME_PATH", "ASCEND_TOOLKIT_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", "/nowhere")


def host(root: Path, cann: str | None, driver: str | None) -> Path:
    """A made-up Ascend host: its CANN in the layout of its time, and its driver."""
    ascend = root / "usr/local/Ascend"
    if cann and cann < "8.5":
        info = ascend / "ascend-toolkit/latest/aarch64-linux/ascend_toolkit_install.info"
        info.parent.mkdir(parents=True)
        info.write_text(f"version={cann}\npath=/x\n")
    elif cann:
        (ascend / f"cann-{cann}").mkdir(parents=True)
        (ascend / "cann").symlink_to(f"cann-{cann}")
    if driver:
        (ascend / "driver").mkdir(parents=True)
        (ascend / "driver/version.info").write_text(f"Version={driver}\n")
    return root


def test_the_table_is_of_versions_that_go_together() -> None:
    """Each generation's torch is that of its torch_npu, and this one is listed for its CANN."""
    found = generations.generations()
    assert [one.cann for one in found] == ["8.2", "8.3", "8.5", "9.0", "9.1"]
    for one in found:
        assert Version(one.torch).release == Version(one.torch_npu).release
        assert one.torch_npu in generations.torch_npu_versions(one.cann)
        assert one.torchaudio == one.torch
        assert one.driver is None or re.fullmatch(r"\d+\.\d+", one.driver)
    assert found[-1].driver  # what `carries` counts on


def test_the_list_of_torch_npu_is_of_versions() -> None:
    for version in ("9.1.0", "9.0.0", "8.5.0", "8.3.RC1", "8.2.RC1", "8.0.RC1"):
        together = generations.torch_npu_versions(version)
        assert together
        assert len(set(together)) == len(together)
        assert all(str(Version(torch_npu)) == torch_npu for torch_npu in together)
    assert generations.torch_npu_versions("8.2.rc2") == generations.torch_npu_versions("8.2.RC1")
    assert generations.torch_npu_versions("8.4.0") == ()
    assert generations.canns_of("2.10.0.post2") == ["9.1.0", "9.0.0"]


@pytest.mark.parametrize(
    ("cann", "driver", "lock"),
    [
        ("8.2.RC1", "25.2.0", "8.2"),
        ("8.2.rc2", "24.1.rc3", "8.2"),
        ("8.3.RC1", "25.0.rc1.1", "8.3"),
        ("8.5.0", "25.0.rc1", "8.5"),
        ("8.5.2", "25.2.0", "8.5"),
        ("9.0.0", "25.3.0", "9.0"),
        ("9.1.0", "25.2.0", "9.1"),
        ("9.1.0", "26.0.0", "9.1"),
        ("9.1.0", None, "9.1"),
    ],
)
def test_a_cann_that_the_driver_carries_takes_its_own_lock(
    tmp_path: Path, cann: str, driver: str | None, lock: str
) -> None:
    root = host(tmp_path, cann, driver)
    found = generations.lock(root)
    assert found
    assert found.name == f"requirements-npu-{lock}.lock"
    assert found.is_file()
    assert generations.check(root, NPU_ARCHITECTURE) is None


@pytest.mark.parametrize(("cann", "lock"), [("8.4.0", "8.3"), ("8.6.1", "8.5"), ("10.0.0", "9.1")])
def test_a_cann_in_between_takes_the_nearest_below(tmp_path: Path, cann: str, lock: str) -> None:
    root = host(tmp_path, cann, "26.0.0")
    found = generations.lock(root)
    assert found
    assert found.name == f"requirements-npu-{lock}.lock"
    doubt = generations.check(root, NPU_ARCHITECTURE)
    assert doubt
    assert f"CANN {lock}, the nearest one below" in doubt


def test_a_driver_of_which_nothing_is_said_is_doubted(tmp_path: Path) -> None:
    doubt = generations.check(host(tmp_path, "8.3.RC1", "24.1.0"), NPU_ARCHITECTURE)
    assert doubt
    assert "Nothing is known of CANN 8.3.RC1 on driver 24.1.0" in doubt


@pytest.mark.parametrize(
    ("cann", "driver", "words"),
    [
        ("9.1.0", "25.0.rc1.1", ["does not carry CANN 9.1.0", "driver 25.0.rc1.1 carries (8.2, "
                                 "8.3, 8.5, 9.0)", "a host whose driver is 25.2 or later"]),
        ("8.5.0", "24.1.rc3", ["does not carry CANN 8.5.0", "24.1.rc3 carries (8.2)", "25.2 or"]),
        ("9.0.0", "23.0.7", ["choose a host whose driver is 25.2 or later", "23.0.7"]),
        ("8.0.0", "25.2.0", ["CANN 8.0.0 is older than 8.2", "25.2.0 carries (8.2, 8.3, 8.5, 9"]),
        (None, "25.2.0", ["No CANN was found", "25.2.0 carries"]),
        (None, "25.0.0", ["No CANN was found", "25.0.0 carries (8.2, 8.3, 8.5, 9.0)"]),
        (None, None, ["No CANN was found", "one of CANN 8.2, 8.3, 8.5, 9.0, 9.1"]),
    ],
)  # fmt: skip
def test_no_set_up_is_one_sentence_with_the_ways_out(
    tmp_path: Path, cann: str | None, driver: str | None, words: list[str]
) -> None:
    root = host(tmp_path, cann, driver)
    with pytest.raises(TutorialError) as caught:
        generations.check(root, NPU_ARCHITECTURE)
    said = caught.value.message
    for word in words:
        assert word in said
    assert "\n" not in said
    assert said.endswith(".")
    if driver != "23.0.7":
        for way in ("pip: ascend-cann-toolkit", "ascend::cann-910b-ops", "--install-path",
                    "has sourced no other"):  # fmt: skip
            assert way in said


def test_a_host_that_carries_everything_is_kept(tmp_path: Path) -> None:
    with pytest.raises(TutorialError) as caught:
        generations.check(host(tmp_path, None, "25.2.0"), NPU_ARCHITECTURE)
    assert "choose a host" not in caught.value.message


def test_an_ascend_on_an_x86_host_has_no_lock(tmp_path: Path) -> None:
    with pytest.raises(TutorialError, match="aarch64"):
        generations.check(host(tmp_path, "9.1.0", "25.2.0"), "x86_64")


def test_npu_smi_tells_the_driver_where_its_file_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fixture = Path(__file__).parents[1] / "fixtures/npu_smi/910b2_23.0.7.txt"
    script = tmp_path / "bin/npu-smi"
    script.parent.mkdir()
    script.write_text(f"#!/bin/sh\ncat {fixture}\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/usr/bin:/bin")
    assert generations.driver_version(tmp_path) == "23.0.7"
    assert generations.driver_version(host(tmp_path, None, "25.2.0")) == "25.2.0"


def test_make_lock_is_told_every_generation() -> None:
    lines = generations.lines().splitlines()
    assert len(lines) == len(generations.generations())
    assert lines[0].split()[:2] == ["requirements-npu-8.2.lock", "torch==2.6.0"]
