"""Expert-routed SwiGLU, up to the down projection: ``silu(x Wg^T) * (x Wu^T)`` (arXiv 2002.05202).

Both products share one pass over x and meet in registers, so that neither is written to memory. A block table says
whose weights a block of rows takes (grouped matrix product).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from uare_rt.kernels.checks import FLOATS, Arguments
from uare_rt.kernels.jit import cdiv, tl, triton
from uare_rt.kernels.routing import block_table
from uare_rt.kernels.tiles import tile as tuned
from uare_rt.kernels.variants import Variant

if TYPE_CHECKING:
    from torch import Tensor

    from uare_rt.kernels.routing import Run
    from uare_rt.kernels.tiles import Tile

__all__ = ["reference", "run", "variants"]

_FEW = 16  # rows of a block while decoding


def reference(x: Tensor, gates: tuple[Tensor, Tensor], ups: tuple[Tensor, Tensor], runs: tuple[Run, ...]) -> Tensor:
    """What `run` computes, in plain torch and the precision of its arguments."""
    parts = x.split([run.length for run in runs], dim=1)
    return torch.cat(
        [
            F.silu(F.linear(part, gates[run.expert])) * F.linear(part, ups[run.expert])
            for run, part in zip(runs, parts, strict=True)
        ],
        dim=1,
    )


@triton.jit
def swiglu_kernel(
    x, und_gate, und_up, gen_gate, gen_up, table, width, inner, x_batch, x_token, o_batch, o_token, out,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """One block of rows of one expert by one block of inner channels."""
    batch = tl.program_id(2).to(tl.int64)
    entry = table + tl.program_id(0) * 3
    rows = tl.load(entry) + tl.arange(0, BLOCK_M)
    live = (rows < tl.load(entry + 1))[:, None]
    columns = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    present = (columns < inner)[None, :]
    gate = und_gate
    up = und_up
    if tl.load(entry + 2) == 1:
        gate = gen_gate
        up = gen_up
    gated = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    plain = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    x += batch * x_batch
    for start in range(0, width, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        tokens = tl.load(x + rows[:, None] * x_token + k[None, :], mask=live & (k < width)[None, :], other=0.0)
        weight = columns[None, :] * width + k[:, None]
        held = present & (k < width)[:, None]
        gated = tl.dot(tokens, tl.load(gate + weight, mask=held, other=0.0), gated, input_precision="ieee")
        plain = tl.dot(tokens, tl.load(up + weight, mask=held, other=0.0), plain, input_precision="ieee")
    result = gated / (1.0 + tl.exp(-gated)) * plain
    place = out + batch * o_batch + rows[:, None] * o_token + columns[None, :]
    tl.store(place, result.to(out.dtype.element_ty), mask=live & present)


def run(
    x: Tensor,
    gates: tuple[Tensor, Tensor],
    ups: tuple[Tensor, Tensor],
    runs: tuple[Run, ...],
    *,
    target: str,
    tile: Tile | None = None,
) -> Tensor:
    """The gated inner activations of tokens, with the weights of their experts.

    Args:
        x: fp16, bf16 or fp32 [B, T, width], the last axis contiguous.
        gates: of the und and the gen expert, same dtype, [inner, width] each, contiguous.
        ups: as gates.
        runs: whose tokens they are; lengths sum to T.
        target: whose tiles to use, one of `uare_rt.kernels.tiles.TARGETS`.
        tile: other block sizes.

    Returns:
        [B, T, inner], dtype of x.

    Raises:
        UsageError: an argument of the wrong shape, dtype, device or stride.
    """
    check = Arguments("swiglu", x.device)
    check.tensor("x", x, (None, None, None), FLOATS)
    batch, tokens, width = x.shape
    check.batch("x", batch)
    inner = gates[0].shape[0]
    for name, weights in (("gate", gates), ("up", ups)):
        for expert, weight in zip(("und", "gen"), weights, strict=True):
            check.tensor(f"{expert} {name}", weight, (inner, width), (x.dtype,), contiguous=True)
    total = sum(run.length for run in runs)
    check.value("the runs' length", total, total == tokens, f"x's {tokens} tokens")
    check.count("one picture's result", tokens * inner)
    if tile is None:
        tile = tuned(target, _tile_key(max((run.length for run in runs), default=0)))
    out = torch.empty(batch, tokens, inner, dtype=x.dtype, device=x.device)
    if not out.numel():
        return out
    table = block_table(runs, tile.blocks["BLOCK_M"], x.device)
    swiglu_kernel[(table.shape[0], cdiv(inner, tile.blocks["BLOCK_N"]), batch)](
        x, gates[0], ups[0], gates[1], ups[1], table, width, inner, *x.stride()[:2], *out.stride()[:2], out,
        **tile.blocks, **tile.options,
    )  # fmt: skip
    return out


def _tile_key(longest: int) -> str:
    return "swiglu.decode" if longest <= _FEW else "swiglu.prefill"


def variants() -> list[Variant]:
    """What is compiled ahead of time: any width and inner width that are multiples of 16, prefill and decode."""
    return [_variant(rows, dtype) for dtype in ("fp16", "bf16") for rows in (_FEW, 4096)]


def _variant(rows: int, dtype: str) -> Variant:
    tensors = ("x", "und_gate", "und_up", "gen_gate", "gen_up")
    sizes = ("width", "inner", "x_batch", "x_token", "o_batch", "o_token")
    types = dict.fromkeys(tensors, f"*{dtype}") | {"table": "*i32"} | dict.fromkeys(sizes, "i32")
    grid = ("blocks", "cdiv(inner, BLOCK_N)", "batch")
    key = _tile_key(rows)
    return Variant(
        f"{key.replace('.', '_')}_{dtype}", swiglu_kernel, types | {"out": f"*{dtype}"}, {}, key, grid, sizes
    )
