"""Which encoder a result gets where nobody has named one."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import av
import pytest

from uare_rt.video import VideoInfo, VideoOptions, encoding
from uare_rt.video.frames import ColourTags

INFO = VideoInfo(
    width=640,
    height=480,
    time_base=Fraction(1, 25),
    rate=Fraction(25),
    pix_fmt="yuv420p",
    depth=8,
    colour=ColourTags(1, False, True, 1, 1),
    pixel_aspect=None,
    display_matrix=None,
    frames=None,
    duration=None,
)
HDR = replace(INFO, depth=10, pix_fmt="yuv420p10le", colour=ColourTags(9, False, True, 9, 16))


@pytest.fixture
def graphics_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose NVENC encodes; the encoders themselves must be in this build of FFmpeg."""
    missing = {"h264_nvenc", "hevc_nvenc"} - av.codecs_available
    if missing:
        pytest.skip(f"this build of FFmpeg has no {' and no '.join(sorted(missing))}")
    monkeypatch.setattr(encoding, "_works", lambda name, *_: name.endswith("nvenc"))


@pytest.mark.usefixtures("graphics_card")
@pytest.mark.parametrize(
    ("info", "container", "options", "expected"),
    [
        (INFO, "mp4", VideoOptions(), "h264_nvenc"),
        (HDR, "mp4", VideoOptions(), "hevc_nvenc"),
        (INFO, "webm", VideoOptions(), "libvpx-vp9"),
        (INFO, "mp4", VideoOptions(crf=18), "libx264"),
        (INFO, "mp4", VideoOptions(preset="ultrafast"), "libx264"),
        (INFO, "mp4", VideoOptions(bit_rate=1_000_000), "h264_nvenc"),
        (INFO, "mp4", VideoOptions(pix_fmt="yuv422p"), "libx264"),
        (INFO, "mp4", VideoOptions(codec="libx265"), "libx265"),
    ],
)
def test_hardware_is_taken_where_it_does_what_is_asked(
    info: VideoInfo, container: str, options: VideoOptions, expected: str
) -> None:
    assert encoding.choose_encoding(info, container, options).codec == expected


def test_a_card_that_is_listed_but_does_not_encode_is_left_alone() -> None:
    """Lists of encoders prove nothing: each is tried; where the machine has a card, it encodes its test frames."""
    chosen = encoding.choose_encoding(INFO, "mp4", VideoOptions())
    context = av.CodecContext.create(chosen.codec, "w")
    context.width, context.height, context.pix_fmt = INFO.width, INFO.height, chosen.pix_fmt
    context.time_base = INFO.time_base
    frame = av.VideoFrame(INFO.width, INFO.height, chosen.pix_fmt)
    frame.pts, frame.time_base = 0, INFO.time_base
    assert sum(packet.size for packet in (*context.encode(frame), *context.encode(None))) > 0
