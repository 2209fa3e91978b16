"""Interlaced frames made whole by FFmpeg's bwdif, one for each, at the times they had."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Deinterlacer"]


class Deinterlacer:
    """Passes frames through the filter; frames that are whole already come back as they are.

    Args:
        frame: the first `av.VideoFrame`; all others have its size and pixel format.
        stream: it belongs to.
    """

    def __init__(self, frame: Any, stream: Any) -> None:
        import av.filter

        self._time_base = Fraction(frame.time_base or stream.time_base)
        self._graph = av.filter.Graph()
        source = self._graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=self._time_base
        )
        weave = self._graph.add("bwdif", "mode=send_frame:deint=interlaced")
        sink = self._graph.add("buffersink")
        source.link_to(weave)
        weave.link_to(sink)
        self._graph.configure()

    def push(self, frame: Any) -> Iterator[Any]:
        """Frames that are complete once ``frame`` is known."""
        self._graph.push(frame)
        yield from self._pulled()

    def flush(self) -> Iterator[Any]:
        """The frames still inside."""
        self._graph.push(None)
        yield from self._pulled()

    def _pulled(self) -> Iterator[Any]:
        import av

        while True:
            try:
                frame = self._graph.pull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return
            if frame.pts is not None:
                ticks = Fraction(frame.time_base or self._time_base) / self._time_base
                frame.pts, frame.duration = round(frame.pts * ticks), round((frame.duration or 0) * ticks)
            frame.time_base = self._time_base
            yield frame
