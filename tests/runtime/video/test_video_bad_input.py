"""Streams that are not what a container promises: refused in one line, or restored with nothing else changed."""

from __future__ import annotations

import resource
from fractions import Fraction
from typing import TYPE_CHECKING

import av
import numpy as np
import pytest
from video_clips import FakeSession, make_clip, picture, read_frames, tone

from uare_rt.errors import InputError, OutputError
from uare_rt.video import VideoOptions, restore_video
from uare_rt.video.journal import journal_folder

if TYPE_CHECKING:
    from pathlib import Path

FAST = VideoOptions(crf=8, preset="ultrafast")
KEYS = {
    "encryption_scheme": "cenc-aes-ctr",
    "encryption_key": "76a6c65c5ea762046bd749a2e632ccbb",
    "encryption_kid": "a7e61c373e219033c21091fa607bf3b8",
}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def raw_h264(path: Path, width: int, count: int) -> bytes:
    with av.open(str(path), "w", format="h264") as out:
        stream = out.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = width, 48, "yuv420p"
        stream.codec_context.options = {"bf": "0", "preset": "ultrafast"}
        for i in range(count):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture(i, width), "rgb24")))
        out.mux(stream.encode(None))
    return path.read_bytes()


def test_a_picture_size_that_changes_is_refused_with_its_time(tmp_path: Path) -> None:
    source = tmp_path / "in.h264"
    source.write_bytes(raw_h264(tmp_path / "a", 64, 10) + raw_h264(tmp_path / "b", 96, 10))
    before = names(tmp_path)
    with pytest.raises(InputError, match=r"changes from 64x48 to 96x48 at 0\.\d+ s; restore up to there with --end"):
        restore_video(FakeSession(), source, tmp_path / "out.mp4", options=FAST)
    assert names(tmp_path) == before


@pytest.mark.parametrize("with_audio", [False, True])
def test_encrypted_tracks_are_refused(tmp_path: Path, with_audio: bool) -> None:
    """With sound, only the sound's packets are met first: a track is named whichever it is."""
    source = tmp_path / "in.mp4"
    with av.open(str(source), "w", container_options=KEYS) as out:
        video = out.add_stream("libx264", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        sound = out.add_stream("aac", rate=48000) if with_audio else None
        for frame in tone(0.5) if sound is not None else ():
            out.mux(sound.encode(frame))
        for i in range(5):
            out.mux(video.encode(av.VideoFrame.from_ndarray(picture(i), "rgb24")))
        out.mux(video.encode(None))
    with pytest.raises(InputError, match=r"the (video|audio) track is encrypted; decrypt it"):
        restore_video(FakeSession(), source, tmp_path / "out.mp4", options=FAST)
    assert names(tmp_path) == ["in.mp4"]


def test_a_codec_that_nobody_knows_is_named(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mp4", [picture(i) for i in range(5)])
    data = source.read_bytes()
    assert data.count(b"avc1") >= 1
    place = data.rindex(b"avc1")
    source.write_bytes(data[:place] + b"zz9q" + data[place + 4 :])
    with pytest.raises(InputError, match=r"no decoder for its video stream \(.*zz9q.*\)"):
        restore_video(FakeSession(), source, tmp_path / "out.mp4", options=FAST)
    assert names(tmp_path) == ["in.mp4"]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_packets_without_duration_keep_their_times(tmp_path: Path, suffix: str) -> None:
    source = tmp_path / f"in{suffix}"
    with av.open(str(source), "w") as out:
        stream = out.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.options = {"preset": "ultrafast", "bf": "0"}
        for i in range(8):
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture(i), "rgb24")):
                packet.duration = 0
                out.mux(packet)
        for packet in stream.encode(None):
            packet.duration = 0
            out.mux(packet)
    report = restore_video(FakeSession(), source, tmp_path / f"out{suffix}", options=FAST)
    before, after = read_frames(source), read_frames(tmp_path / f"out{suffix}")
    assert [t for t, _ in after] == [t for t, _ in before]
    assert report.damage == ()


def test_a_full_disk_stops_a_run_that_can_go_on(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    noisy = [rng.integers(0, 255, (96, 128, 3)).astype(np.uint8) for _ in range(40)]
    source = make_clip(tmp_path / "in.mp4", noisy, rate=5, options={"crf": "4", "preset": "ultrafast"})
    target = tmp_path / "out.mp4"
    options = VideoOptions(crf=4, preset="ultrafast")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # A piece of 25 frames fits, all of them in one file do not.
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(source.stat().st_size * 0.9), hard))
    try:
        with pytest.raises(OutputError, match=r"no space left.*run again with resume"):
            restore_video(FakeSession(), source, target, resume=True, options=options)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not target.exists()
    assert journal_folder(target).exists()
    session = FakeSession()
    report = restore_video(session, source, target, resume=True, options=options)
    assert report.resumed >= 25
    assert len(session.restored) <= 40 - report.resumed
    assert len(read_frames(target)) == 40
    assert names(tmp_path) == ["in.mp4", "out.mp4"]


def test_sound_that_begins_before_the_pictures_stays_where_it_is(tmp_path: Path) -> None:
    """Encoder delay is stored as an edit list in MP4 and as a negative start elsewhere."""
    for suffix in (".mp4", ".mov", ".mkv"):
        source = make_clip(tmp_path / f"in{suffix}", [picture(i) for i in range(25)], audio=tone(1.5, pts=-1024))
        restore_video(FakeSession(), source, tmp_path / f"out{suffix}", options=FAST)
        offsets = []
        for path in (source, tmp_path / f"out{suffix}"):
            with av.open(str(path)) as container:
                first = {}
                for packet in container.demux():
                    if packet.pts is not None:
                        first.setdefault(packet.stream.type, packet.pts * Fraction(packet.time_base))
            offsets.append(first["audio"] - first["video"])
        assert abs(offsets[0] - offsets[1]) <= Fraction(1024, 48000)
