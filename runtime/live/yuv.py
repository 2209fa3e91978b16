"""YUV frames as cameras give them, to RGB and back: NumPy's implementation of docs/colour.md."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from uare_rt.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["YUV_FORMATS", "YuvColour", "rgb_to_yuv", "yuv_to_rgb"]

YUV_FORMATS = ("NV12", "I420", "P010")
_MATRICES = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722), "bt2020": (0.2627, 0.0593)}


@dataclass(frozen=True)
class YuvColour:
    """How YUV numbers mean colours.

    Attributes:
        matrix: of the conversion; None guesses it from the size, as docs/colour.md says.
        full_range: whether luma uses all codes.
        siting: where chroma samples lie.
    """

    matrix: Literal["bt601", "bt709", "bt2020"] | None = None
    full_range: bool = False
    siting: Literal["left", "centre", "top-left"] = "left"

    def weights(self, width: int, height: int) -> tuple[np.float32, np.float32]:
        """Kr and Kb for a frame of that size."""
        kr, kb = _MATRICES[self.matrix or ("bt709" if width >= 1280 or height > 576 else "bt601")]
        return np.float32(kr), np.float32(kb)

    def codes(self, bits: int) -> tuple[np.float32, np.float32, np.float32, np.float32]:
        """Luma offset and span, chroma offset and span."""
        unit = 1 << (bits - 8)
        top = 256 * unit - 1
        values = (0, top, 128 * unit, top) if self.full_range else (16 * unit, 219 * unit, 128 * unit, 224 * unit)
        luma_offset, luma_span, chroma_offset, chroma_span = map(np.float32, values)
        return luma_offset, luma_span, chroma_offset, chroma_span


def yuv_to_rgb(planes: Sequence[NDArray[Any]], kind: str, colour: YuvColour) -> NDArray[Any]:
    """Convert one frame.

    Args:
        planes: NV12: uint8 [H, W] and [h, w, 2]; P010: the same, uint16; I420: uint8 [H, W], [h, w], [h, w],
            with h and w half of H and W, rounded up.
        kind: one of ``YUV_FORMATS``.
        colour: what the numbers mean.

    Returns:
        [H, W, 3], RGB: uint8, or uint16 (all 16 bits used) for P010.

    Raises:
        InputError: the planes do not belong to such a frame.
    """
    luma, cb, cr = _split(planes, kind)
    height, width = luma.shape
    bits = 10 if kind == "P010" else 8
    kr, kb = colour.weights(width, height)
    luma_offset, luma_span, chroma_offset, chroma_span = colour.codes(bits)
    kg = np.float32(1) - kr - kb
    y = (_codes(luma, kind) - luma_offset) * (np.float32(1) / luma_span)
    u, v = (
        (_upsampled(_codes(part, kind), (height, width), colour) - chroma_offset) * (np.float32(1) / chroma_span)
        for part in (cb, cr)
    )
    red, blue = 2 * (1 - kr), 2 * (1 - kb)
    rgb = np.stack([y + red * v, y - blue * kb / kg * u - red * kr / kg * v, y + blue * u], axis=-1)
    full = np.float32(65535 if bits == 10 else 255)
    return np.asarray(np.rint(np.clip(rgb, 0, 1) * full).astype(np.uint16 if bits == 10 else np.uint8))


def rgb_to_yuv(
    image: NDArray[Any], kind: str, colour: YuvColour, *, sized_as: tuple[int, int] | None = None
) -> list[NDArray[Any]]:
    """Convert one frame; the reverse of ``yuv_to_rgb``.

    Args:
        image: uint8 [H, W, 3], RGB; uint16 for P010.
        kind: one of ``YUV_FORMATS``.
        colour: what the numbers shall mean.
        sized_as: height and width that a matrix not stated is guessed from; None takes the image's own.

    Returns:
        Planes as ``yuv_to_rgb`` takes them.

    Raises:
        InputError: the image has other samples than the format needs, or there is no such format.
    """
    bits = 10 if kind == "P010" else 8
    wanted = np.dtype(np.uint16 if bits == 10 else np.uint8)
    if kind not in YUV_FORMATS or image.dtype != wanted or image.ndim != 3 or image.shape[2] != 3:
        raise InputError(
            f"an image of {image.dtype} {list(image.shape)} cannot become {kind}: give {wanted} [H, W, 3] "
            f"and one of {', '.join(YUV_FORMATS)}"
        )
    height, width = sized_as or image.shape[:2]
    kr, kb = colour.weights(width, height)
    luma_offset, luma_span, chroma_offset, chroma_span = colour.codes(bits)
    r, g, b = np.moveaxis(image.astype(np.float32) * np.float32(1 / np.iinfo(wanted).max), -1, 0)
    y = kr * r + (np.float32(1) - kr - kb) * g + kb * b
    luma = _stored(y * luma_span + luma_offset, bits)
    cb, cr = (
        _stored(_downsampled((c - y) * (np.float32(0.5) / (1 - k) * chroma_span) + chroma_offset, colour), bits)
        for c, k in ((b, kb), (r, kr))
    )
    return [luma, cb, cr] if kind == "I420" else [luma, np.stack([cb, cr], axis=-1)]


def _split(planes: Sequence[NDArray[Any]], kind: str) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    wanted = np.dtype(np.uint16 if kind == "P010" else np.uint8)
    luma = planes[0] if planes else np.empty(0)
    half = tuple((side + 1) // 2 for side in luma.shape)
    shapes = [luma.shape, half, half] if kind == "I420" else [luma.shape, (*half, 2)]
    fits = [plane.shape for plane in planes] == shapes and all(plane.dtype == wanted for plane in planes)
    if kind not in YUV_FORMATS or luma.ndim != 2 or 0 in luma.shape or not fits:
        shown = ", ".join(f"{plane.dtype} {list(plane.shape)}" for plane in planes)
        raise InputError(f"planes of {shown} are not a frame of {kind}; it is one of {', '.join(YUV_FORMATS)}")
    return (luma, planes[1], planes[2]) if kind == "I420" else (luma, planes[1][..., 0], planes[1][..., 1])


def _codes(plane: NDArray[Any], kind: str) -> NDArray[np.float32]:
    return (plane >> 6 if kind == "P010" else plane).astype(np.float32)


def _stored(codes: NDArray[np.float32], bits: int) -> NDArray[Any]:
    rounded = np.rint(np.clip(codes, 0, (1 << bits) - 1))
    return rounded.astype(np.uint16) << 6 if bits == 10 else rounded.astype(np.uint8)


def _upsampled(plane: NDArray[np.float32], size: tuple[int, int], colour: YuvColour) -> NDArray[np.float32]:
    for axis in (0, 1):
        ones = [(1, 1) if a == axis else (0, 0) for a in (0, 1)]
        before, now, after = (
            np.take(np.pad(plane, ones, mode="edge"), np.arange(plane.shape[axis]) + i, axis) for i in (0, 1, 2)
        )
        if _cosited(colour, axis):
            even, odd = now, (now + after) / 2
        else:
            even, odd = now * np.float32(0.75) + before / 4, now * np.float32(0.75) + after / 4
        doubled = np.stack([even, odd], axis=axis + 1)
        sides = [plane.shape[0], plane.shape[1]]
        sides[axis] *= 2
        plane = np.take(doubled.reshape(sides), np.arange(size[axis]), axis)
    return plane


def _downsampled(plane: NDArray[np.float32], colour: YuvColour) -> NDArray[np.float32]:
    for axis in (0, 1):
        length = plane.shape[axis]
        even = np.arange(0, length, 2)
        here, after = np.take(plane, even, axis), np.take(plane, np.minimum(even + 1, length - 1), axis)
        if _cosited(colour, axis):
            plane = np.take(plane, np.maximum(even - 1, 0), axis) / 4 + here / 2 + after / 4
        else:
            plane = (here + after) / 2
    return plane


def _cosited(colour: YuvColour, axis: int) -> bool:
    return colour.siting == "top-left" or (colour.siting == "left" and axis == 1)
