"""GStreamer pipelines on either side of a restoration; needs GStreamer and its base and good plugins."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from video_clips import FakeSession, make_clip, picture, read_frames

from uare_rt.errors import InputError, UareError, UsageError
from uare_rt.video import VideoOptions, restore_video

TINY = Path(__file__).parents[2] / "data" / "tiny.uare"
FAST = VideoOptions(crf=4, preset="ultrafast")


def _there() -> bool:
    try:
        ctypes.CDLL("libgstapp-1.0.so.0")
    except OSError:
        return False
    inspect = shutil.which("gst-inspect-1.0")
    wanted = ("videotestsrc", "matroskamux", "jpegenc", "videoconvert")
    return inspect is not None and all(
        subprocess.run([inspect, name], capture_output=True, check=False).returncode == 0 for name in wanted
    )


pytestmark = pytest.mark.skipif(not _there(), reason="GStreamer or its base and good plugins are missing")


@pytest.fixture(autouse=True)
def _free(tmp_path: Path) -> None:
    assert " " not in str(tmp_path)  # a location in a pipeline is one word


def test_a_pipeline_is_a_source(tmp_path: Path) -> None:
    report = restore_video(
        FakeSession(),
        "gst:videotestsrc num-buffers=12 pattern=smpte ! video/x-raw,width=64,height=48,framerate=10/1",
        tmp_path / "out.mp4",
        options=FAST,
    )
    frames = read_frames(tmp_path / "out.mp4")
    assert report.frames == len(frames) == 12
    assert [t for t, _ in frames] == [Fraction(i, 10) for i in range(12)]
    assert frames[3][1].shape == (48, 64, 3)
    # The bars of SMPTE: white on the left, blue on the right.
    assert np.abs(frames[3][1][10, 3].astype(int) - 255).max() < 12
    assert frames[3][1][10, 61].argmax() == 2
    assert any("GStreamer" in note for note in report.notes)


def test_a_pipeline_is_a_sink_and_keeps_variable_times(tmp_path: Path) -> None:
    times = [0, 512, 2048, 2560, 6400]
    source = make_clip(tmp_path / "in.mp4", [picture(i) for i in range(5)], pts=times)
    target = tmp_path / "out.mkv"
    pipeline = f"gst:videoconvert ! jpegenc quality=98 ! matroskamux ! filesink location={target}"
    report = restore_video(FakeSession(), source, pipeline, options=FAST)
    before, after = read_frames(source), read_frames(target)
    assert report.frames == len(after) == 5
    assert max(abs(a - b) for (a, _), (b, _) in zip(before, after, strict=True)) <= Fraction(1, 1000)
    assert max(np.abs(a.astype(int) - b).mean() for (_, a), (_, b) in zip(before, after, strict=True)) < 3


@pytest.mark.parametrize(
    ("source", "kind", "message"),
    [
        ("gst:nosuchelement", UsageError, "nosuchelement"),
        ("gst:filesrc location=/nowhere/at/all ! fakesink name=x", UareError, "gst:"),
        ("gst:videotestsrc num-buffers=0", InputError, "gives no picture"),
        ("gst:rtspsrc location=rtsp://camera/1", UsageError, "uare-rt live"),
    ],
)
def test_pipelines_that_do_not_work_are_one_error(
    tmp_path: Path, source: str, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        restore_video(FakeSession(), source, tmp_path / "out.mp4", options=FAST)
    assert list(tmp_path.iterdir()) == []


def test_the_command_line_takes_pipelines(tmp_path: Path) -> None:
    source = "gst:videotestsrc num-buffers=4 ! video/x-raw,width=64,height=48,framerate=5/1"
    target = tmp_path / "deep" / "out.mkv"
    command = [sys.executable, "-m", "uare_rt.cli", "restore", source, "--bundle", str(TINY), "-o"]
    done = subprocess.run([*command, str(tmp_path / "a.mp4")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(read_frames(tmp_path / "a.mp4")) == 4
    bad = f"gst:videoconvert ! jpegenc quality=98 ! matroskamux ! filesink location={target}"
    done = subprocess.run([*command, bad], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("note") or done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    assert not target.parent.exists()
