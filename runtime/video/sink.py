"""Writing the result with PyAV: encode the frames, copy everything else, appear only when complete."""

from __future__ import annotations

import contextlib
import errno
import os
import uuid
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from uare_rt.errors import OutputError, UsageError
from uare_rt.video.colour import UNSPECIFIED, FromRgb, guessed_matrix, output_pix_fmt
from uare_rt.video.copying import (
    CONTAINERS,
    add_copy,
    can_hold,
    codec_name,
    copy_disposition,
    is_chapter_track,
    metadata_of,
    muxer_options,
)
from uare_rt.video.frames import Frame, SidePacket
from uare_rt.video.rotation import quarter_turns, turned, writes_display_matrix

if TYPE_CHECKING:
    from collections.abc import Mapping

    from uare_rt.video.frames import VideoInfo
    from uare_rt.video.source import VideoSource

__all__ = ["VideoOptions", "VideoSink", "check_target"]


class _Encoder(NamedTuple):
    """What we have to know about an encoder: a CRF near the source's quality and its other settings."""

    crf: int
    preset: str
    preset_option: str = "preset"
    further: Mapping[str, str] = MappingProxyType({})
    odd_chroma: bool = False


_ENCODERS = {
    "libx264": _Encoder(16, "medium"),
    "libx265": _Encoder(18, "medium", further={"x265-params": "log-level=error"}),
    "libvpx-vp9": _Encoder(22, "4", "cpu-used", {"b:v": "0", "row-mt": "1", "deadline": "good"}, odd_chroma=True),
}


@dataclass(frozen=True)
class VideoOptions:
    """How the result is encoded and how often quality is looked at.

    Attributes:
        codec: encoder: libx264, libx265 or libvpx-vp9; None takes libx264, VP9 for ``.webm``.
        crf: constant rate factor; None takes the encoder's default here, near the source's quality.
        preset: the encoder's speed preset (``cpu-used`` for VP9).
        pix_fmt: pixel format of the result; None takes the encoder's nearest to the source's.
        assess_every: frames between two assessments inside a scene.
    """

    codec: str | None = None
    crf: int | None = None
    preset: str | None = None
    pix_fmt: str | None = None
    assess_every: int = 48


def check_target(source: Path, target: Path, *, overwrite: bool) -> None:
    """Refuse a target that cannot or must not be written, before any work is done.

    Raises:
        UsageError: the target is the source, or its suffix names no container.
        OutputError: the target exists, or its directory is missing or not writable.
    """
    if target.suffix.lower() not in CONTAINERS:
        raise UsageError(
            f"{target}: cannot write a video of type {target.suffix or '(no suffix)'!r}; "
            f"choose one of {', '.join(CONTAINERS)}"
        )
    if target.resolve() == source.resolve() or (target.exists() and source.exists() and target.samefile(source)):
        raise UsageError(f"{target} is the input itself; choose another name for the result")
    if not target.parent.is_dir():
        raise OutputError(f"{target.parent} does not exist or is no directory; create it first")
    if target.is_dir():
        raise OutputError(f"{target} is a directory; give a file name")
    if target.exists() and not overwrite:
        raise OutputError(f"{target} exists; pass overwrite (--overwrite) to replace it")
    if not os.access(target.parent, os.W_OK):
        raise OutputError(f"{target.parent} is not writable")


class VideoSink:
    """Encodes frames and muxes copied packets into ``target``.

    Everything goes to a hidden file beside the target, which `finish` renames and `discard` deletes: a
    file under the target's name is always complete.

    Args:
        source: where metadata, chapters and side streams come from.
        target: the file to make; `check_target` has passed.
        scale: size of the restored frames relative to the source's.
        options: how to encode.

    Raises:
        UsageError: an option does not fit, or the container cannot hold a stream of the source.
        OutputError: the file cannot be written.
    """

    def __init__(self, source: VideoSource, target: Path, *, scale: int, options: VideoOptions) -> None:
        self._target = target
        self._format = CONTAINERS[target.suffix.lower()]
        self._partial = target.with_name(f".{target.stem}.{uuid.uuid4().hex[:8]}.part{target.suffix}")
        self._notes: list[str] = []
        self._durations: dict[int, int] = {}
        self._copies: dict[int, Any] = {}
        self._turns: tuple[int, bool] | None = None
        self._finished = False
        self._rounded = 0
        self._container: Any = None
        try:
            with self._explained():
                self._container = self._open(source)
                self._stream = self._add_video(source, scale, options)
                self._add_copies(source)
                self._copy_chapters(source)
                self._container.start_encoding()
        except BaseException:
            self.discard()
            raise

    @property
    def notes(self) -> tuple[str, ...]:
        """What the caller should know about how the result was written."""
        if self._rounded:
            text = f"{self._target.suffix} counts milliseconds: {self._rounded} frame times were rounded (not in .mp4)"
            return (*self._notes, text)
        return tuple(self._notes)

    @property
    def encoding(self) -> str:
        """Encoder and pixel format, as in ``libx264 yuv420p``."""
        context = self._stream.codec_context
        return f"{context.name} {context.pix_fmt}"

    def write(self, item: Frame | SidePacket) -> None:
        """Encode a frame or copy a packet.

        Raises:
            OutputError: no space is left, or the encoder failed.
        """
        with self._explained():
            if isinstance(item, Frame):
                self._encode(item)
            elif item.stream in self._copies:
                item.packet.stream = self._copies[item.stream]
                self._container.mux(item.packet)

    def finish(self) -> None:
        """Flush the encoder, write the index and rename the file to its target.

        Raises:
            OutputError: the file cannot be completed; nothing is left behind.
        """
        try:
            with self._explained():
                self._mux(self._stream.codec_context.encode(None))
                self._container.close()
                os.replace(self._partial, self._target)
        except BaseException:
            self.discard()
            raise
        self._finished = True

    def discard(self) -> None:
        """Delete what was written; does nothing after `finish`."""
        if self._finished:
            return
        if self._container is not None:
            # The file is about to be deleted, so a trailer that cannot be written is no matter.
            with contextlib.suppress(Exception):
                self._container.close()
        self._partial.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _explained(self) -> Any:
        """Turn what libraries and the system raise while writing into `OutputError`."""
        import av

        try:
            yield
        except (av.error.FFmpegError, OSError) as error:
            if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise OutputError(
                    f"{self._target}: no space left on the device; the unfinished file is removed"
                ) from error
            reason = getattr(error, "strerror", None) or error
            raise OutputError(f"{self._target}: writing failed ({reason}); the unfinished file is removed") from error

    def _open(self, source: VideoSource) -> Any:
        import av

        options = muxer_options(source, self._format)
        container = av.open(str(self._partial), "w", format=self._format, container_options=options)
        container.metadata.update(metadata_of(source.container))
        return container

    def _add_video(self, source: VideoSource, scale: int, options: VideoOptions) -> Any:
        info = self._placed(source.info, scale)
        name = options.codec or ("libvpx-vp9" if self._format == "webm" else "libx264")
        codec = _encoder(name)
        encoder = _ENCODERS[name]
        try:
            stream = self._container.add_stream(name, rate=info.rate)
        except ValueError:
            raise UsageError(f"{self._target.suffix} cannot hold {name}; choose .mkv or another codec") from None
        offered = [f.name for f in codec.video_formats or []]
        pix_fmt = options.pix_fmt or output_pix_fmt(
            info.pix_fmt, info.width, info.height, offered, odd_chroma=encoder.odd_chroma
        )
        if pix_fmt not in offered:
            raise UsageError(f"{name} has no pixel format {pix_fmt!r}; it takes {', '.join(offered)}")
        self._note_format(info, pix_fmt)
        context = stream.codec_context
        context.width, context.height, context.pix_fmt = info.width, info.height, pix_fmt
        context.time_base = stream.time_base = info.time_base
        if info.pixel_aspect is not None:
            context.sample_aspect_ratio = info.pixel_aspect
        crf = encoder.crf if options.crf is None else options.crf
        context.options = {
            "crf": str(crf),
            encoder.preset_option: options.preset or encoder.preset,
            **encoder.further,
        }
        if name == "libx265" and self._format in ("mp4", "mov"):
            context.codec_tag = "hvc1"
        self._set_colour(context, source.info, info)
        stream.metadata.update(metadata_of(source.stream))
        copy_disposition(source.stream, stream)
        if self._turns is None and info.display_matrix is not None:
            stream.set_display_matrix(info.display_matrix)
        return stream

    def _placed(self, info: VideoInfo, scale: int) -> VideoInfo:
        """``info`` of the result: scaled, and turned where the container cannot carry the display matrix."""
        info = replace(info, width=info.width * scale, height=info.height * scale)
        if info.display_matrix is None or writes_display_matrix():
            return info
        self._turns = quarter_turns(info.display_matrix)
        if self._turns is None:
            self._notes.append("the display matrix is no quarter turn and this PyAV cannot write it; it is lost")
            return replace(info, display_matrix=None)
        self._notes.append("this PyAV cannot write a rotation into the file; the pictures themselves were turned")
        if self._turns[0] % 2 == 0:
            return info
        aspect = 1 / info.pixel_aspect if info.pixel_aspect else None
        return replace(info, width=info.height, height=info.width, pixel_aspect=aspect)

    def _note_format(self, info: VideoInfo, pix_fmt: str) -> None:
        if "yuv420p" in info.pix_fmt and "yuv420p" not in pix_fmt and (info.width % 2 or info.height % 2):
            self._notes.append(
                f"{info.width}x{info.height} is an odd size: chroma is kept at a higher resolution ({pix_fmt}) so "
                "that no line is added; some players cannot show that (.webm keeps 4:2:0)"
            )
        if info.pix_fmt.startswith(("yuva", "rgba", "bgra", "argb", "abgr", "gbrap", "ya")):
            self._notes.append("the transparency of the source is not kept")
        if info.depth > 8 and not pix_fmt.endswith("le"):
            self._notes.append(f"the encoder takes 8 bits only; the source has {info.depth}")

    def _set_colour(self, context: Any, source: VideoInfo, result: VideoInfo) -> None:
        tags = source.colour
        matrix = guessed_matrix(tags, source.width, source.height)
        # A player guesses the matrix of an untagged clip from its size, so a new size needs the tag.
        changed = matrix != guessed_matrix(tags, result.width, result.height)
        context.colorspace = matrix if changed or tags.matrix != UNSPECIFIED else UNSPECIFIED
        full = tags.full_range and not _is_rgb(source.pix_fmt)
        if _is_rgb(source.pix_fmt):
            context.colorspace = matrix
        context.color_range = 2 if full else 1 if tags.range_tagged or _is_rgb(source.pix_fmt) else 0
        context.color_primaries = tags.primaries
        context.color_trc = tags.transfer
        self._from_rgb = FromRgb(context.pix_fmt, matrix, full_range=full)

    def _add_copies(self, source: VideoSource) -> None:
        for stream in source.side_streams:
            if is_chapter_track(stream):
                continue
            if can_hold(self._format, stream):
                copy = add_copy(self._container, stream)
                self._copies[stream.index] = copy
                continue
            others = [suffix for suffix, name in CONTAINERS.items() if can_hold(name, stream)]
            what = f"stream {stream.index} ({stream.type}, {codec_name(stream)})"
            where = f"{' or '.join(others)} can" if others else "no container here can"
            if stream.type in ("audio", "subtitle", "video"):
                raise UsageError(f"{self._target.suffix} cannot hold {what} of the source; {where}")
            self._notes.append(f"{what} is not kept: {self._target.suffix} cannot hold it, {where}")

    def _copy_chapters(self, source: VideoSource) -> None:
        if chapters := source.container.chapters():
            self._container.set_chapters(chapters)

    def _encode(self, item: Frame) -> None:
        frame = self._from_rgb(item.pixels if self._turns is None else turned(item.pixels, self._turns))
        frame.pts = item.pts
        frame.time_base = self._stream.codec_context.time_base
        if self._format in ("matroska", "webm") and (item.pts * frame.time_base * 1000).denominator != 1:
            self._rounded += 1
        if item.duration:
            self._durations[item.pts] = item.duration
            frame.duration = item.duration
        self._mux(self._stream.codec_context.encode(frame))

    def _mux(self, packets: list[Any]) -> None:
        for packet in packets:
            duration = self._durations.pop(packet.pts, None)
            if duration:
                packet.duration = duration
            packet.stream = self._stream
            self._container.mux(packet)


def _encoder(name: str) -> Any:
    import av

    if name not in _ENCODERS:
        raise UsageError(f"codec {name!r} is not known here; choose one of {', '.join(_ENCODERS)}")
    try:
        return av.Codec(name, "w")
    except ValueError:
        raise UsageError(f"this build of FFmpeg has no encoder {name}") from None


def _is_rgb(pix_fmt: str) -> bool:
    from av.video.format import VideoFormat

    return bool(VideoFormat(pix_fmt, 16, 16).is_rgb)
