"""Live frames: what sources give, what comes out, and arrays of other libraries taken without a copy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from uare_rt.errors import InputError
from uare_rt.frames import check_frame

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from uare_rt.quality import Assessment

__all__ = ["LiveFrame", "LiveResult", "Shot", "as_pixels"]


@dataclass(frozen=True, eq=False)
class Shot:
    """One picture as a source gives it.

    Attributes:
        pixels: uint8 [H, W, 3], RGB.
        time: seconds on the source's own clock; None where it has none.
        copies: times that the whole picture was copied or converted on its way here.
    """

    pixels: NDArray[Any]
    time: float | None
    copies: int


@dataclass(frozen=True, eq=False)
class LiveFrame:
    """One picture of a stream.

    Attributes:
        pixels: uint8 [H, W, 3], RGB (uint16 where the source gave such arrays).
        index: 0 for the stream's first picture, dropped ones counted.
        time: seconds since the first picture, strictly rising, also over a lost and found camera.
        taken: `time.monotonic` when it arrived.
    """

    pixels: NDArray[Any]
    index: int
    time: float
    taken: float


@dataclass(frozen=True, eq=False)
class LiveResult:
    """One restored picture. ``np.asarray``, ``np.from_dlpack`` and others' ``from_dlpack`` take it without a copy.

    Attributes:
        pixels: dtype of the frame, [scale * H, scale * W, 3], RGB.
        index: of the frame it was made from.
        time: of that frame.
        taken: of that frame.
        restored: False where the scene was good enough to be left alone.
        score: of the scene so far, 1..5.
        assessment: of this very frame, None when it was not one to assess.
    """

    pixels: NDArray[Any]
    index: int
    time: float
    taken: float
    restored: bool
    score: float
    assessment: Assessment | None

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self.pixels, dtype=dtype) if copy else np.asarray(self.pixels, dtype=dtype)

    def __dlpack__(self, **options: Any) -> Any:
        return self.pixels.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.pixels.__dlpack_device__()


def as_pixels(frame: Any) -> NDArray[Any]:
    """Take a frame of any library, without a copy.

    Args:
        frame: a NumPy array, or anything with ``__dlpack__`` in memory that the processor can read; uint8 or uint16
            [H, W, 3], RGB.

    Returns:
        The same memory as a NumPy array.

    Raises:
        InputError: it is no such frame.
    """
    pixels = frame
    if not isinstance(frame, np.ndarray):
        if not hasattr(frame, "__dlpack__"):
            raise InputError(f"the source gave a {type(frame).__name__}; give NumPy arrays or DLPack tensors [H, W, 3]")
        try:
            pixels = np.from_dlpack(frame)
        except (BufferError, RuntimeError, TypeError, ValueError) as error:
            raise InputError(
                f"the source's {type(frame).__name__} cannot be read here ({error}); give it in processor memory"
            ) from error
    check_frame(pixels)
    if pixels.dtype == np.float32:
        raise InputError("the source gave float32; live frames are uint8 or uint16")
    return cast("NDArray[Any]", pixels)
