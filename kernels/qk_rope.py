"""RMS-normalised queries and keys with rotary positions, and the write to the cache, in one pass.

``y = rope(w[expert] x / sqrt(mean(x^2) + eps))`` per head, half-split rotation (arXiv 2104.09864); values are copied.
Reads the projections as [B, T, heads, d] and writes heads before tokens, as attention and the cache have them.
Everything between reading and writing is fp32.
"""

from __future__ import annotations

from dataclasses import dataclass
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

__all__ = ["Cache", "Norms", "reference", "run", "variants"]


@dataclass(frozen=True)
class Norms:
    """Weights of the und and the gen expert, [d] each, and the epsilon."""

    q: tuple[Tensor, Tensor]
    k: tuple[Tensor, Tensor]
    eps: float


@dataclass(frozen=True)
class Cache:
    """Where keys and values go: [B, kv_heads, capacity, d] each, of equal strides, from token ``start`` on."""

    k: Tensor
    v: Tensor
    start: int = 0


def reference(
    q: Tensor, k: Tensor, v: Tensor, norms: Norms, rope: tuple[Tensor, Tensor], runs: tuple[Run, ...], cache: Cache
) -> Tensor:
    """What `run` computes, in plain torch; fp32 or wider between reading and writing."""

    def turned(x: Tensor, weights: tuple[Tensor, Tensor]) -> Tensor:
        wide = x if x.dtype == torch.float64 else x.float()
        wide = wide * torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + norms.eps)
        parts = wide.split([run.length for run in runs], dim=1)
        wide = torch.cat([weights[run.expert] * part for run, part in zip(runs, parts, strict=True)], dim=1)
        wide = wide.transpose(1, 2)
        half = wide.shape[-1] // 2
        other = torch.cat((-wide[..., half:], wide[..., :half]), dim=-1)
        return (wide * rope[0] + other * rope[1]).to(x.dtype)

    stop = cache.start + k.shape[1]
    cache.k[:, :, cache.start : stop] = turned(k, norms.k)
    cache.v[:, :, cache.start : stop] = v.transpose(1, 2)
    return turned(q, norms.q)


@triton.jit
def _half_sums(x, HALF: tl.constexpr, PADDED: tl.constexpr, live):
    """Both halves of rows of one head, fp32, and the sum of their squares."""
    columns = tl.arange(0, PADDED)
    inside = live[:, None] & (columns < HALF)[None, :]
    low = tl.load(x + columns[None, :], mask=inside, other=0.0).to(tl.float32)
    high = tl.load(x + HALF + columns[None, :], mask=inside, other=0.0).to(tl.float32)
    return low, high, tl.sum(low * low + high * high, axis=1)


@triton.jit
def qk_rope_kernel(
    q, k, v, q_und, q_gen, k_und, k_gen, cosines, sines, table, eps, start, rope_token,
    q_batch, q_token, k_batch, k_token, v_batch, v_token, o_batch, o_head, o_token, c_batch, c_head, c_token,
    q_out, k_cache, v_cache,
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, HALF: tl.constexpr, PADDED: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """One block of rows of one expert, one head of queries, keys or values."""
    head = tl.program_id(1)
    batch = tl.program_id(2).to(tl.int64)
    entry = table + tl.program_id(0) * 3
    rows = tl.load(entry) + tl.arange(0, ROWS)
    live = rows < tl.load(entry + 1)
    expert = tl.load(entry + 2)
    columns = tl.arange(0, PADDED)
    inside = live[:, None] & (columns < HALF)[None, :]
    slots = ((start + rows) * c_token)[:, None] + columns[None, :]
    if head >= HEADS + KV_HEADS:
        head -= HEADS + KV_HEADS
        source = v + batch * v_batch + head * 2 * HALF + rows[:, None] * v_token
        low, high, _ = _half_sums(source, HALF, PADDED, live)
        place = v_cache + batch * c_batch + head * c_head + slots
        tl.store(place, low.to(v_cache.dtype.element_ty), mask=inside)
        tl.store(place + HALF, high.to(v_cache.dtype.element_ty), mask=inside)
    else:
        source = q + batch * q_batch + head * 2 * HALF + rows[:, None] * q_token
        place = q_out + batch * o_batch + head * o_head + (rows * o_token)[:, None] + columns[None, :]
        weights = q_und
        if expert == 1:
            weights = q_gen
        if head >= HEADS:
            head -= HEADS
            source = k + batch * k_batch + head * 2 * HALF + rows[:, None] * k_token
            place = k_cache + batch * c_batch + head * c_head + slots
            weights = k_und
            if expert == 1:
                weights = k_gen
        low, high, squares = _half_sums(source, HALF, PADDED, live)
        factor = tl.rsqrt(squares / (2 * HALF) + eps)[:, None]
        low *= factor * tl.load(weights + columns, mask=columns < HALF, other=0.0).to(tl.float32)[None, :]
        high *= factor * tl.load(weights + HALF + columns, mask=columns < HALF, other=0.0).to(tl.float32)[None, :]
        turn = (rows * rope_token)[:, None] + columns[None, :]
        cosine = tl.load(cosines + turn, mask=inside, other=0.0)
        sine = tl.load(sines + turn, mask=inside, other=0.0)
        tl.store(place, (low * cosine - high * sine).to(q_out.dtype.element_ty), mask=inside)
        tl.store(place + HALF, (high * cosine + low * sine).to(q_out.dtype.element_ty), mask=inside)


def run(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    norms: Norms,
    rope: tuple[Tensor, Tensor],
    runs: tuple[Run, ...],
    cache: Cache,
    *,
    target: str,
    tile: Tile | None = None,
) -> Tensor:
    """Finish queries and keys and put keys and values into a cache.

    Args:
        q: projections, fp16, bf16 or fp32 [B, T, heads, d], d even; the last two axes contiguous.
        k: same dtype, [B, T, kv_heads, d].
        v: as k.
        norms: weights in the dtype of q.
        rope: cosines and sines, fp32 [T, d] or [1, d] each, the second half of d as the first.
        runs: whose tokens they are; lengths sum to T.
        cache: written from its ``start`` on; same dtype.
        target: whose tiles to use, one of `uare_rt.kernels.tiles.TARGETS`.
        tile: other block sizes.

    Returns:
        The queries [B, heads, T, d].

    Raises:
        UsageError: an argument of the wrong shape, dtype, device or stride, or a cache that is too short.
    """
    check = Arguments("qk rope", q.device)
    check.tensor("q", q, (None, None, None, None), FLOATS)
    batch, tokens, heads, dim = q.shape
    check.batch("q", batch)
    check.value("q's head dim", dim, dim % 2 == 0, "even")
    kv_heads = k.shape[2] if k.ndim == 4 else 0
    for name, part, count in (("q", q, heads), ("k", k, kv_heads), ("v", v, kv_heads)):
        check.tensor(name, part, (batch, tokens, count, dim), (q.dtype,))
        check.value(f"{name}'s stride", part.stride(), count < 2 or part.stride(2) == dim, "dense in the last two axes")
    for name, weights in (("q norm", norms.q), ("k norm", norms.k)):
        for weight in weights:
            check.tensor(name, weight, (dim,), (q.dtype,), contiguous=True)
    rows = rope[0].shape[0]
    check.value("rope's length", rows, rows in (1, tokens), f"1 or {tokens}")
    for name, table in zip(("cosines", "sines"), rope, strict=True):
        check.tensor(name, table, (rows, dim), (torch.float32,), contiguous=True)
    total = sum(run.length for run in runs)
    check.value("the runs' length", total, total == tokens, f"q's {tokens} tokens")
    capacity = cache.k.shape[2] if cache.k.ndim == 4 else 0
    for name, part in (("cache k", cache.k), ("cache v", cache.v)):
        check.tensor(name, part, (batch, kv_heads, capacity, dim), (q.dtype,))
    steps = cache.k.stride()
    check.value("cache v's stride", cache.v.stride(), cache.v.stride() == steps, f"that of cache k, {steps}")
    fits = cache.start >= 0 and cache.start + tokens <= capacity
    check.value("the cache's start", cache.start, fits, f"0 to {capacity - tokens} for {tokens} tokens of {capacity}")
    if tile is None:
        tile = tuned(target, "qk_rope")
    out = torch.empty(batch, heads, tokens, dim, dtype=q.dtype, device=q.device)
    if not out.numel():
        return out
    blocks = block_table(runs, tile.blocks["ROWS"], q.device)
    qk_rope_kernel[(blocks.shape[0], heads + 2 * kv_heads, batch)](
        q, k, v, *norms.q, *norms.k, *rope, blocks, norms.eps, cache.start, 0 if rows == 1 else dim,
        *q.stride()[:2], *k.stride()[:2], *v.stride()[:2], *out.stride()[:3], *steps[:3],
        out, cache.k, cache.v,
        HEADS=heads, KV_HEADS=kv_heads, HALF=dim // 2, PADDED=power_of_two(dim // 2), **tile.blocks, **tile.options,
    )  # fmt: skip
    return out


def variants() -> list[Variant]:
    """What is compiled ahead of time: the layers of uare-nano and uare-7b."""
    return [_variant(32, 5, 1, "fp16"), _variant(128, 28, 4, "fp16"), _variant(128, 28, 4, "bf16")]


def _variant(dim: int, heads: int, kv_heads: int, dtype: str) -> Variant:
    tensors = ("q", "k", "v", "q_und", "q_gen", "k_und", "k_gen")
    types = dict.fromkeys(tensors, f"*{dtype}") | {"cosines": "*fp32", "sines": "*fp32", "table": "*i32", "eps": "fp32"}
    steps = ["rope_token", *(f"{name}_{axis}" for name in ("q", "k", "v") for axis in ("batch", "token"))]
    steps += [f"{name}_{axis}" for name in ("o", "c") for axis in ("batch", "head", "token")]
    types |= {"start": "i32"} | dict.fromkeys(steps, "i32")
    types |= dict.fromkeys(("q_out", "k_cache", "v_cache"), f"*{dtype}")
    constants = {"HEADS": heads, "KV_HEADS": kv_heads, "HALF": dim // 2, "PADDED": power_of_two(dim // 2)}
    grid = ("blocks", "HEADS + 2 * KV_HEADS", "batch")
    return Variant(f"qk_rope_d{dim}_{dtype}", qk_rope_kernel, types, constants, "qk_rope", grid, whole=tuple(steps))
