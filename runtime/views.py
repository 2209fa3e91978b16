"""Views: the fixed budget of looks at an image that the understanding pass reads.

One thumbnail of the whole frame (exposure, haze, layout) and eight crops at native resolution
(noise, blur and compression are only visible there), whatever the size of the frame. Crops come from
a grid of at most 8x8 places and are picked at evenly spaced ranks of gradient energy, so that flat and
textured places are both seen. Everything is integer arithmetic on 8-bit values: repeatable everywhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["CROPS", "VIEW_COUNT", "VIEW_SIZE", "cut_views", "extract_views", "thumbnail_of"]

VIEW_SIZE = 96
CROPS = 8
VIEW_COUNT = CROPS + 1
_STRIDE = 64  # distance between neighbouring crop places on small frames
_MAX_PLACES = 8  # per axis
_JPEG_GRID = 8  # crops keep the phase of the 8x8 blocks of JPEG


def _places(length: int) -> list[int]:
    free = length - VIEW_SIZE
    count = min(_MAX_PLACES, 1 + -(-free // _STRIDE))
    if count == 1:
        return [0]
    return [i * free // (count - 1) // _JPEG_GRID * _JPEG_GRID for i in range(count)]


def _energy(crop: NDArray[np.uint8]) -> int:
    green = crop[..., 1].astype(np.int32)
    return int(np.abs(np.diff(green, axis=0)).sum() + np.abs(np.diff(green, axis=1)).sum())


def thumbnail_of(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The whole frame as the first view shows it: uint8 [H, W, 3] -> uint8 [96, 96, 3], box filtered."""
    return np.asarray(Image.fromarray(frame).resize((VIEW_SIZE, VIEW_SIZE), Image.Resampling.BOX))


def cut_views(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Cut the views of one frame.

    Args:
        frame: uint8 [H, W, 3], RGB, any size from 1x1; smaller than 96 px is extended by reflection.

    Returns:
        uint8 [9, 96, 96, 3]: the thumbnail, then the crops from flat to textured.
    """
    thumbnail = thumbnail_of(frame)
    grow = [(0, max(0, VIEW_SIZE - side)) for side in frame.shape[:2]]
    if any(after for _, after in grow):
        frame = np.pad(frame, [*grow, (0, 0)], mode="symmetric")
    crops = [
        frame[y : y + VIEW_SIZE, x : x + VIEW_SIZE] for y in _places(frame.shape[0]) for x in _places(frame.shape[1])
    ]
    ranked = sorted(range(len(crops)), key=lambda i: (_energy(crops[i]), i))
    chosen = [crops[ranked[(2 * k + 1) * len(crops) // (2 * CROPS)]] for k in range(CROPS)]
    return np.stack([thumbnail, *chosen])


def extract_views(frame: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The views of one frame as the ``assess`` graph takes them.

    Args:
        frame: uint8 [H, W, 3], RGB, see `cut_views`.

    Returns:
        float32 [9, 3, 96, 96] in [0, 1].
    """
    views = np.ascontiguousarray(cut_views(frame).transpose(0, 3, 1, 2), dtype=np.float32)
    views /= np.float32(255)
    return views
