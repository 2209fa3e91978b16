"""Reading video with PyAV: pictures in presentation order, side streams packet by packet."""

from __future__ import annotations

import contextlib
import os
import sys
from collections import Counter
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uare_rt.errors import InputError
from uare_rt.video.colour import ToRgb, guessed_matrix, read_tags
from uare_rt.video.deinterlacing import Deinterlacer
from uare_rt.video.frames import Damage, Picture, SidePacket, VideoInfo
from uare_rt.video.hdr import read_hdr
from uare_rt.video.opening import is_pipe, open_input, open_pipe, picture_stream, reason
from uare_rt.video.pipes import PipeReader
from uare_rt.video.rotation import display_matrix
from uare_rt.video.truncation import cut_off

if TYPE_CHECKING:
    from collections.abc import Iterator

    from uare_rt.video.frames import Pixels
    from uare_rt.video.opening import RawFormat

__all__ = ["VideoSource"]

# Containers whose header states the true duration, so that a shorter stream means a truncated file.
_STATES_DURATION = ("mov", "matroska")
_GAP_SECONDS = 0.5
_DAMAGES = 1000  # places that are remembered one by one


class VideoSource:
    """Pictures and side packets of one file or pipe, in the order of the file.

    A stream that cannot be read to its end does not raise: what decodes is yielded and the rest is
    listed in `damage`. Iterate once, in one thread.

    Args:
        path: the video file, or ``-`` for standard input.
        raw: what headerless frames on standard input look like; None expects Y4M there.
        deinterlace: turn interlaced frames into whole ones; without it, they are refused.

    Raises:
        InputError: the file cannot be opened, has no video stream, is encrypted or interlaced, or not one frame
            of it decodes.
    """

    def __init__(self, path: str | Path, *, raw: RawFormat | None = None, deinterlace: bool = False) -> None:
        self._pipe: PipeReader | None = None
        if is_pipe(path):
            self._name, self._path = "standard input", None
            # A descriptor of our own: the caller's stays as it is, and a container that is closed closes nothing.
            self._pipe = PipeReader(os.dup(sys.stdin.fileno()))
            self._container = open_pipe(self._pipe, raw)
        else:
            self._name, self._path = str(path), Path(path)
            self._container = open_input(self._path)
        self._deinterlace = deinterlace
        self._deinterlacer: Deinterlacer | None = None
        self._damage: list[Damage] = []
        self._counts: Counter[str] = Counter()
        self._last_pts: int | None = None
        self._end = 0.0
        self._decoded = 0
        try:
            self._stream = picture_stream(self._container, self._name)
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
    def origin(self) -> VideoSource:
        """This source: it is a container."""
        return self

    @property
    def chapters(self) -> list[Any]:
        """Chapters as PyAV gives and takes them."""
        return list(self._container.chapters())

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
            "interlaced": "{} frames further on are interlaced; they were restored as whole pictures",
            "deinterlaced": "{} interlaced frames were deinterlaced (bwdif, one frame for each)",
        }
        found = [texts[key].format(count) for key, count in sorted(self._counts.items())]
        if self._info.colour.transfer in (16, 18):
            name = "PQ" if self._info.colour.transfer == 16 else "HLG"
            found.append(f"HDR ({name}): coded values were restored as they are, without tone mapping")
        return tuple(found)

    @property
    def start(self) -> Fraction:
        """Seconds at which a player's clock begins: the first timestamp of the file."""
        began = self._container.start_time
        if began is not None:
            return Fraction(began, 1_000_000)
        first = next(item for item in self._opening if isinstance(item, Picture))
        return first.pts * self._info.time_base

    def pixels(self, picture: Picture) -> Pixels:
        """A picture as RGB: uint8 or uint16 [H, W, 3]."""
        return self._to_rgb(picture.raw)

    def seek(self, pts: int) -> None:
        """Begin the iteration at a key frame before a time, where the file can do that, else where it stands.

        Args:
            pts: ticks of ``info.time_base``.
        """
        import av

        if self._pipe is not None or self._counts["generated"]:
            return
        try:
            self._restart(pts)
            first = next((item for item in self._opening if isinstance(item, Picture)), None)
            if first is None or first.pts > pts:
                self._restart(self._stream.start_time or 0)
        except (av.error.FFmpegError, OSError) as error:
            raise InputError(
                f"{self._name}: cannot be read from {float(pts * self._info.time_base):.2f} s on"
            ) from error

    def side_packets(self) -> Iterator[SidePacket]:
        """Only the copied packets, instead of the iteration; nothing is decoded."""
        import av

        yield from (item for item in self._opening if isinstance(item, SidePacket))
        # A file that cannot be read to its end was reported when its pictures were read.
        with contextlib.suppress(av.error.FFmpegError, OSError, ValueError):
            for packet in self._container.demux():
                if packet.stream.index != self._stream.index and (packet.size or packet.pts is not None):
                    yield SidePacket(packet.stream.index, packet)

    def stop(self) -> None:
        """Wake an iteration that waits for standard input."""
        if self._pipe is not None:
            self._pipe.stop()

    def close(self) -> None:
        """Close the file."""
        self._container.close()

    def __iter__(self) -> Iterator[Picture | SidePacket]:
        while self._opening:
            yield self._opening.pop(0)
        yield from self._items
        self._check_end()

    def _restart(self, pts: int) -> None:
        self._container.seek(pts, stream=self._stream)
        self._last_pts, self._deinterlacer = None, None
        self._items = self._read()
        self._opening = self._until_picture()

    def _read_opening(self) -> list[Picture | SidePacket]:
        """Everything up to the first picture, which tells what the stream is."""
        opening = self._until_picture()
        if opening and isinstance(opening[-1], Picture):
            return opening
        why = self._damage[0].reason if self._damage else "the stream is empty"
        raise InputError(f"{self._name}: not one frame could be decoded ({why}); get a whole copy of it")

    def _until_picture(self) -> list[Picture | SidePacket]:
        opening: list[Picture | SidePacket] = []
        for item in self._items:
            opening.append(item)
            if isinstance(item, Picture):
                break
        return opening

    def _read(self) -> Iterator[Picture | SidePacket]:
        import av

        packets = self._container.demux()
        while True:
            try:
                packet = next(packets, None)
            except (av.error.FFmpegError, OSError, ValueError) as error:
                self._note_damage(f"the file cannot be read on: {reason(error)}")
                packet = None
            if packet is None:
                break
            if packet.stream.index == self._stream.index:
                yield from self._decode(packet)
            elif packet.size or packet.pts is not None:
                self._check_encryption(packet)
                self._note_time(packet)
                yield SidePacket(packet.stream.index, packet)
        if self._deinterlacer is not None:
            for frame in self._deinterlacer.flush():
                yield self._picture(frame)

    def _decode(self, packet: Any) -> Iterator[Picture]:
        import av

        self._check_encryption(packet)
        if packet.is_corrupt:
            self._note_damage("a packet is incomplete")
        try:
            frames = packet.decode()
        except (av.error.FFmpegError, ValueError) as error:
            self._note_damage(f"a packet cannot be decoded: {reason(error)}")
            return
        for frame in frames:
            if frame.interlaced_frame and self._deinterlace:
                self._counts["deinterlaced"] += 1
                self._deinterlacer = self._deinterlacer or Deinterlacer(frame, self._stream)
            if self._deinterlacer is None:
                yield self._picture(frame)
                continue
            self._check_size(frame)
            for whole in self._deinterlacer.push(frame):
                yield self._picture(whole)

    def _check_encryption(self, packet: Any) -> None:
        if packet.has_sidedata("encryption_info"):
            kind = packet.stream.type
            raise InputError(f"{self._name}: the {kind} track is encrypted; decrypt it with its owner's tools first")

    def _picture(self, frame: Any) -> Picture:
        if self._decoded == 0:
            self._start(frame)
        self._check_size(frame)
        self._decoded += 1
        if frame.interlaced_frame:
            if self._decoded == 1:
                raise InputError(
                    f"{self._name}: the video is interlaced, which is not restored well as it is; "
                    "deinterlace it (--deinterlace)"
                )
            self._counts["interlaced"] += 1
        if frame.is_corrupt:
            self._note_damage("a frame is only partly decoded")
        pts = self._timestamp(frame)
        duration = int(getattr(frame, "duration", 0) or 0)
        self._end = max(self._end, float((pts + (duration or self._tick)) * self._info.time_base))
        return Picture(frame, pts, duration or None)

    def _check_size(self, frame: Any) -> None:
        if self._decoded and (frame.width, frame.height) != (self._info.width, self._info.height):
            raise InputError(
                f"{self._name}: the picture changes from {self._info.width}x{self._info.height} to "
                f"{frame.width}x{frame.height} at {self._end:.2f} s; restore up to there with --end {self._end:.2f}, "
                "and the rest apart with --start"
            )

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
            hdr=read_hdr(frame),
        )
        matrix = guessed_matrix(colour, frame.width, frame.height)
        self._to_rgb = ToRgb(matrix, full_range=colour.full_range, deep=depth > 8)

    def _stated_duration(self) -> float | None:
        if self._stream.duration and self._stream.time_base:
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

    def _note_damage(self, why: str) -> None:
        place = Damage(round(self._end, 3), why)
        if len(self._damage) < _DAMAGES and (not self._damage or self._damage[-1] != place):
            self._damage.append(place)

    def _check_end(self) -> None:
        """Compare where the streams and the file ended with what the header promised."""
        container = self._container
        missing = cut_off(self._path) if self._path is not None else None
        if missing is not None:
            self._note_damage(missing)
            return
        if not container.duration or not any(name in container.format.name for name in _STATES_DURATION):
            return
        # Only files written in one go state a duration; it is measured from the first timestamp.
        promised = (container.duration + max(container.start_time or 0, 0)) / 1e6
        if promised - self._end > _GAP_SECONDS:
            self._note_damage(f"the file ends here, its header promises {promised:.2f} s")
