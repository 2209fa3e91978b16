"""A camera that needs no hardware: moving, noisy, numbered pictures, with outages on request."""

from __future__ import annotations

import time
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from uare_rt.errors import InputError, UsageError
from uare_rt.live.frames import Shot

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = ["SyntheticCamera", "frame_number"]

_BITS, _CELL = 16, 4  # the number of a picture is written as cells in its first rows
_NOISES = 4  # different noise pictures, in turn


class SyntheticCamera:
    """Gives numbered pictures at a steady rate, the same for the same seed. For tests and demonstrations.

    Args:
        width: pixels, at least 64.
        height: pixels, at least 16.
        rate: frames per second; None gives them as fast as they are taken.
        frames: how many there are; None for no end.
        noise: standard deviation, in levels of 255.
        outages: number of the picture before which the camera is lost -> how many times opening it fails then.
        seed: of the noise.

    Raises:
        UsageError: a value is out of its range.
    """

    name = "synthetic camera"
    damaged = 0
    ends = reopens = True

    def __init__(
        self,
        width: int = 640,
        height: int = 360,
        *,
        rate: Fraction | float | None = 30,
        frames: int | None = None,
        noise: float = 8.0,
        outages: Mapping[int, int] | None = None,
        seed: int = 0,
    ) -> None:
        if not (_BITS * _CELL <= width <= 16384 and 16 <= height <= 16384):
            raise UsageError(f"a synthetic camera of {width}x{height} px: give 64x16 to 16384x16384")
        if rate is not None and not 0 < rate <= 1000:
            raise UsageError(f"a synthetic camera of {rate} frames/s: give more than 0, at most 1000")
        self.rate = None if rate is None else Fraction(rate).limit_denominator(100_000)
        self._frames, self._outages = frames, dict(outages or {})
        generator = np.random.default_rng(seed)
        self._noises = [
            np.clip(np.rint(generator.normal(0, noise, (height, width, 3))), -127, 127).astype(np.int8)
            for _ in range(_NOISES)
        ]
        self._scene = _scene(height, width)
        self._number, self._refusals = 0, 0
        self._began: float | None = None

    def open(self) -> None:
        """Start, or fail as the outages say.

        Raises:
            InputError: the camera is out.
        """
        if self._refusals:
            self._refusals -= 1
            raise InputError(f"{self.name}: not there")
        self._began = time.monotonic() - self._seconds(self._number)

    def read(self) -> Shot | None:
        """The next picture, when it is its time.

        Raises:
            InputError: an outage begins.
        """
        assert self._began is not None
        if self._frames is not None and self._number >= self._frames:
            return None
        if self._number in self._outages:
            self._refusals = self._outages.pop(self._number)
            raise InputError(f"{self.name}: unplugged")
        time.sleep(max(0.0, self._began + self._seconds(self._number) - time.monotonic()))
        shot = Shot(self._picture(self._number), self._seconds(self._number), 0)
        self._number += 1
        return shot

    def close(self) -> None:
        """Stop; the numbers go on after the next `open`."""
        self._began = None

    def _seconds(self, number: int) -> float:
        return 0.0 if self.rate is None else float(number / self.rate)

    def _picture(self, number: int) -> NDArray[np.uint8]:
        moved = np.roll(self._scene, 2 * number, axis=1)
        pixels: NDArray[np.uint8] = np.clip(moved + self._noises[number % _NOISES], 0, 255).astype(np.uint8)
        bits = (number >> np.arange(_BITS)) & 1
        pixels[:_CELL, : _BITS * _CELL] = (bits * 255).repeat(_CELL)[None, :, None]
        return pixels


def _scene(height: int, width: int) -> NDArray[np.int16]:
    """Slow gradients with sharp bars on them, int16 [H, W, 3]."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    turns = 2 * np.pi * x / width
    scene = np.stack([128 + 80 * np.sin(turns), 128 + 80 * np.cos(turns), 48 + 160 * y / height], axis=-1)
    scene[(x.astype(int) // 8) % 8 == 0] *= 0.6
    rounded: NDArray[np.int16] = np.rint(scene).astype(np.int16)
    return rounded


def frame_number(pixels: NDArray[Any], scale: int = 1) -> int:
    """The number that a `SyntheticCamera` wrote into a picture, also after mild compression.

    Args:
        pixels: uint8 [scale * H, scale * W, 3].
        scale: how many times the camera's size it has.

    Returns:
        The number modulo 65536.
    """
    cell = _CELL * scale
    middles = pixels[cell // 2, cell // 2 : _BITS * cell : cell, 1]
    return int(((middles > 127).astype(int) << np.arange(_BITS)).sum())
