"""Weight-only quantised linear layer: ``y = x (scale q)^T + bias`` with q in 8 or 4 bits, dequantised in registers.

int8: one scale per output channel, applied to the sum. int4: one scale per group of 128 inputs of a channel (as GPTQ,
arXiv 2210.17323, and AWQ, arXiv 2306.00978, store them), applied to each group's partial sum; two inputs share a byte,
the even one in the low four bits, two's complement. The products themselves are those of small integers, which the
activations' type holds exactly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from uare_rt.kernels.checks import FLOATS, HALVES, Arguments
from uare_rt.kernels.jit import cdiv, tl, triton
from uare_rt.kernels.tiles import tile as tuned
from uare_rt.kernels.variants import Variant

if TYPE_CHECKING:
    from torch import Tensor

    from uare_rt.kernels.tiles import Tile

__all__ = ["GROUP", "levels_of", "reference", "run", "variants"]

GROUP = 128
_FEW = 16  # rows of a block while decoding


def levels_of(weight: Tensor) -> Tensor:
    """Packed uint8 [N, M] -> int8 [N, 2 M] of -8..7; int8 levels are returned themselves."""
    if weight.dtype == torch.int8:
        return weight
    both = torch.stack((weight.view(torch.int8) << 4, weight.view(torch.int8)), dim=-1)
    return (both >> 4).flatten(1)


def reference(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
    """What `run` computes, in plain torch and the precision of x."""
    levels = levels_of(weight)
    if weight.dtype == torch.uint8:
        size = min(GROUP, levels.shape[1])
        wide = (levels.unflatten(1, (-1, size)).to(x.dtype) * scale.reshape(*scale.shape[:2], 1).to(x.dtype)).flatten(1)
        wide = wide[:, : x.shape[-1]]
    else:
        wide = (levels * scale.reshape(-1, 1).to(torch.promote_types(x.dtype, torch.float32))).to(x.dtype)
    return F.linear(x, wide, bias)


@triton.jit
def gemm_kernel(
    x, weight, scale, bias, rows, width, channels, packed, groups, x_row, out,
    BITS: tl.constexpr, GROUP: tl.constexpr, BIAS: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """A block of rows by a block of output channels."""
    row = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    column = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    live, present = (row < rows)[:, None], (column < channels)
    x += row.to(tl.int64)[:, None] * x_row
    weight += column.to(tl.int64)[None, :] * packed
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for start in range(0, width, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        values = tl.load(x + k[None, :], mask=live & (k < width)[None, :], other=0.0)
        if BITS == 8:
            levels = tl.load(weight + k[:, None], mask=present[None, :] & (k < width)[:, None], other=0)
            total = tl.dot(values, levels.to(values.dtype), total, input_precision="ieee")
        else:
            byte = start // 2 + tl.arange(0, BLOCK_K // 2)
            pair = tl.load(weight + byte[:, None], mask=present[None, :] & (byte < packed)[:, None], other=0)
            pair = pair.to(tl.int8, bitcast=True)
            even, odd = tl.split(tl.reshape(values, (BLOCK_M, BLOCK_K // 2, 2)))
            low, high = ((pair << 4) >> 4).to(values.dtype), (pair >> 4).to(values.dtype)
            part = tl.dot(even, low, input_precision="ieee")
            part = tl.dot(odd, high, part, input_precision="ieee")
            factor = tl.load(scale + column * groups + start // GROUP, mask=present, other=0.0)
            total += part * factor.to(tl.float32)[None, :]
    if BITS == 8:
        total *= tl.load(scale + column, mask=present, other=0.0).to(tl.float32)[None, :]
    if BIAS:
        total += tl.load(bias + column, mask=present, other=0.0).to(tl.float32)[None, :]
    place = out + row.to(tl.int64)[:, None] * channels + column[None, :]
    tl.store(place, total.to(out.dtype.element_ty), mask=live & present[None, :])


def run(
    x: Tensor,
    weight: Tensor,
    scale: Tensor,
    bias: Tensor | None = None,
    *,
    target: str,
    tile: Tile | None = None,
) -> Tensor:
    """Multiply by quantised weights.

    Args:
        x: fp16, bf16 or fp32 [..., K].
        weight: int8 [N, K], or for 4 bits uint8 [N, P / 2] where P is K up to whole groups; contiguous.
        scale: for int8 [N] or [N, 1]; for 4 bits [N, groups] or [N, groups, 1], a group being 128 inputs or all of
            fewer; fp32, bf16 or fp16, contiguous.
        bias: dtype of x, [N], or None.
        target: whose tiles to use, one of `uare_rt.kernels.tiles.TARGETS`.
        tile: other block sizes; BLOCK_K divides 128.

    Returns:
        [..., N], dtype of x.

    Raises:
        UsageError: an argument of the wrong shape, dtype, device or stride.
    """
    check = Arguments("gemm", x.device)
    check.value("x's shape", list(x.shape), x.ndim > 1, "[..., K]")
    width = x.shape[-1]
    flat = x.reshape(-1, width)
    check.tensor("x", flat, (None, width), FLOATS)
    channels = weight.shape[0] if weight.ndim == 2 else None
    check.tensor("weight", weight, (channels, None), (torch.int8, torch.uint8), contiguous=True)
    bits = 8 if weight.dtype == torch.int8 else 4
    size = min(GROUP, width + width % 2)
    groups = cdiv(width, size) if bits == 4 else 1
    check.tensor("weight", weight, (channels, width if bits == 8 else groups * size // 2), (weight.dtype,))
    columns = scale.flatten(1) if scale.ndim > 1 else scale.reshape(-1, 1)
    check.tensor("scale", columns, (channels, groups), (*HALVES, torch.float32), contiguous=True)
    if bias is not None:
        check.tensor("bias", bias, (channels,), (x.dtype,), contiguous=True)
    if tile is None:
        tile = tuned(target, _tile_key(bits, flat.shape[0]))
    check.value("BLOCK_K", tile.blocks["BLOCK_K"], GROUP % tile.blocks["BLOCK_K"] == 0, f"a divisor of {GROUP}")
    out = torch.empty(flat.shape[0], weight.shape[0], dtype=x.dtype, device=x.device)
    if out.numel():
        grid = (cdiv(flat.shape[0], tile.blocks["BLOCK_M"]), cdiv(weight.shape[0], tile.blocks["BLOCK_N"]))
        gemm_kernel[grid](
            flat, weight, scale, flat if bias is None else bias, flat.shape[0], width, weight.shape[0], weight.shape[1],
            groups, flat.stride(0), out,
            BITS=bits, GROUP=GROUP, BIAS=bias is not None, **tile.blocks, **tile.options,
        )  # fmt: skip
    return out.reshape(*x.shape[:-1], -1)


def _tile_key(bits: int, rows: int) -> str:
    return f"gemm.w{bits}.{'decode' if rows <= _FEW else 'prefill'}"


def variants() -> list[Variant]:
    """What is compiled ahead of time: 8 and 4 bits, decode and prefill; sizes are multiples of 16."""
    return [_variant(bits, rows, dtype) for dtype in ("fp16", "bf16") for bits in (8, 4) for rows in (_FEW, 4096)]


def _variant(bits: int, rows: int, dtype: str) -> Variant:
    types = {"x": f"*{dtype}", "weight": "*i8" if bits == 8 else "*u8", "scale": "*fp32" if bits == 8 else "*bf16"}
    sizes = ("rows", "width", "channels", "packed", "groups", "x_row")
    types |= {"bias": f"*{dtype}"} | dict.fromkeys(sizes, "i32") | {"out": f"*{dtype}"}
    constants = {"BITS": bits, "GROUP": GROUP, "BIAS": True}
    key, grid = _tile_key(bits, rows), ("cdiv(rows, BLOCK_M)", "cdiv(channels, BLOCK_N)", "1")
    name = f"{key.replace('.', '_')}_{dtype}"
    return Variant(name, gemm_kernel, types, constants, key, grid, ("width", "channels", "packed", "x_row"))
