"""Bad input, refused targets and failures in the middle: one clear error, and nothing left behind."""

from __future__ import annotations

import errno
import os
import resource
import threading
from typing import TYPE_CHECKING

import av
import numpy as np
import pytest
from video_clips import FakeSession, make_clip, picture, read_frames, read_packets, tone

from uare_rt.errors import InputError, OutputError, UsageError
from uare_rt.video import VideoOptions, assess_video, restore_video

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("no_thread_left")


@pytest.fixture
def no_thread_left() -> object:
    yield
    assert [t.name for t in threading.enumerate() if t.name.startswith("uare-")] == []


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return make_clip(tmp_path / "in.mp4", [picture(i) for i in range(30)], audio=tone(1.2))


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def within_seconds(limit: float, call: Callable[[], object]) -> None:
    """Run ``call`` and raise what it raises; fail when it does not come back."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(limit)
    assert not thread.is_alive(), f"still running after {limit} s"
    if raised:
        raise raised[0]


def only_audio(path: Path) -> Path:
    with av.open(str(path), "w") as out:
        stream = out.add_stream("aac", rate=48000)
        for frame in tone(0.5):
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "no such file"),
        ("directory", "is a directory|no images there"),
        ("empty", r"empty \(0 bytes\)"),
        ("text", "not a readable video"),
        ("audio", r"no video stream \(streams found: audio\)"),
        ("no index", "not a readable video"),
        ("header only", "not a readable video"),
        ("zeroed", "not one frame"),
    ],
)
def test_unusable_input_is_one_clear_error(tmp_path: Path, clip: Path, kind: str, message: str) -> None:
    source = tmp_path / "bad.mp4"
    if kind == "directory":
        source.mkdir()
    elif kind == "empty":
        source.touch()
    elif kind == "text":
        source.write_text("this is no video\n" * 50)
    elif kind == "audio":
        only_audio(source)
    elif kind == "no index":
        source.write_bytes(clip.read_bytes()[:4000])
    elif kind == "header only":
        source = make_clip(tmp_path / "bad.mkv", [picture(0)])
        data = source.read_bytes()
        source.write_bytes(data[: data.index(b"\x1f\x43\xb6\x75")])
    elif kind == "zeroed":
        source = make_clip(tmp_path / "bad.mkv", [picture(i) for i in range(5)], options={"preset": "ultrafast"})
        data = bytearray(source.read_bytes())
        with av.open(str(source)) as container:
            for packet in [p for p in container.demux(video=0) if p.size]:
                data[packet.pos + 6 : packet.pos + packet.size] = bytes(packet.size - 6)
        source.write_bytes(data)
    before = names(tmp_path)
    for call in (
        lambda: restore_video(FakeSession(), source, tmp_path / "out.mp4"),
        lambda: assess_video(FakeSession(), source),
    ):
        with pytest.raises(InputError, match=message) as caught:
            call()
        assert "bad." in str(caught.value)
        assert "\n" not in str(caught.value)
    assert names(tmp_path) == before


@pytest.mark.parametrize("container", ["mp4", "mkv"])
def test_a_truncated_clip_is_restored_as_far_as_it_decodes(tmp_path: Path, container: str) -> None:
    whole = tmp_path / f"whole.{container}"
    rng = np.random.default_rng(5)
    noisy = [rng.integers(0, 255, (48, 64, 3)).astype(np.uint8) for _ in range(50)]
    with av.open(str(whole), "w", container_options={"movflags": "faststart"} if container == "mp4" else {}) as out:
        stream = out.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.options = {"g": "10", "bf": "0"}
        for array in noisy:
            out.mux(stream.encode(av.VideoFrame.from_ndarray(array, "rgb24")))
        out.mux(stream.encode(None))
    cut = tmp_path / f"cut.{container}"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 6 // 10])
    report = restore_video(FakeSession(), cut, tmp_path / "out.mp4")
    assert report.damaged
    assert 0.8 < report.damage[-1].seconds < 1.6
    assert report.damage[-1].reason
    after = read_frames(tmp_path / "out.mp4")
    assert len(after) == report.frames
    assert 20 < report.frames < 40
    assert [t for t, _ in after] == [t for t, _ in read_frames(whole)[: len(after)]]
    assert restore_video(FakeSession(), whole, tmp_path / "fine.mp4").damage == ()
    assert 0 < len(assess_video(FakeSession(), cut, samples=8).samples) <= 8


def test_damage_inside_a_clip_is_reported_with_its_time(tmp_path: Path) -> None:
    rng = np.random.default_rng(6)
    noisy = [rng.integers(0, 255, (48, 64, 3)).astype(np.uint8) for _ in range(50)]
    source = make_clip(tmp_path / "in.mkv", noisy, options={"g": "5", "bf": "0", "preset": "ultrafast"})
    with av.open(str(source)) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    data = bytearray(source.read_bytes())
    position, size = packets[25]
    data[position + 20 : position + size] = bytes(size - 20)
    source.write_bytes(data)
    report = restore_video(FakeSession(), source, tmp_path / "out.mkv")
    assert report.damaged
    assert any(0.8 <= d.seconds <= 1.3 for d in report.damage)
    assert report.frames >= 40
    assert len(read_frames(tmp_path / "out.mkv")) == report.frames


def test_one_frame_is_a_clip(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mp4", [picture(0)])
    report = restore_video(FakeSession(), source, tmp_path / "out.mp4")
    assert (report.frames, report.scenes, report.assessed) == (1, 1, 1)
    assert len(read_frames(tmp_path / "out.mp4")) == 1
    assert len(assess_video(FakeSession(), source).samples) == 1


def test_missing_timestamps_follow_from_the_rate(tmp_path: Path) -> None:
    raw = tmp_path / "in.h264"
    with av.open(str(raw), "w", format="h264") as out:
        stream = out.add_stream("libx264", rate=20)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.options = {"bf": "0", "x264-params": "repeat-headers=1"}
        for i in range(12):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture(i), "rgb24")))
        out.mux(stream.encode(None))
    report = restore_video(FakeSession(), raw, tmp_path / "out.mp4")
    times = [float(t) for t, _ in read_frames(tmp_path / "out.mp4")]
    assert report.frames == len(times) == 12
    assert np.allclose(np.diff(times), 1 / 20)


def test_a_target_that_is_the_source_is_refused(clip: Path) -> None:
    data = clip.read_bytes()
    link = clip.with_name("link.mp4")
    link.symlink_to(clip)
    for target in (clip, clip.parent / "." / clip.name, link):
        with pytest.raises(UsageError, match="is the input itself"):
            restore_video(FakeSession(), clip, target, overwrite=True)
    assert clip.read_bytes() == data


def test_an_existing_target_needs_overwrite(clip: Path) -> None:
    target = clip.with_name("out.mp4")
    target.write_bytes(b"precious")
    with pytest.raises(OutputError, match="--overwrite"):
        restore_video(FakeSession(), clip, target)
    assert target.read_bytes() == b"precious"
    restore_video(FakeSession(), clip, target, overwrite=True)
    assert len(read_frames(target)) == 30


@pytest.mark.parametrize(
    ("target", "kind", "message"),
    [
        ("out.gif", UsageError, r"choose one of \.mp4"),
        ("out", UsageError, "no suffix"),
        ("nowhere/out.mp4", OutputError, "does not exist"),
    ],
)
def test_targets_that_cannot_be_written(clip: Path, target: str, kind: type[Exception], message: str) -> None:
    before = names(clip.parent)
    with pytest.raises(kind, match=message):
        restore_video(FakeSession(), clip, clip.parent / target)
    assert names(clip.parent) == before


def test_an_unwritable_directory_is_named(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = clip.parent / "locked"
    folder.mkdir(mode=0o500)
    # Root may write anywhere, so the answer of the system is stated here.
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    with pytest.raises(OutputError, match="locked is not writable"):
        restore_video(FakeSession(), clip, folder / "out.mp4")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scale": 3}, "scale 3"),
        ({"strength": 1.5}, "strength 1.5"),
        ({"options": VideoOptions(codec="mpeg1video")}, "mpeg1video"),
        ({"options": VideoOptions(pix_fmt="rgb565le")}, "rgb565le"),
        ({"options": VideoOptions(assess_every=0)}, "assess_every 0"),
    ],
)
def test_options_out_of_range(clip: Path, arguments: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        restore_video(FakeSession(), clip, clip.with_name("out.mp4"), **arguments)
    assert names(clip.parent) == ["in.mp4"]


def test_a_codec_the_container_cannot_hold(clip: Path) -> None:
    with pytest.raises(UsageError, match=r"\.webm cannot hold libx264"):
        restore_video(FakeSession(), clip, clip.with_name("out.webm"), options=VideoOptions(codec="libx264"))
    with pytest.raises(UsageError, match=r"\.webm cannot hold stream 1 \(audio, aac\).*\.mp4 or .*\.mkv can"):
        restore_video(FakeSession(), clip, clip.with_name("out.webm"))
    assert names(clip.parent) == ["in.mp4"]


@pytest.mark.parametrize("error", [RuntimeError("engine failed"), KeyboardInterrupt()])
def test_a_failure_while_restoring_leaves_nothing(clip: Path, error: BaseException) -> None:
    with pytest.raises(type(error)):
        within_seconds(120, lambda: restore_video(FakeSession(fail_at=7, error=error), clip, clip.with_name("out.mp4")))
    assert names(clip.parent) == ["in.mp4"]


def test_a_failing_encoder_does_not_hang(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from uare_rt.video.sink import PictureEncoder

    written = []

    def full(self: object, item: object) -> object:
        written.append(1)
        if len(written) > 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        return original(self, item)

    original = PictureEncoder.encode
    monkeypatch.setattr(PictureEncoder, "encode", full)
    with pytest.raises(OutputError, match="no space left"):
        within_seconds(120, lambda: restore_video(FakeSession(), clip, clip.with_name("out.mp4")))
    assert names(clip.parent) == ["in.mp4"]


def test_a_full_disk_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    noisy = [rng.integers(0, 255, (128, 160, 3)).astype(np.uint8) for _ in range(60)]
    source = make_clip(tmp_path / "in.mp4", noisy)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    try:
        with pytest.raises(OutputError, match="no space left"):
            restore_video(FakeSession(), source, tmp_path / "out.mp4")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert names(tmp_path) == ["in.mp4"]


def test_memory_does_not_grow_with_the_clip(tmp_path: Path) -> None:
    """However slow the writer, only a handful of frames are alive between the stages."""
    source = make_clip(tmp_path / "in.mp4", [picture(i) for i in range(120)])
    import gc

    from uare_rt.video.frames import Frame

    most = 0

    class Counting(FakeSession):
        def restore(self, image: np.ndarray, **arguments: object) -> object:
            nonlocal most
            most = max(most, sum(type(x) is Frame for x in gc.get_objects()))
            return super().restore(image, **arguments)

    restore_video(Counting(), source, tmp_path / "out.mp4", options=VideoOptions(preset="ultrafast"))
    assert 0 < most <= 20


def test_sound_longer_than_the_pictures_is_kept_whole(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mp4", [picture(i) for i in range(5)], audio=tone(1.5))
    report = restore_video(FakeSession(), source, tmp_path / "out.mp4")
    assert report.damage == ()
    assert read_packets(tmp_path / "out.mp4", "audio") == read_packets(source, "audio")
