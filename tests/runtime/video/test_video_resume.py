"""Runs that are interrupted and taken up again: the result is the one that a single run would have made."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest
from video_clips import FakeSession, make_clip, picture, read_frames, read_packets, tone

from uare_rt.errors import UsageError
from uare_rt.video import VideoOptions, restore_video
from uare_rt.video.journal import journal_folder

FAST = VideoOptions(crf=8, preset="ultrafast", assess_every=7)
TINY = Path(__file__).parents[2] / "data" / "tiny.uare"


def noisy(index: int) -> np.ndarray:
    rng = np.random.default_rng(index)
    return np.clip(picture(index).astype(int) + rng.normal(0, 6, (48, 64, 3)), 0, 255).astype(np.uint8)


def clip(path: Path, frames: int = 60, rate: int = 5) -> Path:
    steps = random.Random(3)
    times = np.cumsum([0, *(steps.choice([1600, 2560, 3001]) for _ in range(frames - 1))]).tolist()
    return make_clip(
        path,
        [noisy(i) for i in range(frames)],
        pts=times,
        rate=rate,
        audio=tone(12.0, pts=2400),
        options={"crf": "8", "bf": "2", "g": "30"},
    )


def interrupt(source: Path, target: Path, at: int, **arguments: object) -> None:
    with pytest.raises(RuntimeError, match="engine failed"):
        restore_video(FakeSession(fail_at=at), source, target, resume=True, **arguments)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("at", [3, 35, 58])
def test_an_interrupted_run_goes_on_and_ends_as_one_run_does(tmp_path: Path, suffix: str, at: int) -> None:
    source = clip(tmp_path / "in.mp4")
    single = tmp_path / f"single{suffix}"
    restore_video(FakeSession(), source, single, resume=True, options=FAST)
    target = tmp_path / f"out{suffix}"
    options = VideoOptions(crf=8, preset="ultrafast", assess_every=7, reuse=True)
    interrupt(source, target, at, options=options)
    assert not target.exists()
    assert journal_folder(target).exists() == (at > 27)
    session = FakeSession()
    report = restore_video(session, source, target, resume=True, options=options)
    assert report.resumed == at // 27 * 27
    assert report.frames == 60
    assert len(session.restored) <= 60 - report.resumed
    assert not journal_folder(target).exists()
    before, after = read_frames(single), read_frames(target)
    assert [t for t, _ in after] == [t for t, _ in before]
    assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(before, after, strict=True))
    assert read_packets(target, "audio") == read_packets(single, "audio")
    with av.open(str(single)) as a, av.open(str(target)) as b:
        assert a.duration == b.duration
        stamps = [p.dts for p in b.demux(video=0) if p.size]
        assert stamps == sorted(set(stamps))


@pytest.mark.parametrize("codec", ["libx264", "libx265", "libvpx-vp9", "ffv1"])
def test_pieces_joined_have_the_times_of_a_run_without_pieces(tmp_path: Path, codec: str) -> None:
    source = clip(tmp_path / "in.mp4", frames=32)
    options = VideoOptions(codec=codec, preset=None)
    suffix = ".mkv" if codec == "ffv1" else ".mp4"
    plain = restore_video(FakeSession(), source, tmp_path / f"a{suffix}", options=options)
    pieces = restore_video(FakeSession(), source, tmp_path / f"b{suffix}", options=options, resume=True)
    assert plain.notes == pieces.notes
    with av.open(str(tmp_path / f"a{suffix}")) as a, av.open(str(tmp_path / f"b{suffix}")) as b:
        assert b.duration == a.duration
        first, second = ([f.pts * f.time_base for f in c.decode(video=0)] for c in (a, b))
        assert first == second
        assert a.streams.video[0].average_rate == pytest.approx(b.streams.video[0].average_rate, rel=0.02)
    assert read_packets(tmp_path / f"b{suffix}", "audio") == read_packets(source, "audio") or suffix == ".mkv"


def test_another_setting_or_source_is_refused(tmp_path: Path) -> None:
    source = clip(tmp_path / "in.mp4")
    target = tmp_path / "out.mp4"
    interrupt(source, target, 40, options=FAST)
    with pytest.raises(UsageError, match=r"another strength \(1.0, now 0.5\)"):
        restore_video(FakeSession(), source, target, resume=True, strength=0.5, options=FAST)
    os.utime(source, ns=(1, 1))
    with pytest.raises(UsageError, match="another source"):
        restore_video(FakeSession(), source, target, resume=True, options=FAST)
    for bad in ("-", tmp_path / "%03d.png"):
        with pytest.raises(UsageError, match="work from a video file"):
            restore_video(FakeSession(), source, bad, resume=True)


def test_an_excerpt_can_be_resumed_too(tmp_path: Path) -> None:
    source = clip(tmp_path / "in.mp4")
    options = VideoOptions(preset="ultrafast", start=1.0, end=10.0)
    restore_video(FakeSession(), source, tmp_path / "a.mp4", options=options)
    interrupt(source, tmp_path / "b.mp4", 30, options=options)
    restore_video(FakeSession(), source, tmp_path / "b.mp4", options=options, resume=True)
    first, second = read_frames(tmp_path / "a.mp4"), read_frames(tmp_path / "b.mp4")
    assert [t for t, _ in first] == [t for t, _ in second]
    assert read_packets(tmp_path / "a.mp4", "audio") == read_packets(tmp_path / "b.mp4", "audio")


@pytest.mark.slow
def test_killed_at_ten_random_moments_it_ends_as_one_run_does(tmp_path: Path) -> None:
    source = clip(tmp_path / "in.mp4", frames=150)
    target, single = tmp_path / "out.mp4", tmp_path / "single.mp4"

    def command(out: Path) -> list[str]:
        program = [sys.executable, "-m", "uare_rt.cli", "restore", str(source), "-o", str(out)]
        return [*program, "--resume", "--bundle", str(TINY), "--preset", "ultrafast"]

    began = time.perf_counter()
    subprocess.run(command(single), check=True, capture_output=True)
    whole = time.perf_counter() - began
    moments = random.Random(1)
    for _ in range(10):
        process = subprocess.Popen(command(target), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait(moments.uniform(0.3, 0.8) * whole)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
        if target.exists():  # whole, as what follows shows, even where the kill came right after it got its name
            break
    else:
        process = subprocess.Popen(command(target), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        assert process.wait() == 0
    before, after = read_frames(single), read_frames(target)
    assert [t for t, _ in after] == [t for t, _ in before]
    assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(before, after, strict=True))
    if process.returncode == 0:
        assert sorted(path.name for path in tmp_path.iterdir()) == ["in.mp4", "out.mp4", "single.mp4"]
