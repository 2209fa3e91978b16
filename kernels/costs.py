"""What every operator must do at the least: bytes of memory traffic and operations, from its shapes alone.

Bytes are those of every input read once and every output written once; a multiply-add is two operations. The floor of a
kernel on a device is the longer of its bytes over the bandwidth and its operations over the peak rate. Operations
outside matrix products are left out: they are never what limits these kernels on the devices of the table.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "Cost",
    "attention",
    "changes",
    "emit",
    "flow_step",
    "gemm",
    "ingest",
    "modulated_conv",
    "modulation",
    "qk_rope",
    "routed_norm",
    "swiglu",
    "window_attention",
]

_HALF = 2  # bytes


@dataclass(frozen=True)
class Cost:
    """Of one call.

    Attributes:
        bytes: read and written at the least.
        operations: in 16-bit matrix products.
        eight_bit: operations in 8-bit ones.
    """

    bytes: int
    operations: int = 0
    eight_bit: int = 0

    @property
    def intensity(self) -> float:
        """Operations per byte."""
        return (self.operations + self.eight_bit) / self.bytes

    def floor(self, bandwidth: float, fp16: float, eight_bit: float) -> float:
        """Seconds at the least.

        Args:
            bandwidth: GB/s (10^9 bytes).
            fp16: 16-bit matrix products, 10^12 operations per second.
            eight_bit: 8-bit ones.
        """
        arithmetic = self.operations / (fp16 * 1e12) + self.eight_bit / (eight_bit * 1e12)
        return max(self.bytes / (bandwidth * 1e9), arithmetic)


def attention(tokens: int, prefix: int, heads: int, kv_heads: int, dim: int, *, pairs: int | None = None) -> Cost:
    """Batch 1.

    Args:
        tokens: new ones.
        prefix: cached ones.
        heads: of queries.
        kv_heads: of keys.
        dim: of a head.
        pairs: own tokens that the tokens see, summed; all if None.
    """
    seen = tokens * prefix + (tokens * tokens if pairs is None else pairs)
    moved = 2 * tokens * heads * dim + 2 * (tokens + prefix) * kv_heads * dim
    return Cost(moved * _HALF, 4 * seen * heads * dim)


def window_attention(windows: int, tokens: int, context: int, heads: int, kv_heads: int, dim: int) -> Cost:
    """Windows of so many tokens that share one context."""
    moved = 2 * windows * tokens * (heads + kv_heads) * dim + 2 * context * kv_heads * dim
    pairs = windows * tokens * (tokens + context)
    return Cost(moved * _HALF + windows * tokens, 4 * pairs * heads * dim)


def qk_rope(tokens: int, heads: int, kv_heads: int, dim: int) -> Cost:
    """With tables of cosines and sines for every token, in fp32, of which half is read."""
    return Cost(2 * tokens * (heads + 2 * kv_heads) * dim * _HALF + tokens * dim * 4 + 4 * dim * _HALF)


def routed_norm(tokens: int, width: int) -> Cost:
    """With the weights of both experts."""
    return Cost((2 * tokens + 2) * width * _HALF)


def swiglu(tokens: int, width: int, inner: int, experts: int = 2) -> Cost:
    """With the weights of so many experts."""
    moved = tokens * (width + inner) + 2 * experts * width * inner
    return Cost(moved * _HALF, 4 * tokens * width * inner)


def modulation(pixels: int, channels: int, *, residual: bool = False) -> Cost:
    """Of one picture."""
    return Cost(((2 + residual) * pixels + 2) * channels * _HALF)


def modulated_conv(pixels: int, inside: int, channels: int) -> Cost:
    """Of one picture."""
    moved = pixels * (inside + channels) + channels * (9 * inside + 3)
    return Cost(moved * _HALF, 18 * pixels * inside * channels)


def ingest(pixels: int, padded: int, *, nv12: bool = False) -> Cost:
    """Of one picture, to fp16."""
    return Cost((pixels * 3 // 2 if nv12 else pixels * 3) + padded * 3 * _HALF)


def emit(pixels: int, *, nv12: bool = False, original: bool = True) -> Cost:
    """Of one picture, from fp16."""
    return Cost(pixels * 3 * _HALF + (1 + original) * (pixels * 3 // 2 if nv12 else pixels * 3))


def changes(pixels: int, tiles: int) -> Cost:
    """Of two frames; the list and its length are written."""
    return Cost(2 * 3 * pixels + tiles * 20 + 4)


def gemm(rows: int, width: int, channels: int, weight_bits: int, *, int8: bool = False) -> Cost:
    """Quantised weights with scales and bias; ``int8``: quantised activations too."""
    weights = width * channels * weight_bits // 8
    scales = channels * (4 if weight_bits == 8 else -(-width // 128) * _HALF)
    operations = 2 * rows * width * channels
    moved = weights + scales + (rows * (width + channels) + channels) * _HALF
    return Cost(moved, 0, operations) if int8 else Cost(moved, operations)


def flow_step(tokens: int, width: int, branches: int = 3) -> Cost:
    """All in fp32; the moved tokens and the velocity are written."""
    return Cost(tokens * width * 4 * (branches + 3))
