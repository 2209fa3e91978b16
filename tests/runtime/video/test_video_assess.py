"""Assessing clips: which frames are looked at, and what is said about them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import av
import numpy as np
import pytest
from video_clips import FakeSession, make_clip, picture

from uare_rt.errors import UsageError
from uare_rt.video import assess_video, is_video, sample_frames
from uare_rt.video.scenes import CutDetector

if TYPE_CHECKING:
    from pathlib import Path


def brightening(count: int) -> list[np.ndarray]:
    return [np.full((48, 64, 3), 20 + 200 * i // count, np.uint8) for i in range(count)]


@pytest.mark.parametrize("gop", ["5", "250"])
def test_samples_are_spread_over_the_clip(tmp_path: Path, gop: str) -> None:
    source = make_clip(tmp_path / "in.mp4", brightening(100), options={"g": gop, "crf": "10", "preset": "ultrafast"})
    verdict = assess_video(FakeSession(), source, samples=8)
    times = [sample.seconds for sample in verdict.samples]
    assert times == pytest.approx([4 * (i + 0.5) / 8 for i in range(8)], abs=0.05)
    scores = [sample.assessment.score for sample in verdict.samples]
    assert scores == sorted(scores)
    assert verdict.worst == verdict.samples[0]
    assert verdict.score == pytest.approx(np.mean(scores))
    assert set(verdict.severities) == {"noise", "blur", "compression", "low_resolution", "low_light", "haze"}
    assert verdict.description.endswith(".")
    assert json.loads(json.dumps(verdict.to_dict()))["samples"][3]["seconds"] == times[3]


def test_a_stream_without_duration_is_sampled_too(tmp_path: Path) -> None:
    raw = tmp_path / "in.h264"
    with av.open(str(raw), "w", format="h264") as out:
        stream = out.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for array in brightening(90):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(array, "rgb24")))
        out.mux(stream.encode(None))
    frames = [float(pixels.mean()) for _, pixels in sample_frames(raw, 6)]
    assert len(frames) == 6
    assert frames == sorted(frames)
    assert frames[0] < 60
    assert frames[-1] > 180


def test_short_clips_give_each_frame_once(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mp4", [picture(i) for i in range(3)])
    times = [seconds for seconds, _ in sample_frames(source, 16)]
    assert times == sorted(set(times))
    assert 1 <= len(times) <= 3
    with pytest.raises(UsageError, match="samples"):
        assess_video(FakeSession(), source, samples=0)


def test_cuts_are_found_and_motion_exposure_and_noise_are_not_cuts() -> None:
    rng = np.random.default_rng(11)
    big = rng.integers(0, 255, (14, 20, 3)).repeat(24, 0).repeat(24, 1)
    other = rng.integers(0, 200, (14, 20, 3)).repeat(24, 0).repeat(24, 1)
    pan = [big[2 * i : 2 * i + 240, 4 * i : 4 * i + 320] for i in range(20)]
    fade = [pan[-1] * (1 - 0.04 * i) for i in range(12)]
    noisy = [fade[-1] + rng.normal(0, 20, fade[-1].shape) for _ in range(8)]
    dark = [0.1 * other[:240, :320] for _ in range(5)]
    frames = [np.clip(f, 0, 255).astype(np.uint8) for f in (*pan, *fade, *noisy, *dark)]
    detector = CutDetector()
    assert [i for i, frame in enumerate(frames) if detector.is_cut(frame)] == [0, 40]
    assert not any(detector.is_cut(frames[-1].astype(np.uint16) * 257) for _ in range(2))


def test_a_cut_between_views_of_the_same_tones_is_found() -> None:
    rng = np.random.default_rng(12)
    views = [rng.integers(0, 255, (14, 20, 3)).repeat(24, 0).repeat(24, 1) for _ in range(2)]
    frames = [views[i >= 10][2 * i : 2 * i + 240, 3 * i : 3 * i + 320].astype(np.uint8) for i in range(20)]
    detector = CutDetector()
    assert [i for i, frame in enumerate(frames) if detector.is_cut(frame)] == [0, 10]


def test_tiny_frames_have_cuts_too() -> None:
    detector = CutDetector()
    black, white = np.zeros((1, 1, 3), np.uint8), np.full((1, 1, 3), 255, np.uint8)
    assert [detector.is_cut(f) for f in (black, black, white)] == [True, False, True]


@pytest.mark.parametrize(("name", "expected"), [("a.MP4", True), ("b.mkv", True), ("c.jpg", False), ("mp4", False)])
def test_videos_are_told_by_their_suffix(name: str, expected: bool) -> None:
    assert is_video(name) is expected
