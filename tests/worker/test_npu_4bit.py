"""The NPU kernels against bitsandbytes' `default` backend: the same bits, or the test fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes import functional
from hypothesis import example, given, settings
from hypothesis import strategies as st

from helpers.worker import codes_4bit, default_4bit, dequantise_4bit, npu_4bit, quantise_4bit
from helpers.worker.kernel_choice import BUILT_IN, FORMULATIONS, Choice

ROOT = Path(__file__).parent.parent
BLOCKSIZES = st.sampled_from([64, 128, 256, 512, 1024, 2048, 4096])
QUANT_TYPES = st.sampled_from(["nf4", "fp4"])
FLOATS = st.sampled_from(list(codes_4bit.FLOATS))
STORAGES = st.sampled_from([torch.uint8, torch.bfloat16, torch.float16, torch.float32])
DEFAULT = default_4bit.kernels()


def same_bits(ours: torch.Tensor, default: torch.Tensor) -> bool:
    """Equal in dtype, shape and every bit; NaNs are one value, whatever their payload."""
    if (ours.dtype, ours.shape) != (default.dtype, default.shape):
        return False
    if not ours.is_floating_point():
        return torch.equal(ours, default)
    nan = ours.isnan()
    whole = {2: torch.int16, 4: torch.int32}[ours.element_size()]
    bits, other = ours.view(whole), default.view(whole)
    return torch.equal(nan, default.isnan()) and torch.equal(bits[~nan], other[~nan])


@st.composite
def weights(draw: st.DrawFn, sizes: st.SearchStrategy[int] | None = None) -> torch.Tensor:
    """Flat weights with the values that quantisers stumble over strewn in."""
    if sizes is None:
        sizes = st.one_of(st.integers(0, 300), st.integers(0, 20_000))
    size = draw(sizes)
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    flat = torch.randn(size, generator=generator) * draw(st.sampled_from([1.0, 0.02, 1e-30, 1e4]))
    flat = flat.to(draw(FLOATS))
    odd = draw(st.lists(st.sampled_from([0.0, -0.0, 1e-40, 1e38]), max_size=3))
    odd += draw(st.lists(st.sampled_from([float("inf"), -float("inf"), float("nan")]), max_size=1))
    for value in odd if size else []:
        # What the type cannot hold becomes infinite; torch 2.6 refuses it in an assignment.
        flat[draw(st.integers(0, size - 1))] = torch.tensor(value, dtype=torch.float64).to(
            flat.dtype
        )
    if size and draw(st.booleans()):
        start = draw(st.integers(0, size - 1))
        flat[start : start + draw(st.integers(1, 200))] = 0
    return flat


def even(flat: torch.Tensor) -> torch.Tensor:
    """`flat`, with a zero behind it where its length is odd: what the default can work with."""
    return torch.cat([flat, flat.new_zeros(flat.numel() % 2)])


# A piece of 4 blocks makes small tensors cross its borders as large ones do.
PIECES = st.sampled_from([256, quantise_4bit.PIECE])
CHOICES = st.builds(Choice, st.sampled_from(FORMULATIONS), st.sampled_from([256, BUILT_IN.piece]))


@settings(max_examples=150, deadline=None)
@given(weights(), BLOCKSIZES, QUANT_TYPES, FLOATS, STORAGES, st.floats(0, 1e5), CHOICES)
def test_dequantise_gives_the_defaults_bits(
    flat: torch.Tensor,
    blocksize: int,
    quant_type: str,
    dtype: torch.dtype,
    storage: torch.dtype,
    scale: float,
    choice: Choice,
) -> None:
    total = flat.numel()
    length = -(-total // 2)
    generator = torch.Generator().manual_seed(total)
    packed = torch.randint(0, 256, (length,), generator=generator, dtype=torch.uint8)
    if length % storage.itemsize == 0:
        packed = packed.view(storage)
    absmax = torch.rand(-(-total // blocksize), generator=generator) * scale
    ours = dequantise_4bit.dequantize_4bit_by(
        choice, packed.unsqueeze(1), absmax, blocksize, quant_type, [total], dtype
    )
    default = DEFAULT["dequantize_4bit"](
        packed.unsqueeze(1), absmax, blocksize, quant_type, [2 * length], dtype
    )
    assert same_bits(ours, default[:total])


@settings(max_examples=150, deadline=None)
@given(weights(), BLOCKSIZES, QUANT_TYPES, STORAGES, PIECES)
@example(torch.zeros(130), 64, "fp4", torch.uint8, 256)
@example(torch.ones(1), 64, "nf4", torch.uint8, 256)
@example(torch.ones(0), 64, "nf4", torch.uint8, 256)
def test_quantise_gives_the_defaults_bits(
    flat: torch.Tensor, blocksize: int, quant_type: str, storage: torch.dtype, piece: int
) -> None:
    length = -(-flat.numel() // 2)
    if length % storage.itemsize or length == 1:
        storage = torch.uint8
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quantise_4bit, "PIECE", piece)
        packed, absmax = npu_4bit.quantize_4bit(flat, blocksize, quant_type, storage)
    theirs, their_absmax = DEFAULT["quantize_4bit"](even(flat), blocksize, quant_type, storage)
    assert same_bits(packed.view(torch.uint8), theirs.view(torch.uint8))
    assert packed.dtype == theirs.dtype
    assert same_bits(absmax, their_absmax)


def around(values: torch.Tensor, steps: int = 3) -> torch.Tensor:
    """fp32 `values` with their neighbours on both sides."""
    found = [values]
    for limit in (float("inf"), -float("inf")):
        here = values
        for _ in range(steps):
            here = torch.nextafter(here, torch.full_like(here, limit))
            found.append(here)
    return torch.cat(found)


@pytest.mark.parametrize("quant_type", ["nf4", "fp4"])
def test_ties_between_two_codes_go_where_the_default_sends_them(quant_type: str) -> None:
    code = codes_4bit.codes_of(quant_type)
    codes = torch.tensor(code).unique()
    middles = around((codes[:-1] + codes[1:]) / 2)
    thresholds = around(
        torch.from_numpy(codes_4bit.thresholds_of(codes_4bit.codes_of(quant_type))[1])
    )
    values = torch.cat([middles, thresholds, around(codes)]).clamp(-1, 1)
    blocks = values.split(63)
    # A block whose largest value is 1 is scaled by exactly 1: the values reach the search as is.
    flat = torch.cat([torch.cat([torch.ones(1), b, torch.zeros(63 - b.numel())]) for b in blocks])
    ours, _ = npu_4bit.quantize_4bit(flat, 64, quant_type, torch.uint8)
    default, _ = DEFAULT["quantize_4bit"](flat, 64, quant_type, torch.uint8)
    assert torch.equal(ours, default)


@settings(max_examples=100, deadline=None)
@given(weights(), st.sampled_from([64, 256, 4096]), FLOATS)
def test_blockwise_gives_the_defaults_bits(
    flat: torch.Tensor, blocksize: int, dtype: torch.dtype
) -> None:
    code = functional.create_dynamic_map()
    indices, absmax = npu_4bit.quantize_blockwise(flat, code, blocksize)
    theirs, their_absmax = DEFAULT["quantize_blockwise"](flat, code, blocksize)
    assert same_bits(indices, theirs)
    assert same_bits(absmax, their_absmax)
    ours = npu_4bit.dequantize_blockwise(indices, absmax, code, blocksize, dtype)
    assert same_bits(ours, DEFAULT["dequantize_blockwise"](indices, absmax, code, blocksize, dtype))


@pytest.mark.parametrize(
    "code",
    [
        functional.create_linear_map(),
        functional.create_fp8_map(),
        functional.create_dynamic_map().flip(0),
        torch.tensor([-2.0, -1.0, 0.0, 3.0]),  # beyond what values are clamped to
        torch.tensor([0.0, 1e-12, 0.5, 1.0]),  # rounding lets three codes tie
        torch.tensor([0.5]),
    ],
    ids=["linear", "fp8", "descending", "wide", "crowded", "one"],
)
def test_any_code_gives_the_defaults_bits(code: torch.Tensor) -> None:
    flat = torch.linspace(-3, 3, 10_001)
    indices, absmax = npu_4bit.quantize_blockwise(flat, code, 256)
    theirs, their_absmax = DEFAULT["quantize_blockwise"](flat, code, 256)
    assert torch.equal(indices, theirs)
    assert torch.equal(absmax, their_absmax)


def round_trip(flat: torch.Tensor, kernels: dict[str, Callable[..., Any]]) -> torch.Tensor:
    """Quantise and dequantise with nested statistics, as `functional` chains the operators."""
    code = functional.create_dynamic_map()
    packed, absmax = kernels["quantize_4bit"](flat, 64, "nf4", torch.uint8)
    offset = absmax.mean()
    inner, inner_absmax = kernels["quantize_blockwise"](absmax - offset, code, 256)
    absmax = kernels["dequantize_blockwise"](inner, inner_absmax, code, 256, torch.float32)
    return kernels["dequantize_4bit"](packed, absmax + offset, 64, "nf4", flat.shape, flat.dtype)


OURS = {op.removeprefix("bitsandbytes::"): kernel for op, kernel in npu_4bit.KERNELS.items()}


@settings(max_examples=40, deadline=None)
@given(weights(st.integers(1, 20_000).map(lambda half: 2 * half)))
def test_nested_statistics_give_the_defaults_bits(flat: torch.Tensor) -> None:
    assert same_bits(round_trip(flat, OURS), round_trip(flat, DEFAULT))


@pytest.mark.parametrize("place", [0, 100, 255])
@pytest.mark.parametrize(
    ("formulation", "bit"), [("pairs4", 1), ("pairs4", 1 << 16), ("pairs8", 1 << 16)]
)
def test_a_wrong_table_entry_would_be_caught(
    place: int, formulation: Any, bit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The comparison itself, shown to see the last bit of one of a pair's two bf16 numbers."""
    make = {"pairs4": codes_4bit.short_pair_table, "pairs8": codes_4bit.long_pair_table}
    table = make[formulation]("nf4", torch.bfloat16, torch.device("cpu"))
    table[place] ^= bit
    monkeypatch.setattr(dequantise_4bit, "kept", lambda *_: table)
    with pytest.raises(AssertionError):
        test_dequantise_gives_the_defaults_bits.hypothesis.inner_test(
            torch.zeros(20_000), 64, "nf4", torch.bfloat16, torch.uint8, 1.0,
            Choice(formulation, BUILT_IN.piece),
        )  # fmt: skip


def test_a_wrong_threshold_would_be_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    code = codes_4bit.codes_of("nf4")
    order, thresholds = codes_4bit.thresholds_of(code)
    moved = thresholds.copy()
    moved[3] = torch.nextafter(torch.tensor(moved[3]), torch.tensor(1.0)).item()
    with monkeypatch.context() as patch:
        patch.setattr(codes_4bit, "thresholds_of", lambda _: (order, moved))
        table = codes_4bit.threshold_table(code, torch.device("cpu"))
    monkeypatch.setattr(quantise_4bit, "kept", lambda make, *_: table)
    with pytest.raises(AssertionError):
        test_ties_between_two_codes_go_where_the_default_sends_them("nf4")


def test_bad_input_is_refused() -> None:
    packed, absmax = torch.zeros(32, 1, dtype=torch.uint8), torch.ones(1)
    with pytest.raises(RuntimeError, match="nf4 or fp4"):
        npu_4bit.dequantize_4bit(packed, absmax, 64, "int4", [64], torch.float32)
    with pytest.raises(RuntimeError, match="do not hold"):
        npu_4bit.dequantize_4bit(packed, absmax, 64, "nf4", [128], torch.float32)
    with pytest.raises(RuntimeError, match="16/32-bit"):
        npu_4bit.quantize_4bit(torch.zeros(64, dtype=torch.float64), 64, "nf4", torch.uint8)
    with pytest.raises(RuntimeError, match="uint8"):
        npu_4bit.dequantize_blockwise(packed.int(), absmax, absmax, 64, torch.float32)


# ---- registration: in subprocesses, since a registration cannot be taken back --------------------


def run(code: str, env: dict[str, str] | None = None, *arguments: str) -> str:
    """What `code` prints in a new Python that finds the helpers."""
    environment = env or dict(os.environ)
    path = os.pathsep.join(filter(None, [str(ROOT), environment.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=environment | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


HAS_KERNEL = """
has = torch._C._dispatch_has_kernel_for_dispatch_key
print([has(op, "PrivateUse1") for op in npu_4bit.KERNELS])
print([has(op, "CPU") for op in npu_4bit.ON_CPU])
"""
# What is done before `register()`; each in a fork of one Python, since importing takes seconds.
SCENARIOS = {
    "nothing": "",
    "twice": "npu_4bit.register()",
    # Someone has registered one kernel, under the device name that torch_npu gives.
    "kernel": """
torch.utils.rename_privateuse1_backend("npu")
bitsandbytes._ops.register_kernel("bitsandbytes::quantize_4bit", "npu")(print)
""",
    # bitsandbytes has a folder of its own for NPUs.
    "module": """
from importlib.machinery import ModuleSpec
sys.modules["bitsandbytes.backends.npu"] = module = type(sys)("bitsandbytes.backends.npu")
module.__spec__ = ModuleSpec(module.__name__, None)
""",
    "another device": 'torch.utils.rename_privateuse1_backend("other")',
    "another bitsandbytes": "del bitsandbytes._ops.register_kernel",
    # One that has a kernel for the CPU, as there are from 0.49 on.
    "a CPU's own": """
bitsandbytes._ops.register_kernel("bitsandbytes::dequantize_4bit", "cpu")(print)
""",
    "the default asked for": 'os.environ["TUTORIAL_KERNELS"] = "default"',
}
# An installed tutorial has registered the kernels once bitsandbytes is imported: not here.
IN_FORKS = """
import importlib.metadata as metadata, json, logging, os, sys
real = metadata.entry_points
metadata.entry_points = lambda **k: [] if k.get("group") == "bitsandbytes.backends" else real(**k)
import torch, bitsandbytes
metadata.entry_points = real
from helpers.worker import npu_4bit
npu_4bit.entry_points = lambda **_: []
logging.basicConfig(level=logging.INFO, stream=sys.stdout)
for name, planted in json.loads(sys.argv[1]).items():
    child = os.fork()
    if not child:
        print("==", name)
        exec(planted)
        npu_4bit.register()
        exec(sys.argv[2])
        sys.stdout.flush()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, name
"""


@pytest.fixture(scope="module")
def registrations() -> dict[str, list[str]]:
    """By scenario, the lines logged and then which operators have a kernel for the NPU."""
    printed = run(IN_FORKS, None, json.dumps(SCENARIOS), HAS_KERNEL)
    sections = [section.splitlines() for section in printed.split("== ")[1:]]
    return {lines[0]: lines[1:] for lines in sections}


@pytest.mark.parametrize("scenario", ["nothing", "twice"])
def test_registers_where_no_npu_is(registrations: dict[str, list[str]], scenario: str) -> None:
    assert registrations[scenario] == [str([True] * 4), str([True] * 2)]


@pytest.mark.parametrize("scenario", ["kernel", "module", "another device"])
def test_steps_aside(registrations: dict[str, list[str]], scenario: str) -> None:
    log, found, on_cpu = registrations[scenario]
    assert "NPU kernels step aside" in log
    # Only what was planted is there, and a CPU's kernels do not depend on it.
    assert found == str([False, False, scenario == "kernel", False])
    assert on_cpu == str([True] * 2)


@pytest.mark.parametrize("scenario", ["a CPU's own", "the default asked for"])
def test_leaves_the_cpu_what_bitsandbytes_has_for_it(
    registrations: dict[str, list[str]], scenario: str
) -> None:
    log, found, on_cpu = registrations[scenario]
    assert "CPU kernels step aside" in log
    assert found == str([True] * 4)
    assert on_cpu == str([scenario == "a CPU's own", False])


def test_a_failure_never_reaches_the_import_of_bitsandbytes(
    registrations: dict[str, list[str]],
) -> None:
    log, found, on_cpu = registrations["another bitsandbytes"]
    assert "could not be registered" in log
    assert (found, on_cpu) == (str([False] * 4), str([False] * 2))


def test_bitsandbytes_itself_registers_through_the_entry_point(tmp_path: Path) -> None:
    package = tmp_path / "tutorial-1.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: tutorial\nVersion: 1\n")
    (package / "entry_points.txt").write_text(
        "[bitsandbytes.backends]\nlora-against-qlora-npu = helpers.worker.npu_4bit:register\n"
    )
    code = f"import torch, bitsandbytes; from helpers.worker import npu_4bit{HAS_KERNEL}"
    printed = run(code, dict(os.environ) | {"PYTHONPATH": str(tmp_path)})
    assert printed.splitlines() == [str([True] * 4), str([True] * 2)]


ON_A_CPU = """
import torch, bitsandbytes
from bitsandbytes import functional
from helpers.worker import codes_4bit, default_4bit, dequantise_4bit, quantise_4bit
called = []
for module in (dequantise_4bit, quantise_4bit):
    module.kept = lambda make, *key: called.append(make.__name__) or codes_4bit.kept(make, *key)
weight = torch.randn(192, 576, generator=torch.Generator().manual_seed(0))
packed, state = functional.quantize_4bit(weight, quant_type="nf4")
whole = functional.dequantize_4bit(packed, state)
default = default_4bit.kernels()
theirs, absmax = default["quantize_4bit"](weight, 64, "nf4", torch.uint8)
assert torch.equal(packed, theirs) and torch.equal(state.absmax, absmax)
expected = default["dequantize_4bit"](theirs, absmax, 64, "nf4", weight.shape, weight.dtype)
assert torch.equal(whole, expected)
print(sorted(set(called)))
"""


@pytest.mark.parametrize("asked", ["", "default"])
def test_a_cpu_multiplies_with_the_defaults_bits_by_these_kernels(asked: str) -> None:
    ours = "['long_pair_table', 'threshold_table']"
    printed = run(ON_A_CPU, dict(os.environ) | {"TUTORIAL_KERNELS": asked})
    assert printed == ("[]" if asked else ours)


def test_steps_aside_for_another_npu_package(monkeypatch: pytest.MonkeyPatch) -> None:
    group = "bitsandbytes.backends"
    names = ("helpers.worker.npu_4bit:register", "helpers.npu_4bit:register")  # and of before
    own = [EntryPoint("own", name, group) for name in names]
    other = EntryPoint("ascend", "bitsandbytes_npu:load", group)
    monkeypatch.setattr(npu_4bit, "entry_points", lambda **_: [*own, other])
    assert "bitsandbytes_npu" in (npu_4bit.reason_to_step_aside() or "")
    monkeypatch.setattr(npu_4bit, "entry_points", lambda **_: own)
    assert "is installed" not in (npu_4bit.reason_to_step_aside() or "")


ON_THE_DEVICE = """
import torch, torch_npu, bitsandbytes
from bitsandbytes import functional as F
from helpers.worker import codes_4bit, dequantise_4bit, npu_4bit, quantise_4bit
npu_4bit.register()  # already done where the tutorial is installed
assert torch._C._dispatch_has_kernel_for_dispatch_key(
    "bitsandbytes::dequantize_4bit", "PrivateUse1"
)
torch.manual_seed(0)
calls = []
for module in (dequantise_4bit, quantise_4bit):
    module.kept = lambda make, *key: calls.append(make.__name__) or codes_4bit.kept(make, *key)
for quant_type in ("nf4", "fp4"):
    for storage in (torch.uint8, torch.bfloat16):
        w = torch.randn(96, 130).bfloat16()
        packed, state = F.quantize_4bit(w, quant_type=quant_type, quant_storage=storage)
        theirs = F.dequantize_4bit(packed, state)
        packed, state = F.quantize_4bit(
            w.to("npu:0"), quant_type=quant_type, quant_storage=storage
        )
        ours = F.dequantize_4bit(packed, state)
        assert ours.device.type == "npu" and torch.equal(ours.cpu(), theirs)
for nested in (False, True):
    layer = bitsandbytes.nn.Linear4bit(
        130, 96, bias=False, compute_dtype=torch.bfloat16, compress_statistics=nested,
        quant_type="nf4",
    ).to("npu:0")
    x = torch.randn(3, 130, device="npu:0", dtype=torch.bfloat16, requires_grad=True)
    layer(x).sum().backward()
    w = F.dequantize_4bit(layer.weight.data, layer.weight.quant_state).cpu()
    assert torch.allclose(x.grad.cpu().float(), w.bfloat16().sum(0).float(), atol=0.5)
assert {"short_pair_table", "threshold_table"} <= set(calls), calls
print("ok")
"""


def test_linear_layers_on_the_simulated_npu_use_the_kernels() -> None:
    npusim = pytest.importorskip("tests.npusim")
    if reason := npusim.available():
        pytest.skip(reason)
    assert run(ON_THE_DEVICE, npusim.environment()).splitlines()[-1] == "ok"
