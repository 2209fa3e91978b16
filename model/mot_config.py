"""Dimensions of a mixture-of-transformers decoder; needs no PyTorch."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["MoTConfig"]


@dataclass(frozen=True)
class MoTConfig:
    """Dimensions of a mixture-of-transformers decoder.

    Attributes:
        hidden: width of the residual stream.
        layers: number of layers.
        heads: query heads.
        kv_heads: key/value heads; ``heads`` is a multiple of it (grouped query attention).
        head_dim: width of one head, even.
        mlp: inner width of the SwiGLU.
        eps: epsilon of every RMSNorm.
        rope_theta: base of the rotary frequencies.
        qkv_bias: whether q, k and v projections carry a bias.
    """

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp: int
    eps: float = 1e-6
    rope_theta: float = 1e6
    qkv_bias: bool = True

    def __post_init__(self) -> None:
        if self.heads % self.kv_heads:
            raise ValueError(f"heads ({self.heads}) must be a multiple of kv_heads ({self.kv_heads})")
        if self.head_dim % 2:
            raise ValueError(f"head_dim must be even for rotary positions, not {self.head_dim}")
