"""Taking over what is not pixels: side streams, metadata and the ticks that times are counted in."""

from __future__ import annotations

import contextlib
import io
import math
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from uare_rt.errors import UsageError

if TYPE_CHECKING:
    from uare_rt.video.frames import FrameSource, SidePacket

__all__ = ["CONTAINERS", "SideTracks", "copy_disposition", "metadata_of", "muxer_options"]

CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}
# Written by the muxer itself; copying the source's would be wrong.
_OWN_METADATA = {"major_brand", "minor_version", "compatible_brands", "encoder", "duration"}
# Keys the plain MP4 metadata box knows; any other needs the extended box or would be lost.
_MP4_METADATA = frozenset(
    (
        *("title", "artist", "album_artist", "album", "author", "composer", "comment", "date", "year", "genre"),
        *("copyright", "description", "synopsis", "show", "episode_id", "network", "grouping", "lyrics", "track"),
        *("disc", "creation_time", "location", "language", "handler_name"),
    )
)


def metadata_of(thing: Any) -> dict[str, str]:
    """Metadata of a container or stream, without what a muxer writes itself."""
    return {key: value for key, value in thing.metadata.items() if key.lower() not in _OWN_METADATA}


def muxer_options(source: FrameSource, format_name: str) -> dict[str, str]:
    """Options that make MP4 and MOV keep times and metadata as they are; none for other formats."""
    if format_name not in ("mp4", "mov"):
        return {}
    options = timescales(source)
    origin = source.origin
    if origin is not None and any(key.lower() not in _MP4_METADATA for key in metadata_of(origin.container)):
        options["movflags"] = "use_metadata_tags"
    return options


def timescales(source: FrameSource) -> dict[str, str]:
    """Options that make MP4 keep times as they are: ticks of the track, and of the file for its edit lists."""
    base = source.info.time_base
    if base.numerator != 1:
        return {}
    sides = source.origin.side_streams if source.origin is not None else []
    bases = [base, *(Fraction(s.time_base) for s in sides if s.time_base)]
    common = math.lcm(*(b.denominator for b in bases))
    movie = common if common < 2**31 else base.denominator
    return {"video_track_timescale": str(base.denominator), "movie_timescale": str(movie)}


def is_chapter_track(stream: Any) -> bool:
    """Whether this is the text track that MP4 keeps chapters in; the muxer makes its own."""
    chapters = len(stream.container.chapters())
    return bool(stream.type == "data" and stream.name == "bin_data" and 0 < chapters == stream.frames)


def codec_name(stream: Any) -> str:
    """What to call the codec of a stream in a message."""
    return stream.codec_context.name if stream.codec_context is not None else stream.name or "unknown codec"


def add_copy(container: Any, stream: Any) -> Any:
    """Add a stream to an output container that takes the packets of ``stream`` as they are."""
    # PyAV would look for an encoder of a video template unless it is told to copy as it is.
    copy = container.add_stream_from_template(stream, opaque=True)
    copy.metadata.update(dict(stream.metadata))
    copy_disposition(stream, copy)
    return copy


def copy_disposition(source: Any, copy: Any) -> None:
    """Mark a stream as its original is marked: default, forced, cover picture and so on."""
    copy.disposition = source.disposition


def can_hold(format_name: str, stream: Any) -> bool:
    """Whether a container of this format accepts a copy of ``stream``, by writing a header with it."""
    import av

    if stream.type == "attachment":
        return format_name == "matroska"
    probe = av.open(io.BytesIO(), "w", format=format_name)
    try:
        add_copy(probe, stream)
        probe.start_encoding()
    except (av.error.FFmpegError, ValueError, RuntimeError, NotImplementedError):
        return False
    finally:
        with contextlib.suppress(Exception):
            probe.close()
    return True


class SideTracks:
    """The streams of a result that are copied, and its chapters.

    Args:
        container: the `av.container.OutputContainer` they go to.
        source: where they come from.
        suffix: of the result, for messages and to know the container.
    """

    def __init__(self, container: Any, source: FrameSource, suffix: str) -> None:
        self._container = container
        self._source = source
        self._suffix = suffix
        self._format = CONTAINERS[suffix.lower()]
        self._copies: dict[int, Any] = {}
        self._notes: list[str] = []

    @property
    def notes(self) -> tuple[str, ...]:
        """What could not be kept."""
        return tuple(self._notes)

    def add(self) -> None:
        """Add a stream for each that is copied; the restored one must be there already.

        Raises:
            UsageError: the container cannot hold sound, subtitles or a picture of the source; the message says
                which container can.
        """
        origin = self._source.origin
        for stream in origin.side_streams if origin is not None else ():
            if is_chapter_track(stream):
                continue
            if can_hold(self._format, stream):
                self._add(stream)
                continue
            others = [other for other, name in CONTAINERS.items() if can_hold(name, stream)]
            what = f"stream {stream.index} ({stream.type}, {codec_name(stream)})"
            where = f"{' or '.join(others)} can" if others else "no container here can"
            if stream.type in ("audio", "subtitle", "video"):
                raise UsageError(f"{self._suffix} cannot hold {what} of the source; {where}")
            self._notes.append(f"{what} is not kept: {self._suffix} cannot hold it, {where}")
        if self._source.chapters:
            self._container.set_chapters(self._source.chapters)

    def mux(self, item: SidePacket) -> None:
        """Write a packet of a copied stream; packets of others are dropped."""
        if item.stream in self._copies:
            item.packet.stream = self._copies[item.stream]
            self._container.mux(item.packet)

    def _add(self, stream: Any) -> None:
        if stream.type == "attachment":
            # Kept whole in the header; there are no packets.
            copy = self._container.add_attachment(stream.name, stream.mimetype or "", stream.data)
            copy.metadata.update(dict(stream.metadata))
        else:
            self._copies[stream.index] = add_copy(self._container, stream)
