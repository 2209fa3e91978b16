"""Encoders: which there are, what near the source's quality means for each, and how one is set up."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from uare_rt.errors import UsageError
from uare_rt.video.colour import UNSPECIFIED, FromRgb, guessed_matrix, output_pix_fmt
from uare_rt.video.hdr import encoder_parameter

if TYPE_CHECKING:
    from collections.abc import Mapping

    from uare_rt.video.frames import VideoInfo
    from uare_rt.video.options import VideoOptions

__all__ = ["ENCODERS", "Encoding", "choose_encoding", "is_rgb", "set_up"]

_HDR_TRANSFERS = (16, 18)
_PROBE_FRAMES = 2


@dataclass(frozen=True)
class _Encoder:
    """What we have to know about an encoder: the quality setting near the source's, and its other settings."""

    quality: int
    preset: str
    preset_option: str = "preset"
    quality_option: str = "crf"
    further: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    odd_chroma: bool = False
    hardware: bool = False


ENCODERS = {
    "libx264": _Encoder(16, "medium"),
    "libx265": _Encoder(18, "medium", further={"x265-params": "log-level=error"}),
    "libvpx-vp9": _Encoder(
        22, "4", "cpu-used", further={"b:v": "0", "row-mt": "1", "deadline": "good"}, odd_chroma=True
    ),
    "libsvtav1": _Encoder(20, "8"),
    "ffv1": _Encoder(0, "", "", ""),
    "h264_nvenc": _Encoder(19, "p5", quality_option="cq", further={"rc": "vbr"}, hardware=True),
    "hevc_nvenc": _Encoder(20, "p5", quality_option="cq", further={"rc": "vbr"}, hardware=True),
    "av1_nvenc": _Encoder(24, "p5", quality_option="cq", further={"rc": "vbr"}, hardware=True),
    "h264_qsv": _Encoder(18, "medium", quality_option="global_quality", hardware=True),
    "hevc_qsv": _Encoder(20, "medium", quality_option="global_quality", hardware=True),
}
# What the default stands for: the first that encodes a frame here; software comes last.
_HARDWARE = {
    "libx264": ("h264_nvenc", "h264_qsv", "libx264"),
    "libx265": ("hevc_nvenc", "hevc_qsv", "libx265"),
    "libvpx-vp9": ("libvpx-vp9",),
}


@dataclass(frozen=True)
class Encoding:
    """An encoder and how it is used.

    Attributes:
        codec: its name.
        pix_fmt: of the frames it is given.
        notes: what the caller should know about the choice.
    """

    codec: str
    pix_fmt: str
    notes: tuple[str, ...]

    @property
    def name(self) -> str:
        """For people, as in ``libx264 yuv420p``."""
        return f"{self.codec} {self.pix_fmt}"


def choose_encoding(info: VideoInfo, format_name: str, options: VideoOptions) -> Encoding:
    """Choose encoder and pixel format for a result.

    Args:
        info: of the result, already scaled and turned.
        format_name: FFmpeg's name of the container.
        options: what the caller asked for.

    Raises:
        UsageError: an option does not fit.
    """
    name = options.codec
    if name is None:
        software = "libx265" if info.colour.transfer in _HDR_TRANSFERS else "libx264"
        software = "libvpx-vp9" if format_name == "webm" else software
        return _first_that_works(software, info, options)
    return _encoding(name, info, options)


def _first_that_works(software: str, info: VideoInfo, options: VideoOptions) -> Encoding:
    for name in _HARDWARE[software]:
        if name == software:
            break
        try:
            encoding = _encoding(name, info, options)
        except UsageError:
            continue
        same_depth = info.depth <= 8 or "10" in encoding.pix_fmt
        # Quality and presets are numbers and names of the software encoder's.
        ours = options.crf is None and options.preset is None
        if same_depth and ours and _works(name, encoding.pix_fmt, info):
            return encoding
    return _encoding(software, info, options)


def _works(name: str, pix_fmt: str, info: VideoInfo) -> bool:
    """Whether a hardware encoder takes frames of this size here, by encoding some; lists of encoders prove nothing."""
    import av

    try:
        context: Any = av.CodecContext.create(name, "w")
        context.width, context.height, context.pix_fmt = info.width, info.height, pix_fmt
        context.time_base = info.time_base
        for index in range(_PROBE_FRAMES):
            frame = av.VideoFrame(info.width, info.height, pix_fmt)
            frame.pts, frame.time_base = index, info.time_base
            context.encode(frame)
        context.encode(None)
    except (av.error.FFmpegError, ValueError, OSError):
        return False
    return True


def _encoding(name: str, info: VideoInfo, options: VideoOptions) -> Encoding:
    import av

    if name not in ENCODERS:
        raise UsageError(f"codec {name!r} is not known here; choose one of {', '.join(ENCODERS)}")
    try:
        codec = av.Codec(name, "w")
    except ValueError:
        raise UsageError(f"this build of FFmpeg has no encoder {name}") from None
    offered = [f.name for f in codec.video_formats or []]
    odd_chroma = ENCODERS[name].odd_chroma
    pix_fmt = options.pix_fmt or output_pix_fmt(info.pix_fmt, info.width, info.height, offered, odd_chroma=odd_chroma)
    if pix_fmt not in offered:
        raise UsageError(f"{name} has no pixel format {pix_fmt!r}; it takes {', '.join(offered)}")
    return Encoding(name, pix_fmt, tuple(_format_notes(info, pix_fmt)))


def _format_notes(info: VideoInfo, pix_fmt: str) -> list[str]:
    notes = []
    if "yuv420p" in info.pix_fmt and "yuv420p" not in pix_fmt and (info.width % 2 or info.height % 2):
        notes.append(
            f"{info.width}x{info.height} is an odd size: chroma is kept at a higher resolution ({pix_fmt}) so "
            "that no line is added; some players cannot show that (.webm keeps 4:2:0)"
        )
    if info.pix_fmt.startswith(("yuva", "rgba", "bgra", "argb", "abgr", "gbrap", "ya")):
        notes.append("the transparency of the source is not kept")
    if info.depth > 8 and not pix_fmt.endswith("le"):
        notes.append(f"the encoder takes 8 bits only; the source has {info.depth}")
    return notes


def set_up(context: Any, encoding: Encoding, source: VideoInfo, result: VideoInfo, options: VideoOptions) -> FromRgb:
    """Set an encoder's context: size, times, quality, colour and HDR metadata.

    Args:
        context: the `av.VideoCodecContext` of a new stream.
        encoding: what was chosen.
        source: of the source.
        result: of the result.
        options: what the caller asked for.

    Returns:
        The conversion of frames to what the encoder takes.

    Raises:
        UsageError: an option is out of its range.
    """
    encoder = ENCODERS[encoding.codec]
    context.width, context.height, context.pix_fmt = result.width, result.height, encoding.pix_fmt
    context.time_base = result.time_base
    if result.pixel_aspect is not None:
        context.sample_aspect_ratio = result.pixel_aspect
    settings = {**encoder.further}
    if encoder.preset_option:
        settings[encoder.preset_option] = options.preset or encoder.preset
    if options.bit_rate is not None:
        if options.bit_rate <= 0 or options.crf is not None:
            raise UsageError(f"bit rate {options.bit_rate}: give more than 0, and no crf beside it")
        settings.pop("b:v", None)
        context.bit_rate = options.bit_rate
    elif encoder.quality_option:
        settings[encoder.quality_option] = str(encoder.quality if options.crf is None else options.crf)
    parameter = encoder_parameter(encoding.codec, source.hdr) if source.hdr is not None else None
    if parameter is not None:
        settings[parameter[0]] = ":".join(filter(None, (settings.get(parameter[0]), parameter[1])))
    if encoding.codec == "libsvtav1":
        os.environ.setdefault("SVT_LOG", "1")  # errors only; there is no option for it
    context.options = settings
    return _set_colour(context, source, result)


def _set_colour(context: Any, source: VideoInfo, result: VideoInfo) -> FromRgb:
    tags = source.colour
    rgb = is_rgb(source.pix_fmt)
    matrix = guessed_matrix(tags, source.width, source.height)
    # A player guesses the matrix of an untagged clip from its size, so a new size needs the tag.
    changed = matrix != guessed_matrix(tags, result.width, result.height)
    context.colorspace = matrix if rgb or changed or tags.matrix != UNSPECIFIED else UNSPECIFIED
    full = tags.full_range and not rgb
    context.color_range = 2 if full else 1 if tags.range_tagged or rgb else 0
    context.color_primaries = tags.primaries
    context.color_trc = tags.transfer
    return FromRgb(context.pix_fmt, matrix, full_range=full)


def is_rgb(pix_fmt: str) -> bool:
    """Whether a pixel format holds red, green and blue."""
    from av.video.format import VideoFormat

    return bool(VideoFormat(pix_fmt, 16, 16).is_rgb)
