"""A part of a clip as a source of its own: from a time, to a time, counted from zero again."""

from __future__ import annotations

import math
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from uare_rt.errors import InputError
from uare_rt.video.frames import Picture, SidePacket

if TYPE_CHECKING:
    from collections.abc import Iterator

    from uare_rt.video.frames import Damage, FrameSource, Pixels, VideoInfo
    from uare_rt.video.options import VideoOptions
    from uare_rt.video.source import VideoSource

__all__ = ["ExcerptSource", "excerpt_range"]


def excerpt_range(source: FrameSource, options: VideoOptions) -> tuple[float, float | None] | None:
    """The seconds that the caller asked for, from the start of the clip on; None for all of it.

    Raises:
        InputError: the range begins after the end of the clip, or a sample is asked of a clip of unknown length.
    """
    if options.start is None and options.end is None and options.sample is None:
        return None
    start, end = options.start or 0.0, options.end
    duration = source.info.duration
    if duration is not None and start >= duration:
        raise InputError(f"the clip is {duration:.2f} s long; nothing is left from {start:g} s on")
    if options.sample is not None:
        last = min(x for x in (end, duration) if x is not None) if end is not None or duration is not None else None
        if last is None:
            raise InputError("the clip does not state its length, so its middle is unknown; give start and end instead")
        middle = (start + last) / 2
        start = max(start, middle - options.sample / 2)
        end = min(last, start + options.sample)
    return start, end


class ExcerptSource:
    """Pictures and packets of a range; the first picture is at zero and everything else keeps its distance to it.

    Args:
        source: not iterated yet.
        start: seconds from the start of the clip.
        end: seconds from the start of the clip; None takes everything to its end.

    Raises:
        InputError: no picture is in the range.
    """

    def __init__(self, source: FrameSource, start: float, end: float | None) -> None:
        self._source = source
        info = source.info
        origin = source.origin
        zero = origin.start if origin is not None else Fraction(0)
        first = math.ceil((zero + _exact(start)) / info.time_base)
        self._end = None if end is None else zero + _exact(end)
        if origin is not None and start > 0:
            origin.seek(first)
        self._items = iter(source)
        self._opening: list[Picture | SidePacket] = []
        self._first = self._find(first)
        self._zero = self._first.pts * info.time_base
        length = end - start if end is not None else info.duration - start if info.duration is not None else None
        frames = round(length * info.rate) if length is not None else None
        self._info = replace(info, frames=frames, duration=length)

    @property
    def info(self) -> VideoInfo:
        """Facts of the stream; number of frames and duration are those expected of the range."""
        return self._info

    @property
    def origin(self) -> VideoSource | None:
        """The container behind it."""
        return self._source.origin

    @property
    def chapters(self) -> list[Any]:
        """Chapters that reach into the range, cut to it."""
        found = []
        for chapter in self._source.chapters:
            base = Fraction(chapter["time_base"])
            zero = round(self._zero / base)
            end = chapter["end"] if self._end is None else min(chapter["end"], round(self._end / base))
            start = max(chapter["start"], zero)
            if start < end:
                found.append({**chapter, "start": start - zero, "end": end - zero})
        return found

    @property
    def damage(self) -> tuple[Damage, ...]:
        """What could not be read, on the clock of the whole clip."""
        return self._source.damage

    @property
    def notes(self) -> tuple[str, ...]:
        """What the caller should know about how the source was read."""
        return self._source.notes

    def pixels(self, picture: Picture) -> Pixels:
        """A picture as RGB."""
        return self._source.pixels(picture)

    def side_packets(self) -> Iterator[SidePacket]:
        """Only the copied packets of the range, instead of the iteration."""
        for item in (*self._opening, *self._source.side_packets()):
            if isinstance(item, SidePacket):
                yield from (moved for moved in self._moved(item) if isinstance(moved, SidePacket))

    def stop(self) -> None:
        """Wake an iteration that waits for data."""
        self._source.stop()

    def close(self) -> None:
        """Release the source."""
        self._source.close()

    def __iter__(self) -> Iterator[Picture | SidePacket]:
        # Sound that was read before the first picture of the range may belong to it.
        for item in (*self._opening, self._first):
            yield from self._moved(item)
        self._opening.clear()
        for item in self._items:
            if isinstance(item, Picture) and self._end is not None and self._time(item) >= self._end:
                yield from self._rest()
                return
            yield from self._moved(item)

    def _find(self, first: int) -> Picture:
        for item in self._items:
            if isinstance(item, SidePacket):
                self._opening.append(item)
            elif item.pts >= first:
                if self._end is not None and self._time(item) >= self._end:
                    break
                return item
        raise InputError("no frame lies in the range that was asked for; choose an earlier start or a later end")

    def _rest(self) -> Iterator[Picture | SidePacket]:
        """Packets of the range that lie behind its last picture in the file: a second of interleaving."""
        if self._end is None:
            return
        for item in self._items:
            if isinstance(item, Picture):
                if self._time(item) > self._end + 1:
                    return
            else:
                yield from self._moved(item)

    def _time(self, picture: Picture) -> Fraction:
        return picture.pts * self._source.info.time_base

    def _moved(self, item: Picture | SidePacket) -> Iterator[Picture | SidePacket]:
        if isinstance(item, Picture):
            yield Picture(item.raw, item.pts - self._first.pts, item.duration)
            return
        packet = item.packet
        if packet.pts is None or not packet.time_base:
            return
        base = Fraction(packet.time_base)
        begin = packet.pts * base
        middle = begin + Fraction(packet.duration or 0) * base / 2
        if middle < self._zero or (self._end is not None and begin >= self._end):
            return
        shift = round(self._zero / base)
        packet.pts -= shift
        if packet.dts is not None:
            packet.dts -= shift
        yield item


def _exact(seconds: float) -> Fraction:
    """The decimal that was meant: 0.4, and not the binary fraction a little above it."""
    return Fraction(seconds).limit_denominator(1_000_000)
