"""YUV to RGB and back with the matrix and range that a stream states.

The same matrix and range are used in both directions, so what the model leaves alone comes back as it
was. Values are converted as coded: there is no tone mapping and no change of primaries or transfer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from uare_rt.errors import InputError
from uare_rt.video.frames import ColourTags

if TYPE_CHECKING:
    from uare_rt.video.frames import Pixels

__all__ = ["FromRgb", "ToRgb", "output_pix_fmt", "read_tags"]

UNSPECIFIED = 2
# H.273 matrix coefficients to the number libswscale uses for them.
_SWS = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9}
_MPEG, _JPEG = 1, 2


def read_tags(frame: Any, context: Any) -> ColourTags:
    """The colour tags of an `av.VideoFrame` and its codec context; what is not stated is guessed as players do.

    Raises:
        InputError: the matrix has no linear conversion to RGB (constant luminance, ICtCp, YCgCo).
    """
    rgb = frame.format.is_rgb
    matrix = int(frame.colorspace)
    if not rgb and matrix in (0, UNSPECIFIED):
        matrix = UNSPECIFIED
    elif not rgb and matrix not in _SWS:
        raise InputError(
            f"colour matrix {matrix} (ITU-T H.273) is not supported; convert the clip to BT.709 or BT.2020 "
            "non-constant luminance first"
        )
    tag = int(frame.color_range)
    full = rgb or tag == _JPEG or (tag == 0 and frame.format.name.startswith("yuvj"))
    return ColourTags(matrix, full, tag != 0, int(context.color_primaries), int(context.color_trc))


def guessed_matrix(tags: ColourTags, width: int, height: int) -> int:
    """The H.273 matrix to convert with: the stated one, else BT.709 for HD sizes and BT.601 below."""
    if tags.matrix in _SWS:
        return tags.matrix
    return 1 if width >= 1280 or height > 576 else 6


def _flags() -> int:
    from av.video.reformatter import Interpolation

    # Exact rounding, no chroma shift, and of the kernels without a shift the one that blurs chroma edges least
    # when it is applied there and back.
    names = {"BICUBIC": 0x4, "ACCURATE_RND": 0x40000, "FULL_CHR_H_INT": 0x2000}
    # Older PyAV does not name the flags, but takes their numbers.
    return sum(int(getattr(Interpolation, name, number)) for name, number in names.items())


class ToRgb:
    """Turns decoded frames into RGB arrays.

    Args:
        matrix: H.273 matrix of the stream.
        full_range: whether luma uses all levels.
        deep: give uint16 (all 16 bits used) instead of uint8.
    """

    def __init__(self, matrix: int, *, full_range: bool, deep: bool) -> None:
        from av.video.reformatter import VideoReformatter

        self._reformatter = VideoReformatter()
        self._format = "rgb48le" if deep else "rgb24"
        self._arguments: dict[str, Any] = {
            "src_colorspace": _SWS[matrix],
            "dst_colorspace": _SWS[matrix],
            "src_color_range": _JPEG if full_range else _MPEG,
            "dst_color_range": _JPEG,
            "interpolation": _flags(),
        }

    def __call__(self, frame: Any) -> Pixels:
        """`av.VideoFrame` -> uint8 or uint16 [H, W, 3], RGB."""
        converted = self._reformatter.reformat(frame, format=self._format, **self._arguments)
        return cast("Pixels", converted.to_ndarray())


class FromRgb:
    """Turns RGB arrays into frames of an encoder's pixel format.

    Args:
        pix_fmt: FFmpeg's name of the format to make.
        matrix: H.273 matrix to use.
        full_range: whether luma uses all levels.
    """

    def __init__(self, pix_fmt: str, matrix: int, *, full_range: bool) -> None:
        from av.video.reformatter import VideoReformatter

        self._reformatter = VideoReformatter()
        self._matrix = matrix
        self._arguments: dict[str, Any] = {
            "format": pix_fmt,
            "src_colorspace": _SWS[matrix],
            "dst_colorspace": _SWS[matrix],
            "src_color_range": _JPEG,
            "dst_color_range": _JPEG if full_range else _MPEG,
            "interpolation": _flags(),
        }

    def __call__(self, pixels: Pixels) -> Any:
        """uint8 or uint16 [H, W, 3] RGB -> `av.VideoFrame`."""
        import av
        import numpy as np

        name = "rgb48le" if pixels.dtype == np.uint16 else "rgb24"
        packed: Any = np.ascontiguousarray(pixels)
        frame = av.VideoFrame.from_ndarray(packed, format=name)
        # PyAV 17 does not hand BT.2020 on as an argument; it takes what the frame says.
        frame.colorspace = self._matrix
        return self._reformatter.reformat(frame, **self._arguments)


def output_pix_fmt(source: str, width: int, height: int, offered: list[str], *, odd_chroma: bool) -> str:
    """The encoder's pixel format nearest to the source's: bit depth first, then chroma subsampling.

    The picture keeps its size: where halved chroma does not fit an odd width or height, chroma is kept
    at full resolution instead of adding a line.

    Args:
        source: pixel format of the decoded frames.
        width: of the result, pixels.
        height: of the result, pixels.
        offered: pixel formats the encoder takes.
        odd_chroma: whether the encoder halves chroma of odd sizes too.

    Returns:
        One name of ``offered``.
    """
    from av.video.format import VideoFormat

    form = VideoFormat(source, 16, 16)
    bits = max(component.bits for component in form.components)
    depths = ["12le", "10le", ""] if bits > 10 else ["10le", ""] if bits > 8 else [""]
    layouts = ["420", "422", "444"]
    if form.is_rgb or form.chroma_width(16) == 16:
        layouts = ["444", "422", "420"]
    elif form.chroma_height(16) == 16:
        layouts = ["422", "444", "420"]
    if len(form.components) <= 2:
        layouts = ["420", "444"]
    even = {"420": width % 2 == 0 and height % 2 == 0, "422": width % 2 == 0, "444": True}
    fits = [layout for layout in layouts if odd_chroma or even[layout]]
    for depth in depths:
        for layout in fits:
            # Hardware encoders take ten bits at halved chroma interleaved only.
            packed = ["p010le"] if (layout, depth) == ("420", "10le") else []
            for name in (f"yuv{layout}p{depth}", *packed):
                if name in offered:
                    return name
    return offered[0]
