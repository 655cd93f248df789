"""What the machine is said to be, and whether its processor computes in bf16."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from helpers.machine import hardware
from helpers.machine.hardware import Hardware

NPU_HOST = Hardware(
    device="npu",
    accelerators=["Ascend 910B2"] * 8,
    cpu="Kunpeng-920",
    cores=192,
    memory_gb=1540.3,
    system="Linux aarch64, Python 3.11.9",
)


def test_this_machine_is_described() -> None:
    found = hardware.describe()
    assert found.cores >= 1
    assert found.memory_gb > 1
    assert found.cpu
    assert Hardware.model_validate_json(found.model_dump_json()) == found


def test_a_machine_in_one_line() -> None:
    assert NPU_HOST.sentence() == ("8 x Ascend 910B2, Kunpeng-920, 192 cores, 1540 GB of memory")
    bare = NPU_HOST.model_copy(update={"accelerators": [], "cores": 1})
    assert bare.sentence() == "Kunpeng-920, 1 core, 1540 GB of memory"


def test_a_machine_shows_itself_as_a_table() -> None:
    assert "8 x Ascend 910B2" in str(NPU_HOST)
    assert "| device | npu |" in NPU_HOST.markdown()
    mixed = NPU_HOST.model_copy(update={"accelerators": ["H100", "A100", "H100"]})
    assert "2 x H100, 1 x A100" in mixed.plain()
    assert "none" in NPU_HOST.model_copy(update={"accelerators": []}).plain()


@pytest.mark.parametrize(
    ("line", "has_it"),
    [
        ("flags\t\t: fpu sse4_2 avx avx2 fma", False),
        ("flags\t\t: avx2 avx512f avx512bw avx512vl avx512dq", False),
        ("flags\t\t: avx2 avx512f avx512bw avx512vl avx512dq avx512_bf16", True),
        ("flags\t\t: avx2 avx512f amx_tile amx_bf16", True),
        ("flags\t\t: avx2 avx_vnni avx_ne_convert", True),
        ("flags\t\t: avx512_bf16x avx512dq", False),
        ("Features\t: fp asimd atomics", False),
        ("Features\t: fp asimd bf16 i8mm", True),
        ("model name\t: a processor with bf16", False),
        ("", False),
    ],
)
def test_bf16_is_read_from_the_processors_flags(tmp_path: Path, line: str, has_it: bool) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor\t: 0\n{line}\nprocessor\t: 1\n{line}\n")
    assert hardware.has_bf16(cpuinfo) is has_it


def test_without_cpuinfo_there_is_no_bf16(tmp_path: Path) -> None:
    assert not hardware.has_bf16(tmp_path / "absent")


def test_torch_has_kernels_where_the_processor_has_bf16() -> None:
    """Not the other way round: with AVX-512 alone oneDNN has them and emulates the product."""
    code = "import torch; print(torch.ops.mkldnn._is_mkldnn_bf16_supported())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True" or not hardware.has_bf16()
