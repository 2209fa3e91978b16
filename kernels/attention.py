"""MoT attention: a cached prefix that every query sees, and own keys by visible ranges, in one softmax.

``out = softmax(scale q [past_k, k]^T + mask) [past_v, v]`` with grouped query heads (arXiv 2305.13245), computed block
by block with a running maximum (FlashAttention-2, arXiv 2307.08691). The MoT mask (causal text, full image blocks,
blocks that do not see one another; arXiv 2505.14683) is a table of two ranges per query instead of a matrix.
Rows of a program are the queries of all heads that share a key head, token by token: a key is read once for all.
Where the rows are few and the prefix long, its keys are split over programs whose results a second kernel combines.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from uare_rt.kernels.checks import FLOATS, Arguments
from uare_rt.kernels.jit import cdiv, power_of_two, tl, triton
from uare_rt.kernels.tiles import tile as tuned
from uare_rt.kernels.variants import Variant

if TYPE_CHECKING:
    from torch import Tensor

    from uare_rt.kernels.tiles import Tile

__all__ = ["HEAD_DIMS", "reference", "run", "splits_for", "variants", "visible_ranges"]

HEAD_DIMS = range(8, 129, 8)
_LOG2E = 1.4426950408889634


def visible_ranges(mask: Tensor) -> Tensor | None:
    """The mask as two ranges of keys per query.

    Args:
        mask: bool [T, T], true where a query (row) sees a key.

    Returns:
        int32 [T, 3] of ``(a, b, e)``: a query sees keys ``0 <= n < a`` and ``b <= n < e``, with ``a <= b``.
        None where a row has more than one gap or sees nothing.
    """
    length = mask.shape[1]
    keys = torch.arange(length, device=mask.device)
    first = mask.long().cumprod(dim=1).sum(dim=1)
    end = torch.where(mask, keys + 1, 0).amax(dim=1)
    hidden = ~mask & (keys < end[:, None])
    start = torch.where(hidden, keys + 1, 0).amax(dim=1)
    start = torch.where(start == 0, first, start)
    seen = (keys < first[:, None]) | ((keys >= start[:, None]) & (keys < end[:, None]))
    if not bool((seen == mask).all()) or not bool(mask.any(dim=1).all()):
        return None
    return torch.stack((first, start, end), dim=1).int()


def reference(
    q: Tensor, k: Tensor, v: Tensor, *, past: tuple[Tensor, Tensor] | None = None, ranges: Tensor | None = None
) -> Tensor:
    """What `run` computes, in plain torch and the precision of its arguments."""
    batch, heads, length, dim = q.shape
    groups = heads // k.shape[1]
    prefix = 0
    if past is not None:
        prefix = past[0].shape[2]
        k = torch.cat((past[0].expand(batch, -1, -1, -1), k), dim=2)
        v = torch.cat((past[1].expand(batch, -1, -1, -1), v), dim=2)
    k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
    scores = (q @ k.transpose(-1, -2)) * dim**-0.5
    if ranges is not None:
        own = torch.arange(-prefix, length, device=q.device)
        first, start, end = (column[:, None] for column in ranges.unbind(1))
        seen = (own < first) | ((own >= start) & (own < end))
        scores = scores.masked_fill(~seen, float("-inf"))
    return torch.softmax(scores, dim=-1) @ v


@triton.jit
def _update(
    q, k, v, keys, step_k, step_v, visible, scale, total, top, weight, limit,
    HEAD: tl.constexpr, DIM: tl.constexpr,
):  # fmt: skip
    """One block of keys into the running softmax."""
    d = tl.arange(0, DIM)
    inside = (keys < limit)[None, :] & (d < HEAD)[:, None]
    block = tl.load(k + keys[None, :] * step_k + d[:, None], mask=inside, other=0.0)
    scores = tl.dot(q, block, input_precision="ieee") * scale
    scores = tl.where(visible, scores, float("-inf"))
    new_top = tl.maximum(top, tl.max(scores, axis=1))
    # A row that has seen nothing yet has no maximum: minus infinity less itself is not a number.
    shift = tl.where(new_top == float("-inf"), 0.0, new_top)
    share = tl.exp2(scores - shift[:, None])
    fade = tl.exp2(top - shift)
    weight = weight * fade + tl.sum(share, axis=1)
    inside = (keys < limit)[:, None] & (d < HEAD)[None, :]
    block = tl.load(v + keys[:, None] * step_v + d[None, :], mask=inside, other=0.0)
    total = tl.dot(share.to(block.dtype), block, total * fade[:, None], input_precision="ieee")
    return total, new_top, weight


@triton.jit
def attention_kernel(
    q, k, v, past_k, past_v, ranges, tokens, prefix, scale,
    q_batch, q_head, q_token, k_batch, k_head, k_token, v_batch, v_head, v_token,
    past_batch, past_head, past_token, o_batch, o_head, o_token,
    out, part_total, part_top,
    GROUPS: tl.constexpr, HEAD: tl.constexpr, DIM: tl.constexpr, PREFIX: tl.constexpr, RANGED: tl.constexpr,
    SPLITS: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """One block of rows of one key head; ``scale`` includes log2(e)."""
    kv_head = tl.program_id(1) // SPLITS
    split = tl.program_id(1) % SPLITS
    batch = tl.program_id(2).to(tl.int64)
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    token = rows // GROUPS
    head = kv_head * GROUPS + rows % GROUPS
    live = token < tokens
    d = tl.arange(0, DIM)
    inside = live[:, None] & (d < HEAD)[None, :]
    place = q + batch * q_batch + head[:, None] * q_head + token[:, None] * q_token + d[None, :]
    query = tl.load(place, mask=inside, other=0.0)
    total = tl.zeros((BLOCK_M, DIM), tl.float32)
    top = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    weight = tl.zeros((BLOCK_M,), tl.float32)
    if PREFIX:
        old_k = past_k + batch * past_batch + kv_head * past_head
        old_v = past_v + batch * past_batch + kv_head * past_head
        share = tl.cdiv(tl.cdiv(prefix, SPLITS), BLOCK_N) * BLOCK_N
        stop = tl.minimum(prefix, (split + 1) * share)
        for start in range(split * share, stop, BLOCK_N):
            keys = start + tl.arange(0, BLOCK_N)
            total, top, weight = _update(
                query, old_k, old_v, keys, past_token, past_token, (keys < stop)[None, :], scale, total, top, weight,
                stop, HEAD, DIM,
            )  # fmt: skip
    if split == SPLITS - 1:
        own_k = k + batch * k_batch + kv_head * k_head
        own_v = v + batch * v_batch + kv_head * v_head
        if RANGED:
            first = tl.load(ranges + token * 3, mask=live, other=0)
            begin = tl.load(ranges + token * 3 + 1, mask=live, other=tokens)
            end = tl.load(ranges + token * 3 + 2, mask=live, other=0)
            shared = tl.max(first, axis=0)
            for start in range(0, shared, BLOCK_N):
                keys = start + tl.arange(0, BLOCK_N)
                near = (keys[None, :] >= begin[:, None]) & (keys[None, :] < end[:, None])
                total, top, weight = _update(
                    query, own_k, own_v, keys, k_token, v_token, (keys[None, :] < first[:, None]) | near, scale, total,
                    top, weight, tokens, HEAD, DIM,
                )  # fmt: skip
            again = tl.maximum(tl.cdiv(shared, BLOCK_N), tl.min(begin, axis=0) // BLOCK_N) * BLOCK_N
            for start in range(again, tl.max(end, axis=0), BLOCK_N):
                keys = start + tl.arange(0, BLOCK_N)
                near = (keys[None, :] >= begin[:, None]) & (keys[None, :] < end[:, None])
                total, top, weight = _update(
                    query, own_k, own_v, keys, k_token, v_token, near, scale, total, top, weight, tokens, HEAD, DIM,
                )  # fmt: skip
        else:
            for start in range(0, tokens, BLOCK_N):
                keys = start + tl.arange(0, BLOCK_N)
                total, top, weight = _update(
                    query, own_k, own_v, keys, k_token, v_token, (keys < tokens)[None, :], scale, total, top, weight,
                    tokens, HEAD, DIM,
                )  # fmt: skip
    if SPLITS == 1:
        total = total / tl.where(weight == 0.0, 1.0, weight)[:, None]
        place = out + batch * o_batch + head[:, None] * o_head + token[:, None] * o_token + d[None, :]
        tl.store(place, total.to(out.dtype.element_ty), mask=inside)
    else:
        heads = tl.num_programs(1) // SPLITS * GROUPS
        row = ((batch * heads + head) * tokens + token) * SPLITS + split
        tl.store(part_total + row[:, None] * HEAD + d[None, :], total, mask=inside)
        tl.store(part_top + row * 2, top, mask=live)
        tl.store(part_top + row * 2 + 1, weight, mask=live)


@triton.jit
def combine_kernel(
    part_total, part_top, tokens, o_batch, o_head, o_token, out,
    HEAD: tl.constexpr, DIM: tl.constexpr, SPLITS: tl.constexpr,
):  # fmt: skip
    """Results of the splits of one row, weighted by what each saw."""
    token, head, batch = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    row = ((batch * tl.num_programs(1) + head) * tokens + token) * SPLITS
    split = tl.arange(0, SPLITS)
    d = tl.arange(0, DIM)
    top = tl.load(part_top + (row + split) * 2)
    weight = tl.load(part_top + (row + split) * 2 + 1)
    best = tl.max(top, axis=0)
    fade = tl.exp2(top - best)
    inside = (d < HEAD)[None, :] & (split >= 0)[:, None]
    parts = tl.load(part_total + (row + split)[:, None] * HEAD + d[None, :], mask=inside, other=0.0)
    total = tl.sum(parts * fade[:, None], axis=0) / tl.sum(weight * fade, axis=0)
    place = out + batch * o_batch + head * o_head + token * o_token + d
    tl.store(place, total.to(out.dtype.element_ty), mask=d < HEAD)


def splits_for(rows: int, prefix: int) -> int:
    """Programs that share a prefix: more where the rows are few and the prefix is long."""
    if rows > 32 or prefix < 512:
        return 1
    return 4 if prefix < 2048 else 16


def run(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    past: tuple[Tensor, Tensor] | None = None,
    ranges: Tensor | None = None,
    target: str,
    tile: Tile | None = None,
    splits: int | None = None,
) -> Tensor:
    """Attention of new tokens over a prefix and, by ranges, over one another.

    Args:
        q: fp16, bf16 or fp32 [B, heads, T, d], d a multiple of 8 up to 128; the last axis contiguous.
        k: same dtype, [B, kv_heads, T, d], heads a multiple of kv_heads.
        v: as k.
        past: keys and values of the prefix, [B or 1, kv_heads, S, d] each, of equal strides; batch 1 is shared.
        ranges: int32 [T, 3], see `visible_ranges`; None lets every query see every key.
        target: whose tiles to use, one of `uare_rt.kernels.tiles.TARGETS`.
        tile: other block sizes.
        splits: over how many programs the prefix is split, a power of two; None decides by size.

    Returns:
        [B, heads, T, d], dtype of q.

    Raises:
        UsageError: an argument of the wrong shape, dtype, device or stride.
    """
    check = Arguments("attention", q.device)
    check.tensor("q", q, (None, None, None, None), FLOATS)
    batch, heads, tokens, dim = q.shape
    check.batch("q", batch)
    check.value("q's head dim", dim, dim in HEAD_DIMS, "a multiple of 8 from 8 to 128")
    kv_heads = k.shape[1] if k.ndim == 4 else 0
    check.value("k's head count", kv_heads, bool(kv_heads) and heads % kv_heads == 0, f"a divisor of q's {heads}")
    for name, own in (("k", k), ("v", v)):
        check.tensor(name, own, (batch, kv_heads, tokens, dim), (q.dtype,))
    prefix, past_steps = 0, (0, 0, 0)
    if past is not None:
        check.value("past's batch", past[0].shape[0], past[0].shape[0] in (1, batch), f"1 or {batch}")
        prefix = past[0].shape[2]
        for name, old in (("past k", past[0]), ("past v", past[1])):
            check.tensor(name, old, (past[0].shape[0], kv_heads, prefix, dim), (q.dtype,))
        steps = past[0].stride()
        check.value("past v's stride", past[1].stride(), past[1].stride() == steps, f"that of past k, {steps}")
        past_steps = (0 if past[0].shape[0] == 1 else steps[0], steps[1], steps[2])
    if ranges is not None:
        check.tensor("ranges", ranges, (tokens, 3), (torch.int32,), contiguous=True)
    groups = heads // kv_heads
    rows = tokens * groups
    if splits is None:
        splits = splits_for(rows, prefix)
    check.value("splits", splits, splits > 0 and splits & (splits - 1) == 0, "a power of two")
    if tile is None:
        tile = tuned(target, _tile_key(rows <= 16, dim))
    # Tokens before heads in memory, as the projection that follows reads them.
    out = torch.empty(batch, tokens, heads, dim, dtype=q.dtype, device=q.device).transpose(1, 2)
    if not out.numel():
        return out
    padded = power_of_two(dim)
    part_total, part_top = out, out
    if splits > 1:
        shape = (batch, heads, tokens, splits)
        part_total = torch.empty(*shape, dim, dtype=torch.float32, device=q.device)
        part_top = torch.empty(*shape, 2, dtype=torch.float32, device=q.device)
    attention_kernel[(cdiv(rows, tile.blocks["BLOCK_M"]), kv_heads * splits, batch)](
        q, k, v, *((k, v) if past is None else past), q if ranges is None else ranges, tokens, prefix,
        dim**-0.5 * _LOG2E, *q.stride()[:3], *k.stride()[:3], *v.stride()[:3], *past_steps, *out.stride()[:3],
        out, part_total, part_top,
        GROUPS=groups, HEAD=dim, DIM=padded, PREFIX=prefix > 0, RANGED=ranges is not None, SPLITS=splits,
        **tile.blocks, **tile.options,
    )  # fmt: skip
    if splits > 1:
        combine_kernel[(tokens, heads, batch)](
            part_total,
            part_top,
            tokens,
            *out.stride()[:3],
            out,
            HEAD=dim,
            DIM=padded,
            SPLITS=splits,
            **tuned(target, "attention.combine").options,
        )
    return out


def _tile_key(decode: bool, dim: int) -> str:
    if decode:
        return "attention.decode"
    return "attention.prefill.wide" if dim > 64 else "attention.prefill"


def variants() -> list[Variant]:
    """What is compiled ahead of time: uare-7b's decoder (d 128), SigLIP (d 72), d 64, and nano's assessment (d 32)."""
    found = []
    for dim, groups, kinds, dtypes in (
        (32, 5, ("prefill",), ("fp16",)),
        (64, 1, ("prefill", "decode"), ("fp16",)),
        (72, 1, ("full",), ("fp16", "bf16")),
        (128, 7, ("prefill", "full", "decode"), ("fp16", "bf16")),
    ):
        found += [_variant(kind, dim, groups, dtype) for dtype in dtypes for kind in kinds]
        if "decode" in kinds:
            found += [_combining(dim, dtype) for dtype in dtypes]
    return found


def _variant(kind: str, dim: int, groups: int, dtype: str) -> Variant:
    types = dict.fromkeys(("q", "k", "v", "past_k", "past_v"), f"*{dtype}")
    types |= {"ranges": "*i32", "tokens": "i32", "prefix": "i32", "scale": "fp32"}
    steps = [f"{name}_{axis}" for name in ("q", "k", "v", "past", "o") for axis in ("batch", "head", "token")]
    types |= dict.fromkeys(steps, "i32") | {"out": f"*{dtype}", "part_total": "*fp32", "part_top": "*fp32"}
    constants = {
        "GROUPS": groups, "HEAD": dim, "DIM": power_of_two(dim), "PREFIX": kind != "full" or dim == 128,
        "RANGED": kind == "prefill", "SPLITS": 4 if kind == "decode" else 1,
    }  # fmt: skip
    grid = ("cdiv(tokens * GROUPS, BLOCK_M)", "kv_heads * SPLITS", "batch")
    name = f"attention_{kind}_d{dim}_{dtype}"
    return Variant(
        name, attention_kernel, types, constants, _tile_key(kind == "decode", dim), grid, whole=_whole(steps, dim)
    )


def _combining(dim: int, dtype: str) -> Variant:
    types = {"part_total": "*fp32", "part_top": "*fp32", "tokens": "i32"}
    steps = [f"o_{axis}" for axis in ("batch", "head", "token")]
    types |= dict.fromkeys(steps, "i32") | {"out": f"*{dtype}"}
    constants = {"HEAD": dim, "DIM": power_of_two(dim), "SPLITS": 4}
    name = f"attention_combine_d{dim}_{dtype}"
    grid = ("tokens", "heads", "batch")
    return Variant(name, combine_kernel, types, constants, "attention.combine", grid, whole=_whole(steps, dim))


def _whole(steps: list[str], dim: int) -> tuple[str, ...]:
    """Strides are multiples of the head dim: of 16 elements where that is, which lets loads be wide."""
    return tuple(steps) if dim % 16 == 0 else ()
