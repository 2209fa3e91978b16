"""Expert-routed RMSNorm: ``y = w[expert] x / sqrt(mean(x^2) + eps)`` (arXiv 1910.07467), statistics in fp32.

One pass over the tokens of both experts; a block table says whose weights a block of rows takes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from uare_rt.kernels.checks import FLOATS, Arguments
from uare_rt.kernels.jit import power_of_two, tl, triton
from uare_rt.kernels.routing import block_table
from uare_rt.kernels.tiles import tile as tuned
from uare_rt.kernels.variants import Variant

if TYPE_CHECKING:
    from torch import Tensor

    from uare_rt.kernels.routing import Run
    from uare_rt.kernels.tiles import Tile

__all__ = ["reference", "run", "variants"]

_WIDE = 512  # from this width on, a program takes few rows


def reference(x: Tensor, weights: tuple[Tensor, Tensor], runs: tuple[Run, ...], eps: float) -> Tensor:
    """What `run` computes, in plain torch; statistics in fp32 or wider."""
    wide = x if x.dtype == torch.float64 else x.float()
    normed = (wide * torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + eps)).to(x.dtype)
    parts = normed.split([run.length for run in runs], dim=1)
    return torch.cat([weights[run.expert] * part for run, part in zip(runs, parts, strict=True)], dim=1)


@triton.jit
def routed_norm_kernel(
    x, und, gen, table, eps, width, x_batch, x_token, o_batch, o_token, out, WIDTH: tl.constexpr, ROWS: tl.constexpr
):
    """One block of rows of one expert."""
    batch = tl.program_id(1).to(tl.int64)
    entry = table + tl.program_id(0) * 3
    rows = tl.load(entry) + tl.arange(0, ROWS)
    columns = tl.arange(0, WIDTH)
    inside = (rows < tl.load(entry + 1))[:, None] & (columns < width)[None, :]
    values = tl.load(x + batch * x_batch + rows[:, None] * x_token + columns[None, :], mask=inside, other=0.0)
    values = values.to(tl.float32)
    values *= tl.rsqrt(tl.sum(values * values, axis=1) / width + eps)[:, None]
    weights = und
    if tl.load(entry + 2) == 1:
        weights = gen
    values *= tl.load(weights + columns, mask=columns < width, other=0.0).to(tl.float32)[None, :]
    place = out + batch * o_batch + rows[:, None] * o_token + columns[None, :]
    tl.store(place, values.to(out.dtype.element_ty), mask=inside)


def run(
    x: Tensor,
    weights: tuple[Tensor, Tensor],
    runs: tuple[Run, ...],
    eps: float,
    *,
    target: str,
    tile: Tile | None = None,
) -> Tensor:
    """Normalise tokens with the weights of their experts.

    Args:
        x: fp16, bf16 or fp32 [B, T, width], the last axis contiguous.
        weights: of the und and the gen expert, same dtype, [width] each.
        runs: whose tokens they are; lengths sum to T.
        eps: epsilon.
        target: whose tiles to use, one of `uare_rt.kernels.tiles.TARGETS`.
        tile: other block sizes.

    Returns:
        [B, T, width], dtype of x.

    Raises:
        UsageError: an argument of the wrong shape, dtype, device or stride.
    """
    check = Arguments("routed norm", x.device)
    check.tensor("x", x, (None, None, None), FLOATS)
    batch, tokens, width = x.shape
    check.batch("x", batch)
    for name, weight in zip(("und weights", "gen weights"), weights, strict=True):
        check.tensor(name, weight, (width,), (x.dtype,), contiguous=True)
    total = sum(run.length for run in runs)
    check.value("the runs' length", total, total == tokens, f"x's {tokens} tokens")
    if tile is None:
        tile = tuned(target, _tile_key(width))
    out = torch.empty(batch, tokens, width, dtype=x.dtype, device=x.device)
    if not out.numel():
        return out
    table = block_table(runs, tile.blocks["ROWS"], x.device)
    routed_norm_kernel[(table.shape[0], batch)](
        x, *weights, table, eps, width, *x.stride()[:2], *out.stride()[:2], out, WIDTH=power_of_two(width),
        **tile.blocks, **tile.options,
    )  # fmt: skip
    return out


def _tile_key(width: int) -> str:
    return "norm.wide" if width >= _WIDE else "norm.narrow"


def variants() -> list[Variant]:
    """What is compiled ahead of time: the widths of uare-nano and uare-7b."""
    return [_variant(160, "fp16"), _variant(3584, "fp16"), _variant(3584, "bf16")]


def _variant(width: int, dtype: str) -> Variant:
    types = dict.fromkeys(("x", "und", "gen"), f"*{dtype}") | {"table": "*i32", "eps": "fp32"}
    sizes = ("width", "x_batch", "x_token", "o_batch", "o_token")
    types |= dict.fromkeys(sizes, "i32") | {"out": f"*{dtype}"}
    constants = {"WIDTH": power_of_two(width)}
    grid = ("blocks", "batch", "1")
    name = f"routed_norm_{width}_{dtype}"
    return Variant(name, routed_norm_kernel, types, constants, _tile_key(width), grid, whole=sizes)
