"""Opening what frames are read from: files, and standard input as Y4M or raw frames."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uare_rt.errors import InputError, UsageError
from uare_rt.video.pipes import PipeReader

if TYPE_CHECKING:
    from typing import TypeGuard

__all__ = [
    "PIPE",
    "SUFFIXES",
    "RawFormat",
    "is_pipe",
    "is_pipeline",
    "is_video",
    "open_input",
    "open_pipe",
    "picture_stream",
    "reason",
]

SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("mp4", "m4v", "mov", "mkv", "webm", "avi", "mpg", "mpeg", "ts", "m2ts", "mts"),
        *("wmv", "flv", "3gp", "ogv", "vob", "mxf", "y4m", "nut"),
    )
)
PIPE = "-"
_RAW = re.compile(r"(\d+)x(\d+)@(\d+(?:\.\d+)?|\d+/\d+):(\w+)")


@dataclass(frozen=True)
class RawFormat:
    """What headerless frames on a pipe look like.

    Attributes:
        width: pixels.
        height: pixels.
        rate: frames per second.
        pix_fmt: FFmpeg's name of the pixel format.
    """

    width: int
    height: int
    rate: Fraction
    pix_fmt: str

    @classmethod
    def parse(cls, text: str) -> RawFormat:
        """Read ``WIDTHxHEIGHT@RATE:PIXELFORMAT``, for example ``1920x1080@30000/1001:yuv420p``.

        Raises:
            UsageError: the text is no such format, or FFmpeg does not know the pixel format.
        """
        from av.video.format import VideoFormat

        match = _RAW.fullmatch(text)
        try:
            if match is None:
                raise ValueError
            VideoFormat(match[4], 16, 16)
            found = cls(int(match[1]), int(match[2]), Fraction(match[3]), match[4])
        except (ValueError, ZeroDivisionError):
            found = None
        if found is None or not (found.width and found.height and found.rate):
            raise UsageError(f"raw format {text!r} cannot be read; write it as 1920x1080@25:yuv420p")
        return found


def is_video(path: str | Path) -> bool:
    """Whether the name of ``path`` says that it is a video file."""
    return Path(path).suffix.lower() in SUFFIXES


def is_pipeline(path: str | Path) -> bool:
    """Whether a name is a pipeline: ``gst:`` and a text as for gst-launch-1.0."""
    return str(path).startswith("gst:")


def is_pipe(path: str | Path) -> TypeGuard[str]:
    """Whether ``path`` means standard input or output."""
    return str(path) == PIPE


def open_input(path: Path) -> Any:
    """Open ``path`` as an `av.container.InputContainer`.

    Raises:
        InputError: the file is missing, empty, unreadable or no video container.
    """
    import av

    try:
        if path.is_dir():
            raise InputError(f"{path}: is a directory, not a video; name a file in it")
        if path.stat().st_size == 0:
            raise InputError(f"{path}: the file is empty (0 bytes); get a whole copy of it")
        return av.open(str(path), metadata_errors="replace")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; check the path") from None
    except PermissionError:
        raise InputError(f"{path}: cannot be read (permission denied); check who owns it") from None
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise InputError(
            f"{path}: not a readable video ({reason(error)}); it is damaged, cut off before its index or of another "
            "kind, get a whole copy of it"
        ) from error


def open_pipe(reader: PipeReader, raw: RawFormat | None) -> Any:
    """Open standard input as an `av.container.InputContainer`.

    Args:
        reader: where bytes come from.
        raw: what the frames look like; None expects Y4M.

    Raises:
        InputError: what comes is no Y4M, or nothing comes.
    """
    import av

    try:
        if raw is None:
            return av.open(reader, format="yuv4mpegpipe")
        options = {"video_size": f"{raw.width}x{raw.height}", "pixel_format": raw.pix_fmt, "framerate": str(raw.rate)}
        return av.open(reader, format="rawvideo", options=options)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise InputError(
            f"standard input is no Y4M stream ({reason(error)}); send one (ffmpeg -i IN -f yuv4mpegpipe -), "
            "or say what raw frames look like (--raw)"
        ) from error


def picture_stream(container: Any, name: str | Path) -> Any:
    """The video stream to restore: the first that is not a cover picture.

    Args:
        container: the open `av.container.InputContainer`.
        name: what messages call it.

    Raises:
        InputError: there is none, or no decoder for it.
    """
    from av.stream import Disposition

    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams:
        kinds = ", ".join(sorted({s.type for s in container.streams})) or "none"
        raise InputError(f"{name}: has no video stream (streams found: {kinds}); name a file with pictures")
    stream = streams[0]
    if stream.codec_context is None:
        raise InputError(
            f"{name}: this build of FFmpeg has no decoder for its video stream ({_codec_of(container, stream)})"
        )
    stream.thread_type = "AUTO"
    return stream


def _codec_of(container: Any, stream: Any) -> str:
    """What the container calls the codec of a stream that has no decoder."""
    import av.logging

    mark = f"#0:{stream.index}"
    level = av.logging.get_level()
    av.logging.set_level(av.logging.INFO)  # below it, FFmpeg describes nothing
    try:
        description: str = container.dumps_format()
    finally:
        av.logging.set_level(level)
    for line in description.splitlines():
        if mark in line and "Video:" in line:
            return line.partition("Video:")[2].split(",")[0].strip().removeprefix("none ").strip("()")
    return "unknown codec"


def reason(error: BaseException) -> str:
    """What a library or the system says went wrong, in a phrase."""
    return str(getattr(error, "strerror", None) or error or type(error).__name__)
