"""What the graphs of a unified model hold at most, and refusing clearly what there is no room for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uare_rt.errors import BackendError
from uare_rt.machine import available_memory

if TYPE_CHECKING:
    from collections.abc import Callable

    from uare_rt.vlm.layout import UnifiedLayout

__all__ = ["SMALL", "codec_pass_bytes", "decoder_pass_bytes", "require"]

SMALL = 1 << 26
"""Bytes that are not worth asking the system for."""

_GB = 1e9
_FLOAT = 4
_CACHED = {"same": 4, "fp16": 2, "int8": 1}  # bytes of a value; int8's scales are few
_LAYERS = 1  # whose 16-bit weights ONNX Runtime holds as float32 at once, at most


def decoder_pass_bytes(layout: UnifiedLayout, new: int, seen: int, branches: int = 1) -> int:
    """Bytes that one pass of the decoder holds beside its weights' file.

    Args:
        layout: of the model.
        new: tokens, in each branch.
        seen: cached tokens, in the longest.
        branches: in one batch; the caches of several are copied into one.
    """
    stream = new * (3 * layout.mlp + 4 * layout.hidden)
    # Of one key head, before and after the softmax; and the mask.
    scores = new * (seen + new) * (2 * layout.heads // layout.kv_heads + 1)
    cached = 2 * layout.layers * layout.kv_heads * layout.head_dim * new
    width = (layout.heads + layout.kv_heads) * layout.head_dim
    layer = 2 * layout.hidden * (2 * width + 3 * layout.mlp)
    weights = 0 if layout.embedding_dtype == "float32" else _LAYERS * layer
    copied = (seen if branches > 1 else 0) * 2 * layout.layers * layout.kv_heads * layout.head_dim
    return branches * (_FLOAT * (stream + scores + cached) + _CACHED[layout.cache] * copied) + _FLOAT * weights


def codec_pass_bytes(layout: UnifiedLayout, graph: str, pixels: int, tile: int | None) -> int:
    """Bytes that ``encode`` or ``decode_image`` hold for a picture of so many pixels, whole or in tiles."""
    encodes = graph == "encode"
    per_pixel = layout.encode_bytes if encodes else layout.decode_bytes
    whole = (layout.encode_tiles if encodes else layout.decode_tiles).bytes
    positions = pixels // (layout.latent_stride // layout.latent_patch) ** 2
    outer = per_pixel * pixels if tile is None else whole * pixels + per_pixel * tile**2
    return int(max(outer, 2 * _FLOAT * positions**2))


def require(what: str, need: float, way_out: str, free: Callable[[], int | None] | None = None) -> None:
    """Refuse to start what there is no room for.

    Args:
        what: is to be done, for the message.
        need: bytes of its activations and results.
        way_out: what to do about it.
        free: tells the bytes that can be allocated, or None where that is not known; asks the machine if not given.

    Raises:
        BackendError: there is less.
    """
    if need < SMALL:
        return
    there = (free or available_memory)()
    if there is not None and need > there:
        message = f"not enough memory: {what} needs about {need / _GB:.3g} GB, but {there / _GB:.3g} GB are free"
        raise BackendError(f"{message}; {way_out}")
