"""The cache of keys and values in fewer bytes: fp16, or int8 with a scale per token and head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from uare_rt.model.mot import KVCache

if TYPE_CHECKING:
    from torch import Tensor

    from uare_rt.model.memory import CacheType

__all__ = ["Int8KVCache", "stored"]

_LARGEST = 127


def _quantised(x: Tensor) -> tuple[Tensor, Tensor]:
    wide = x.float()
    scale = wide.abs().amax(dim=-1, keepdim=True) / _LARGEST
    # All zeros have a scale of zero, and stay zeros.
    return (wide / scale.clamp(min=torch.finfo(torch.float32).tiny)).round().to(torch.int8), scale


@dataclass
class Int8KVCache:
    """Keys and values as int8, one scale for each token and head of a layer.

    Attributes:
        k: int8 [layers, batch, kv_heads, tokens, head_dim].
        v: as ``k``.
        k_scale: float32 [layers, batch, kv_heads, tokens, 1].
        v_scale: as ``k_scale``.
        dtype: what layers are given back in.
    """

    k: Tensor
    v: Tensor
    k_scale: Tensor
    v_scale: Tensor
    dtype: torch.dtype

    @classmethod
    def of(cls, cache: KVCache) -> Int8KVCache:
        """Quantise a cache."""
        k, k_scale = _quantised(cache.k)
        v, v_scale = _quantised(cache.v)
        return cls(k, v, k_scale, v_scale, cache.k.dtype)

    @property
    def tokens(self) -> int:
        """Number of cached tokens."""
        return self.k.shape[3]

    def layer(self, index: int) -> tuple[Tensor, Tensor]:
        """Keys and values of one layer, [batch, kv_heads, tokens, head_dim] each, dequantised for this call."""
        k, v = (
            (x[index] * scale[index]).to(self.dtype) for x, scale in ((self.k, self.k_scale), (self.v, self.v_scale))
        )
        return k, v

    def extended(self, other: Int8KVCache) -> Int8KVCache:
        """This cache followed by the tokens of ``other``."""
        pairs = zip(self._parts(), other._parts(), strict=True)
        return Int8KVCache(*(torch.cat(pair, dim=3) for pair in pairs), self.dtype)

    def first(self, tokens: int) -> Int8KVCache:
        """The cache of the first tokens; shares the memory."""
        return Int8KVCache(*(part[..., :tokens, :] for part in self._parts()), self.dtype)

    def _parts(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return self.k, self.v, self.k_scale, self.v_scale


def stored(cache: KVCache, kind: CacheType) -> KVCache | Int8KVCache:
    """A cache as it is kept between passes: ``same`` keeps it, ``fp16`` and ``int8`` convert it."""
    if kind == "int8":
        return Int8KVCache.of(cache)
    return cache if kind == "same" else KVCache(cache.k.half(), cache.v.half())
