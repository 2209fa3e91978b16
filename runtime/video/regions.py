"""Which parts of a frame to compute: rectangles around what changed, as few pixels as possible.

A rectangle is read with a margin. The margin is smaller than the model's receptive field, and rectangles do not begin
on the grid of its attention windows: what lies farther away and how windows fall changes a result by far less than the
threshold below which change is ignored (0.03 of a squared level on noise of 12 levels; docs/video.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["CELL", "FEATHER", "Box", "grown", "plan_boxes"]

CELL = 16
"""Side in px of the cells that change is decided for."""
FEATHER = 8
"""Px around the cells over which a result fades into what was there."""
_MARGIN = 8  # px around all that which are read too
_OVERHEAD = 80 * 80  # px whose computation costs what a call of its own does
_WORTHWHILE = 0.8  # of the whole frame's cost; above it, the whole frame is computed
_MANY = 64  # rectangles beyond which looking for the best cover costs more than it saves


@dataclass(frozen=True)
class Box:
    """A rectangle, ends excluded.

    Attributes:
        top: first row.
        bottom: row after the last.
        left: first column.
        right: column after the last.
    """

    top: int
    bottom: int
    left: int
    right: int

    @property
    def area(self) -> int:
        """Rows times columns."""
        return (self.bottom - self.top) * (self.right - self.left)

    def around(self, other: Box) -> Box:
        """The smallest box that holds both."""
        return Box(
            min(self.top, other.top),
            max(self.bottom, other.bottom),
            min(self.left, other.left),
            max(self.right, other.right),
        )

    def there(self, scale: int = 1) -> tuple[slice, slice]:
        """Rows and columns of it in a frame, or in a result of this scale."""
        return slice(self.top * scale, self.bottom * scale), slice(self.left * scale, self.right * scale)

    def read(self, height: int, width: int) -> Box:
        """What is read of a frame to compute this part of it: a margin more, whole cells."""
        return Box(
            max(self.top - _MARGIN, 0) // CELL * CELL,
            min(-(-(self.bottom + _MARGIN) // CELL) * CELL, height),
            max(self.left - _MARGIN, 0) // CELL * CELL,
            min(-(-(self.right + _MARGIN) // CELL) * CELL, width),
        )

    def inner(self, height: int, width: int) -> tuple[slice, slice]:
        """The cells that are computed whole, without those of which only the faded edge is."""
        top, left = -(-self.top // CELL), -(-self.left // CELL)
        bottom = -(-height // CELL) if self.bottom == height else self.bottom // CELL
        right = -(-width // CELL) if self.right == width else self.right // CELL
        return slice(top, bottom), slice(left, right)


def grown(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """A mask and its neighbours in all eight directions: bool [R, C] -> bool [R, C]."""
    padded = np.pad(mask, 1)
    rows = padded[:-2] | padded[1:-1] | padded[2:]
    return np.asarray(rows[:, :-2] | rows[:, 1:-1] | rows[:, 2:])


def plan_boxes(mask: NDArray[np.bool_], height: int, width: int) -> tuple[Box, ...] | None:
    """Cover the marked cells of a frame with rectangles.

    Args:
        mask: bool [ceil(height / CELL), ceil(width / CELL)], the cells to compute.
        height: of the frame, px.
        width: of the frame, px.

    Returns:
        Rectangles in px; None where computing the whole frame is cheaper.
    """

    def cost(box: Box) -> int:
        return box.read(height, width).area + _OVERHEAD

    whole = Box(0, height, 0, width)
    found = _components(mask)
    if len(found) > _MANY:
        return None
    boxes = [
        Box(
            max(b.top * CELL - FEATHER, 0),
            min(b.bottom * CELL + FEATHER, height),
            max(b.left * CELL - FEATHER, 0),
            min(b.right * CELL + FEATHER, width),
        )
        for b in found
    ]
    merging = True
    while merging:
        merging = False
        for i in range(len(boxes)):
            for j in range(len(boxes) - 1, i, -1):
                union = boxes[i].around(boxes[j])
                if cost(union) <= cost(boxes[i]) + cost(boxes[j]):
                    boxes[i] = union
                    del boxes[j]
                    merging = True
    if sum(cost(box) for box in boxes) >= _WORTHWHILE * cost(whole):
        return None
    return tuple(boxes)


def _components(mask: NDArray[np.bool_]) -> list[Box]:
    """Boxes around the connected parts of a mask (neighbours in eight directions), in cells."""
    edges = np.diff(np.pad(mask.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    # Row by row, as numpy lists them; starts and ends alternate, so they pair up.
    rows, starts = np.nonzero(edges == 1)
    ends = np.nonzero(edges == -1)[1]
    runs = list(zip(rows.tolist(), starts.tolist(), ends.tolist(), strict=True))
    parents = list(range(len(runs)))

    def root(index: int) -> int:
        while parents[index] != index:
            parents[index] = parents[parents[index]]
            index = parents[index]
        return index

    first = 0  # run of the row before that may still touch
    for index, (row, start, end) in enumerate(runs):
        while runs[first][0] < row - 1 or (runs[first][0] == row - 1 and runs[first][2] < start):
            first += 1
        for other in range(first, index):
            if runs[other][0] != row - 1 or runs[other][1] > end:
                break
            parents[root(other)] = root(index)
    boxes: dict[int, Box] = {}
    for index, (row, start, end) in enumerate(runs):
        box, key = Box(row, row + 1, start, end), root(index)
        boxes[key] = boxes[key].around(box) if key in boxes else box
    return list(boxes.values())
