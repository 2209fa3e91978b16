"""Reading video files with PyAV: frames in presentation order, side streams packet by packet."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uare_rt.errors import InputError
from uare_rt.video.colour import ToRgb, guessed_matrix, read_tags
from uare_rt.video.frames import Damage, Frame, SidePacket, VideoInfo
from uare_rt.video.rotation import display_matrix
from uare_rt.video.truncation import missing_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["SUFFIXES", "VideoSource", "is_video", "open_input", "picture_stream"]

SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("mp4", "m4v", "mov", "mkv", "webm", "avi", "mpg", "mpeg", "ts", "m2ts", "mts"),
        *("wmv", "flv", "3gp", "ogv", "vob", "mxf", "y4m"),
    )
)
# Containers whose header states the true duration, so that a shorter stream means a truncated file.
_STATES_DURATION = ("mov", "matroska")
_GAP_SECONDS = 0.5


def is_video(path: str | Path) -> bool:
    """Whether the name of ``path`` says that it is a video file."""
    return Path(path).suffix.lower() in SUFFIXES


def open_input(path: Path) -> Any:
    """Open ``path`` as an `av.container.InputContainer`.

    Raises:
        InputError: the file is missing, empty, unreadable or no video container.
    """
    import av

    try:
        if path.is_dir():
            raise InputError(f"{path} is a directory, not a video file")
        if path.stat().st_size == 0:
            raise InputError(f"{path} is empty (0 bytes)")
        return av.open(str(path), metadata_errors="replace")
    except FileNotFoundError:
        raise InputError(f"{path} does not exist") from None
    except PermissionError:
        raise InputError(f"{path} cannot be read: permission denied") from None
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise InputError(
            f"{path} is not a readable video ({_reason(error)}): the file is damaged, cut off before its index, "
            "or of another kind"
        ) from error


def picture_stream(container: Any, path: Path) -> Any:
    """The video stream to restore: the first that is not a cover picture.

    Raises:
        InputError: there is none, or no decoder for it.
    """
    from av.stream import Disposition

    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams:
        kinds = ", ".join(sorted({s.type for s in container.streams})) or "none"
        raise InputError(f"{path} has no video stream (streams found: {kinds})")
    stream = streams[0]
    if stream.codec_context is None:
        raise InputError(f"{path}: this build of FFmpeg has no decoder for its video stream")
    stream.thread_type = "AUTO"
    return stream


class VideoSource:
    """Frames and side packets of one file, in the order of the file.

    A stream that cannot be read to its end does not raise: what decodes is yielded and the rest is
    listed in `damage`. Iterate once, in one thread.

    Args:
        path: the video file.

    Raises:
        InputError: the file cannot be opened, has no video stream, or not one frame of it decodes.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._container = open_input(path)
        try:
            self._stream = picture_stream(self._container, path)
            self._damage: list[Damage] = []
            self._counts: Counter[str] = Counter()
            self._last_pts: int | None = None
            self._end = 0.0
            self._decoded = 0
            self._items = self._read()
            self._opening = self._read_opening()
        except BaseException:
            self._container.close()
            raise

    @property
    def container(self) -> Any:
        """The open `av.container.InputContainer`: metadata, chapters and stream templates."""
        return self._container

    @property
    def side_streams(self) -> list[Any]:
        """Every `av.stream.Stream` but the one that is restored."""
        return [s for s in self._container.streams if s.index != self._stream.index]

    @property
    def stream(self) -> Any:
        """The `av.VideoStream` that is restored."""
        return self._stream

    @property
    def info(self) -> VideoInfo:
        """Facts of the stream."""
        return self._info

    @property
    def damage(self) -> tuple[Damage, ...]:
        """What could not be read; complete once the iteration has ended."""
        return tuple(self._damage)

    @property
    def notes(self) -> tuple[str, ...]:
        """What the caller should know about how the source was read."""
        texts = {
            "generated": "{} frames had no timestamp; theirs follow from the frame rate",
            "moved": "{} frames had a timestamp not after the one before; they were moved behind it",
            "interlaced": "{} frames are interlaced; they were restored as whole pictures, without deinterlacing",
        }
        found = [texts[key].format(count) for key, count in sorted(self._counts.items())]
        if self._info.colour.transfer in (16, 18):
            name = "PQ" if self._info.colour.transfer == 16 else "HLG"
            found.append(f"HDR ({name}): coded values were restored as they are, without tone mapping")
        return tuple(found)

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def __iter__(self) -> Iterator[Frame | SidePacket]:
        yield from self._opening
        self._opening.clear()
        yield from self._items
        self._check_end()

    def _read_opening(self) -> list[Frame | SidePacket]:
        """Everything up to the first frame, which tells what the stream is."""
        opening: list[Frame | SidePacket] = []
        for item in self._items:
            opening.append(item)
            if isinstance(item, Frame):
                return opening
        reason = self._damage[0].reason if self._damage else "the stream is empty"
        raise InputError(f"{self._path}: not one frame could be decoded ({reason})")

    def _read(self) -> Iterator[Frame | SidePacket]:
        import av

        packets = self._container.demux()
        while True:
            try:
                packet = next(packets, None)
            except (av.error.FFmpegError, OSError, ValueError) as error:
                self._note_damage(f"the file cannot be read on: {_reason(error)}")
                packet = None
            if packet is None:
                return
            if packet.stream.index == self._stream.index:
                yield from self._decode(packet)
            elif packet.size or packet.pts is not None:
                self._note_time(packet)
                yield SidePacket(packet.stream.index, packet)

    def _decode(self, packet: Any) -> Iterator[Frame]:
        import av

        if packet.is_corrupt:
            self._note_damage("a packet is incomplete")
        try:
            frames = packet.decode()
        except (av.error.FFmpegError, ValueError) as error:
            self._note_damage(f"a packet cannot be decoded: {_reason(error)}")
            return
        for frame in frames:
            yield self._frame(frame)

    def _frame(self, frame: Any) -> Frame:
        if self._decoded == 0:
            self._start(frame)
        info = self._info
        if (frame.width, frame.height) != (info.width, info.height):
            raise InputError(
                f"{self._path}: the picture changes from {info.width}x{info.height} to {frame.width}x{frame.height} "
                f"at {self._end:.2f} s; split the clip there"
            )
        self._decoded += 1
        if frame.interlaced_frame:
            self._counts["interlaced"] += 1
        if frame.is_corrupt:
            self._note_damage("a frame is only partly decoded")
        pts = self._timestamp(frame)
        duration = int(getattr(frame, "duration", 0) or 0)
        self._end = max(self._end, float((pts + (duration or self._tick)) * info.time_base))
        return Frame(self._to_rgb(frame), pts, duration or None)

    def _start(self, frame: Any) -> None:
        stream = self._stream
        # Without timestamps the container's own rate is made up; the coded stream may know better.
        rates = [stream.average_rate, stream.guessed_rate][:: 1 if frame.pts is not None else -1]
        rate = Fraction(rates[0] or rates[1] or 25)
        time_base = Fraction(stream.time_base or 1 / rate)
        colour = read_tags(frame, stream.codec_context)
        depth = max(component.bits for component in frame.format.components)
        aspect = stream.sample_aspect_ratio
        self._tick = max(1, round(1 / (rate * time_base)))
        self._info = VideoInfo(
            width=frame.width,
            height=frame.height,
            time_base=time_base,
            rate=rate,
            pix_fmt=frame.format.name,
            depth=depth,
            colour=colour,
            pixel_aspect=Fraction(aspect) if aspect and aspect > 0 and aspect != 1 else None,
            display_matrix=display_matrix(frame),
            frames=stream.frames or None,
            duration=self._stated_duration(),
        )
        matrix = guessed_matrix(colour, frame.width, frame.height)
        self._to_rgb = ToRgb(matrix, full_range=colour.full_range, deep=depth > 8)

    def _stated_duration(self) -> float | None:
        if self._stream.duration is not None and self._stream.time_base:
            return float(self._stream.duration * self._stream.time_base)
        return self._container.duration / 1e6 if self._container.duration else None

    def _timestamp(self, frame: Any) -> int:
        pts: int | None = frame.pts
        if pts is None:
            pts = 0 if self._last_pts is None else self._last_pts + self._tick
            self._counts["generated"] += 1
        elif self._last_pts is not None and pts <= self._last_pts:
            pts = self._last_pts + 1
            self._counts["moved"] += 1
        self._last_pts = pts
        return pts

    def _note_time(self, packet: Any) -> None:
        if packet.pts is not None and packet.time_base:
            end = float((packet.pts + (packet.duration or 0)) * packet.time_base)
            self._end = max(self._end, end)

    def _note_damage(self, reason: str) -> None:
        if not self._damage or self._damage[-1] != Damage(round(self._end, 3), reason):
            self._damage.append(Damage(round(self._end, 3), reason))

    def _check_end(self) -> None:
        """Compare where the streams and the file ended with what the header promised."""
        container = self._container
        missing = missing_bytes(self._path)
        if missing:
            self._note_damage(f"the file is cut off, {missing} bytes or more are missing")
            return
        if not container.duration or not any(name in container.format.name for name in _STATES_DURATION):
            return
        # Only files written in one go state a duration; it is measured from the first timestamp.
        promised = (container.duration + max(container.start_time or 0, 0)) / 1e6
        if promised - self._end > _GAP_SECONDS:
            self._note_damage(f"the file ends here, its header promises {promised:.2f} s")


def _reason(error: BaseException) -> str:
    return str(getattr(error, "strerror", None) or error or type(error).__name__)
