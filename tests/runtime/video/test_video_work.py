"""Work that is not done twice, results that are looked at again, parts of clips, and clips that are no single file."""

from __future__ import annotations

import itertools
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from video_clips import FakeSession, make_clip, picture, read_frames, read_packets, tone

import uare_rt
from uare_rt import selection
from uare_rt.errors import BackendError, InputError, UsageError
from uare_rt.quality import Assessment
from uare_rt.session import Restored
from uare_rt.video import RawFormat, VideoOptions, restore_video
from uare_rt.video.pipeline import Stage, run_stages
from uare_rt.video.preview import preview_video
from uare_rt.video.regions import CELL, plan_boxes
from uare_rt.video.verifying import likeness

TINY = Path(__file__).parents[2] / "data" / "tiny.uare"
FAST = {"crf": 4, "preset": "ultrafast"}


def scene(index: int, noise: float = 0.0) -> np.ndarray:
    """A still, textured scene of 192x256 in which a small square moves."""
    rng = np.random.default_rng(5)
    frame = rng.integers(40, 200, (24, 32, 3)).repeat(8, 0).repeat(8, 1).astype(np.float64)
    frame[80:96, 16 + 4 * index : 32 + 4 * index] = 230
    frame += np.random.default_rng(100 + index).normal(0, noise, frame.shape)
    return np.clip(frame, 0, 255).astype(np.uint8)


def lossless(path: Path, frames: list[np.ndarray]) -> Path:
    return make_clip(path, frames, codec="ffv1", pix_fmt="bgr0", options={})


class Area(FakeSession):
    """Counts the px that it restores."""

    def __init__(self) -> None:
        super().__init__()
        self.area = 0

    def restore(self, image: np.ndarray, **arguments: object) -> Restored:
        self.area += image.shape[0] * image.shape[1]
        return super().restore(image, **arguments)


@settings(max_examples=60, deadline=None)
@given(arrays(bool, st.tuples(st.integers(1, 14), st.integers(1, 14)), elements=st.booleans()))
def test_boxes_cover_every_marked_cell(mask: np.ndarray) -> None:
    height, width = mask.shape[0] * CELL - 5, mask.shape[1] * CELL - 3
    boxes = plan_boxes(mask, height, width)
    if boxes is None:
        return
    covered = np.zeros((height, width), bool)
    for box in boxes:
        covered[box.top : box.bottom, box.left : box.right] = True
        read = box.read(height, width)
        assert read.top % CELL == read.left % CELL == 0
        assert read.top <= box.top <= box.bottom <= read.bottom <= height
        assert read.left <= box.left <= box.right <= read.right <= width
    assert covered[mask.repeat(CELL, 0).repeat(CELL, 1)[:height, :width]].all()


def test_only_what_moves_is_computed_again(tmp_path: Path) -> None:
    source = lossless(tmp_path / "in.mkv", [scene(i, noise=1.5) for i in range(20)])
    reused, every = Area(), Area()
    report = restore_video(reused, source, tmp_path / "a.mkv", options=VideoOptions(codec="ffv1"))
    restore_video(every, source, tmp_path / "b.mkv", options=VideoOptions(codec="ffv1", reuse=False))
    assert report.tiles == 20 * 12 * 16
    assert 0 < report.tiles_computed < report.tiles / 4
    assert reused.area < every.area / 3
    a, b = read_frames(tmp_path / "a.mkv"), read_frames(tmp_path / "b.mkv")
    for (_, x), (_, y) in zip(a, b, strict=True):
        assert np.abs(x.astype(int) - y).mean() < 4
        assert np.abs(x[84:92].astype(int) - y[84:92]).max() < 40  # the square is where it is in the input


def test_a_static_strip_flickers_less_than_the_input(tmp_path: Path) -> None:
    frames = [scene(i, noise=6) for i in range(16)]
    source = lossless(tmp_path / "in.mkv", frames)
    restore_video(FakeSession(), source, tmp_path / "out.mkv", options=VideoOptions(codec="ffv1", reuse=False))
    after = np.stack([f for _, f in read_frames(tmp_path / "out.mkv")]).astype(float)
    before = np.stack(frames).astype(float)
    assert after[4:, 150:].std(axis=0).mean() < 0.7 * before[4:, 150:].std(axis=0).mean()


def test_frames_that_are_good_are_left_alone(tmp_path: Path) -> None:
    frames = [np.full((48, 64, 3), 40 if i < 5 else 220, np.uint8) + np.uint8(i) for i in range(10)]
    source = lossless(tmp_path / "in.mkv", frames)
    session = FakeSession()
    options = VideoOptions(codec="ffv1", skip_above=3.0)
    report = restore_video(session, source, tmp_path / "out.mkv", options=options)
    assert report.skipped == 5
    assert all(mean < 100 for mean in session.restored)
    for scale in (1, 2):
        restore_video(FakeSession(), source, tmp_path / f"x{scale}.mkv", scale=scale, options=options)
        assert read_frames(tmp_path / f"x{scale}.mkv")[7][1].shape == (48 * scale, 64 * scale, 3)


class Darkening(FakeSession):
    """Makes bright pictures darker, which it judges worse, and dark ones brighter."""

    def restore(self, image: np.ndarray, **arguments: object) -> Restored:
        done = super().restore(image, **arguments)
        gain = 0.5 if image.mean() > 128 else 1.5
        return Restored((done.image * gain).astype(image.dtype), None, 1, 0.0)


def test_the_original_is_kept_where_restoration_did_not_help(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    pattern = [rng.integers(0, 60, (6, 8, 3)).repeat(8, 0).repeat(8, 1) for _ in range(2)]
    frames = [(pattern[i >= 6] + (40 if i < 6 else 180) + i % 2).astype(np.uint8) for i in range(12)]
    source = lossless(tmp_path / "in.mkv", frames)
    report = restore_video(
        Darkening(), source, tmp_path / "out.mkv", options=VideoOptions(codec="ffv1", verify=True, assess_every=4)
    )
    assert report.kept == 6
    assert report.originals[0].seconds == pytest.approx(6 / 25)
    assert "score fell" in report.originals[0].reason
    assert report.score_after >= report.score_before
    after = [f for _, f in read_frames(tmp_path / "out.mkv")]
    assert np.abs(after[8].astype(int) - frames[8]).max() <= 3
    assert after[2].mean() > frames[2].mean() * 1.3


def test_likeness_sees_structure_and_not_light() -> None:
    photo = np.asarray(Image.open(Path(__file__).parents[2] / "data" / "photos" / "tiger.jpg").convert("RGB"))
    noisy = np.clip(photo + np.random.default_rng(0).normal(0, 25, photo.shape), 0, 255).astype(np.uint8)
    dark = (photo * 0.4).astype(np.uint8)
    assert likeness(photo, photo) == pytest.approx(1)
    assert likeness(noisy, photo) > 0.8
    assert likeness(dark, photo) > 0.9
    assert likeness(photo, photo[::-1]) < 0.3
    assert likeness(np.full((9, 9, 3), 7, np.uint8), np.full((9, 9, 3), 90, np.uint8)) == 1


def test_compare_shows_both_halves(tmp_path: Path) -> None:
    source = lossless(tmp_path / "in.mkv", [np.full((48, 64, 3), 60, np.uint8)] * 3)
    restore_video(Darkening(), source, tmp_path / "out.mkv", options=VideoOptions(codec="ffv1", compare=True))
    frame = read_frames(tmp_path / "out.mkv")[2][1]
    assert np.abs(frame[:, :30].astype(int) - 60).max() <= 2
    assert np.abs(frame[:, 34:].astype(int) - 90).max() <= 2
    assert frame[:, 31:33].min() >= 250


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_an_excerpt_starts_at_zero_and_stays_in_sync(tmp_path: Path, suffix: str) -> None:
    source = make_clip(
        tmp_path / f"in{suffix}", [picture(i) for i in range(100)], audio=tone(4.0), options={"g": "12", "crf": "4"}
    )
    options = VideoOptions(**FAST, start=1.0, end=3.0)
    report = restore_video(FakeSession(), source, tmp_path / f"out{suffix}", options=options)
    before, after = read_frames(source), read_frames(tmp_path / f"out{suffix}")
    assert report.frames == len(after) == 50
    assert after[0][0] == 0
    assert [t for t, _ in after] == [t - 1 for t, _ in before[25:75]]
    assert np.abs(after[10][1].astype(int) - before[35][1]).mean() < 3
    sound = read_packets(source, "audio")
    kept = read_packets(tmp_path / f"out{suffix}", "audio")
    assert 1.9 < len(kept) * 1024 / 48000 < 2.1
    for when, data in kept:
        assert any(abs(when + 1 - t) <= Fraction(2, 1000) and data == original for t, original in sound)
    report = restore_video(FakeSession(), source, tmp_path / f"s{suffix}", options=VideoOptions(**FAST, sample=1.0))
    assert report.frames == 25


def test_ranges_that_hold_nothing_are_refused(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mp4", [picture(i) for i in range(10)])
    with pytest.raises(InputError, match="nothing is left from 5 s on"):
        restore_video(FakeSession(), source, tmp_path / "out.mp4", options=VideoOptions(start=5))
    with pytest.raises(UsageError, match="not after start"):
        restore_video(FakeSession(), source, tmp_path / "out.mp4", options=VideoOptions(start=0.2, end=0.1))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.mp4"]


def test_a_preview_is_the_frame_at_that_time(tmp_path: Path) -> None:
    source = lossless(tmp_path / "in.mkv", [np.full((48, 64, 3), 10 * i, np.uint8) for i in range(20)])

    class Judging(FakeSession):
        def restore(self, image: np.ndarray, **arguments: object) -> Restored:
            verdict: Assessment = self.assess(image)
            return super().restore(image, context=verdict.context, **arguments)

    before, restored = preview_video(Judging(), source, 0.4, scale=2, strength=1.0, options=VideoOptions())
    assert int(before[0, 0, 0]) == 100
    assert restored.image.shape == (96, 128, 3)


def test_images_become_a_clip_and_a_clip_becomes_images(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for i in range(1, 8):
        Image.fromarray(np.full((32, 48, 3), 20 * i, np.uint8)).save(folder / f"shot_{i:03d}.png")
    options = VideoOptions(codec="ffv1", rate=Fraction(10))
    for number, source in enumerate((folder, str(folder / "shot_%03d.png"))):
        restore_video(FakeSession(), source, tmp_path / f"{number}.mkv", options=options)
        frames = read_frames(tmp_path / f"{number}.mkv")
        assert [t for t, _ in frames] == [Fraction(i, 10) for i in range(7)]
        assert [round(f.mean() / 20) for _, f in frames] == list(range(1, 8))
    report = restore_video(FakeSession(), tmp_path / "0.mkv", str(tmp_path / "out" / "%04d.png"))
    assert report.frames == 7
    found = sorted((tmp_path / "out").iterdir())
    assert [path.name for path in found] == [f"{i:04d}.png" for i in range(1, 8)]
    assert abs(np.asarray(Image.open(found[3])).mean() - 80) < 2
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    with pytest.raises(InputError, match=r"no files nothing_%d\.png"):
        restore_video(FakeSession(), str(folder / "nothing_%d.png"), tmp_path / "n.mkv")
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(folder / "shot_999.png")
    with pytest.raises(InputError, match="have one size"):
        restore_video(FakeSession(), folder, tmp_path / "n.mkv")
    assert not (tmp_path / "n.mkv").exists()


@pytest.mark.parametrize("raw", [None, "64x48@30000/1001:yuv420p"])
def test_pipes_carry_frames_in_and_out(tmp_path: Path, raw: str | None) -> None:
    form = "yuv4mpegpipe" if raw is None else "rawvideo"
    sent = tmp_path / "in.bin"
    with av.open(str(sent), "w", format=form) as out:
        stream = out.add_stream("rawvideo", rate=Fraction(30000, 1001))
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for i in range(6):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture(i), "rgb24").reformat(format="yuv420p")))
        out.mux(stream.encode(None))
    command = [sys.executable, "-m", "uare_rt.cli", "restore", "-", "-o", "-", "--strength", "0", "--bundle", str(TINY)]
    with sent.open("rb") as frames_in:
        done = subprocess.run(
            command + (["--raw", raw] if raw else []), stdin=frames_in, capture_output=True, check=False, timeout=120
        )
    assert done.returncode == 0, done.stderr
    assert b"6 frames" in done.stderr
    (tmp_path / "out.bin").write_bytes(done.stdout)
    assert len(done.stdout) >= 6 * 64 * 48 * 3 // 2
    if raw is None:
        with av.open(str(tmp_path / "out.bin"), format=form) as result:
            frames = list(result.decode(video=0))
            assert result.streams.video[0].average_rate == Fraction(30000, 1001)
        assert len(frames) == 6
        assert np.abs(frames[5].to_ndarray(format="rgb24").astype(int) - picture(5)).mean() < 8


@pytest.mark.parametrize("text", ["", "64x48", "0x48@25:yuv420p", "64x48@25:nonsense", "64x48@1/0:rgb24"])
def test_a_raw_format_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="write it as 1920x1080@25:yuv420p"):
        RawFormat.parse(text)


def test_stages_overlap_and_tell_where_the_time_went() -> None:
    import time

    def slow(items: object) -> object:
        for item in items:
            time.sleep(0.01)
            yield item

    began = time.perf_counter()
    stages = [Stage("a", lambda _: iter(range(30))), Stage("b", slow), Stage("c", slow), Stage("d", slow)]
    times = run_stages(stages, here="c")
    wall = time.perf_counter() - began
    assert sum(t.busy for t in times) > 1.5 * wall
    assert [t.items for t in times] == [30] * 4
    assert all(t.busy >= 0.25 for t in times[1:])
    assert times[0].blocked > 0.1


def drifting(index: int) -> np.ndarray:
    """A still scene that a codec mends little by little, with a square that moves."""
    frame = scene(index).astype(np.float64)
    fine = np.random.default_rng(9).normal(0, 1, frame.shape)
    frame += np.clip(fine * min(index / 10, 1.0) * 2, -4, 4)
    frame[80:96] = scene(index)[80:96]
    return np.clip(frame, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("scale", [1, 2])
def test_small_change_of_the_input_arrives_where_nothing_is_computed_again(tmp_path: Path, scale: int) -> None:
    frames = [drifting(i) for i in range(40)]
    source = lossless(tmp_path / "in.mkv", frames)
    session = Area()
    options = VideoOptions(codec="ffv1", pix_fmt="bgr0")
    report = restore_video(session, source, tmp_path / "out.mkv", scale=scale, options=options)
    assert report.tiles_computed < report.tiles / 2
    after = [f[::scale, ::scale].astype(int) for _, f in read_frames(tmp_path / "out.mkv")]
    still = np.s_[120:, :]
    # A copy of the first frame would be 2 levels away from what the model makes of the last one.
    behind = np.abs(frames[-1][still].astype(int) - frames[0][still]).mean()
    assert np.abs(after[-1][still] - frames[-1][still]).mean() < 0.5 * behind


class Denoising(FakeSession):
    """Takes all that is finer than 4 px away."""

    def restore(self, image: np.ndarray, **arguments: object) -> Restored:
        height, width = image.shape[:2]
        small = Image.fromarray(image).resize((max(width // 4, 1), max(height // 4, 1)), Image.Resampling.BOX)
        smooth = np.asarray(small.resize((width, height), Image.Resampling.NEAREST))
        super().restore(image, **arguments)
        return Restored(smooth, None, 1, 0.0)


def test_noise_that_the_model_takes_away_does_not_come_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(21)
    frames = []
    for index in range(40):
        frame = np.full((192, 256, 3), 120.0)
        frame[80:96, 16 + 4 * index : 32 + 4 * index] = 230
        frames.append(np.clip(frame + rng.normal(0, 4, frame.shape), 0, 255).astype(np.uint8))
    source = lossless(tmp_path / "in.mkv", frames)
    restore_video(Denoising(), source, tmp_path / "out.mkv", options=VideoOptions(codec="ffv1", pix_fmt="bgr0"))
    after = np.stack([f for _, f in read_frames(tmp_path / "out.mkv")]).astype(float)
    still = after[10:, 130:]
    assert still.std(axis=0).mean() < 0.15 * 4
    assert np.abs(still - 120).mean() < 0.3 * 4


def test_no_strength_leaves_every_frame_as_it_is(tmp_path: Path) -> None:
    frames = [scene(i, noise=4) for i in range(6)]
    source = lossless(tmp_path / "in.mkv", frames)
    options = VideoOptions(codec="ffv1", pix_fmt="bgr0")
    report = restore_video(Darkening(), source, tmp_path / "out.mkv", strength=0.0, options=options)
    assert (report.skipped, report.tiles_computed) == (0, 0)
    assert report.score_after == report.score_before
    after = [f for _, f in read_frames(tmp_path / "out.mkv")]
    assert all(np.array_equal(a, b) for a, b in zip(after, frames, strict=True))


def test_frames_side_by_side_give_the_same_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a picture that moves frames are computed whole, of one in which a square moves only parts."""
    frames = [*(np.roll(scene(0), 5 * i, axis=1) for i in range(10)), *(scene(i) for i in range(20))]
    source = make_clip(tmp_path / "in.mkv", frames, audio=tone(1.2))
    options = VideoOptions(codec="ffv1", assess_every=16)
    reports = {}
    for lanes in (1, 3):
        monkeypatch.setattr(selection, "lanes", lambda bundle, backend, threads, lanes=lanes: lanes)
        with uare_rt.load(TINY, backend="onnxruntime", threads=3) as session:
            reports[lanes] = restore_video(session, source, tmp_path / f"{lanes}.mkv", options=options)
    assert [reports[lanes].lanes for lanes in (1, 3)] == [1, 3]
    assert reports[1].tiles_computed == reports[3].tiles_computed < reports[1].tiles
    one, more = read_frames(tmp_path / "1.mkv"), read_frames(tmp_path / "3.mkv")
    assert [time for time, _ in more] == [time for time, _ in one]
    assert all(np.abs(a.astype(int) - b).max() <= 1 for (_, a), (_, b) in zip(more, one, strict=True))
    assert read_packets(tmp_path / "3.mkv", "audio") == read_packets(source, "audio")


def test_a_failure_in_a_lane_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = list(np.random.default_rng(0).integers(0, 256, (12, 50, 70, 3), dtype=np.uint8))
    source = make_clip(tmp_path / "in.mkv", frames)
    monkeypatch.setattr(selection, "lanes", lambda bundle, backend, threads: 2)
    with uare_rt.load(TINY, backend="onnxruntime", threads=2) as session:
        whole, calls = session.restore, itertools.count()

        def failing(*given: Any, **how: Any) -> Any:
            if next(calls) == 5:
                raise BackendError("the lane is closed")
            return whole(*given, **how)

        session.restore = failing  # type: ignore[method-assign]
        with pytest.raises(BackendError, match="the lane is closed"):
            restore_video(session, source, tmp_path / "out.mkv")
    assert not list(tmp_path.glob("*out*"))
