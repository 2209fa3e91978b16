"""Writing frames to standard output, as Y4M or raw, for the next program of a pipe."""

from __future__ import annotations

import contextlib
import os
import sys
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from uare_rt.errors import OutputError, UsageError
from uare_rt.video.colour import FromRgb, guessed_matrix, output_pix_fmt
from uare_rt.video.encoding import is_rgb
from uare_rt.video.frames import Checkpoint, Frame, Picture, SidePacket
from uare_rt.video.pipes import PipeWriter
from uare_rt.video.rotation import placed

if TYPE_CHECKING:
    from uare_rt.video.frames import FrameSource
    from uare_rt.video.options import VideoOptions

__all__ = ["PipeSink"]

_Y4M = ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv422p10le", "yuv444p10le"]


class PipeSink:
    """Pictures on standard output.

    Args:
        source: where they come from.
        scale: size of the restored frames relative to the source's.
        options: the form of the frames.

    Raises:
        UsageError: the pixel format does not fit.
        OutputError: standard output cannot be written.
    """

    def __init__(self, source: FrameSource, *, scale: int, options: VideoOptions) -> None:
        import av

        self._notes: list[str] = []
        info, self._turns = placed(source.info, scale, self._notes.append)
        wanted = options.pix_fmt or (options.raw.pix_fmt if options.raw is not None else None)
        self._pix_fmt = wanted or output_pix_fmt(info.pix_fmt, info.width, info.height, _Y4M, odd_chroma=True)
        if options.raw is None and self._pix_fmt not in _Y4M:
            raise UsageError(f"Y4M has no pixel format {self._pix_fmt!r}; it takes {', '.join(_Y4M)}")
        self._notes += _lost(source)
        self._frame_time = 1 / info.rate
        self._source_base = info.time_base
        self._count = 0
        self._finished = False
        # A descriptor of our own: what Python still prints cannot close it under us.
        self._writer = PipeWriter(os.dup(sys.stdout.fileno()))
        form = "rawvideo" if options.raw is not None else "yuv4mpegpipe"
        # Y4M with more than 8 bits is widely read, but no part of the first specification.
        self._container: Any = av.open(self._writer, "w", format=form, container_options={"strict": "-1"})
        stream = self._container.add_stream("rawvideo", rate=info.rate)
        context = stream.codec_context
        context.width, context.height, context.pix_fmt = info.width, info.height, self._pix_fmt
        context.time_base = Fraction(1) / info.rate
        if info.pixel_aspect is not None:
            context.sample_aspect_ratio = info.pixel_aspect
        tags = source.info.colour
        full = tags.full_range and (is_rgb(self._pix_fmt) or not is_rgb(source.info.pix_fmt))
        context.color_range = 2 if full else 1
        matrix = guessed_matrix(tags, source.info.width, source.info.height)
        self._from_rgb = FromRgb(self._pix_fmt, matrix, full_range=full)
        self._stream = stream

    @property
    def notes(self) -> tuple[str, ...]:
        """What a pipe cannot keep."""
        return tuple(self._notes)

    @property
    def encoding(self) -> str:
        """How pictures are stored."""
        return f"pipe {self._pix_fmt}"

    def prepare(self, frame: Frame) -> Picture:
        """A frame in the pixel format of the pipe."""
        from uare_rt.video.rotation import turned

        pixels = frame.pixels if self._turns is None else turned(frame.pixels, self._turns)
        return Picture(self._from_rgb(pixels), frame.pts, frame.duration)

    def write(self, item: Picture | SidePacket | Checkpoint) -> None:
        """Write a picture.

        Raises:
            BrokenPipeError: the reader has left.
            OutputError: writing failed.
        """
        if not isinstance(item, Picture):
            return
        frame = item.raw
        frame.pts, frame.time_base = self._count, Fraction(1) / (1 / self._frame_time)
        self._count += 1
        with _explained():
            self._container.mux(self._stream.codec_context.encode(frame))

    def finish(self) -> None:
        """Write what is left."""
        with _explained():
            self._container.mux(self._stream.codec_context.encode(None))
            self._container.close()
        self._finished = True

    def stop(self) -> None:
        """Wake a write that waits for the reader."""
        self._writer.stop()

    def discard(self) -> None:
        """Write no more; what the reader has got cannot be taken back."""
        if not self._finished:
            self._writer.stop()
            with contextlib.suppress(Exception):
                self._container.close()


@contextlib.contextmanager
def _explained() -> Any:
    import av

    try:
        yield
    except BrokenPipeError:
        raise
    except (av.error.FFmpegError, OSError) as error:
        raise OutputError(f"standard output: writing failed ({getattr(error, 'strerror', None) or error})") from error


def _lost(source: FrameSource) -> list[str]:
    notes = ["a pipe has no timestamps: frames follow at the constant rate of the source"]
    origin = source.origin
    if origin is not None and origin.side_streams:
        kinds = ", ".join(sorted({stream.type for stream in origin.side_streams}))
        notes.append(f"a pipe holds pictures only: {kinds} not kept")
    return notes
