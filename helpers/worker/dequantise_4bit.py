"""4-bit weights back to 16 or 32 bits, in three formulations that give the same bits.

* `pairs4`: a byte's two codes, rounded to a 16-bit result's type, are 4 bytes. A table of 256 of
  them is looked up straight into the result seen as int32 (on a 910B the vector gather, which takes
  elements of 2 and 4 bytes only), and the scales are multiplied in place.
* `pairs8`: the codes are fp32, a pair is 8 bytes, and a 16-bit result takes a buffer. Faster on a
  CPU; on a 910B a scalar loop. A 32-bit result has no shorter pairs than these.
* `default`: bitsandbytes' own, which spreads every nibble over an int32.

Which one is used, and for how many weights at a time: helpers/worker/kernel_choice.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch

from helpers.worker import default_4bit, kernel_choice
from helpers.worker.codes_4bit import check, kept, long_pair_table, short_pair_table, spans
from helpers.worker.kernel_choice import Choice


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

    Raises:
        RuntimeError: what the default backend refuses as well.
    """
    choice = kernel_choice.current(A.device)
    return dequantize_4bit_by(choice, A, absmax, blocksize, quant_type, shape, dtype)


@torch.no_grad()
def dequantize_4bit_by(
    choice: Choice,
    A: torch.Tensor,
    absmax: torch.Tensor,
    blocksize: int,
    quant_type: str,
    shape: Sequence[int],
    dtype: torch.dtype,
) -> torch.Tensor:
    """`dequantize_4bit` in a formulation and by pieces that are given."""
    check(blocksize, quant_type, dtype)
    packed = (A if A.dtype == torch.uint8 else A.view(torch.uint8)).reshape(-1)
    total, wanted = 2 * packed.numel(), prod(shape)
    if total - wanted not in (0, 1):
        raise RuntimeError(f"{packed.numel()} bytes do not hold a tensor of shape {tuple(shape)}.")
    if choice.formulation == "default":
        kernel = default_4bit.kernels()["dequantize_4bit"]
        out = kernel(packed, absmax, blocksize, quant_type, (total,), dtype)
    else:
        out = torch.empty(total, dtype=dtype, device=A.device)
        short = choice.formulation == "pairs4" and dtype != torch.float32
        fill = _by_short_pairs if short else _by_long_pairs
        fill(out, packed, absmax, blocksize, quant_type, choice.piece)
    return out[:wanted].view(shape)


def _by_short_pairs(
    out: torch.Tensor,
    packed: torch.Tensor,
    absmax: torch.Tensor,
    blocksize: int,
    quant_type: str,
    piece: int,
) -> None:
    """Fill `out` (16-bit, [2 * bytes]); takes 2 bytes a weight of a piece for the indices."""
    table = kept(short_pair_table, quant_type, out.dtype, out.device)
    looked_up = out.view(torch.int32)
    total = out.numel()
    pieces = spans(total, piece, blocksize)
    whole = total - total % blocksize  # the weights in full blocks
    largest = pieces[0][1] if pieces else 0
    room = torch.empty(largest // 2, dtype=torch.int32, device=out.device)
    for start, stop in pieces:
        index = room[: (stop - start) // 2].copy_(packed[start // 2 : stop // 2])
        torch.index_select(table, 0, index, out=looked_up[start // 2 : stop // 2])
        full = min(stop, whole) - start
        blocks = out[start : start + full].view(-1, blocksize)
        scales = absmax[start // blocksize : (start + full) // blocksize].view(-1, 1)
        # The product is taken in fp32, and rounded once.
        torch.mul(blocks, scales, out=blocks)
        if stop > whole:
            # The default backend scales an incomplete block by a 0-dim tensor, which, unlike a
            # vector, does not promote: the product is taken in the output dtype.
            out[start + full : stop].mul_(absmax[-1])


def _by_long_pairs(
    out: torch.Tensor,
    packed: torch.Tensor,
    absmax: torch.Tensor,
    blocksize: int,
    quant_type: str,
    piece: int,
) -> None:
    """Fill `out` ([2 * bytes]).

    A 32-bit result is looked up in place. For a 16-bit one the fp32 products need a buffer, but
    the int32 indices (4 bytes for two weights) fit where their result will be.
    """
    pairs = kept(long_pair_table, quant_type, out.dtype, out.device)
    in_place = out.dtype == torch.float32
    total = out.numel()
    pieces = spans(total, piece, blocksize)
    whole = total - total % blocksize
    largest = pieces[0][1] if pieces else 0
    kind = torch.int32 if in_place else torch.float32
    room = torch.empty(largest // 2 if in_place else largest, dtype=kind, device=out.device)
    for start, stop in pieces:
        part, bytes_of_part = out[start:stop], packed[start // 2 : stop // 2]
        if in_place:
            values, index = part, room[: (stop - start) // 2]
        else:
            values, index = room[: stop - start], part.view(torch.int32)
        torch.index_select(pairs, 0, index.copy_(bytes_of_part), out=values.view(torch.int64))
        full = min(stop, whole) - start
        scales = absmax[start // blocksize : (start + full) // blocksize]
        values[:full].view(-1, blocksize).mul_(scales.view(-1, 1))
        if not in_place:
            part.copy_(values)
        if stop > whole:
            part[full:] = values[full:].to(out.dtype) * absmax[-1]  # 0-dim, as above


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

    Raises:
        RuntimeError: A is not uint8.
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
