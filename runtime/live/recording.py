"""Sinks that encode: files that appear when they are complete, and streams over the network."""

from __future__ import annotations

import contextlib
import os
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from uare_rt.errors import OutputError
from uare_rt.video.colour import guessed_matrix
from uare_rt.video.copying import CONTAINERS
from uare_rt.video.encoding import choose_encoding, set_up
from uare_rt.video.frames import ColourTags, VideoInfo
from uare_rt.video.options import VideoOptions
from uare_rt.video.sink import explained
from uare_rt.video.targets import check_target, partial_name

if TYPE_CHECKING:
    from pathlib import Path

    from uare_rt.live.frames import LiveResult

__all__ = ["FileSink", "UrlSink"]

_TICKS = 90_000  # per second
_USUAL_RATE = Fraction(30)
# A frame must leave the encoder when it comes in, and the engine needs the cores.
_LIVE = {
    "libx264": {"preset": "veryfast", "tune": "zerolatency"},
    "libx265": {"preset": "ultrafast", "tune": "zerolatency"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0"},
}
_SECONDS = 5.0  # that a receiver may take none of what is sent


class _Encoder:
    """An output container with one video stream, opened by the first frame."""

    def __init__(self, target: str, format_name: str) -> None:
        self._target, self._format = target, format_name
        self._container: Any = None
        self._stream: Any = None
        self._size = (0, 0)
        self._last = -1

    def write(self, result: LiveResult, rate: Fraction | None) -> int:
        height, width = result.pixels.shape[:2]
        if self._container is None:
            self._open(width, height, rate or _USUAL_RATE)
        if (width, height) != self._size:
            raise OutputError(
                f"{self._target}: the picture changes from {self._size[0]}x{self._size[1]} to {width}x{height}, but a "
                "recording holds one size; start another"
            )
        frame = self._from_rgb(result.pixels)
        self._last = max(self._last + 1, round(result.time * _TICKS))
        frame.pts, frame.time_base = self._last, Fraction(1, _TICKS)
        self._container.mux(self._stream.encode(frame))
        return 1

    def finish(self) -> None:
        if self._container is not None:
            self._container.mux(self._stream.encode(None))
            self._container.close()

    def abandon(self) -> None:
        if self._container is not None:
            with contextlib.suppress(Exception):  # what is about to go need not be completed
                self._container.close()

    def _open(self, width: int, height: int, rate: Fraction) -> None:
        import av

        info = _described(width, height, rate)
        options = VideoOptions()
        encoding = choose_encoding(info, self._format, options)
        ticks = {"video_track_timescale": str(_TICKS)} if self._format in ("mp4", "mov") else {}
        self._container = av.open(self._target, "w", format=self._format, container_options=ticks)
        self._stream = self._container.add_stream(encoding.codec, rate=rate)
        context = self._stream.codec_context
        self._from_rgb = set_up(context, encoding, info, info, options)
        context.options = {**context.options, **_LIVE.get(encoding.codec, {})}
        self._stream.time_base = info.time_base
        self._size = (width, height)


class FileSink:
    """Records into a file, under a hidden name until it is complete.

    Args:
        target: the file to make.
        overwrite: whether an existing one may be replaced.

    Raises:
        UsageError: its suffix names no container.
        OutputError: it exists, or its directory cannot be written to.
    """

    def __init__(self, target: Path, *, overwrite: bool) -> None:
        check_target(None, target, overwrite=overwrite)
        self._target, self._partial = target, partial_name(target)
        self._encoder = _Encoder(str(self._partial), CONTAINERS[target.suffix.lower()])

    def write(self, result: LiveResult, rate: Fraction | None) -> int:
        """Encode a frame; one conversion."""
        with explained(self._target):
            return self._encoder.write(result, rate)

    def finish(self) -> None:
        """Complete the file and put it in its place; without a frame there is none."""
        try:
            with explained(self._target):
                self._encoder.finish()
                if self._partial.exists():
                    os.replace(self._partial, self._target)
        except BaseException:
            self.discard()
            raise

    def discard(self) -> None:
        """Remove the unfinished file."""
        self._encoder.abandon()
        self._partial.unlink(missing_ok=True)


class UrlSink:
    """Sends an encoded stream.

    Args:
        url: where to.
        format_name: FFmpeg's name of the container that travels there.
    """

    def __init__(self, url: str, format_name: str) -> None:
        self._url = url
        # Of the protocols only TCP would wait for ever.
        timeout = f"{'&' if '?' in url else '?'}timeout={round(_SECONDS * 1e6)}" if url.startswith("tcp://") else ""
        self._encoder = _Encoder(url + timeout, format_name)

    def write(self, result: LiveResult, rate: Fraction | None) -> int:
        """Encode and send a frame; one conversion.

        Raises:
            OutputError: nobody is there, or takes what is sent.
        """
        with explained(self._url, kept="the stream ends"):
            return self._encoder.write(result, rate)

    def finish(self) -> None:
        """Send what the encoder holds and say goodbye."""
        with explained(self._url, kept="the stream ends"):
            self._encoder.finish()

    def discard(self) -> None:
        """Close the connection."""
        self._encoder.abandon()


def _described(width: int, height: int, rate: Fraction) -> VideoInfo:
    unspecified = ColourTags(2, False, True, 2, 2)
    colour = ColourTags(guessed_matrix(unspecified, width, height), False, True, 2, 2)
    return VideoInfo(
        width=width,
        height=height,
        time_base=Fraction(1, _TICKS),
        rate=rate,
        pix_fmt="yuv420p",
        depth=8,
        colour=colour,
        pixel_aspect=None,
        display_matrix=None,
        frames=None,
        duration=None,
    )
