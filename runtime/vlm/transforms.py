"""From a picture to an encoder's input and back: the resize rule, normalisation, tokens, 8-bit output."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from uare_rt.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from uare_rt.vlm.layout import Transform

__all__ = [
    "fitted_size",
    "grid_rows",
    "normalise",
    "patchify",
    "resize",
    "resize_to",
    "to_pixels",
    "unpatchify",
]


def fitted_size(width: int, height: int, transform: Transform) -> tuple[int, int]:
    """The size an encoder works at (BAGEL's rule, halves rounded to even).

    The long side is brought to at most ``longest``, then the short side to at least ``shortest``, each side to a
    multiple of ``stride``. Too many pixels are scaled by cap / pixels, not by its root, as the reference does.

    Args:
        width: pixels.
        height: pixels.
        transform: the limits.

    Returns:
        New (width, height).
    """

    def scaled(scale: float) -> tuple[int, int]:
        stride = transform.stride
        sides = (round(width * scale), round(height * scale))
        across, down = (max(stride, round(side / stride) * stride) for side in sides)
        return across, down

    scale = min(transform.longest / max(width, height), 1.0)
    width, height = scaled(max(scale, transform.shortest / min(width, height)))
    if width * height > transform.pixels:
        width, height = scaled(transform.pixels / (width * height))
    if max(width, height) > transform.longest:
        width, height = scaled(transform.longest / max(width, height))
    return width, height


def resize_to(pixels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Antialiased bicubic resize of uint8 [H, W, 3] to (width, height)."""
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))


def resize(pixels: NDArray[np.uint8], transform: Transform) -> NDArray[np.uint8]:
    """Resize a picture for an encoder.

    Args:
        pixels: uint8 [H, W, 3], RGB.
        transform: the limits.

    Returns:
        uint8 [H', W', 3].

    Raises:
        InputError: not such an array.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise InputError(f"expected a picture as uint8 [H, W, 3], got {pixels.dtype} {list(pixels.shape)}")
    return resize_to(pixels, fitted_size(pixels.shape[1], pixels.shape[0], transform))


def normalise(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """uint8 [H, W, 3] -> float32 [3, H, W] in [-1, 1]."""
    planes = np.ascontiguousarray(pixels.transpose(2, 0, 1), dtype=np.float32)
    return np.asarray((planes / np.float32(255) - np.float32(0.5)) / np.float32(0.5))


def to_pixels(picture: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Float [3, H, W] in [-1, 1] -> uint8 [H, W, 3], clamped and truncated as the reference does."""
    scaled = np.clip(picture * np.float32(0.5) + np.float32(0.5), 0, 1).transpose(1, 2, 0) * np.float32(255)
    return np.ascontiguousarray(scaled.astype(np.uint8))


def patchify(picture: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """[C, h * side, w * side] -> [h * w, side * side * C], tokens row by row, channel fastest."""
    channels, height, width = picture.shape
    x = picture.reshape(channels, height // side, side, width // side, side)
    return np.ascontiguousarray(x.transpose(1, 3, 2, 4, 0)).reshape(-1, side * side * channels)


def unpatchify(tokens: NDArray[np.float32], grid: tuple[int, int], side: int) -> NDArray[np.float32]:
    """The inverse: [h * w, side * side * C] and grid (h, w) -> [C, h * side, w * side]."""
    rows, columns = grid
    x = tokens.reshape(rows, columns, side, side, -1).transpose(4, 0, 2, 1, 3)
    return np.ascontiguousarray(x).reshape(-1, rows * side, columns * side)


def grid_rows(grid: tuple[int, int], side: int) -> NDArray[np.int64]:
    """Rows of a position table of ``side`` x ``side`` for the tokens of an image, row by row: int64 [h * w]."""
    rows, columns = grid
    return np.asarray((np.arange(rows)[:, None] * side + np.arange(columns)).ravel(), np.int64)
