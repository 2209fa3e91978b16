"""Cameras, streams and files through FFmpeg: V4L2 devices, RTSP and other URLs, files that play at their own speed."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any, Literal

from uare_rt.errors import InputError
from uare_rt.live.frames import Shot

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from fractions import Fraction

    from uare_rt.video.colour import ToRgb

__all__ = ["AvSource"]

_OPEN_SECONDS, _READ_SECONDS = 10.0, 5.0
# Frames are wanted when they arrive: what came while the stream was examined (for 1 s at most) is not played late.
_LOW_DELAY = {"fflags": "nobuffer", "flags": "low_delay", "analyzeduration": "1000000"}
_RTSP = {"rtsp_transport": "tcp"}
_BACKLOG = 0.5  # seconds a file may lag behind its own clock before the clock is set back


class AvSource:
    """One camera, stream or file. 10-bit pictures are given in 8 bits.

    Args:
        target: device, URL or path.
        kind: what it is: a file ends and is paced by its timestamps, the others are lost when they end.
        options: of FFmpeg's demuxer or device, for example ``video_size``.
    """

    def __init__(
        self, target: str, *, kind: Literal["v4l2", "url", "file"], options: Mapping[str, str] | None = None
    ) -> None:
        self.name, self._kind, self._options = target, kind, dict(options or {})
        self.ends = kind == "file"
        self.reopens = not self.ends
        self.rate: Fraction | None = None
        self.damaged = 0
        self._container: Any = None
        self._frames: Iterator[Any] | None = None
        self._conversion: tuple[tuple[Any, ...], ToRgb] | None = None
        self._clock: float | None = None

    def open(self) -> None:
        """Open it and find its video.

        Raises:
            InputError: it is not there, does not answer within 10 s, or has no video.
        """
        import av

        from uare_rt.video.opening import picture_stream, reason

        options = {**(_LOW_DELAY if self._kind != "file" else {}), **self._options}
        if self.name.lower().startswith(("rtsp://", "rtsps://")):
            options = {**_RTSP, **options}
        try:
            self._container = av.open(
                self.name,
                format="v4l2" if self._kind == "v4l2" else None,
                options=options,
                timeout=(_OPEN_SECONDS, _READ_SECONDS),
                metadata_errors="replace",
            )
            stream = picture_stream(self._container, self.name)
        except (av.error.FFmpegError, OSError, ValueError) as error:
            self.close()
            raise InputError(f"{self.name}: cannot be opened ({reason(error)})") from error
        except InputError:
            self.close()
            raise
        # Threads over frames would hold back as many frames as there are threads.
        stream.thread_type = "SLICE" if self._kind != "file" else "AUTO"
        self.rate = stream.average_rate or stream.guessed_rate
        self._frames, self._clock = self._decode(stream), None

    def read(self) -> Shot | None:
        """The next picture; for a file when it is its time.

        Raises:
            InputError: the source was lost, or nothing came for 5 s.
        """
        assert self._frames is not None
        frame = next(self._frames, None)
        if frame is None:
            return None
        seconds = None if frame.pts is None else float(frame.pts * frame.time_base)
        if self._kind == "file" and seconds is not None:
            self._pace(seconds)
        return Shot(self._pixels(frame), seconds, 1)

    def close(self) -> None:
        """Give the device or connection back."""
        import av

        container, self._container, self._frames = self._container, None, None
        if container is not None:
            with contextlib.suppress(av.error.FFmpegError, OSError):  # a device that has gone cannot be closed well
                container.close()

    def _decode(self, stream: Any) -> Iterator[Any]:
        import av

        from uare_rt.video.opening import reason

        packets = self._container.demux(stream)
        while True:
            try:
                packet = next(packets, None)
            except av.error.BlockingIOError:
                time.sleep(0.001)
                continue
            except (av.error.FFmpegError, OSError, ValueError) as error:
                raise InputError(f"{self.name}: lost ({reason(error)})") from error
            if packet is None:
                return
            try:
                yield from packet.decode()
            except av.error.EOFError:
                return
            except (av.error.FFmpegError, ValueError):
                self.damaged += 1

    def _pace(self, seconds: float) -> None:
        now = time.monotonic()
        if self._clock is None or now - (self._clock + seconds) > _BACKLOG:
            self._clock = now - seconds
        time.sleep(max(0.0, self._clock + seconds - now))

    def _pixels(self, frame: Any) -> Any:
        from uare_rt.video.colour import ToRgb, guessed_matrix, read_tags

        key = (frame.format.name, frame.width, frame.height, int(frame.colorspace), int(frame.color_range))
        if self._conversion is None or self._conversion[0] != key:
            tags = read_tags(frame, self._container.streams.video[0].codec_context)
            matrix = guessed_matrix(tags, frame.width, frame.height)
            self._conversion = (key, ToRgb(matrix, full_range=tags.full_range, deep=False))
        return self._conversion[1](frame)
