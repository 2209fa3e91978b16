"""What changed since a part of the picture was last computed, told apart from noise.

Frames are compared with the input that each part was computed from, so that slow change adds up until it counts.
Two measures on blocks of 8x8 px: the change of the mean (light and colour) and the mean of the change (texture).
Both are held against the noise of the frame itself, which shows in its quietest blocks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image

from uare_rt.video.blending import GREEN
from uare_rt.video.following import STEADY
from uare_rt.video.regions import CELL, Box, grown

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from uare_rt.video.frames import Pixels

__all__ = ["Change", "ChangeDetector"]

_BLOCK = 8
_QUIET = 20  # percentile of blocks whose change is taken for noise
_MOST_NOISE = 6.0  # levels of 255; above it, change cannot be told from noise and everything counts
_LEAST_MEAN, _LEAST_TEXTURE = 4.0, 6.0  # levels of 255: what a codec's own residue moves, which nobody sees
_STRONG = 4  # times the threshold: change that counts in a single block too; less needs a neighbour
_TILE = 8  # cells along the side of what is refreshed at once


class Change(NamedTuple):
    """How a frame differs from what is there.

    Attributes:
        cells: bool [rows, columns], cells of 16 px to compute again.
        weights: float32 [rows, columns], per block of 8 px the weight of a new result against the one before:
            1 where something moves, less where only noise does.
        exact: whether the frame is the very one before.
    """

    cells: NDArray[np.bool_]
    weights: NDArray[np.float32]
    exact: bool


class ChangeDetector:
    """Compares frames of one size with what was computed.

    Args:
        refresh: frames after which a part that changed a little is computed again all the same.
    """

    def __init__(self, refresh: int) -> None:
        self._refresh = refresh
        self._reference: Pixels | None = None
        self._means: NDArray[np.int16] | None = None
        self._green: NDArray[np.uint8] = np.zeros((0, 0), np.uint8)  # of the reference
        self._stale: NDArray[np.bool_] = np.zeros((0, 0), np.bool_)
        self._ages: NDArray[np.int32] = np.zeros((0, 0), np.int32)

    @property
    def reference(self) -> Pixels | None:
        """The input that the result stands for, each part of it from the frame that it was computed from."""
        return self._reference

    def compare(self, frame: Pixels) -> Change | None:
        """What to compute of ``frame`` (uint8 or uint16 [H, W, 3]); None before anything was computed."""
        if self._reference is None or self._means is None:
            return None
        green = _green(frame)
        texture = _reduced(np.maximum(green, self._green) - np.minimum(green, self._green)).astype(np.float32)
        shift = np.abs(_means(frame) - self._means).max(axis=2)
        if not texture.any() and np.array_equal(frame, self._reference):
            self._stale[:] = False
            still = np.full(texture.shape, STEADY, np.float32)
            return Change(np.zeros(self._stale.shape, np.bool_), still, exact=True)
        noise = min(float(np.percentile(texture, _QUIET)), _MOST_NOISE)
        strength = np.maximum(shift / (_LEAST_MEAN + 0.47 * noise), texture / (_LEAST_TEXTURE + 1.35 * noise))
        moved = strength > 1
        moved &= _has_neighbour(moved) | (strength > _STRONG)
        around = grown(moved)
        weights = np.where(around, np.float32(1), np.float32(STEADY))
        self._stale = _to_cells((shift > 0) | (texture > 0))
        return Change(self._due(_to_cells(moved)), weights, exact=False)

    def computed(self, frame: Pixels, boxes: tuple[Box, ...] | None) -> None:
        """Note that these parts of ``frame``, or with None all of it, were computed."""
        if boxes is None or self._reference is None or self._means is None:
            self._reference, self._means, self._green = frame, _means(frame), _green(frame)
            rows, columns = -(-frame.shape[0] // CELL), -(-frame.shape[1] // CELL)
            self._stale = np.zeros((rows, columns), np.bool_)
            # Ages are spread, so that refreshing never comes all at once.
            count = -(-rows // _TILE) * -(-columns // _TILE)
            ages = np.arange(count, dtype=np.int32) * self._refresh // max(2 * count, 1)
            self._ages = ages.reshape(-(-rows // _TILE), -1)
            return
        if not boxes:
            return
        reference, means = self._reference.copy(), self._means.copy()
        for box in boxes:
            new = reference[box.there()] = frame[box.there()]
            self._green[box.there()] = _green(new)
            # Rectangles begin and end on blocks, or with the frame.
            rows = slice(box.top // _BLOCK, -(-box.bottom // _BLOCK))
            means[rows, box.left // _BLOCK : -(-box.right // _BLOCK)] = _means(new)
            self._stale[box.inner(*frame.shape[:2])] = False
        self._reference, self._means = reference, means

    def forget(self) -> None:
        """Nothing of what was computed is there any more."""
        self._reference = self._means = None

    def state(self) -> dict[str, Any]:
        """What is remembered, for a checkpoint."""
        return {"reference": self._reference, "stale": self._stale.copy(), "ages": self._ages.copy()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self._reference = state["reference"]
        if self._reference is None:
            self._means = None
        else:
            self._means, self._green = _means(self._reference), _green(self._reference)
        self._stale, self._ages = state["stale"].copy(), state["ages"].copy()

    def _due(self, cells: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """``cells``, and the oldest tiles whose turn it is to be refreshed."""
        self._ages += 1
        rows, columns = self._ages.shape
        padded = np.zeros((rows * _TILE, columns * _TILE), np.bool_)
        padded[: cells.shape[0], : cells.shape[1]] = self._stale
        stale = padded.reshape(rows, _TILE, columns, _TILE).any(axis=(1, 3))
        due = np.flatnonzero(stale & (self._ages > self._refresh))
        at_once = -(-self._ages.size // max(self._refresh, 1))
        for index in due[np.argsort(-self._ages.flat[due], kind="stable")][:at_once].tolist():
            row, column = divmod(index, columns)
            cells[row * _TILE : (row + 1) * _TILE, column * _TILE : (column + 1) * _TILE] = True
            self._ages[row, column] = 0
        return cells


def _has_neighbour(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    padded = np.pad(mask, 1).astype(np.int8)
    rows = padded[:-2] + padded[1:-1] + padded[2:]
    return np.asarray(rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:] > 1)


def _eight_bit(samples: NDArray[Any]) -> NDArray[np.uint8]:
    return samples if samples.dtype == np.uint8 else (samples >> 8).astype(np.uint8)


def _green(frame: NDArray[Any]) -> NDArray[np.uint8]:
    """In one piece, a copy: operations are slow on samples that others lie between."""
    return np.array(_eight_bit(frame[..., GREEN]))


def _reduced(samples: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Means of blocks: uint8 [H, W] or [H, W, 3] -> [ceil(H / 8), ceil(W / 8)] or with 3 channels."""
    return np.asarray(Image.fromarray(np.ascontiguousarray(samples)).reduce(_BLOCK))


def _means(frame: Pixels) -> NDArray[np.int16]:
    return _reduced(_eight_bit(frame)).astype(np.int16)


def _to_cells(blocks: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Cells of which any block is marked."""
    rows, columns = blocks.shape
    padded = np.pad(blocks, ((0, rows % 2), (0, columns % 2)))
    return np.asarray(padded.reshape(-(-rows // 2), 2, -(-columns // 2), 2).any(axis=(1, 3)))
