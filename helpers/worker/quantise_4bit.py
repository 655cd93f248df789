"""16- and 32-bit weights to 4 bits, and their scales to 8, while a model is loaded.

A table of thresholds is descended: 4 comparisons instead of 16 differences a weight. Codes are
int32 until two of them are one byte, as `first * 16 + second`: on a 910B shifts, and `|` on uint8,
are done by its slow AICPU.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from helpers.worker.codes_4bit import (
    check,
    codes_of,
    in_order,
    kept,
    order_table,
    searchable,
    spans,
    threshold_table,
)

# Weights at a time: 4 MiB of fp32. It is done once, so a launch more or less does not count; on a
# CPU it was best between 2^19 and 2^21.
PIECE = 1 << 20
# The fallback of `quantize_blockwise` compares every value with all 256 codes, as the default does.
FALLBACK_PIECE = 1 << 12

Nearest = Callable[[torch.Tensor], torch.Tensor]


@torch.no_grad()
def quantize_4bit(
    A: torch.Tensor, blocksize: int, quant_type: str, quant_storage: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """(Packed nibbles [bytes / itemsize, 1], absmax fp32 [blocks]), for `quantize_4bit`.

    An odd number of weights is filled up with one zero (the default backend fails there).

    Raises:
        RuntimeError: what the default backend refuses as well.
    """
    check(blocksize, quant_type, A.dtype)
    flat = A.reshape(-1)
    if flat.numel() % 2:
        flat = torch.cat([flat, flat.new_zeros(1)])
    code = codes_of(quant_type)
    packed = torch.empty(flat.numel() // 2, dtype=torch.uint8, device=A.device)

    def pack(start: int, stop: int, codes: torch.Tensor) -> None:
        pairs = codes.view(-1, 2)
        packed[start // 2 : stop // 2] = torch.add(pairs[:, 1], pairs[:, 0], alpha=16)

    absmax = _quantise(flat, blocksize, lambda x: nearest(x, code), pack)
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
    indices = torch.empty(A.numel(), dtype=torch.uint8, device=A.device)

    def store(start: int, stop: int, codes: torch.Tensor) -> None:
        indices[start:stop] = codes

    by_search = code.dtype == torch.float32 and searchable(host)
    find: Nearest = (lambda x: nearest(x, host)) if by_search else (lambda x: _compare_all(x, code))
    absmax = _quantise(A.reshape(-1), blocksize, find, store)
    return indices.view(A.shape), absmax


def _quantise(
    flat: torch.Tensor,
    blocksize: int,
    nearest_code: Nearest,
    store: Callable[[int, int, torch.Tensor], None],
) -> torch.Tensor:
    """The scales fp32 [blocks] of `flat` [n]; `store` takes its codes (int32), piece by piece.

    Each block is scaled with the default backend's own operations, in its dtypes: a block of zeros
    becomes NaN, and so does one that holds a NaN.
    """
    total = flat.numel()
    whole = total - total % blocksize
    absmax = torch.empty(-(total // -blocksize), dtype=torch.float32, device=flat.device)
    for start, stop in spans(total, PIECE, blocksize):
        end = min(stop, whole)
        codes = []
        if end > start:
            scaled = flat[start:end].to(torch.float32, copy=True).view(-1, blocksize)
            peak = absmax[start // blocksize : end // blocksize]
            peak.copy_(scaled.abs().amax(dim=-1))
            scaled.mul_((1 / peak).view(-1, 1))
            codes.append(nearest_code(scaled.view(-1)))
        if stop > end:
            rest = flat[end:stop]
            absmax[-1] = rest.abs().max()
            # A 0-dim factor does not promote, so the default rounds this product to the input's
            # dtype.
            codes.append(nearest_code((rest * (1 / absmax[-1])).to(torch.float32)))
        store(start, stop, codes[0] if len(codes) == 1 else torch.cat(codes))
    return absmax


def nearest(x: torch.Tensor, code: tuple[float, ...]) -> torch.Tensor:
    """The index (int32 [n]) of the code nearest to each fp32 value of `x` [n], which is changed.

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
    return rank if in_order(code) else kept(order_table, code, x.device).index_select(0, rank)


def _compare_all(x: torch.Tensor, code: torch.Tensor) -> torch.Tensor:
    """`nearest` for a code that is not `searchable`: the default backend's way, piece by piece."""
    pieces = [
        torch.argmin((piece.clamp(-1, 1).unsqueeze(-1) - code).abs(), dim=-1).to(torch.int32)
        for piece in x.split(FALLBACK_PIECE)
    ]
    return torch.cat(pieces)
