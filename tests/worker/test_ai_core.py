"""What the 4-bit kernels ask of a 910B, counted and named without one.

Their operators are recorded, with the types, on the simulated NPU, and held against what CANN's
sources say of the AI Core (ai_core.toml). No speed follows from it; that bytes, temporaries and
launches are few does.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import npusim
import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
LIST = tomllib.loads((HERE / "ai_core.toml").read_text("utf-8"))["operator"]
REASON = npusim.available()
needs_compiler = pytest.mark.skipif(REASON is not None, reason=str(REASON))
# Qwen2-0.5B's gate and up projections, and QLoRA's recipe for them.
MLP = (4864, 896)
MLP_WEIGHTS = MLP[0] * MLP[1]

Operator = tuple[str, tuple[str, ...]]


def recorded(program: str, kernels: str = "pairs4") -> dict[str, Any]:
    """What `program` leaves in `found` on the simulated NPU, watched by `Watch`."""
    env = npusim.environment(TUTORIAL_KERNELS=kernels)
    env["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(HERE), env["PYTHONPATH"]])
    code = f"import json\nfrom watched import *\nfound = {{}}\n{program}\nprint(json.dumps(found))"
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


BOTH_WAYS = """
for dtype in (torch.bfloat16, torch.float16, torch.float32):
    for quant_type in ("nf4", "fp4"):
        for size, nested in ((64 * 256, False), (64 * 256, True), (64 * 3 + 7, False)):
            weights = torch.randn(size).to(dtype).to("npu:0")
            back(*there(weights, quant_type, nested))  # the tables, which stay, are made
            with Watch() as seen:
                packed, state = there(weights, quant_type, nested)
                back(packed, state)
            name = f"{str(dtype)[6:]} {quant_type} {size} {nested}"
            found[name] = [[each.name, each.types] for each in seen.launched]
"""


def allowed(fp32: bool, rest: bool) -> set[Operator]:
    """The operators, with their types, that run on the AI Core."""
    return {
        (each["name"], tuple(types))
        for each in LIST
        if each.get("when", "") in {"", "fp32" if fp32 else "", "rest" if rest else ""}
        for types in each["types"]
    }


@pytest.fixture(scope="module")
def both_ways() -> dict[str, list[Operator]]:
    """The operators of quantising and dequantising, by type, kind, size and nesting."""
    found = recorded(BOTH_WAYS)
    return {key: [(name, tuple(types)) for name, types in each] for key, each in found.items()}


def outside(found: dict[str, list[Operator]]) -> dict[str, list[Operator]]:
    """What is not on the list, by case."""
    wrong = {}
    for case, operators in found.items():
        dtype, _, size, _ = case.split()
        known = allowed(fp32=dtype == "float32", rest=int(size) % 64 > 0)
        if more := sorted(set(operators) - known):
            wrong[case] = more
    return wrong


@needs_compiler
def test_every_operator_of_both_ways_runs_on_the_ai_core(
    both_ways: dict[str, list[Operator]],
) -> None:
    assert len(both_ways) == 18
    assert all(len(operators) > 10 for operators in both_ways.values())
    assert outside(both_ways) == {}


@needs_compiler
def test_16_bit_results_are_gathered_by_the_vector_unit(
    both_ways: dict[str, list[Operator]],
) -> None:
    for case, operators in both_ways.items():
        gathers = {types for name, types in operators if name == "aten::index_select"}
        wide = ("int64", "int32", "int64") in gathers
        assert wide == case.startswith("float32"), case


@needs_compiler
def test_no_operator_is_listed_that_nothing_dispatches(
    both_ways: dict[str, list[Operator]],
) -> None:
    used = {operator for operators in both_ways.values() for operator in operators}
    assert allowed(fp32=True, rest=True) - used == set()


@pytest.mark.parametrize(
    "planted",
    [
        ("aten::__lshift__", ("uint8", "uint8")),
        ("aten::bitwise_or", ("uint8", "uint8", "uint8")),
        ("aten::where", ("bool", "bool", "bool", "bool")),
        ("aten::mul", ("int64", "int64", "int64")),
        ("aten::index_select", ("uint8", "int32", "uint8")),
        ("aten::index_select", ("int64", "int32", "int64")),
    ],
)
def test_what_the_aicpu_or_a_scalar_loop_would_do_is_found(planted: Operator) -> None:
    assert outside({"bfloat16 nf4 16384 False": [planted]})


@needs_compiler
def test_the_formulation_before_would_be_found() -> None:
    """Pairs of 8 bytes for a 16-bit result: AI Core, but a scalar loop."""
    program = """
weights = torch.randn(64 * 256).bfloat16().to("npu:0")
packed, state = there(weights, "nf4", False)
with Watch() as seen:
    back(packed, state)
found["bfloat16 nf4 16384 False"] = [[each.name, each.types] for each in seen.launched]
"""
    before = recorded(program, kernels="pairs8")
    found = {key: [(name, tuple(types)) for name, types in each] for key, each in before.items()}
    (wrong,) = outside(found).values()
    assert ("aten::index_select", ("int64", "int32", "int64")) in wrong


ONE_MATRIX = """
import math
packed = torch.randint(0, 256, (math.prod(SHAPE) // 2, 1), dtype=torch.uint8).to("npu:0")
absmax = torch.rand(math.prod(SHAPE) // 64).to("npu:0")
arguments = (packed, absmax, 64, "nf4", SHAPE, torch.bfloat16)
dequantise_4bit.dequantize_4bit(*arguments)  # the tables stay
torch.npu.reset_peak_memory_stats()
before = torch.npu.memory_allocated()
with Watch() as seen:
    result = dequantise_4bit.dequantize_4bit(*arguments)
found["launched"] = [each.name for each in seen.launched]
found["bytes"] = sum(each.bytes for each in seen.launched)
found["temporaries"] = torch.npu.max_memory_allocated() - before - result.nbytes
"""


def one_matrix(kernels: str) -> dict[str, Any]:
    return recorded(f"SHAPE = {MLP}\n{ONE_MATRIX}", kernels)


@needs_compiler
@pytest.mark.parametrize("kernels", ["pairs4", "pairs4:1048576"])
def test_bytes_temporaries_and_launches_of_an_mlp_matrix_are_few(kernels: str) -> None:
    """Bytes and launches as torch's operators have them.

    What CANN does within one of them is not seen: a product of mixed types may go through fp32
    memory, which would be 8 bytes a weight more.
    """
    found = one_matrix(kernels)
    piece = min(int(kernels.partition(":")[2] or MLP_WEIGHTS), MLP_WEIGHTS)
    assert found["bytes"] / MLP_WEIGHTS <= 18
    assert found["temporaries"] / piece <= 2.001  # the allocator rounds up to 512 bytes
    if piece == MLP_WEIGHTS:
        assert len(found["launched"]) <= 8


@needs_compiler
def test_the_counts_tell_formulations_apart() -> None:
    before = one_matrix("pairs8:1048576")
    assert len(before["launched"]) == 4 * 5
    assert before["temporaries"] / (1 << 20) > 3.9
    theirs = one_matrix("default")
    assert theirs["bytes"] / MLP_WEIGHTS > 18
    assert theirs["temporaries"] / MLP_WEIGHTS > 2.001
