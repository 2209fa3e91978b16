"""Mixture-of-transformers (MoT) layer: two experts, one softmax.

Every per-token operation (norms, projections, MLP) uses the weights of the token's expert; attention
mixes all tokens. The layer is that of BAGEL / UARE (arXiv 2505.14683, 2512.06750): pre-RMSNorm, grouped
query attention with RMS-normalised queries and keys, half-split rotary positions, SwiGLU. Both presets
use this one implementation with different configs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uare_rt.kernels import dispatch
from uare_rt.model.mot_config import MoTConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = [
    "Expert",
    "KVCache",
    "MoT",
    "MoTConfig",
    "RMSNorm",
    "Segment",
    "attend",
    "block_causal_mask",
    "rotary",
    "rotate",
]

Expert = Literal["und", "gen"]
_HIDDEN = -3e4  # added to scores that must not count; finite in fp16, zero after any softmax
_SCORES = 1 << 26  # held at once: 256 MiB in float32


@dataclass(frozen=True)
class Segment:
    """A run of ``length`` consecutive tokens that use the same expert."""

    expert: Expert
    length: int


@dataclass
class KVCache:
    """Keys and values of every layer, [layers, batch, kv_heads, tokens, head_dim] each.

    Keys are stored after normalisation and rotation, values as projected.
    """

    k: Tensor
    v: Tensor

    @property
    def tokens(self) -> int:
        """Number of cached tokens."""
        return self.k.shape[3]

    def layer(self, index: int) -> tuple[Tensor, Tensor]:
        """Keys and values of one layer, [batch, kv_heads, tokens, head_dim] each."""
        return self.k[index], self.v[index]

    def extended(self, other: KVCache) -> KVCache:
        """This cache followed by the tokens of ``other``."""
        return KVCache(torch.cat((self.k, other.k), dim=3), torch.cat((self.v, other.v), dim=3))

    def first(self, tokens: int) -> KVCache:
        """The cache of the first tokens; shares the memory."""
        return KVCache(self.k[..., :tokens, :], self.v[..., :tokens, :])


class RMSNorm(nn.Module):
    """Root mean square norm over the last axis, statistics in fp32 (arXiv 1910.07467)."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """[..., width] -> same shape and dtype."""
        wide = x.float()
        # A division, not a reciprocal: ONNX Runtime knows the norm by it, and runs it as one operator.
        wide = wide / torch.sqrt(wide.square().mean(dim=-1, keepdim=True) + self.eps)
        return self.weight * wide.to(x.dtype)


def rotary(positions: Tensor, head_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """Cosines and sines of half-split rotary positions (arXiv 2104.09864).

    Args:
        positions: integer [..., T].
        head_dim: width of a head.
        theta: frequency base; frequency j is ``theta ** (-2 j / head_dim)``.

    Returns:
        Two float32 [..., T, head_dim] tables (the two halves are equal).
    """
    exponent = torch.arange(0, head_dim, 2, dtype=torch.float32, device=positions.device) / head_dim
    angles = positions.float()[..., None] * theta**-exponent
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn heads [..., T, d] by `rotary`'s tables; with ``-sin``, back."""
    half = x.shape[-1] // 2
    turned = torch.cat((-x[..., half:], x[..., :half]), dim=-1)
    return (x.float() * cos + turned.float() * sin).to(x.dtype)


def _by_head(x: Tensor) -> Tensor:
    """[B, T, heads, d] -> [B, heads, T, d]. One head moves nothing, and nothing then merges with what comes next."""
    return x.squeeze(2).unsqueeze(1) if x.shape[2] == 1 else x.transpose(1, 2)


def block_causal_mask(blocks: Sequence[tuple[int, bool]]) -> Tensor:
    """Which new token each new token may see: a block sees itself and every earlier block.

    Args:
        blocks: (length, causal) in order; text blocks are causal inside, image blocks full.

    Returns:
        bool [T, T], true where attention is allowed. Cached tokens are visible to all.
    """
    total = sum(length for length, _ in blocks)
    allowed = torch.zeros(total, total, dtype=torch.bool)
    start = 0
    for length, causal in blocks:
        stop = start + length
        allowed[start:stop, :start] = True
        inside = torch.ones(length, length, dtype=torch.bool)
        allowed[start:stop, start:stop] = inside.tril() if causal else inside
        start = stop
    return allowed


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    past: tuple[Tensor, Tensor] | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    """Grouped query attention over own keys and a cached prefix, softmax in fp32.

    Every query sees the whole prefix, which may have batch 1 while the queries have
    many (windows that share one quality context): it is then never copied per window.

    Args:
        q: [B, heads, T, d].
        k: [B, kv_heads, T, d].
        v: [B, kv_heads, T, d].
        past: keys and values of the prefix, [B or 1, kv_heads, S, d] each.
        mask: bool, broadcastable to [B, kv_heads, groups, T, T], true where an own key may be seen.

    Queries are taken in chunks where there would be more than 2**26 scores; each query's result is the same. Never
    while a graph is recorded: it must not depend on the sizes it was recorded with.

    Returns:
        [B, heads, T, d].
    """
    batch, heads, length, _ = q.shape
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return _attend(q, k, v, past, mask)
    fused = dispatch.attention(q, k, v, past=past, mask=mask)
    if fused is not None:
        return fused
    keys = length + (0 if past is None else past[0].shape[2])
    step = max(1, _SCORES // (batch * heads * keys))
    if length <= step:
        return _attend(q, k, v, past, mask)
    parts = []
    for start in range(0, length, step):
        rows = slice(start, start + step)
        shared = mask is None or mask.shape[-2] == 1
        parts.append(_attend(q[:, :, rows], k, v, past, mask if shared else mask[..., rows, :]))
    return torch.cat(parts, dim=2)


def _attend(q: Tensor, k: Tensor, v: Tensor, past: tuple[Tensor, Tensor] | None, mask: Tensor | None) -> Tensor:
    batch, heads, length, dim = q.shape
    kv_heads = k.shape[1]
    groups = heads // kv_heads
    rows = q.reshape(batch, kv_heads, groups * length, dim) * dim**-0.5
    scores = _masked(rows @ k.transpose(-1, -2), mask, length)
    prefix = 0
    if past is not None:
        prefix = past[0].shape[2]
        scores = torch.cat((rows @ past[0].transpose(-1, -2), scores), dim=-1)
    weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(v.dtype)
    out = weights[..., prefix:] @ v
    if past is not None:
        out = out + weights[..., :prefix] @ past[1]
    return out.reshape(batch, heads, length, dim)


def _attend_each(
    q: Tensor, k: Tensor, v: Tensor, pasts: Sequence[tuple[Tensor, Tensor] | None], mask: Tensor | None
) -> Tensor:
    """Every entry of the batch with a prefix of its own: nothing is padded to the longest."""
    entries = zip(*(t.split(1) for t in (q, k, v)), pasts, strict=True)
    return torch.cat([attend(*own, past=past, mask=mask) for *own, past in entries])


def _masked(scores: Tensor, mask: Tensor | None, length: int) -> Tensor:
    if mask is None:
        return scores
    batch, kv_heads, rows, keys = scores.shape
    bias = torch.zeros_like(mask, dtype=scores.dtype).masked_fill(~mask, _HIDDEN)
    return (scores.reshape(batch, kv_heads, rows // length, length, keys) + bias).reshape(scores.shape)


class ExpertLayer(nn.Module):
    """Weights of one expert in one layer."""

    def __init__(self, config: MoTConfig) -> None:
        super().__init__()
        width, kv_width = config.heads * config.head_dim, config.kv_heads * config.head_dim
        self.input_norm = RMSNorm(config.hidden, config.eps)
        self.q = nn.Linear(config.hidden, width, bias=config.qkv_bias)
        self.k = nn.Linear(config.hidden, kv_width, bias=config.qkv_bias)
        self.v = nn.Linear(config.hidden, kv_width, bias=config.qkv_bias)
        self.o = nn.Linear(width, config.hidden, bias=False)
        self.q_norm = RMSNorm(config.head_dim, config.eps)
        self.k_norm = RMSNorm(config.head_dim, config.eps)
        self.mlp_norm = RMSNorm(config.hidden, config.eps)
        self.gate = nn.Linear(config.hidden, config.mlp, bias=False)
        self.up = nn.Linear(config.hidden, config.mlp, bias=False)
        self.down = nn.Linear(config.mlp, config.hidden, bias=False)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """[B, T, hidden] -> normalised q [B, T, heads, d], k and v [B, T, kv_heads, d]."""
        x = self.input_norm(x)
        heads = (*x.shape[:2], -1, self.q_norm.weight.shape[0])
        q, k, v = (linear(x).reshape(heads) for linear in (self.q, self.k, self.v))
        return self.q_norm(q), self.k_norm(k), v

    def feed_forward(self, x: Tensor) -> Tensor:
        """SwiGLU of the normalised stream, [B, T, hidden] -> same (arXiv 2002.05202)."""
        x = self.mlp_norm(x)
        return self.down(F.silu(self.gate(x)) * self.up(x))


class MoTLayer(nn.Module):
    """One layer: routed projections, shared attention, routed SwiGLU.

    Attributes:
        fusable: whether the weights are tensors that a fused kernel can take, neither quantised nor loaded at call.
    """

    fusable = True

    def __init__(self, config: MoTConfig) -> None:
        super().__init__()
        self.und = ExpertLayer(config)
        self.gen = ExpertLayer(config)

    def _route(self, segments: Sequence[Segment], apply: Callable[[ExpertLayer, slice], Tensor]) -> Tensor:
        parts, start = [], 0
        for segment in segments:
            parts.append(apply(getattr(self, segment.expert), slice(start, start + segment.length)))
            start += segment.length
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def forward(
        self,
        x: Tensor,
        segments: Sequence[Segment],
        rope: tuple[Tensor, Tensor] | None,
        past: tuple[Tensor, Tensor] | list[tuple[Tensor, Tensor] | None] | None = None,
        mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Run the layer.

        Args:
            x: residual stream [B, T, hidden].
            segments: the experts of the T tokens, in order.
            rope: cosines and sines [T, head_dim] or [B, 1, T, head_dim], see `rotary`; None: all at position 0.
            past: cached keys and values of this layer, [B or 1, kv_heads, S, d]; or a list of one [1, kv_heads, S, d]
                or None for each entry of the batch.
            mask: see `attend`.

        Returns:
            The new stream, and the keys and values of the T tokens, [B, kv_heads, T, d].
        """
        if self.fusable:
            fused = dispatch.layer(self, x, segments, rope, past, mask)
            if fused is not None:
                return fused
        projected = [
            getattr(self, s.expert).project(part)
            for s, part in zip(segments, x.split([s.length for s in segments], dim=1), strict=True)
        ]
        q, k, v = (
            _by_head(parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)) for parts in zip(*projected, strict=True)
        )
        if rope is not None:
            q, k = rotate(q, *rope), rotate(k, *rope)
        mixed = _attend_each(q, k, v, past, mask) if isinstance(past, list) else attend(q, k, v, past=past, mask=mask)
        mixed = mixed.transpose(1, 2).flatten(2)
        x = x + self._route(segments, lambda expert, rows: expert.o(mixed[:, rows]))
        x = x + self._route(segments, lambda expert, rows: expert.feed_forward(x[:, rows]))
        return x, k, v


class MoT(nn.Module):
    """A stack of `MoTLayer` with the experts' final norms."""

    def __init__(self, config: MoTConfig) -> None:
        super().__init__()
        self.config = config
        self.layers = nn.ModuleList(MoTLayer(config) for _ in range(config.layers))
        self.und_norm = RMSNorm(config.hidden, config.eps)
        self.gen_norm = RMSNorm(config.hidden, config.eps)

    def final_norm(self, x: Tensor, segments: Sequence[Segment]) -> Tensor:
        """Final RMSNorm of each token's expert, [B, T, hidden] -> same."""
        norms = {"und": self.und_norm, "gen": self.gen_norm}
        parts = x.split([s.length for s in segments], dim=1)
        normed = [norms[s.expert](part) for s, part in zip(segments, parts, strict=True)]
        return normed[0] if len(normed) == 1 else torch.cat(normed, dim=1)

    def forward(
        self,
        x: Tensor,
        segments: Sequence[Segment],
        positions: Tensor,
        cache: KVCache | None = None,
        mask: Tensor | None = None,
    ) -> tuple[Tensor, KVCache]:
        """Run all layers over new tokens that see the cache and, by the mask, each other.

        Args:
            x: input embeddings [B, T, hidden].
            segments: the experts of the T tokens.
            positions: integer rotary positions [T].
            cache: what came before, or None.
            mask: bool [T, T] over the new tokens; None lets every token see everything.

        Returns:
            The hidden states after the final norm [B, T, hidden] and the cache of the T new tokens alone.
        """
        keys, values = [], []
        for stream, k, v in self.streams(x, segments, positions, cache, mask):
            x = stream
            keys.append(k)
            values.append(v)
        return self.final_norm(x, segments), KVCache(torch.stack(keys), torch.stack(values))

    def streams(
        self,
        x: Tensor,
        segments: Sequence[Segment],
        positions: Tensor,
        cache: KVCache | list[KVCache | None] | None = None,
        mask: Tensor | None = None,
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """The residual stream, keys and values after each layer in turn.

        Arguments as for `forward`; or positions [B, T] and a list of caches, one or None for each entry of the
        batch.
        """
        rope = rotary(positions, self.config.head_dim, self.config.rope_theta)
        if positions.ndim == 2:
            rope = (rope[0][:, None], rope[1][:, None])

        def prefix(cache: KVCache | None, index: int) -> tuple[Tensor, Tensor] | None:
            if cache is None:
                return None
            k, v = cache.layer(index)
            return (k, v) if k.dtype == x.dtype else (k.to(x.dtype), v.to(x.dtype))

        for index, layer in enumerate(self.layers):
            past = [prefix(one, index) for one in cache] if isinstance(cache, list) else prefix(cache, index)
            x, k, v = layer(x, segments, rope, past, mask)
            yield x, k, v
