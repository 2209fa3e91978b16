"""What `restore_video` keeps: time, order, sound, size, depth, colour, rotation, metadata."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from video_clips import FakeSession, make_clip, picture, read_frames, read_packets, tone

from uare_rt.errors import UsageError
from uare_rt.video import VideoOptions, restore_video

if TYPE_CHECKING:
    from pathlib import Path

FAST = VideoOptions(crf=8, preset="ultrafast")


def pictures(count: int, width: int = 64, height: int = 48) -> list[np.ndarray]:
    return [picture(i, width, height) for i in range(count)]


def test_frames_keep_their_order_and_content(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mp4", pictures(20), options={"crf": "8", "bf": "3"})
    report = restore_video(FakeSession(), source, tmp_path / "out.mp4")
    before, after = read_frames(source), read_frames(tmp_path / "out.mp4")
    assert report.frames == len(after) == len(before) == 20
    assert report.fps > 0
    for (t0, a), (t1, b) in zip(before, after, strict=True):
        assert t0 == t1
        assert np.abs(a.astype(int) - b).mean() < 3
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.mp4", "out.mp4"]


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(st.integers(1, 4000), min_size=1, max_size=12),
    start=st.sampled_from([0, 700, 90000]),
    suffix=st.sampled_from([".mp4", ".mov", ".mkv"]),
)
def test_variable_timestamps_are_exact(tmp_path: Path, steps: list[int], start: int, suffix: str) -> None:
    base = Fraction(1, 1000) if suffix == ".mkv" else Fraction(1, 12800)
    times = [start + sum(steps[:i]) for i in range(len(steps) + 1)]
    source = make_clip(tmp_path / f"in{suffix}", pictures(len(times)), pts=times, time_base=base)
    restore_video(FakeSession(), source, tmp_path / f"out{suffix}", overwrite=True, options=FAST)
    with av.open(str(source)) as a, av.open(str(tmp_path / f"out{suffix}")) as b:
        expected = [(f.pts * f.time_base) for f in a.decode(video=0)]
        assert [(f.pts * f.time_base) for f in b.decode(video=0)] == expected
        assert b.duration == pytest.approx(a.duration, abs=2000)
        if suffix != ".mkv":
            assert b.streams.video[0].time_base == a.streams.video[0].time_base


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("offset", [0, 24000])
def test_audio_is_copied_and_stays_in_sync(tmp_path: Path, suffix: str, offset: int) -> None:
    audio = tone(2.0, layout="5.1", pts=offset)
    source = make_clip(tmp_path / f"in{suffix}", pictures(25), audio=audio, layout="5.1")
    restore_video(FakeSession(), source, tmp_path / f"out{suffix}", options=FAST)
    before, after = read_packets(source, "audio"), read_packets(tmp_path / f"out{suffix}", "audio")
    assert [data for _, data in after] == [data for _, data in before]
    video = read_frames(source)[0][0], read_frames(tmp_path / f"out{suffix}")[0][0]
    # Sound relative to picture, packet by packet; Matroska counts whole milliseconds.
    assert max(abs((t1 - video[1]) - (t0 - video[0])) for (t0, _), (t1, _) in zip(before, after, strict=True)) <= (
        Fraction(1, 1000) if suffix == ".mkv" else 0
    )


@pytest.mark.parametrize(("width", "height"), [(63, 47), (64, 47), (63, 48), (1, 1)])
@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
def test_odd_sizes_keep_their_size(tmp_path: Path, width: int, height: int, suffix: str) -> None:
    frames = [np.full((height, width, 3), 40 + 20 * i, np.uint8) for i in range(3)]
    source = make_clip(tmp_path / "in.mkv", frames, codec="ffv1", pix_fmt="yuv420p", options={})
    report = restore_video(FakeSession(), source, tmp_path / f"out{suffix}")
    after = read_frames(tmp_path / f"out{suffix}")
    assert [f.shape for _, f in after] == [(height, width, 3)] * 3
    assert any("odd size" in note for note in report.notes) == (suffix == ".mp4")


def test_scale_makes_larger_frames_with_the_same_times(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mp4", pictures(4))
    restore_video(FakeSession(), source, tmp_path / "out.mp4", scale=2, options=FAST)
    after = read_frames(tmp_path / "out.mp4")
    assert [f.shape for _, f in after] == [(96, 128, 3)] * 4
    assert [t for t, _ in after] == [t for t, _ in read_frames(source)]


def test_ten_bits_stay_ten_bits(tmp_path: Path) -> None:
    ramp = np.tile(np.linspace(20000, 24000, 64).astype(np.uint16)[None, :, None], (48, 1, 3))
    source = make_clip(tmp_path / "in.mkv", [ramp] * 2, codec="ffv1", pix_fmt="yuv420p10le", options={})
    restore_video(FakeSession(), source, tmp_path / "out.mkv", options=VideoOptions(crf=1))
    with av.open(str(tmp_path / "out.mkv")) as result, av.open(str(source)) as original:
        a, b = (next(c.decode(video=0)) for c in (original, result))
        assert b.format.name == "yuv420p10le"
        luma = [np.frombuffer(bytes(f.planes[0]), np.uint16).reshape(48, -1)[:, :64].astype(int) for f in (a, b)]
    # About 53 ten-bit codes span the ramp, 14 if it had gone through 8 bits.
    assert len(np.unique(luma[1])) > 30
    assert np.abs(luma[0] - luma[1]).max() <= 4


@pytest.mark.parametrize("matrix", [1, 5, 6, 9])
@pytest.mark.parametrize("full", [False, True])
def test_colours_come_back_with_the_stated_matrix_and_range(tmp_path: Path, matrix: int, full: bool) -> None:
    """Flat patches of known YUV: the session must see the RGB that the standard gives, and the YUV must come back."""
    kr, kb = {1: (0.2126, 0.0722), 5: (0.299, 0.114), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}[matrix]
    patches = [(200, 30, 30), (30, 180, 60), (40, 60, 220), (128, 128, 128), (16, 16, 16), (235, 235, 235)]
    planes = []
    for r, g, b in patches:
        y = kr * r + (1 - kr - kb) * g + kb * b
        u, v = (b - y) / (2 * (1 - kb)), (r - y) / (2 * (1 - kr))
        planes.append((y, u + 128, v + 128) if full else (16 + y * 219 / 255, 128 + u * 224 / 255, 128 + v * 224 / 255))
    frame = av.VideoFrame(32 * len(patches), 32, "yuv420p")
    for i, plane in enumerate(frame.planes):
        size = 32 if i == 0 else 16
        row = np.zeros((size, plane.line_size), np.uint8)
        row[:, : size * len(patches)] = np.repeat([round(p[i]) for p in planes], size)
        plane.update(row.tobytes())
    primaries, transfer = (9, 14) if matrix == 9 else (matrix, matrix)
    tags = (matrix, 2 if full else 1, primaries, transfer)
    source = make_clip(tmp_path / "in.mp4", [frame], options={"crf": "0"}, colour=tags)

    seen: list[np.ndarray] = []

    class Watching(FakeSession):
        def restore(self, image: np.ndarray, **kwargs: object) -> object:
            seen.append(image.copy())
            return super().restore(image, **kwargs)

    restore_video(Watching(), source, tmp_path / "out.mp4", options=VideoOptions(crf=0))
    centres = seen[0][16, 16::32]
    assert np.abs(centres.astype(int) - np.array(patches)).max() <= 2
    with av.open(str(source)) as a, av.open(str(tmp_path / "out.mp4")) as b:
        first, second = next(a.decode(video=0)), next(b.decode(video=0))
        for context in (first, second):
            assert (context.colorspace, context.color_range) == tags[:2]
        assert b.streams.video[0].codec_context.color_primaries == primaries
        assert b.streams.video[0].codec_context.color_trc == transfer
        for p, q in zip(first.planes, second.planes, strict=True):
            difference = np.frombuffer(bytes(p), np.uint8).astype(int) - np.frombuffer(bytes(q), np.uint8)
            # Inside the patches: halved chroma is blurred at its edges whichever kernel is used.
            inside = difference.reshape(p.height, -1)[:, : p.width].reshape(p.height, len(patches), -1)[:, :, 5:-5]
            assert np.abs(inside).max() <= 2


def test_an_untagged_clip_stays_untagged_unless_its_size_would_change_its_meaning(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mp4", pictures(1, 640, 360))
    for scale, expected in ((1, 2), (2, 6)):
        restore_video(FakeSession(), source, tmp_path / f"out{scale}.mp4", scale=scale, options=FAST)
        with av.open(str(tmp_path / f"out{scale}.mp4")) as result:
            assert next(result.decode(video=0)).colorspace == expected


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
@pytest.mark.parametrize("degrees", [90, 180, -90])
def test_rotation_is_kept(tmp_path: Path, suffix: str, degrees: int) -> None:
    if not hasattr(av.video.stream.VideoStream, "set_display_rotation"):
        pytest.skip("this PyAV cannot make a rotated clip")
    source = make_clip(
        tmp_path / f"in{suffix}", pictures(3), setup=lambda _, video: video.set_display_rotation(degrees)
    )
    restore_video(FakeSession(), source, tmp_path / f"out{suffix}", options=FAST)
    with av.open(str(tmp_path / f"out{suffix}")) as result:
        frame = next(result.decode(video=0))
    assert abs(frame.rotation) == abs(degrees)
    assert frame.rotation == degrees or degrees == 180
    assert (frame.width, frame.height) == (64, 48)


@pytest.mark.parametrize(("degrees", "mirrored"), [(90, False), (180, False), (-90, False), (90, True), (0, True)])
def test_pictures_are_turned_where_rotation_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, degrees: int, mirrored: bool
) -> None:
    if not hasattr(av.video.stream.VideoStream, "set_display_rotation"):
        pytest.skip("this PyAV cannot make a rotated clip")

    def tag(_: object, video: av.VideoStream) -> None:
        video.set_display_rotation(degrees, hflip=mirrored)
        video.codec_context.sample_aspect_ratio = Fraction(4, 3)

    source = make_clip(tmp_path / "in.mp4", pictures(3), setup=tag)
    with av.open(str(source)) as original:
        rgb = next(original.decode(video=0)).to_ndarray(format="rgb24")
    monkeypatch.setattr("uare_rt.video.rotation.writes_display_matrix", lambda: False)
    report = restore_video(FakeSession(), source, tmp_path / "out.mp4", options=FAST)
    with av.open(str(tmp_path / "out.mp4")) as result:
        aspect = result.streams.video[0].sample_aspect_ratio
        frame = next(result.decode(video=0))
    assert frame.rotation == 0
    # The matrix mirrors after its rotation (PyAV: "hflip / vflip mirror after it").
    expected = np.rot90(rgb, degrees // 90)
    expected = expected[:, ::-1] if mirrored else expected
    shown = frame.to_ndarray(format="rgb24")
    assert shown.shape == expected.shape
    assert np.abs(shown.astype(int) - expected).mean() < 6
    assert aspect == (Fraction(4, 3) if degrees % 180 == 0 else Fraction(3, 4))
    assert any("turned" in note for note in report.notes)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_pixel_aspect_metadata_and_chapters_are_kept(tmp_path: Path, suffix: str) -> None:
    def tag(out: av.container.OutputContainer, video: av.VideoStream) -> None:
        video.codec_context.sample_aspect_ratio = Fraction(16, 11)
        out.metadata.update({"title": "Märchen", "artist": "someone"})
        video.metadata["language"] = "deu"
        chapter = {"id": 1, "start": 0, "end": 400, "time_base": Fraction(1, 1000), "metadata": {"title": "one"}}
        out.set_chapters([chapter, {**chapter, "id": 2, "start": 400, "end": 800, "metadata": {"title": "two"}}])

    source = make_clip(tmp_path / f"in{suffix}", pictures(20), setup=tag)
    report = restore_video(FakeSession(), source, tmp_path / f"out{suffix}", options=FAST)
    with av.open(str(tmp_path / f"out{suffix}")) as result:
        assert result.streams.video[0].sample_aspect_ratio == Fraction(16, 11)
        metadata = {key.lower(): value for key, value in result.metadata.items()}
        assert (metadata["title"], metadata["artist"]) == ("Märchen", "someone")
        assert result.streams.video[0].metadata["language"] == "deu"
        found = [(c["start"] * c["time_base"], c["metadata"]["title"]) for c in result.chapters()]
        assert found == [(0, "one"), (Fraction(2, 5), "two")]
    assert report.notes == ()


def test_a_subtitle_the_container_cannot_hold_is_refused_by_name(tmp_path: Path) -> None:
    def subtitles(out: av.container.OutputContainer, _: av.VideoStream) -> None:
        stream = out.add_mux_stream("subrip")
        stream.time_base = Fraction(1, 1000)

    source = make_clip(tmp_path / "in.mkv", pictures(3), setup=subtitles)
    with pytest.raises(UsageError, match=r"\.mp4 cannot hold stream 1 \(subtitle, .*\.mkv"):
        restore_video(FakeSession(), source, tmp_path / "out.mp4")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.mkv"]
    restore_video(FakeSession(), source, tmp_path / "out.mkv", options=FAST)
    with av.open(str(tmp_path / "out.mkv")) as result:
        assert len(result.streams.subtitles) == 1


def test_repeated_frames_are_not_computed_again(tmp_path: Path) -> None:
    frames = [picture(i // 4) for i in range(16)]
    source = make_clip(tmp_path / "in.mkv", frames, codec="ffv1", pix_fmt="yuv444p", options={})
    session = FakeSession()
    report = restore_video(session, source, tmp_path / "out.mkv", options=FAST)
    assert (report.frames, report.reused, len(session.restored)) == (16, 12, 4)
    assert len(read_frames(tmp_path / "out.mkv")) == 16


def test_quality_is_assessed_at_cuts_and_every_n_frames_and_smoothed_between(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    scenes = [rng.integers(0, 90, (6, 8, 3)), rng.integers(100, 250, (6, 8, 3))]
    frames = [np.clip(scenes[i >= 12].repeat(8, 0).repeat(8, 1) + 2 * i, 0, 255).astype(np.uint8) for i in range(24)]
    source = make_clip(tmp_path / "in.mkv", frames, codec="ffv1", pix_fmt="yuv444p", options={})
    session = FakeSession()
    report = restore_video(
        session, source, tmp_path / "out.mkv", options=VideoOptions(preset="ultrafast", assess_every=8, reuse=False)
    )
    assert report.scenes == 2
    assert report.assessed == 4  # frames 0, 8, 12 (cut), 20
    assert session.assessed == 8  # and once more after restoration
    assert report.score_before == pytest.approx(report.score_after, abs=0.01)
    changes = np.flatnonzero(np.diff(session.contexts)) + 1
    assert changes.tolist() == [8, 12, 20]
    direct = [f.mean() / 255 for f in frames]
    assert session.contexts[12] == pytest.approx(direct[12], abs=0.01)
    assert session.contexts[8] == pytest.approx(0.7 * direct[0] + 0.3 * direct[8], abs=0.01)


def test_times_that_a_container_cannot_count_are_rounded_and_said_so(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mp4", pictures(5), pts=[0, 500, 1001, 1600, 2100])
    report = restore_video(FakeSession(), source, tmp_path / "out.mkv", options=FAST)
    before, after = read_frames(source), read_frames(tmp_path / "out.mkv")
    assert max(abs(a - b) for (a, _), (b, _) in zip(before, after, strict=True)) <= Fraction(1, 1000)
    assert any("3 frame times were rounded" in note for note in report.notes)


@pytest.mark.parametrize(
    ("codec", "suffix", "decoded_by"),
    [
        ("libx264", ".mov", "h264"),
        ("libx265", ".mp4", "hevc"),
        ("libx265", ".mkv", "hevc"),
        ("libvpx-vp9", ".mp4", "vp9"),
    ],
)
def test_other_codecs_can_be_chosen(tmp_path: Path, codec: str, suffix: str, decoded_by: str) -> None:
    source = make_clip(tmp_path / "in.mp4", pictures(6))
    restore_video(FakeSession(), source, tmp_path / f"out{suffix}", options=VideoOptions(codec=codec, crf=10))
    with av.open(str(tmp_path / f"out{suffix}")) as result:
        assert result.streams.video[0].codec_context.codec.canonical_name == decoded_by
    before, after = read_frames(source), read_frames(tmp_path / f"out{suffix}")
    assert [t for t, _ in after] == [t for t, _ in before]
    assert max(np.abs(a.astype(int) - b).mean() for (_, a), (_, b) in zip(before, after, strict=True)) < 4


def test_progress_counts_to_the_end(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mp4", pictures(7))
    steps: list[tuple[int, int | None]] = []
    restore_video(FakeSession(), source, tmp_path / "out.mp4", progress=lambda p: steps.append((p.frames, p.total)))
    assert steps == [(i + 1, 7) for i in range(7)]
