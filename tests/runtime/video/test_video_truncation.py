"""Files that end before their own structure does, to the byte."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from video_clips import FakeSession, make_clip, picture

from uare_rt.video import restore_video
from uare_rt.video.truncation import missing_bytes


def clip(path: Path, options: dict[str, str] | None = None) -> Path:
    with av.open(str(path), "w", container_options=options or {}) as out:
        stream = out.add_stream("libvpx" if path.suffix == ".webm" else "libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for i in range(20):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture(i), "rgb24")))
        out.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.mkv", {}),
        ("a.webm", {}),
        ("a.mp4", {}),
        ("a.mp4", {"movflags": "faststart"}),
        ("a.mp4", {"movflags": "frag_keyframe+empty_moov"}),
        ("a.mov", {}),
    ],
)
def test_every_cut_is_seen_and_a_whole_file_is_whole(tmp_path: Path, name: str, options: dict[str, str]) -> None:
    path = clip(tmp_path / name, options)
    whole = path.read_bytes()
    assert missing_bytes(path) == 0
    for lost in (1, 2, 7, 40):
        path.write_bytes(whole[:-lost])
        assert missing_bytes(path) == lost
    path.write_bytes(whole + b"junk behind the end")
    assert missing_bytes(path) == 0


def test_a_live_recording_states_no_size(tmp_path: Path) -> None:
    path = clip(tmp_path / "live.mkv", {"live": "1"})
    path.write_bytes(path.read_bytes()[:-10])
    assert missing_bytes(path) == 0


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.binary(max_size=64), st.binary(max_size=40).map(lambda b: b"\x1a\x45\xdf\xa3" + b)))
def test_any_bytes_can_be_asked(tmp_path_factory: Any, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.bin"
    path.write_bytes(content)
    assert missing_bytes(path) >= 0


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
def test_a_cut_within_the_last_frame_is_reported(tmp_path: Path, suffix: str) -> None:
    source = clip(tmp_path / f"in.{suffix}", {"movflags": "faststart"} if suffix == "mp4" else {})
    whole = source.read_bytes()
    with av.open(str(source)) as container:
        last = max(p.pos + p.size for p in container.demux(video=0) if p.size)
    source.write_bytes(whole[: last - 3])
    report = restore_video(FakeSession(), source, tmp_path / "out.mkv")
    assert 0.6 < report.damage[-1].seconds <= 0.8
    assert 15 < report.frames <= 20


@pytest.mark.parametrize("suffix", ["mkv", "mp4", "mov"])
def test_a_long_last_frame_is_no_damage(tmp_path: Path, suffix: str) -> None:
    source = make_clip(
        tmp_path / f"in.{suffix}", [picture(i) for i in range(4)], pts=[0, 512, 1024, 51200], options={"bf": "0"}
    )
    assert restore_video(FakeSession(), source, tmp_path / "out.mkv").damage == ()
