"""YUV to RGB and back as a few numbers, for kernels that convert while they read or write.

The conversion is that of docs/colour.md, for 8 bits and chroma sited left, and tested against its vectors and against
`uare_rt.live.yuv`.
"""

from __future__ import annotations

from dataclasses import dataclass

from uare_rt.errors import UsageError

__all__ = ["MATRICES", "Yuv", "yuv"]

MATRICES = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}


@dataclass(frozen=True)
class Yuv:
    """Of one matrix and range; samples are 0 to 255, RGB is 0 to 1.

    Attributes:
        black: luma of black.
        luma: luma levels from black to white.
        chroma: chroma levels from one extreme to the other; 128 is none.
        red: weight of red in luma.
        blue: weight of blue in luma.
    """

    black: float
    luma: float
    chroma: float
    red: float
    blue: float

    @property
    def green(self) -> float:
        """Weight of green in luma."""
        return 1 - self.red - self.blue


def yuv(matrix: int, *, full_range: bool) -> Yuv:
    """The numbers of a stream.

    Args:
        matrix: H.273 matrix coefficients: 1 (BT.709), 5 or 6 (BT.601), 9 (BT.2020, non-constant luminance).
        full_range: whether luma uses all levels.

    Raises:
        UsageError: no such matrix.
    """
    if matrix not in MATRICES:
        raise UsageError(f"colour matrix {matrix} is not one of {', '.join(map(str, MATRICES))} (ITU-T H.273)")
    return Yuv(*((0.0, 255.0, 255.0) if full_range else (16.0, 219.0, 224.0)), *MATRICES[matrix])
