"""Attention with queries and keys in int8, a scale per block and smoothed keys (SageAttention, arXiv 2410.02367).

The mean key over all tokens is taken off every key: it adds the same to all scores of a row, which a softmax does not
see, and it is where most of the outliers are. Keys are quantised in blocks of 64 tokens, queries in the block that a
program holds; the product with the values stays in their type. Scores are only as fine as 127 steps per block: this
variant does not hold the error budget of the fp16 one (docs/kernels.md) and is taken by no dispatch; it is for callers
that ask for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from uare_rt.kernels import attention
from uare_rt.kernels.attention import HEAD_DIMS
from uare_rt.kernels.checks import FLOATS, Arguments
from uare_rt.kernels.jit import cdiv, power_of_two, tl, triton
from uare_rt.kernels.tiles import tile as tuned
from uare_rt.kernels.variants import Variant

if TYPE_CHECKING:
    from torch import Tensor

    from uare_rt.kernels.tiles import Tile

__all__ = ["KEY_BLOCK", "reference", "run", "variants"]

KEY_BLOCK = 64
_LOG2E = 1.4426950408889634

reference = attention.reference  # what it approximates


@triton.jit
def key_mean_kernel(
    k, keys, k_batch, k_head, k_token, mean, HEAD: tl.constexpr, DIM: tl.constexpr, BLOCK: tl.constexpr
):
    """The mean key of one head."""
    head, batch = tl.program_id(0), tl.program_id(1).to(tl.int64)
    d = tl.arange(0, DIM)
    total = tl.zeros((DIM,), tl.float32)
    k += batch * k_batch + head * k_head
    for start in range(0, keys, BLOCK):
        at = start + tl.arange(0, BLOCK)
        inside = (at < keys)[:, None] & (d < HEAD)[None, :]
        total += tl.sum(tl.load(k + at[:, None] * k_token + d[None, :], mask=inside, other=0.0).to(tl.float32), axis=0)
    tl.store(mean + (batch * tl.num_programs(0) + head) * HEAD + d, total / keys, mask=d < HEAD)


@triton.jit
def quantise_keys_kernel(
    k, mean, keys, k_batch, k_head, k_token, levels, scales, HEAD: tl.constexpr, DIM: tl.constexpr, BLOCK: tl.constexpr
):
    """One block of keys of one head."""
    head, batch = tl.program_id(1), tl.program_id(2).to(tl.int64)
    row = batch * tl.num_programs(1) + head
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    d = tl.arange(0, DIM)
    inside = (at < keys)[:, None] & (d < HEAD)[None, :]
    place = k + batch * k_batch + head * k_head + at[:, None] * k_token + d[None, :]
    values = tl.load(place, mask=inside, other=0.0).to(tl.float32)
    values -= tl.load(mean + row * HEAD + d, mask=d < HEAD, other=0.0)[None, :]
    values = tl.where(inside, values, 0.0)
    scale = tl.max(tl.max(tl.abs(values), axis=1), axis=0) / 127.0
    tl.store(scales + row * tl.num_programs(0) + tl.program_id(0), scale)
    values = values / tl.where(scale > 0.0, scale, 1.0)
    # To nearest, ties to even: adding 1.5 * 2**23 leaves no fraction in fp32.
    rounded = ((values + 12582912.0) - 12582912.0).to(tl.int8)
    tl.store(levels + (row * keys + at[:, None]) * HEAD + d[None, :], rounded, mask=inside)


@triton.jit
def attention_int8_kernel(
    q, levels, scales, v, ranges, tokens, keys, scale, q_batch, q_head, q_token, v_batch, v_head, v_token,
    o_batch, o_head, o_token, out,
    GROUPS: tl.constexpr, HEAD: tl.constexpr, DIM: tl.constexpr, RANGED: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """One block of rows of one key head; the last ``tokens`` keys are the queries' own."""
    kv_head, batch = tl.program_id(1), tl.program_id(2).to(tl.int64)
    row = batch * tl.num_programs(1) + kv_head
    rows = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    token, head = rows // GROUPS, kv_head * GROUPS + rows % GROUPS
    live = token < tokens
    d = tl.arange(0, DIM)
    inside = live[:, None] & (d < HEAD)[None, :]
    place = q + batch * q_batch + head[:, None] * q_head + token[:, None] * q_token + d[None, :]
    query = tl.load(place, mask=inside, other=0.0).to(tl.float32)
    step = tl.max(tl.max(tl.abs(query), axis=1), axis=0) / 127.0
    query = query / tl.where(step > 0.0, step, 1.0)
    query = ((query + 12582912.0) - 12582912.0).to(tl.int8)
    prefix = keys - tokens
    first = tl.load(ranges + token * 3, mask=live & RANGED, other=0)
    begin = tl.load(ranges + token * 3 + 1, mask=live & RANGED, other=0)
    end = tl.load(ranges + token * 3 + 2, mask=live & RANGED, other=0)
    total = tl.zeros((BLOCK_M, DIM), tl.float32)
    top = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    weight = tl.zeros((BLOCK_M,), tl.float32)
    levels += row * keys * HEAD
    scales += row * tl.cdiv(keys, BLOCK_N)
    v += batch * v_batch + kv_head * v_head
    stop = keys
    if RANGED:
        stop = prefix + tl.max(end, axis=0)
    for start in range(0, stop, BLOCK_N):
        at = start + tl.arange(0, BLOCK_N)
        held = (at < keys)[None, :] & (d < HEAD)[:, None]
        block = tl.load(levels + at[None, :] * HEAD + d[:, None], mask=held, other=0)
        scores = tl.dot(query, block).to(tl.float32) * (step * tl.load(scales + start // BLOCK_N) * scale)
        visible = (at < keys)[None, :]
        if RANGED:
            own = at - prefix
            near = (own[None, :] >= begin[:, None]) & (own[None, :] < end[:, None])
            visible = visible & ((own[None, :] < first[:, None]) | near | (own < 0)[None, :])
        scores = tl.where(visible, scores, float("-inf"))
        new_top = tl.maximum(top, tl.max(scores, axis=1))
        shift = tl.where(new_top == float("-inf"), 0.0, new_top)
        share = tl.exp2(scores - shift[:, None])
        fade = tl.exp2(top - shift)
        weight = weight * fade + tl.sum(share, axis=1)
        held = (at < keys)[:, None] & (d < HEAD)[None, :]
        values = tl.load(v + at[:, None] * v_token + d[None, :], mask=held, other=0.0)
        total = tl.dot(share.to(values.dtype), values, total * fade[:, None], input_precision="ieee")
        top = new_top
    total = total / tl.where(weight == 0.0, 1.0, weight)[:, None]
    place = out + batch * o_batch + head[:, None] * o_head + token[:, None] * o_token + d[None, :]
    tl.store(place, total.to(out.dtype.element_ty), mask=inside)


def run(
    q: Tensor, k: Tensor, v: Tensor, *, ranges: Tensor | None = None, target: str, tile: Tile | None = None
) -> Tensor:
    """Attention whose scores are computed in int8.

    Args:
        q: fp16, bf16 or fp32 [B, heads, T, d], d a multiple of 8 up to 128; the last axis contiguous.
        k: same dtype, [B, kv_heads, S + T, d]: a prefix of S keys that every query sees, then the queries' own.
        v: as k.
        ranges: over the own keys, see `uare_rt.kernels.attention.visible_ranges`; None lets every query see all.
        target: whose tiles to use, one of `uare_rt.kernels.tiles.TARGETS`.
        tile: other block sizes; BLOCK_N is 64.

    Returns:
        [B, heads, T, d], dtype of q.

    Raises:
        UsageError: an argument of the wrong shape, dtype, device or stride.
    """
    check = Arguments("attention int8", q.device)
    check.tensor("q", q, (None,) * 4, FLOATS)
    batch, heads, tokens, dim = q.shape
    check.batch("q", batch)
    check.value("q's head dim", dim, dim in HEAD_DIMS, "a multiple of 8 from 8 to 128")
    kv_heads, keys = (k.shape[1], k.shape[2]) if k.ndim == 4 else (0, 0)
    check.value("k's head count", kv_heads, bool(kv_heads) and heads % kv_heads == 0, f"a divisor of q's {heads}")
    check.value("k's length", keys, keys >= tokens, f"at least q's {tokens}")
    for name, part in (("k", k), ("v", v)):
        check.tensor(name, part, (batch, kv_heads, keys, dim), (q.dtype,))
    if ranges is not None:
        check.tensor("ranges", ranges, (tokens, 3), (torch.int32,), contiguous=True)
    if tile is None:
        tile = tuned(target, "attention.int8")
    check.value("BLOCK_N", tile.blocks["BLOCK_N"], tile.blocks["BLOCK_N"] == KEY_BLOCK, str(KEY_BLOCK))
    out = torch.empty(batch, tokens, heads, dim, dtype=q.dtype, device=q.device).transpose(1, 2)
    if not out.numel():
        return out
    groups, blocks = heads // kv_heads, cdiv(keys, KEY_BLOCK)
    sizes = {"HEAD": dim, "DIM": power_of_two(dim, 32)}
    mean = torch.empty(batch, kv_heads, dim, dtype=torch.float32, device=q.device)
    levels = torch.empty(batch, kv_heads, keys, dim, dtype=torch.int8, device=q.device)
    scales = torch.empty(batch, kv_heads, blocks, dtype=torch.float32, device=q.device)
    steps = k.stride()[:3]
    first = tuned(target, "attention.keys")
    options = {**sizes, **first.blocks, **first.options}
    key_mean_kernel[(kv_heads, batch)](k, keys, *steps, mean, **options)
    quantise_keys_kernel[(blocks, kv_heads, batch)](k, mean, keys, *steps, levels, scales, **options)
    attention_int8_kernel[(cdiv(tokens * groups, tile.blocks["BLOCK_M"]), kv_heads, batch)](
        q, levels, scales, v, scales if ranges is None else ranges, tokens, keys, dim**-0.5 * _LOG2E, *q.stride()[:3],
        *v.stride()[:3], *out.stride()[:3], out, GROUPS=groups, RANGED=ranges is not None, **sizes, **tile.blocks,
        **tile.options,
    )  # fmt: skip
    return out


def variants() -> list[Variant]:
    """What is compiled ahead of time: the heads of uare-7b."""
    return [part for dtype in ("fp16", "bf16") for part in _variants(128, 7, dtype)]


def _variants(dim: int, groups: int, dtype: str) -> list[Variant]:
    def strides(*names: str) -> list[str]:
        return [f"{name}_{axis}" for name in names for axis in ("batch", "head", "token")]

    sizes = {"HEAD": dim, "DIM": power_of_two(dim)}
    keys = {"k": f"*{dtype}"} | dict.fromkeys(["keys", *strides("k")], "i32")
    quantise = {"k": f"*{dtype}", "mean": "*fp32"} | dict.fromkeys(["keys", *strides("k")], "i32")
    quantise |= {"levels": "*i8", "scales": "*fp32"}
    types = {"q": f"*{dtype}", "levels": "*i8", "scales": "*fp32", "v": f"*{dtype}", "ranges": "*i32"}
    types |= {"tokens": "i32", "keys": "i32", "scale": "fp32"} | dict.fromkeys(strides("q", "v", "o"), "i32")
    types |= {"out": f"*{dtype}"}
    constants = {"GROUPS": groups, "RANGED": True, **sizes}
    tail, whole = f"d{dim}_{dtype}", tuple(strides("k"))
    grid = ("cdiv(tokens * GROUPS, BLOCK_M)", "kv_heads", "batch")
    return [
        Variant(
            f"key_mean_{tail}", key_mean_kernel, keys | {"mean": "*fp32"}, sizes, "attention.keys",
            ("kv_heads", "batch", "1"), whole,
        ),
        Variant(
            f"quantise_keys_{tail}", quantise_keys_kernel, quantise, sizes, "attention.keys",
            ("cdiv(keys, BLOCK)", "kv_heads", "batch"), whole,
        ),
        Variant(
            f"attention_int8_{tail}", attention_int8_kernel, types, constants, "attention.int8", grid,
            tuple(strides("q", "v", "o")),
        ),
    ]  # fmt: skip
