"""Linear layer in int8: ``y = s_x s_w (q_x q_w^T) + bias`` with a scale per token and one per output channel.

Activations are quantised on the fly, symmetric by their largest magnitude (per-token dynamic quantisation as in
ZeroQuant, arXiv 2206.01861); sums are exact in int32. A first kernel quantises, a second multiplies.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from uare_rt.kernels.checks import FLOATS, Arguments
from uare_rt.kernels.jit import cdiv, tl, triton
from uare_rt.kernels.tiles import tile as tuned
from uare_rt.kernels.variants import Variant

if TYPE_CHECKING:
    from torch import Tensor

    from uare_rt.kernels.tiles import Tile

__all__ = ["quantise", "reference", "run", "variants"]

_FEW = 16  # rows of a block while decoding


def quantise(x: Tensor) -> tuple[Tensor, Tensor]:
    """[M, K] -> int8 [M, K] and fp32 scales [M], to nearest, ties to even; a row of zeros has a scale of zero."""
    wide = x.float()
    scale = wide.abs().amax(dim=1) / 127
    levels = torch.where(scale[:, None] > 0, wide / scale[:, None], 0.0).round()
    return levels.to(torch.int8), scale


def reference(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
    """What `run` computes, in plain torch; the sums in fp64, where they are exact."""
    levels, factor = quantise(x.reshape(-1, x.shape[-1]))
    product = (levels.double() @ weight.double().T) * factor.double()[:, None] * scale.double().reshape(-1)
    if bias is not None:
        product = product + bias.double()
    return product.to(x.dtype).reshape(*x.shape[:-1], -1)


@triton.jit
def quantise_kernel(x, width, x_row, levels, scales, BLOCK: tl.constexpr):
    """One row."""
    row = tl.program_id(0).to(tl.int64)
    best = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, width, BLOCK):
        k = start + tl.arange(0, BLOCK)
        best = tl.maximum(best, tl.abs(tl.load(x + row * x_row + k, mask=k < width, other=0.0).to(tl.float32)))
    scale = tl.max(best, axis=0) / 127.0
    tl.store(scales + row, scale)
    divisor = tl.where(scale > 0.0, scale, 1.0)
    for start in range(0, width, BLOCK):
        k = start + tl.arange(0, BLOCK)
        values = tl.load(x + row * x_row + k, mask=k < width, other=0.0).to(tl.float32) / divisor
        # To nearest, ties to even: adding 1.5 * 2**23 leaves no fraction in fp32.
        tl.store(levels + row * width + k, ((values + 12582912.0) - 12582912.0).to(tl.int8), mask=k < width)


@triton.jit
def gemm_w8a8_kernel(
    levels, scales, weight, scale, bias, rows, width, channels, out,
    BIAS: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """A block of rows by a block of output channels."""
    row = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    column = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    live, present = row < rows, column < channels
    levels += row.to(tl.int64)[:, None] * width
    weight += column.to(tl.int64)[None, :] * width
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.int32)
    for start in range(0, width, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        left = tl.load(levels + k[None, :], mask=live[:, None] & (k < width)[None, :], other=0)
        right = tl.load(weight + k[:, None], mask=present[None, :] & (k < width)[:, None], other=0)
        total = tl.dot(left, right, total)
    result = total.to(tl.float32) * tl.load(scales + row, mask=live, other=0.0)[:, None]
    result *= tl.load(scale + column, mask=present, other=0.0)[None, :]
    if BIAS:
        result += tl.load(bias + column, mask=present, other=0.0).to(tl.float32)[None, :]
    place = out + row.to(tl.int64)[:, None] * channels + column[None, :]
    tl.store(place, result.to(out.dtype.element_ty), mask=live[:, None] & present[None, :])


def run(
    x: Tensor,
    weight: Tensor,
    scale: Tensor,
    bias: Tensor | None = None,
    *,
    target: str,
    tile: Tile | None = None,
) -> Tensor:
    """Quantise activations by token and multiply in int8.

    Args:
        x: fp16, bf16 or fp32 [..., K].
        weight: int8 [N, K], contiguous.
        scale: fp32 [N] or [N, 1], contiguous.
        bias: dtype of x, [N], or None.
        target: whose tiles to use, one of `uare_rt.kernels.tiles.TARGETS`.
        tile: other block sizes of the product.

    Returns:
        [..., N], dtype of x.

    Raises:
        UsageError: an argument of the wrong shape, dtype, device or stride.
    """
    check = Arguments("gemm w8a8", x.device)
    check.value("x's shape", list(x.shape), x.ndim > 1, "[..., K]")
    width = x.shape[-1]
    flat = x.reshape(-1, width)
    check.tensor("x", flat, (None, width), FLOATS)
    check.tensor("weight", weight, (None, width), (torch.int8,), contiguous=True)
    channels = weight.shape[0]
    check.tensor("scale", scale.reshape(-1), (channels,), (torch.float32,), contiguous=True)
    if bias is not None:
        check.tensor("bias", bias, (channels,), (x.dtype,), contiguous=True)
    rows = flat.shape[0]
    if tile is None:
        tile = tuned(target, _tile_key(rows))
    out = torch.empty(rows, channels, dtype=x.dtype, device=x.device)
    if out.numel():
        levels = torch.empty(rows, width, dtype=torch.int8, device=x.device)
        scales = torch.empty(rows, dtype=torch.float32, device=x.device)
        first = tuned(target, "gemm.quantise")
        quantise_kernel[(rows,)](flat, width, flat.stride(0), levels, scales, **first.blocks, **first.options)
        gemm_w8a8_kernel[(cdiv(rows, tile.blocks["BLOCK_M"]), cdiv(channels, tile.blocks["BLOCK_N"]))](
            levels, scales, weight, scale, flat if bias is None else bias, rows, width, channels, out,
            BIAS=bias is not None, **tile.blocks, **tile.options,
        )  # fmt: skip
    return out.reshape(*x.shape[:-1], -1)


def _tile_key(rows: int) -> str:
    return f"gemm.w8a8.{'decode' if rows <= _FEW else 'prefill'}"


def variants() -> list[Variant]:
    """What is compiled ahead of time: the quantisation, and the product for decode and prefill."""
    found = []
    for dtype in ("fp16", "bf16"):
        types = {"x": f"*{dtype}", "width": "i32", "x_row": "i32", "levels": "*i8", "scales": "*fp32"}
        whole = ("width", "x_row")
        found.append(
            Variant(f"gemm_quantise_{dtype}", quantise_kernel, types, {}, "gemm.quantise", ("rows", "1", "1"), whole)
        )
        found += [_variant(rows, dtype) for rows in (_FEW, 4096)]
    return found


def _variant(rows: int, dtype: str) -> Variant:
    types = {"levels": "*i8", "scales": "*fp32", "weight": "*i8", "scale": "*fp32", "bias": f"*{dtype}"}
    types |= dict.fromkeys(("rows", "width", "channels"), "i32") | {"out": f"*{dtype}"}
    key, grid = _tile_key(rows), ("cdiv(rows, BLOCK_M)", "cdiv(channels, BLOCK_N)", "1")
    name = f"{key.replace('.', '_')}_{dtype}"
    return Variant(name, gemm_w8a8_kernel, types, {"BIAS": True}, key, grid, ("width", "channels"))
