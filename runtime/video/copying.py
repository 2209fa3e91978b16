"""Taking over what is not pixels: side streams, metadata and the ticks that times are counted in."""

from __future__ import annotations

import contextlib
import io
import math
from fractions import Fraction
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uare_rt.video.source import VideoSource

__all__ = [
    "CONTAINERS",
    "add_copy",
    "can_hold",
    "codec_name",
    "copy_disposition",
    "is_chapter_track",
    "metadata_of",
    "muxer_options",
]

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


def muxer_options(source: VideoSource, format_name: str) -> dict[str, str]:
    """Options that make MP4 and MOV keep times and metadata as they are; none for other formats."""
    if format_name not in ("mp4", "mov"):
        return {}
    options = timescales(source)
    if any(key.lower() not in _MP4_METADATA for key in metadata_of(source.container)):
        options["movflags"] = "use_metadata_tags"
    return options


def timescales(source: VideoSource) -> dict[str, str]:
    """Options that make MP4 keep times as they are: ticks of the track, and of the file for its edit lists."""
    base = source.info.time_base
    if base.numerator != 1:
        return {}
    bases = [base, *(Fraction(s.time_base) for s in source.side_streams if s.time_base)]
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
