"""Fast 4-bit kernels for bitsandbytes on Ascend NPUs, in plain torch operators.

bitsandbytes lists "npu" as supported but ships no kernels for it, so its `default` backend runs
there: it spreads every nibble over an int32, looks each one up, and compares every weight with all
16 codes when it quantises. That is what makes QLoRA slow on an NPU.

The kernels here give the same bits as the `default` backend of 0.48.2 (`backends/default/ops.py`;
the tests compare them), and use operators that backend or everyday training already needs on the
device: casts, `index_select`, `mul`, `gt`, `add`, `abs`, `amax`, `clamp`, `nan_to_num`, shifts. No
float64, no `bucketize`, no compiler.

* Dequantising looks a whole byte up, in a table of 256 code pairs whose two fp32 numbers travel as
  one int64 element. One gather instead of two, and no unpacking.
* Quantising descends a table of thresholds: 4 comparisons instead of 16 differences a weight. The
  thresholds are found by bisection over float32 with the default's own arithmetic, ties included.
* Both work through the tensor in chunks, so their temporaries do not grow with it.

`gemv_4bit` needs no kernel of its own: the default one calls `dequantize_4bit` through the
dispatcher, and so reaches the one here.

bitsandbytes calls `register` itself, through the entry-point group `bitsandbytes.backends`.
"""

from __future__ import annotations

import functools
import importlib.util
import logging
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import entry_points
from math import prod
from typing import Any

import numpy as np
import torch

logger = logging.getLogger(__name__)

# torch_npu claims PyTorch's one spare device slot and renames it. The slot exists on every machine
# and also before torch_npu is imported; the device name "npu" does not.
DISPATCH_KEY = "PrivateUse1"
UNCLAIMED = "privateuseone"

# Elements handled at a time: 4 MiB of fp32. Large enough that an NPU is not kept waiting for
# launches, small enough for a processor's caches (measured best between 2^19 and 2^21 elements).
CHUNK = 1 << 20
# The fallback of `quantize_blockwise` compares every value with all 256 codes, as the default does.
FALLBACK_CHUNK = 1 << 12

FLOATS = (torch.bfloat16, torch.float16, torch.float32)


# ---- tables -------------------------------------------------------------------------------------


@functools.cache
def codes_of(quant_type: str) -> tuple[float, ...]:
    """The 16 values of "nf4" or "fp4", as the default backend spells them.

    Its fp4 table is rounded to 4 digits and differs from `QuantState.code`, which it ignores.
    """
    from bitsandbytes.backends.utils import CODE

    return tuple(CODE[quant_type].tolist())


def pair_table(quant_type: str, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """The two values of every packed byte: fp32 pairs seen as int64, shape [256].

    The default backend rounds the codes to the output dtype and then multiplies in fp32, so the
    pairs hold rounded codes. The first weight of a pair sits in the byte's high nibble.
    """
    rounded = torch.tensor(codes_of(quant_type), dtype=dtype).float()
    byte = torch.arange(256)
    pairs = torch.stack([rounded[byte >> 4], rounded[byte & 0xF]], dim=1)
    return pairs.view(torch.int64).reshape(-1).to(device)


def threshold_table(code: tuple[float, ...], device: torch.device) -> torch.Tensor:
    """`thresholds_of(code)` on the device, padded with +inf to 2^k - 1 entries, fp32."""
    _, thresholds = thresholds_of(code)
    padding = (1 << len(thresholds).bit_length()) - 1 - len(thresholds)
    return torch.tensor(thresholds.tolist() + [float("inf")] * padding, device=device)


def order_table(code: tuple[float, ...], device: torch.device) -> torch.Tensor:
    """The index of the code with the given rank by value, uint8, one entry a distinct value."""
    order, _ = thresholds_of(code)
    return torch.tensor(order.tolist(), dtype=torch.uint8, device=device)


_tables: dict[tuple[Any, ...], torch.Tensor] = {}


def kept(make: Callable[..., torch.Tensor], *key: Any) -> torch.Tensor:
    """`make(*key)`, made once a process (2 KiB at most) and not again for every layer."""
    table = _tables.get((make, *key))
    if table is None:
        # A table made in inference mode could not be used by a training step afterwards.
        with torch.inference_mode(False):
            table = make(*key)
        # A memory plan's fake tensor belongs to that plan alone.
        if type(table) is torch.Tensor:
            _tables[(make, *key)] = table
    return table


@functools.cache
def thresholds_of(code: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """(Indices of the distinct codes in the order of their values, the thresholds between them).

    A threshold is the largest float32 that goes to the code below it by the default backend's
    argmin over |x - code|: differences are rounded to float32, and where two are equal the lower
    index wins, which for some pairs in fp4 is the higher value.
    """
    values = np.array(code, dtype=np.float32)
    distinct, order = np.unique(values, return_index=True)  # the lowest index of equal codes
    below, above = distinct[:-1], distinct[1:]
    tie_goes_below = order[:-1] < order[1:]
    low, high = _rank_of_float(below), _rank_of_float(above)
    while (high - low > 1).any():
        middle = (low + high) // 2
        x = _float_of_rank(middle)
        to_below, to_above = np.abs(x - below), np.abs(x - above)
        belongs = (to_below < to_above) | ((to_below == to_above) & tie_goes_below)
        low, high = np.where(belongs, middle, low), np.where(belongs, high, middle)
    return order, _float_of_rank(low)


def _rank_of_float(x: np.ndarray) -> np.ndarray:
    """Integers in the order of the float32 numbers, neighbours 1 apart (both zeros are 0)."""
    bits = x.view(np.int32).astype(np.int64)
    return np.where(bits >= 0, bits, -(bits & 0x7FFFFFFF))


def _float_of_rank(rank: np.ndarray) -> np.ndarray:
    """The inverse of `_rank_of_float`."""
    bits = np.where(rank >= 0, rank, -rank | 0x80000000)
    return bits.astype(np.uint32).view(np.float32)


def searchable(code: tuple[float, ...]) -> bool:
    """Whether thresholds give the default's argmin for `code`.

    They do when no code but a value's two neighbours can win or tie. Rounding could let a third
    one tie only if two codes were closer together than the rounding error of the widest gap.
    """
    values = np.unique(np.array(code, dtype=np.float32))
    if not 2 <= len(code) <= 256 or values.size < 2 or not (np.abs(values) <= 1).all():
        return False
    gaps = np.diff(values)
    return bool(gaps.min() >= gaps.max() * 2.0**-22)


# ---- dequantise ---------------------------------------------------------------------------------


@torch.no_grad()
def dequantize_4bit(
    A: torch.Tensor,
    absmax: torch.Tensor,
    blocksize: int,
    quant_type: str,
    shape: Sequence[int],
    dtype: torch.dtype,
) -> torch.Tensor:
    """Weights of `shape` and `dtype` from packed nibbles, for `bitsandbytes::dequantize_4bit`.

    Args:
        A: packed bytes in any storage dtype, two weights a byte; any shape.
        absmax: fp32 [blocks], the scale of each block of `blocksize` weights.

    With an odd number of weights the last nibble is padding (the default backend fails there).
    """
    _check_4bit(blocksize, quant_type, dtype)
    packed = (A if A.dtype == torch.uint8 else A.view(torch.uint8)).reshape(-1)
    total, wanted = 2 * packed.numel(), prod(shape)
    if total - wanted not in (0, 1):
        raise RuntimeError(f"{packed.numel()} bytes do not hold a tensor of shape {tuple(shape)}.")
    pairs = kept(pair_table, quant_type, dtype, A.device)
    out = torch.empty(total, dtype=dtype, device=A.device)
    whole = total - total % blocksize  # the weights in full blocks

    # An fp32 result is looked up in place. For a 16-bit one the fp32 products need a buffer, but
    # its int32 indices (4 bytes for two weights) fit where their result will be.
    in_place = dtype == torch.float32
    chunk = _chunk(blocksize, total)
    buffer = None if in_place else torch.empty(chunk, dtype=torch.float32, device=A.device)
    for start, stop in _spans(total, chunk):
        part, index = out[start:stop], packed[start // 2 : stop // 2]
        if buffer is None:
            values, index = part, index.to(torch.int32)
        else:
            values, index = buffer[: stop - start], part.view(torch.int32).copy_(index)
        torch.index_select(pairs, 0, index, out=values.view(torch.int64))
        full = min(stop, whole) - start
        scales = absmax[start // blocksize : (start + full) // blocksize]
        values[:full].view(-1, blocksize).mul_(scales.view(-1, 1))
        if buffer is not None:
            part.copy_(values)
        if stop > whole:
            # The default backend scales an incomplete block by a 0-dim tensor, which, unlike a
            # vector, does not promote: the product is taken in the output dtype.
            part[full:] = values[full:].to(dtype) * absmax[-1]
    return out[:wanted].view(shape)


@torch.no_grad()
def dequantize_blockwise(
    A: torch.Tensor, absmax: torch.Tensor, code: torch.Tensor, blocksize: int, dtype: torch.dtype
) -> torch.Tensor:
    """8-bit values of A's shape in `dtype`, for `bitsandbytes::dequantize_blockwise`.

    Nested statistics (double quantisation) need it at every use of a layer: one element for each
    block of its weights.

    Args:
        A: uint8 indices into `code`, any shape.
        absmax: fp32 [blocks], the scale of each block of `blocksize` values.
        code: fp32 [256].
    """
    if A.dtype != torch.uint8:
        raise RuntimeError(f"A must be uint8, got {A.dtype}.")
    values = code.index_select(0, A.reshape(-1).to(torch.int32))
    full = values.numel() - values.numel() % blocksize
    scaled = torch.empty(values.shape, dtype=dtype, device=A.device)
    blocks = full // blocksize
    scaled[:full] = (values[:full].view(-1, blocksize) * absmax[:blocks].view(-1, 1)).view(-1)
    if full < values.numel():
        scaled[full:] = values[full:] * absmax[-1:]  # one-dimensional: promotes, as the default
    return scaled.view(A.shape)


# ---- quantise -----------------------------------------------------------------------------------


@torch.no_grad()
def quantize_4bit(
    A: torch.Tensor, blocksize: int, quant_type: str, quant_storage: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """(Packed nibbles [bytes / itemsize, 1], absmax fp32 [blocks]), for `quantize_4bit`.

    An odd number of weights is filled up with one zero (the default backend fails there).
    """
    _check_4bit(blocksize, quant_type, A.dtype)
    flat = A.reshape(-1)
    if flat.numel() % 2:
        flat = torch.cat([flat, flat.new_zeros(1)])
    code = codes_of(quant_type)
    nibbles, absmax = _quantize(flat, blocksize, lambda x: nearest(x, code))
    packed = nibbles[::2] << 4
    packed |= nibbles[1::2]
    return packed.view(quant_storage).unsqueeze(1), absmax


@torch.no_grad()
def quantize_blockwise(
    A: torch.Tensor, code: torch.Tensor, blocksize: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """(uint8 indices into `code` of A's shape, absmax fp32 [blocks]), for `quantize_blockwise`.

    Nested statistics are quantised with it, once a layer, while a model is loaded; reading `code`
    back to the host then costs little.
    """
    host = tuple(code.tolist())
    if code.dtype == torch.float32 and searchable(host):
        indices, absmax = _quantize(A.reshape(-1), blocksize, lambda x: nearest(x, host))
    else:
        indices, absmax = _quantize(A.reshape(-1), blocksize, lambda x: _compare_all(x, code))
    return indices.view(A.shape), absmax


def _quantize(
    flat: torch.Tensor, blocksize: int, nearest_code: Callable[[torch.Tensor], torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """(uint8 [n] indices by `nearest_code`, absmax fp32 [blocks]) of `flat` [n].

    Each block is scaled with the default backend's own operations, in its dtypes: a block of zeros
    becomes NaN, and so does one that holds a NaN.
    """
    total = flat.numel()
    whole = total - total % blocksize
    absmax = torch.empty(-(total // -blocksize), dtype=torch.float32, device=flat.device)
    indices = torch.empty(total, dtype=torch.uint8, device=flat.device)
    for start, stop in _spans(whole, _chunk(blocksize, whole)):
        scaled = flat[start:stop].to(torch.float32, copy=True).view(-1, blocksize)
        peak = absmax[start // blocksize : stop // blocksize]
        peak.copy_(scaled.abs().amax(dim=-1))
        scaled.mul_((1 / peak).view(-1, 1))
        indices[start:stop] = nearest_code(scaled.view(-1))
    if whole < total:
        rest = flat[whole:]
        absmax[-1] = rest.abs().max()
        # A 0-dim factor does not promote, so the default rounds this product to the input's dtype.
        indices[whole:] = nearest_code((rest * (1 / absmax[-1])).to(torch.float32))
    return indices, absmax


def nearest(x: torch.Tensor, code: tuple[float, ...]) -> torch.Tensor:
    """The index (uint8 [n]) of the code nearest to each fp32 value of `x` [n], which is changed.

    A binary search: after each step `rank` counts in larger units how many thresholds lie below x.
    """
    thresholds = kept(threshold_table, code, x.device)
    step = (thresholds.numel() + 1) // 2
    # argmin calls NaN the smallest difference, so NaN gets index 0: as if it were the first code.
    x.nan_to_num_(nan=code[0]).clamp_(-1, 1)
    rank = torch.zeros_like(x, dtype=torch.int32)
    while step:
        # The entry `step - 1` beyond `rank` halves what is left.
        above = torch.gt(x, thresholds[step - 1 :].index_select(0, rank))
        rank.add_(above.to(torch.int32), alpha=step)
        step //= 2
    return kept(order_table, code, x.device).index_select(0, rank)


def _compare_all(x: torch.Tensor, code: torch.Tensor) -> torch.Tensor:
    """`nearest` for a code that is not `searchable`: the default backend's way, piece by piece."""
    pieces = [
        torch.argmin((piece.clamp(-1, 1).unsqueeze(-1) - code).abs(), dim=-1).to(torch.uint8)
        for piece in x.split(FALLBACK_CHUNK)
    ]
    return torch.cat(pieces) if pieces else x.to(torch.uint8)


def _check_4bit(blocksize: int, quant_type: str, dtype: torch.dtype) -> None:
    """Refuse what the default backend refuses, with its kind of error."""
    if blocksize < 1:
        raise RuntimeError(f"blocksize must be positive, got {blocksize}.")
    if quant_type not in ("nf4", "fp4"):
        raise RuntimeError(f"quant_type must be nf4 or fp4, got {quant_type}.")
    if dtype not in FLOATS:
        raise RuntimeError(f"4-bit weights stand for 16/32-bit floats, not for {dtype}.")


def _chunk(blocksize: int, total: int) -> int:
    """Elements to handle at a time: full blocks, and full bytes also where blocksize is odd."""
    unit = 2 * blocksize
    return min(max(CHUNK // unit, 1) * unit, total + total % 2)


def _spans(total: int, chunk: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of the pieces of `total` elements."""
    for start in range(0, total, max(chunk, 1)):
        yield start, min(start + chunk, total)


# ---- registration -------------------------------------------------------------------------------

KERNELS: dict[str, Callable[..., Any]] = {
    "bitsandbytes::dequantize_4bit": dequantize_4bit,
    "bitsandbytes::dequantize_blockwise": dequantize_blockwise,
    "bitsandbytes::quantize_4bit": quantize_4bit,
    "bitsandbytes::quantize_blockwise": quantize_blockwise,
}
_registered: set[str] = set()
# This module, as a .venv of today and one made before (helpers/npu_4bit.py) call it.
OWN = (f"{__name__}:register", "helpers.npu_4bit:register")


def reason_to_step_aside() -> str | None:
    """Why these kernels must not be registered, or None."""
    if importlib.util.find_spec("bitsandbytes.backends.npu") is not None:
        return "bitsandbytes brings its own NPU backend"
    for entry in entry_points(group="bitsandbytes.backends"):
        # Were both to register, the second would raise, and `import bitsandbytes` with it.
        if entry.value not in OWN and (
            "npu" in entry.value.lower() or "ascend" in entry.value.lower()
        ):
            return f"the NPU backend {entry.value} is installed"
    for op in KERNELS:
        if torch._C._dispatch_has_kernel_for_dispatch_key(op, DISPATCH_KEY):
            return f"{op} has a kernel for the NPU already"
    slot = torch._C._get_privateuse1_backend_name()
    if DISPATCH_KEY == "PrivateUse1" and slot not in ("npu", UNCLAIMED):
        return f"PyTorch's spare device is {slot} here, not npu"
    return None


def register() -> None:
    """Register the kernels; bitsandbytes calls this when it is imported, on every machine.

    It never raises: that would make `import bitsandbytes` fail where no NPU is even present.
    """
    if _registered:
        return
    try:
        reason = reason_to_step_aside()
        if reason is not None:
            logger.info("The tutorial's NPU kernels step aside: %s.", reason)
            return
        from bitsandbytes._ops import register_kernel

        for op, kernel in KERNELS.items():
            register_kernel(op, DISPATCH_KEY)(kernel)
            _registered.add(op)
    except (AttributeError, ImportError, RuntimeError) as error:
        # A bitsandbytes or a torch that is built otherwise; its own kernels serve instead.
        logger.warning("The tutorial's NPU kernels could not be registered: %s", error)
