"""Writing the result with PyAV: encode the pictures, copy everything else, appear only when complete."""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING, Any

from uare_rt.errors import OutputError, UsageError
from uare_rt.video.copying import CONTAINERS, SideTracks, copy_disposition, metadata_of, muxer_options
from uare_rt.video.encoding import choose_encoding, set_up
from uare_rt.video.frames import Checkpoint, Frame, Picture, SidePacket
from uare_rt.video.hdr import encoder_parameter
from uare_rt.video.rotation import placed, turned
from uare_rt.video.targets import partial_name

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from uare_rt.video.encoding import Encoding
    from uare_rt.video.frames import FrameSource, VideoInfo
    from uare_rt.video.options import VideoOptions

__all__ = [
    "EncodedPictures",
    "PictureEncoder",
    "VideoSink",
    "add_pictures",
    "explained",
    "open_output",
    "rounding_note",
    "rounds",
]


@contextlib.contextmanager
def explained(target: Path | str, *, kept: str = "the unfinished file is removed") -> Iterator[None]:
    """Turn what libraries and the system raise while writing ``target`` into `OutputError`."""
    import av

    try:
        yield
    except (av.error.FFmpegError, OSError) as error:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise OutputError(f"{target}: no space left on the device, free some or write elsewhere; {kept}") from error
        reason = getattr(error, "strerror", None) or error
        raise OutputError(f"{target}: writing failed ({reason}); {kept}") from error


class PictureEncoder:
    """Turns frames into the packets of one stream.

    Args:
        source: where the frames come from.
        format_name: FFmpeg's name of the container.
        scale: size of the restored frames relative to the source's.
        options: how to encode.

    Raises:
        UsageError: an option does not fit.
    """

    def __init__(self, source: FrameSource, format_name: str, *, scale: int, options: VideoOptions) -> None:
        self._source = source.info
        self._format = format_name
        self._options = options
        self._notes: list[str] = []
        self.info, self._turns = placed(source.info, scale, self._notes.append)
        self._encoding = choose_encoding(self.info, format_name, options)
        self._durations: dict[int, int] = {}
        self._stream: Any = None

    @property
    def notes(self) -> tuple[str, ...]:
        """What the caller should know about how pictures are stored."""
        hdr = self._source.hdr
        lost: tuple[str, ...] = ()
        if hdr is not None and encoder_parameter(self._encoding.codec, hdr) is None:
            lost = (f"{self._encoding.codec} cannot write the metadata of the mastering display; it is lost",)
        return (*self._notes, *self._encoding.notes, *lost)

    @property
    def encoding(self) -> Encoding:
        """Encoder and pixel format."""
        return self._encoding

    def open(self, container: Any, suffix: str) -> Any:
        """Add a stream to an output container, to encode into from now on.

        Raises:
            UsageError: the container cannot hold the codec.
        """
        name = self._encoding.codec
        try:
            stream = container.add_stream(name, rate=self.info.rate)
        except ValueError:
            raise UsageError(f"{suffix} cannot hold {name}; choose .mkv or another codec") from None
        self._stream = stream
        self._from_rgb = set_up(stream.codec_context, self._encoding, self._source, self.info, self._options)
        stream.time_base = self.info.time_base
        if name == "libx265" and self._format in ("mp4", "mov"):
            stream.codec_context.codec_tag = "hvc1"
        if self.info.display_matrix is not None and self._turns is None:
            stream.set_display_matrix(self.info.display_matrix)
        return stream

    def prepare(self, frame: Frame) -> Picture:
        """A frame in the encoder's pixel format."""
        pixels = frame.pixels if self._turns is None else turned(frame.pixels, self._turns)
        return Picture(self._from_rgb(pixels), frame.pts, frame.duration)

    def encode(self, picture: Picture | None) -> list[Any]:
        """Packets that are ready; None ends the stream."""
        if picture is None:
            packets = self._stream.codec_context.encode(None)
        else:
            frame = picture.raw
            frame.pts, frame.time_base = picture.pts, self.info.time_base
            if picture.duration:
                self._durations[picture.pts] = picture.duration
                frame.duration = picture.duration
            packets = self._stream.codec_context.encode(frame)
        for packet in packets:
            duration = self._durations.pop(packet.pts, None)
            if duration:
                packet.duration = duration
            packet.stream = self._stream
        return list(packets)


class EncodedPictures:
    """What every sink with an encoder says of its pictures."""

    _encoder: PictureEncoder

    @property
    def encoding(self) -> str:
        """Encoder and pixel format, as in ``libx264 yuv420p``."""
        return self._encoder.encoding.name

    def prepare(self, frame: Frame) -> Picture:
        """A frame in the encoder's pixel format."""
        return self._encoder.prepare(frame)


class VideoSink(EncodedPictures):
    """Encodes pictures and muxes copied packets into ``target``.

    Everything goes to a hidden file beside the target, which `finish` renames and `discard` deletes: a
    file under the target's name is always complete.

    Args:
        source: where metadata, chapters and side streams come from.
        target: the file to make; `targets.check_target` has passed.
        scale: size of the restored frames relative to the source's.
        options: how to encode.

    Raises:
        UsageError: an option does not fit, or the container cannot hold a stream of the source.
        OutputError: the file cannot be written.
    """

    def __init__(self, source: FrameSource, target: Path, *, scale: int, options: VideoOptions) -> None:
        self._target = target
        self._format = CONTAINERS[target.suffix.lower()]
        self._partial = partial_name(target)
        self._finished = False
        self._rounded = 0
        self._container: Any = None
        self._encoder = PictureEncoder(source, self._format, scale=scale, options=options)
        try:
            with explained(target):
                self._container = open_output(self._partial, self._format, source)
                self._tracks = SideTracks(self._container, source, target.suffix)
                add_pictures(self._container, self._encoder, source, target.suffix)
                self._tracks.add()
                self._container.start_encoding()
        except BaseException:
            self.discard()
            raise

    @property
    def notes(self) -> tuple[str, ...]:
        """What the caller should know about how the result was written."""
        return (*self._encoder.notes, *self._tracks.notes, *rounding_note(self._target, self._rounded))

    def write(self, item: Picture | SidePacket | Checkpoint) -> None:
        """Encode a picture or copy a packet.

        Raises:
            OutputError: no space is left, or the encoder failed.
        """
        with explained(self._target):
            if isinstance(item, Picture):
                self._rounded += rounds(self._format, item.pts, self._encoder.info)
                self._container.mux(self._encoder.encode(item))
            elif isinstance(item, SidePacket):
                self._tracks.mux(item)

    def finish(self) -> None:
        """Flush the encoder, write the index and rename the file to its target.

        Raises:
            OutputError: the file cannot be completed; nothing is left behind.
        """
        try:
            with explained(self._target):
                self._container.mux(self._encoder.encode(None))
                self._container.close()
                os.replace(self._partial, self._target)
        except BaseException:
            self.discard()
            raise
        self._finished = True

    def stop(self) -> None:
        """Files never wait."""

    def discard(self) -> None:
        """Delete what was written; does nothing after `finish`."""
        if self._finished:
            return
        if self._container is not None:
            # The file is about to be deleted, so a trailer that cannot be written is no matter.
            with contextlib.suppress(Exception):
                self._container.close()
        self._partial.unlink(missing_ok=True)


def add_pictures(container: Any, encoder: PictureEncoder, source: FrameSource, suffix: str) -> Any:
    """Add the restored stream to an output container, marked as that of the source is.

    Raises:
        UsageError: the container cannot hold the codec.
    """
    stream = encoder.open(container, suffix)
    if source.origin is not None:
        stream.metadata.update(metadata_of(source.origin.stream))
        copy_disposition(source.origin.stream, stream)
    return stream


def open_output(path: Path, format_name: str, source: FrameSource) -> Any:
    """Open an output container that keeps times and metadata as they are."""
    import av

    container = av.open(str(path), "w", format=format_name, container_options=muxer_options(source, format_name))
    if source.origin is not None:
        container.metadata.update(metadata_of(source.origin.container))
    return container


def rounds(format_name: str, pts: int, info: VideoInfo) -> bool:
    """Whether a container that counts milliseconds cannot state a time exactly."""
    return format_name in ("matroska", "webm") and (pts * info.time_base * 1000).denominator != 1


def rounding_note(target: Path, count: int) -> tuple[str, ...]:
    """What to say about ``count`` rounded times."""
    if not count:
        return ()
    return (f"{target.suffix} counts milliseconds: {count} frame times were rounded (not in .mp4)",)
