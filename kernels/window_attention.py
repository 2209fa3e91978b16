"""Windowed attention with shared quality-context keys: the generator of uare-nano.

Every token of a window of T tokens sees the quality context and the tokens of its own window that are inside the
picture: ``softmax(scale q [ctx_k, k]^T) [ctx_v, v]``, as in windowed transformers (arXiv 2103.14030) with a
prefix. A program takes several windows at once, so that the context is read once for all of them and the
matrix products have rows enough; windows are kept apart by a mask.
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

__all__ = ["MAX_CONTEXT", "MAX_TOKENS", "reference", "run", "variants"]

MAX_CONTEXT = 128  # keys of the context that a program holds at once
MAX_TOKENS = 64  # tokens of a window, a power of two
_USUAL = 16  # tokens of the windows that tiles count
_LOG2E = 1.4426950408889634


def reference(q: Tensor, k: Tensor, v: Tensor, context: tuple[Tensor, Tensor], valid: Tensor) -> Tensor:
    """What `run` computes, in plain torch and the precision of its arguments."""
    windows, heads, _, dim = q.shape
    groups = heads // k.shape[1]
    per_context = windows // context[0].shape[0]
    old_k, old_v = (part.repeat_interleave(per_context, dim=0) for part in context)
    keys = torch.cat((old_k, k), dim=2).repeat_interleave(groups, dim=1)
    values = torch.cat((old_v, v), dim=2).repeat_interleave(groups, dim=1)
    scores = (q @ keys.transpose(-1, -2)) * dim**-0.5
    seen = torch.cat((valid.new_ones(windows, old_k.shape[2]), valid), dim=1)[:, None, None]
    return torch.softmax(scores.masked_fill(~seen, float("-inf")), dim=-1) @ values


@triton.jit
def window_attention_kernel(
    q, k, v, context_k, context_v, valid, per_context, length, scale,
    q_window, q_head, q_token, k_window, k_head, k_token, v_window, v_head, v_token,
    c_batch, c_head, c_token, o_window, o_head, o_token, out,
    GROUPS: tl.constexpr, TOKENS: tl.constexpr, HEAD: tl.constexpr, DIM: tl.constexpr, KEYS: tl.constexpr,
    WINDOWS: tl.constexpr,
):  # fmt: skip
    """Some windows of one context, one key head."""
    kv_head = tl.program_id(1)
    context = tl.program_id(2).to(tl.int64)
    rows = tl.arange(0, WINDOWS * TOKENS)
    inner = rows // TOKENS
    local = tl.program_id(0) * WINDOWS + inner
    window = context * per_context + local
    token = rows % TOKENS
    live = local < per_context
    d = tl.arange(0, DIM)
    keys = tl.arange(0, KEYS)
    known = (keys < length)[:, None] & (d < HEAD)[None, :]
    old_k = tl.load(
        context_k + context * c_batch + kv_head * c_head + keys[:, None] * c_token + d[None, :], mask=known, other=0.0
    )
    old_v = tl.load(
        context_v + context * c_batch + kv_head * c_head + keys[:, None] * c_token + d[None, :], mask=known, other=0.0
    )
    inside = live[:, None] & (d < HEAD)[None, :]
    shown = tl.load(valid + window * TOKENS + token, mask=live, other=0) != 0
    # What is hidden may be anything, not a number too, which a weight of zero would not remove: it is not read.
    visible = shown[:, None] & (d < HEAD)[None, :]
    place = k + window[:, None] * k_window + kv_head * k_head + token[:, None] * k_token + d[None, :]
    own_k = tl.load(place, mask=visible, other=0.0)
    place = v + window[:, None] * v_window + kv_head * v_head + token[:, None] * v_token + d[None, :]
    own_v = tl.load(place, mask=visible, other=0.0)
    mine = (inner[:, None] == inner[None, :]) & shown[None, :]
    for group in range(GROUPS):
        head = kv_head * GROUPS + group
        place = q + window[:, None] * q_window + head * q_head + token[:, None] * q_token + d[None, :]
        query = tl.load(place, mask=inside, other=0.0)
        far = tl.dot(query, tl.trans(old_k), input_precision="ieee") * scale
        far = tl.where((keys < length)[None, :], far, float("-inf"))
        near = tl.dot(query, tl.trans(own_k), input_precision="ieee") * scale
        near = tl.where(mine, near, float("-inf"))
        top = tl.maximum(tl.max(far, axis=1), tl.max(near, axis=1))
        far = tl.exp2(far - top[:, None])
        near = tl.exp2(near - top[:, None])
        total = tl.dot(far.to(old_v.dtype), old_v, input_precision="ieee")
        total = tl.dot(near.to(own_v.dtype), own_v, total, input_precision="ieee")
        total = total / (tl.sum(far, axis=1) + tl.sum(near, axis=1))[:, None]
        place = out + window[:, None] * o_window + head * o_head + token[:, None] * o_token + d[None, :]
        tl.store(place, total.to(out.dtype.element_ty), mask=inside)


def run(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    context: tuple[Tensor, Tensor],
    valid: Tensor,
    *,
    target: str,
    tile: Tile | None = None,
) -> Tensor:
    """Attention within windows and to a context.

    Args:
        q: fp16, bf16 or fp32 [W, heads, T, d], T a power of two up to 64, d a multiple of 8 up to 128.
        k: same dtype, [W, kv_heads, T, d].
        v: as k.
        context: keys and values [C, kv_heads, S, d] each, of equal strides, 1 <= S <= 128; the W windows come in
            C equal runs, one per context.
        valid: bool [W, T], false for tokens outside the picture, which no token sees.
        target: whose tiles to use, one of `uare_rt.kernels.tiles.TARGETS`.
        tile: other block sizes.

    Returns:
        [W, heads, T, d], dtype of q; rows of tokens outside the picture hold what they see, as all others.

    Raises:
        UsageError: an argument of the wrong shape, dtype, device or stride.
    """
    check = Arguments("window attention", q.device)
    check.tensor("q", q, (None, None, None, None), FLOATS)
    windows, heads, tokens, dim = q.shape
    check.value("q's head dim", dim, dim % 8 == 0 and 8 <= dim <= 128, "a multiple of 8 from 8 to 128")
    whole = tokens & (tokens - 1) == 0 and 0 < tokens <= MAX_TOKENS
    check.value("q's token count", tokens, whole, f"a power of two up to {MAX_TOKENS}")
    kv_heads = k.shape[1] if k.ndim == 4 else 0
    check.value("k's head count", kv_heads, bool(kv_heads) and heads % kv_heads == 0, f"a divisor of q's {heads}")
    for name, own in (("k", k), ("v", v)):
        check.tensor(name, own, (windows, kv_heads, tokens, dim), (q.dtype,))
    contexts, length = context[0].shape[0], context[0].shape[2]
    check.value("the context's batch", contexts, bool(contexts) and windows % contexts == 0, f"a divisor of {windows}")
    check.value("the context's length", length, 0 < length <= MAX_CONTEXT, f"1 to {MAX_CONTEXT}")
    for name, old in (("context k", context[0]), ("context v", context[1])):
        check.tensor(name, old, (contexts, kv_heads, length, dim), (q.dtype,))
    steps = context[0].stride()
    check.value("context v's stride", context[1].stride(), context[1].stride() == steps, f"that of context k, {steps}")
    check.tensor("valid", valid, (windows, tokens), (torch.bool,), contiguous=True)
    if tile is None:
        tile = tuned(target, "attention.window")
    out = torch.empty(windows, tokens, heads, dim, dtype=q.dtype, device=q.device).transpose(1, 2)
    if not windows:
        return out
    per_context = windows // contexts
    # As many rows for windows of any size, but sixteen at least, which matrix products need.
    count = max(min(tile.blocks["WINDOWS"] * _USUAL // tokens, power_of_two(per_context, 1)), cdiv(16, tokens))
    window_attention_kernel[(cdiv(per_context, count), kv_heads, contexts)](
        q, k, v, *context, valid.view(torch.uint8), per_context, length, dim**-0.5 * _LOG2E,
        *q.stride()[:3], *k.stride()[:3], *v.stride()[:3], *steps[:3], *out.stride()[:3], out,
        GROUPS=heads // kv_heads, TOKENS=tokens, HEAD=dim, DIM=power_of_two(dim), KEYS=power_of_two(length),
        WINDOWS=count, **tile.options,
    )  # fmt: skip
    return out


def variants() -> list[Variant]:
    """What is compiled ahead of time: the generator of uare-nano, one key head of 32 and five query heads."""
    types = dict.fromkeys(("q", "k", "v", "context_k", "context_v"), "*fp16") | {"valid": "*u8"}
    types |= {"per_context": "i32", "length": "i32", "scale": "fp32"}
    axes = {"q": "window", "k": "window", "v": "window", "c": "batch", "o": "window"}
    steps = [f"{name}_{axis}" for name, first in axes.items() for axis in (first, "head", "token")]
    types |= dict.fromkeys(steps, "i32") | {"out": "*fp16"}
    constants = {"GROUPS": 5, "TOKENS": 16, "HEAD": 32, "DIM": 32, "KEYS": 64}
    grid = ("cdiv(per_context, WINDOWS)", "kv_heads", "contexts")
    name, kernel = "attention_window_d32_fp16", window_attention_kernel
    return [Variant(name, kernel, types, constants, "attention.window", grid, whole=tuple(steps))]
