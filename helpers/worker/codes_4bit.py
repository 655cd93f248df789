"""The 16 values of a 4-bit type as tables on a device, for helpers/worker/npu_4bit.py.

Dequantising looks whole bytes up in a table of 256 code pairs; quantising descends a table of
thresholds between neighbouring codes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

FLOATS = (torch.bfloat16, torch.float16, torch.float32)


@functools.cache
def codes_of(quant_type: str) -> tuple[float, ...]:
    """The 16 values of "nf4" or "fp4", as the default backend spells them.

    Its fp4 table is rounded to 4 digits and differs from `QuantState.code`, which it ignores.
    """
    from bitsandbytes.backends.utils import CODE

    return tuple(CODE[quant_type].tolist())


def _pairs(quant_type: str, dtype: torch.dtype) -> torch.Tensor:
    """The two codes of every byte in `dtype`, [256, 2]: the first one sits in the high nibble.

    The default backend rounds the codes to the output dtype before it multiplies; so do pairs.
    """
    rounded = torch.tensor(codes_of(quant_type), dtype=dtype)
    byte = torch.arange(256)
    return torch.stack([rounded[byte >> 4], rounded[byte & 0xF]], dim=1)


def short_pair_table(quant_type: str, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Pairs of 16-bit codes, each pair seen as one int32: [256], 1 KiB."""
    return _pairs(quant_type, dtype).view(torch.int32).reshape(-1).to(device)


def long_pair_table(quant_type: str, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Pairs of fp32 numbers, rounded to `dtype`, each pair seen as one int64: [256], 2 KiB."""
    return _pairs(quant_type, dtype).float().view(torch.int64).reshape(-1).to(device)


def threshold_table(code: tuple[float, ...], device: torch.device) -> torch.Tensor:
    """`thresholds_of(code)` on the device, padded with +inf to 2^k - 1 entries, fp32."""
    _, thresholds = thresholds_of(code)
    padding = (1 << len(thresholds).bit_length()) - 1 - len(thresholds)
    return torch.tensor(thresholds.tolist() + [float("inf")] * padding, device=device)


def order_table(code: tuple[float, ...], device: torch.device) -> torch.Tensor:
    """The index of the code with the given rank by value, int32, one entry a distinct value."""
    order, _ = thresholds_of(code)
    return torch.tensor(order.tolist(), dtype=torch.int32, device=device)


def in_order(code: tuple[float, ...]) -> bool:
    """Whether a code's rank by value is its index, as in nf4: then no `order_table` is needed."""
    order, _ = thresholds_of(code)
    return bool((order == np.arange(len(order))).all())


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


def check(blocksize: int, quant_type: str, dtype: torch.dtype) -> None:
    """Refuse what the default backend refuses, with its kind of error.

    Raises:
        RuntimeError: no such type or block, or weights that 4 bits do not stand for.
    """
    if blocksize < 1:
        raise RuntimeError(f"blocksize must be positive, got {blocksize}.")
    if quant_type not in ("nf4", "fp4"):
        raise RuntimeError(f"quant_type must be nf4 or fp4, got {quant_type}.")
    if dtype not in FLOATS:
        raise RuntimeError(f"4-bit weights stand for 16/32-bit floats, not for {dtype}.")


def spans(total: int, piece: int, blocksize: int) -> list[tuple[int, int]]:
    """(start, stop) of the pieces of `total` weights.

    Each but the last holds full blocks, and full bytes also where blocksize is odd.
    """
    unit = 2 * blocksize
    step = max(piece // unit, 1) * unit
    return [(start, min(start + step, total)) for start in range(0, total, step)]
