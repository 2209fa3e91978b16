"""Frames: arrays [H, W, 3] of RGB pixels, their three sample types and the way between them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from uare_rt import compiled
from uare_rt.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

__all__ = ["check_frame", "from_unit", "place", "to_uint8", "to_unit"]

# Full scale of each sample type; frames in [0, 1] are always float32.
_FULL_SCALE = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535, np.dtype(np.float32): 1}
_PLACED_ROWS = 32  # written at once, so that they stay in the cache between their conversions
_ROWS = 256  # converted at once, so that a large frame needs no second large array


def check_frame(image: NDArray[Any]) -> None:
    """Refuse what is not a frame.

    Args:
        image: should be uint8, uint16 or float32 in [0, 1], [H, W, 3], at least 1x1.

    Raises:
        InputError: it is not.
    """
    if not isinstance(image, np.ndarray):
        raise InputError(f"the image is a {type(image).__name__}, but must be a numpy array [H, W, 3]")
    if image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise InputError(f"the image has shape {list(image.shape)}, but must be [H, W, 3] with at least 1x1 px")
    if image.dtype not in _FULL_SCALE:
        raise InputError(f"the image has samples of {image.dtype}, but they must be uint8, uint16 or float32 in [0, 1]")
    if image.dtype == np.float32:
        low, high = float(image.min()), float(image.max())
        if not (low >= 0.0 and high <= 1.0):  # false for NaN too
            raise InputError(f"the image has float samples from {low:g} to {high:g}, but they must be in [0, 1]")


def to_uint8(image: NDArray[Any]) -> NDArray[np.uint8]:
    """A frame of any sample type in 8 bits, rounded to nearest; a uint8 frame is returned itself.

    Args:
        image: uint8, uint16 or float32 [H, W, 3].

    Returns:
        uint8 [H, W, 3], contiguous.
    """
    if image.dtype == np.uint8:
        return np.ascontiguousarray(image)
    out = np.empty(image.shape, np.uint8)
    for row in range(0, image.shape[0], _ROWS):
        block = image[row : row + _ROWS]
        out[row : row + _ROWS] = from_unit(to_unit(block), np.uint8)
    return out


def to_unit(samples: NDArray[Any]) -> NDArray[np.float32]:
    """Samples of any type as float32 in [0, 1], same shape."""
    unit: NDArray[np.float32] = samples.astype(np.float32)
    unit *= np.float32(1 / _FULL_SCALE[samples.dtype])
    return unit


def from_unit(values: NDArray[np.float32], dtype: DTypeLike) -> NDArray[Any]:
    """Float32 values as samples of a type, clipped to [0, 1] and rounded to nearest, same shape."""
    return _rounded(values.copy(), np.dtype(dtype))


def place(values: NDArray[np.float32], out: NDArray[Any]) -> None:
    """Write float32 values as samples, clipped to [0, 1] and rounded to nearest; the values are used up by it.

    Args:
        values: [H, W, 3] in memory of planes.
        out: uint8, uint16 or float32 [H, W, 3].
    """
    if compiled.place(values, out):
        return
    for row in range(0, len(values), _PLACED_ROWS):
        rows = slice(row, row + _PLACED_ROWS)
        for channel in range(3):  # in memory of planes a channel's rows lie together
            out[rows, :, channel] = _rounded(values[rows, :, channel], out.dtype)


def _rounded(values: NDArray[np.float32], target: np.dtype[Any]) -> NDArray[Any]:
    """In the memory of the values."""
    np.clip(values, 0.0, 1.0, out=values)
    if target == np.float32:
        return values
    values *= np.float32(_FULL_SCALE[target])
    return np.rint(values, out=values).astype(target)
