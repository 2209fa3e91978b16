"""The demo clip through a real session: bundle, graphs, tiles and all."""

from __future__ import annotations

from pathlib import Path

import av
import pytest
from video_clips import make_clip, picture, read_frames, read_packets

import uare_rt
from uare_rt.video import VideoOptions, assess_video, restore_video

TINY = Path(__file__).parents[2] / "data" / "tiny.uare"
SAMPLE = Path(__file__).parents[3] / "examples" / "sample.mp4"


def test_the_demo_clip_is_small_and_has_sound() -> None:
    assert SAMPLE.stat().st_size <= 2_500_000  # its noise is kept by the codec: it is what the demo removes
    with av.open(str(SAMPLE)) as clip:
        video, audio = clip.streams.video[0], clip.streams.audio[0]
        assert (video.codec_context.name, audio.codec_context.name) == ("h264", "aac")
        assert (video.width, video.height) == (480, 320)
        assert 3.0 <= clip.duration / 1e6 <= 4.1


@pytest.mark.parametrize("scale", [1, 2])
def test_a_real_session_restores_a_clip(tmp_path: Path, scale: int) -> None:
    source = make_clip(tmp_path / "in.mp4", [picture(i, 90, 70) for i in range(6)])
    with uare_rt.load(TINY) as session:
        report = restore_video(
            session, source, tmp_path / "out.mp4", scale=scale, options=VideoOptions(preset="ultrafast")
        )
        verdict = assess_video(session, tmp_path / "out.mp4", samples=2)
    assert report.frames == 6
    assert [f.shape for _, f in read_frames(tmp_path / "out.mp4")] == [(70 * scale, 90 * scale, 3)] * 6
    assert 1 <= report.score_before <= 5
    assert 1 <= verdict.score <= 5


def test_the_null_backend_brings_the_demo_clip_through(tmp_path: Path) -> None:
    with uare_rt.load(TINY, backend="null") as session:
        options = VideoOptions(preset="ultrafast", crf=12)  # noise hardly compresses
        report = restore_video(session, SAMPLE, tmp_path / "out.mp4", options=options)
    before, after = read_frames(SAMPLE), read_frames(tmp_path / "out.mp4")
    assert report.frames == len(after) == len(before) == 72
    assert [t for t, _ in after] == [t for t, _ in before]
    assert read_packets(tmp_path / "out.mp4", "audio") == read_packets(SAMPLE, "audio")
    assert report.scenes == 1
    assert max(abs(a.astype(int) - b).mean() for (_, a), (_, b) in zip(before, after, strict=True)) < 3
