"""What flows through the video pipeline: frames, copied packets, and the facts of a stream.

A `FrameSource` yields items in the order of the file, a `FrameSink` takes them in the same order; the
pipeline between them knows neither files nor codecs, so image sequences, pipes or a camera can stand
in for PyAV. Turning pictures into RGB arrays and back is a step of its own on both sides, so that it
overlaps with decoding and encoding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Iterator
    from fractions import Fraction

    from uare_rt.video.source import VideoSource

__all__ = [
    "Checkpoint",
    "ColourTags",
    "Damage",
    "Frame",
    "FrameSink",
    "FrameSource",
    "HdrMetadata",
    "Picture",
    "PicturesAlone",
    "Pixels",
    "SidePacket",
    "VideoInfo",
]

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
class HdrMetadata:
    """What a stream says about the display it was mastered on.

    Attributes:
        primaries: x and y of red, green, blue and white, in 1/50000; None when not stated.
        luminance: least and largest, in 1/10000 cd/m2; None when not stated.
        light: largest and largest average content light level in cd/m2; None when not stated.
    """

    primaries: tuple[tuple[int, int], ...] | None
    luminance: tuple[int, int] | None
    light: tuple[int, int] | None


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
        hdr: metadata of the mastering display, None when there is none.
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
    hdr: HdrMetadata | None = None


@dataclass(frozen=True)
class Picture:
    """A picture as the source or the sink holds it, before or after it is an RGB array.

    Attributes:
        raw: of the library behind the source or sink.
        pts: presentation time in ticks of ``VideoInfo.time_base``, strictly rising.
        duration: ticks the picture is shown, None when not known.
    """

    raw: Any
    pts: int
    duration: int | None


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
class Checkpoint:
    """A place between two frames from which a run can go on.

    Every stage that remembers something adds it here on the way; the sink keeps it with what it has written.

    Attributes:
        pts: of the last frame before it.
        frames: before it.
        state: by stage name, arrays and plain values that the stage can be restored from.
    """

    pts: int
    frames: int
    state: dict[str, dict[str, Any]]


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
    """Yields pictures and copied packets in file order."""

    @property
    def info(self) -> VideoInfo:
        """Facts of the stream."""

    @property
    def origin(self) -> VideoSource | None:
        """The container behind it, whose metadata and side streams are kept; None where there is none."""

    @property
    def chapters(self) -> list[Any]:
        """Chapters as PyAV gives and takes them."""

    @property
    def damage(self) -> tuple[Damage, ...]:
        """What could not be read; complete once the iteration has ended."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What the caller should know about how the source was read."""

    def __iter__(self) -> Iterator[Picture | SidePacket]: ...

    def pixels(self, picture: Picture) -> Pixels:
        """A picture of this source as RGB; called in another thread than the iteration."""

    def side_packets(self) -> Iterator[SidePacket]:
        """Only the copied packets, instead of the iteration; nothing is decoded."""

    def stop(self) -> None:
        """Wake an iteration that waits for data, from another thread."""

    def close(self) -> None:
        """Release the source."""


class PicturesAlone:
    """What a `FrameSource` without a container says of all that is not pictures: there is none of it."""

    @property
    def origin(self) -> VideoSource | None:
        """There is no container."""
        return None

    @property
    def chapters(self) -> list[Any]:
        """There are no chapters."""
        return []

    def side_packets(self) -> Iterator[SidePacket]:
        """There are no other streams."""
        return iter(())


class FrameSink(Protocol):
    """Takes restored pictures and copied packets in file order."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What the caller should know about how the result was written."""

    @property
    def encoding(self) -> str:
        """How pictures are stored, as in ``libx264 yuv420p``."""

    def prepare(self, frame: Frame) -> Picture:
        """A frame as this sink stores it; called in another thread than `write`."""

    def write(self, item: Picture | SidePacket | Checkpoint) -> None:
        """Write one item."""

    def finish(self) -> None:
        """Complete the result and put it in its place."""

    def stop(self) -> None:
        """Wake a write that waits for its reader, from another thread."""

    def discard(self) -> None:
        """Remove everything written so far; does nothing after `finish`."""
