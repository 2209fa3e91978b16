"""What flows through the video pipeline: frames, copied packets, and the facts of a stream.

A `FrameSource` yields items in the order of the file, a `FrameSink` takes them in the same order; the
pipeline between them knows neither files nor codecs, so image sequences, pipes or a camera can stand
in for PyAV.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Iterator
    from fractions import Fraction

__all__ = ["ColourTags", "Damage", "Frame", "FrameSink", "FrameSource", "Pixels", "SidePacket", "VideoInfo"]

Pixels: TypeAlias = "NDArray[np.uint8] | NDArray[np.uint16]"


@dataclass(frozen=True)
class ColourTags:
    """How numbers in a stream mean colours, as ITU-T H.273 code points (2 = unspecified).

    Attributes:
        matrix: YUV to RGB matrix (1 = BT.709, 5 and 6 = BT.601, 9 = BT.2020).
        full_range: True when luma spans 0..255, False for 16..235 (scaled to the bit depth).
        range_tagged: whether the stream said so itself.
        primaries: colour primaries.
        transfer: transfer characteristic (16 = PQ, 18 = HLG).
    """

    matrix: int
    full_range: bool
    range_tagged: bool
    primaries: int
    transfer: int


@dataclass(frozen=True)
class VideoInfo:
    """Facts of the video stream that the result has to keep.

    Attributes:
        width: of the picture as frames are handed over, pixels.
        height: of the picture as frames are handed over, pixels.
        time_base: seconds per tick of every ``Frame.pts``.
        rate: average frames per second; the nominal one for a variable rate.
        pix_fmt: FFmpeg's name of the decoded pixel format.
        depth: bits per component; above 8, frames are uint16.
        colour: colour tags.
        pixel_aspect: width of a pixel over its height; None when not stated.
        display_matrix: the nine integers of the container's display matrix, None for upright clips.
        frames: number of frames the container states, None when it does not.
        duration: seconds the container states, None when it does not.
    """

    width: int
    height: int
    time_base: Fraction
    rate: Fraction
    pix_fmt: str
    depth: int
    colour: ColourTags
    pixel_aspect: Fraction | None
    display_matrix: tuple[int, ...] | None
    frames: int | None
    duration: float | None


@dataclass(frozen=True)
class Frame:
    """One picture with its place in time.

    Attributes:
        pixels: uint8 or uint16 [H, W, 3], RGB.
        pts: presentation time in ticks of ``VideoInfo.time_base``, strictly rising.
        duration: ticks the picture is shown, None when not known.
    """

    pixels: Pixels
    pts: int
    duration: int | None


@dataclass(frozen=True)
class SidePacket:
    """A packet of a stream that is copied: audio, subtitles, cover art.

    Attributes:
        stream: index of its stream in the source.
        packet: the packet itself, of the library that read it.
    """

    stream: int
    packet: Any


@dataclass(frozen=True)
class Damage:
    """A place where the source could not be read.

    Attributes:
        seconds: where, on the clip's own clock.
        reason: one plain phrase.
    """

    seconds: float
    reason: str


class FrameSource(Protocol):
    """Yields frames and copied packets in file order."""

    @property
    def info(self) -> VideoInfo:
        """Facts of the stream."""

    @property
    def damage(self) -> tuple[Damage, ...]:
        """What could not be read; complete once the iteration has ended."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What the caller should know about how the source was read."""

    def __iter__(self) -> Iterator[Frame | SidePacket]: ...

    def close(self) -> None:
        """Release the source."""


class FrameSink(Protocol):
    """Takes restored frames and copied packets in file order."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What the caller should know about how the result was written."""

    def write(self, item: Frame | SidePacket) -> None:
        """Write one item."""

    def finish(self) -> None:
        """Complete the result and put it in its place."""

    def discard(self) -> None:
        """Remove everything written so far; does nothing after `finish`."""
