"""Rotation of clips: the display matrix of the container, or the turn that replaces it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from uare_rt.video.frames import VideoInfo

__all__ = ["display_matrix", "placed", "quarter_turns", "turned", "writes_display_matrix"]


def display_matrix(frame: Any) -> tuple[int, ...] | None:
    """The display matrix of a decoded frame, nine integers (16.16 and 2.30 fixed point), or None if upright."""
    from av.sidedata.sidedata import Type

    data = frame.side_data.get(Type.DISPLAYMATRIX)
    if data is None:
        return None
    values = tuple(int(v) for v in np.frombuffer(bytes(data), dtype=np.int32)[:9])
    upright = values[0] > 0 and values[4] > 0 and values[1] == values[3] == 0
    return None if upright else values


def writes_display_matrix() -> bool:
    """Whether this PyAV can put a display matrix into a file (18 and later can)."""
    from av.video.stream import VideoStream

    return hasattr(VideoStream, "set_display_matrix")


def quarter_turns(matrix: tuple[int, ...]) -> tuple[int, bool] | None:
    """(counter-clockwise quarter turns, mirrored first) of a display matrix; None for any other angle."""
    exact = [matrix[i] / 65536 for i in (0, 1, 3, 4)]
    a, b, c, d = (round(x) for x in exact)
    if max(abs(x - y) for x, y in zip(exact, (a, b, c, d), strict=True)) > 1e-3:
        return None
    # How the matrix moves the x axis, mirrored or not, in image coordinates (y down).
    plain = {(1, 0, 0, 1): 0, (0, -1, 1, 0): 1, (-1, 0, 0, -1): 2, (0, 1, -1, 0): 3}
    if (a, b, c, d) in plain:
        return plain[a, b, c, d], False
    if (-a, -b, c, d) in plain:
        return plain[-a, -b, c, d], True
    return None


def turned(pixels: NDArray[Any], turns: tuple[int, bool]) -> NDArray[Any]:
    """[H, W, 3] mirrored left to right if asked, then turned counter-clockwise by quarter turns."""
    mirrored = pixels[:, ::-1] if turns[1] else pixels
    return np.ascontiguousarray(np.rot90(mirrored, turns[0]))


def placed(
    info: VideoInfo, scale: int, note: Callable[[str], object], *, keeps_matrix: bool | None = None
) -> tuple[VideoInfo, tuple[int, bool] | None]:
    """Facts of the result: scaled, and turned where the container cannot carry the display matrix.

    Args:
        info: of the source.
        scale: of the result.
        note: told what changes.
        keeps_matrix: whether what is written can carry the matrix; None asks PyAV.

    Returns:
        Facts of the result, and the turn its pictures need, None for none.
    """
    info = replace(info, width=info.width * scale, height=info.height * scale)
    if info.display_matrix is None or (writes_display_matrix() if keeps_matrix is None else keeps_matrix):
        return info, None
    turns = quarter_turns(info.display_matrix)
    if turns is None:
        note("the display matrix is no quarter turn and cannot be written into the result; it is lost")
        return replace(info, display_matrix=None), None
    note("the rotation cannot be written into the result; the pictures themselves were turned")
    if turns[0] % 2 == 0:
        return info, turns
    aspect = 1 / info.pixel_aspect if info.pixel_aspect else None
    return replace(info, width=info.height, height=info.width, pixel_aspect=aspect), turns
