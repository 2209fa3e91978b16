"""From a picture to an encoder's input and back: the resize rule, normalisation, 8-bit output.

PyTorch is imported only where tensors are made, so that sizes can be planned without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from uare_rt.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from uare_rt.model.presets.uare_7b import Transform

__all__ = ["fitted_size", "normalise", "resize", "resize_to", "to_pixels"]


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


def normalise(pixels: NDArray[np.uint8]) -> Tensor:
    """uint8 [H, W, 3] -> float32 [3, H, W] in [-1, 1]."""
    import torch

    return (torch.from_numpy(pixels.copy()).permute(2, 0, 1).contiguous().float() / 255 - 0.5) / 0.5


def to_pixels(picture: Tensor) -> NDArray[np.uint8]:
    """Float [3, H, W] in [-1, 1] -> uint8 [H, W, 3], clamped and truncated as the reference does."""
    scaled = (picture.float() * 0.5 + 0.5).clamp(0, 1).permute(1, 2, 0) * 255
    return scaled.cpu().numpy().astype(np.uint8)
