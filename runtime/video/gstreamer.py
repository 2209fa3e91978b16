"""GStreamer pipelines as clips: decoders and encoders of the machine (Jetson's, VA-API's) behind the usual interface.

A pipeline gives and takes pictures of 8 bits with their times, and nothing else.
"""

from __future__ import annotations

from fractions import Fraction
from itertools import chain
from typing import TYPE_CHECKING

from uare_rt.errors import InputError, UsageError
from uare_rt.frames import to_uint8
from uare_rt.live.gstreamer import GstSink, GstSource
from uare_rt.video.colour import UNSPECIFIED
from uare_rt.video.frames import ColourTags, Picture, PicturesAlone, VideoInfo
from uare_rt.video.rotation import placed, turned

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from uare_rt.live.frames import Shot
    from uare_rt.video.frames import Checkpoint, Damage, Frame, FrameSource, Pixels, SidePacket

__all__ = ["PipelineSink", "PipelineSource", "description_of"]

_TICKS = Fraction(1, 90000)
_USUAL_RATE = Fraction(25)


def description_of(path: str | Path) -> str:
    """The pipeline itself.

    Raises:
        UsageError: it holds an address with two slashes, which a path loses.
    """
    text = str(path).removeprefix("gst:")
    if ":/" in text:
        raise UsageError(f"gst:{text}: addresses (rtsp://...) are for uare-rt live; name files (filesrc location=...)")
    return text


class PipelineSource(PicturesAlone):
    """Pictures of a pipeline that ends in raw video.

    Args:
        path: ``gst:`` and the pipeline without its sink.

    Raises:
        GstMissingError: GStreamer is not there.
        UsageError: the text is no pipeline.
        InputError: the pipeline fails, or gives no picture.
    """

    def __init__(self, path: str | Path) -> None:
        self._source = GstSource(description_of(path))
        self._stopped = False
        self._source.open()
        try:
            first = self._source.read()
            if first is None:
                raise InputError(f"{self._source.name}: gives no picture")
        except BaseException:
            self._source.close()
            raise
        self._first = first
        rate = self._source.rate or _USUAL_RATE
        height, width = first.pixels.shape[:2]
        self._info = VideoInfo(
            width=width,
            height=height,
            time_base=_TICKS,
            rate=rate,
            pix_fmt="yuv420p",
            depth=8,
            colour=ColourTags(UNSPECIFIED, False, False, UNSPECIFIED, UNSPECIFIED),
            pixel_aspect=None,
            display_matrix=None,
            frames=None,
            duration=None,
        )

    @property
    def info(self) -> VideoInfo:
        """Facts of the stream; colours come as RGB and are stored as players expect of the size."""
        return self._info

    @property
    def damage(self) -> tuple[Damage, ...]:
        """What a decoder hides is not known."""
        return ()

    @property
    def notes(self) -> tuple[str, ...]:
        """What a pipeline cannot tell."""
        return ("a GStreamer pipeline gives pictures of 8 bits only: sound, tags and other tracks are not kept",)

    def __iter__(self) -> Iterator[Picture | SidePacket]:
        last = -1
        for index, shot in enumerate(chain([self._first], iter(self._read, None))):
            height, width = shot.pixels.shape[:2]
            if (width, height) != (self._info.width, self._info.height):
                raise InputError(
                    f"{self._source.name}: the picture changes from {self._info.width}x{self._info.height} to "
                    f"{width}x{height}; add videoscale and caps"
                )
            seconds = shot.time if shot.time is not None else index / float(self._info.rate)
            last = max(round(seconds / _TICKS), last + 1)
            yield Picture(shot.pixels, last, None)

    def pixels(self, picture: Picture) -> Pixels:
        """A picture as RGB."""
        pixels: Pixels = picture.raw
        return pixels

    def stop(self) -> None:
        """End the iteration; a read that waits ends by itself after some seconds."""
        self._stopped = True

    def close(self) -> None:
        """Stop the pipeline."""
        self._source.close()

    def _read(self) -> Shot | None:
        return None if self._stopped else self._source.read()


class PipelineSink:
    """Pictures into a pipeline that takes raw RGB video.

    Args:
        source: where they come from.
        path: ``gst:`` and the pipeline without its source.
        scale: size of the restored frames relative to the source's.

    Raises:
        GstMissingError: GStreamer is not there.
        UsageError: the text is no pipeline.
    """

    def __init__(self, source: FrameSource, path: str | Path, *, scale: int) -> None:
        self._notes: list[str] = []
        info, self._turns = placed(source.info, scale, self._notes.append, keeps_matrix=False)
        self._base, self._rate = info.time_base, info.rate
        self._zero: int | None = None
        self._sink = GstSink(description_of(path), live=False)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a pipeline cannot keep."""
        lost = "a GStreamer pipeline takes pictures of 8 bits only: sound, tags and other tracks are not kept"
        return (*self._notes, lost, "what the pipeline has written when a run fails cannot be taken back")

    @property
    def encoding(self) -> str:
        """How pictures are stored."""
        return "GStreamer"

    def prepare(self, frame: Frame) -> Picture:
        """A frame as 8 bits, upright."""
        pixels = frame.pixels if self._turns is None else turned(frame.pixels, self._turns)
        return Picture(to_uint8(pixels), frame.pts, frame.duration)

    def write(self, item: Picture | SidePacket | Checkpoint) -> None:
        """Hand a picture over.

        Raises:
            OutputError: the pipeline failed, or took nothing for 5 s.
        """
        if isinstance(item, Picture):
            self._zero = item.pts if self._zero is None else self._zero
            self._sink.push(item.raw, self._rate, round((item.pts - self._zero) * self._base * 1_000_000_000))

    def finish(self) -> None:
        """End the stream and wait until it got through.

        Raises:
            OutputError: the pipeline failed, or did not end.
        """
        self._sink.finish()

    def stop(self) -> None:
        """A write that waits ends by itself after some seconds."""

    def discard(self) -> None:
        """Stop the pipeline."""
        self._sink.discard()
