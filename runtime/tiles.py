"""Restoring one tile of a frame, from and to integer samples, so that no whole float image ever exists."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from uare_rt.errors import BackendError
from uare_rt.frames import place, to_unit
from uare_rt.tiling import reflect

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from uare_rt.tiling import Span, Tile

__all__ = ["restore_tile"]

_BICUBIC_REACH = 4  # px around a part that its bicubic enlargement depends on, with room to spare


def restore_tile(
    image: NDArray[Any],
    out: NDArray[Any],
    tile: Tile,
    *,
    scale: int,
    strength: float,
    run: Callable[[NDArray[Any]], NDArray[np.float32]],
) -> None:
    """Restore one tile of an image and write it to its place.

    Args:
        image: uint8, uint16 or float32 [H, W, 3].
        out: same dtype, [scale * H, scale * W, 3]; what earlier tiles wrote in this one's feathers is blended.
        tile: the part.
        scale: of the output.
        strength: 0 keeps the image, 1 is the full restoration.
        run: the restoration, samples [h, w, 3] -> float32 [1, 3, scale * h, scale * w].

    Raises:
        BackendError: the graph's output has another shape.
    """
    if strength == 0:
        _place(_base(image, tile, scale), out, tile, scale)
        return
    samples = _read(image, tile)
    restored = run(samples)
    expected = (1, 3, samples.shape[0] * scale, samples.shape[1] * scale)
    if restored.shape != expected:
        raise BackendError(f"the restore graph gave shape {list(restored.shape)}, expected {list(expected)}")
    values = restored[0, :, _within(tile.y, scale), _within(tile.x, scale)].transpose(1, 2, 0)
    if strength < 1:
        base = _base(image, tile, scale)
        values = base + np.float32(strength) * (values - base)
    _place(values, out, tile, scale)


def _base(image: NDArray[Any], tile: Tile, scale: int) -> NDArray[np.float32]:
    """What a tile writes where nothing is restored."""
    if scale > 1:
        return _enlarged(image, tile, scale)
    return to_unit(_part(image, tile.y.begin, tile.y.end, tile.x.begin, tile.x.end))


def _place(values: NDArray[np.float32], out: NDArray[Any], tile: Tile, scale: int) -> None:
    rows = slice(tile.y.begin * scale, tile.y.end * scale)
    columns = slice(tile.x.begin * scale, tile.x.end * scale)
    if tile.y.feather or tile.x.feather:
        values = _feathered(values, out[rows, columns], tile, scale)
    place(values, out[rows, columns])


def _read(image: NDArray[Any], tile: Tile) -> NDArray[Any]:
    height, width = image.shape[:2]
    if tile.y.stop <= height and tile.x.stop <= width:
        return image[tile.y.start : tile.y.stop, tile.x.start : tile.x.stop]
    rows = reflect(tile.y.start, tile.y.stop, height)
    columns = reflect(tile.x.start, tile.x.stop, width)
    return image[rows[:, None], columns]


def _within(span: Span, scale: int) -> slice:
    return slice((span.begin - span.start) * scale, (span.end - span.start) * scale)


def _part(image: NDArray[Any], top: int, bottom: int, left: int, right: int) -> NDArray[Any]:
    return image[max(0, top) : bottom, max(0, left) : right]


def _enlarged(image: NDArray[Any], tile: Tile, scale: int) -> NDArray[np.float32]:
    y, x, reach = tile.y, tile.x, _BICUBIC_REACH
    part = to_unit(_part(image, y.begin - reach, y.end + reach, x.begin - reach, x.end + reach))
    size = (part.shape[1] * scale, part.shape[0] * scale)
    top, left = min(y.begin, reach) * scale, min(x.begin, reach) * scale
    rows = slice(top, top + (y.end - y.begin) * scale)
    columns = slice(left, left + (x.end - x.begin) * scale)
    planes = [
        np.asarray(Image.fromarray(part[..., c]).resize(size, Image.Resampling.BICUBIC))[rows, columns]
        for c in range(3)
    ]
    return np.stack(planes, axis=-1)


def _feathered(values: NDArray[np.float32], written: NDArray[Any], tile: Tile, scale: int) -> NDArray[np.float32]:
    """Blend over the feathers, in place; where both tiles agree to the last rounding, what was written stays.

    Where four tiles meet, up to a quarter of the difference between rows of tiles may remain as a step.
    """
    weight_y, weight_x = tile.y.ramp(scale)[:, None, None], tile.x.ramp(scale)[None, :, None]
    rising = tile.y.feather * scale
    top = to_unit(written[:rising])
    values[:rising] = top + weight_y[:rising] * weight_x * (np.clip(values[:rising], 0, 1) - top)
    rest, rising = slice(rising, None), tile.x.feather * scale
    left = to_unit(written[rest, :rising])
    values[rest, :rising] = left + weight_x[:, :rising] * (np.clip(values[rest, :rising], 0, 1) - left)
    return values
