"""Whole pipelines: the elements in gst-launch-1.0, and pipelines and network cameras as Python's live sources."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

import uare_rt
from uare_rt.errors import InputError, OutputError, UsageError
from uare_rt.live import LiveOptions, LiveResult, LiveStream, Retry, SyntheticCamera, frame_number
from uare_rt.live.yuv import YuvColour, rgb_to_yuv, yuv_to_rgb

ROOT = Path(__file__).resolve().parents[2]
EVERY = LiveOptions(policy="every", strength=0)


@pytest.fixture(scope="module")
def environment(native_build: Path) -> dict[str, str]:
    folder = native_build / "runtime" / "native" / "gstreamer"
    return {**os.environ, "GST_PLUGIN_PATH": str(folder), "GST_REGISTRY": str(native_build / "registry.bin")}


@pytest.fixture
def session(native_build: Path, tiny: Path) -> Iterator[uare_rt.Session]:
    """Where the library was built, GStreamer is too."""
    with uare_rt.load(tiny, backend="openvino", threads=1) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight frames of real footage in a format that GStreamer decodes without FFmpeg, 160x90."""
    path = tmp_path_factory.mktemp("clip") / "clip.webm"
    with av.open(str(ROOT / "examples" / "sample.mp4")) as source, av.open(str(path), "w") as target:
        stream = target.add_stream("libvpx", rate=25, width=160, height=90, pix_fmt="yuv420p", options={"crf": "10"})
        for index, frame in enumerate(source.decode(video=0)):
            if index == 8:
                break
            small = frame.reformat(width=160, height=90, format="yuv420p")
            small.pts, small.time_base = index, Fraction(1, 25)
            target.mux(stream.encode(small))
        target.mux(stream.encode())
    return path


def launch(environment: dict[str, str], line: str, *, code: int = 0) -> str:
    done = subprocess.run(
        ["gst-launch-1.0", "-q", "-e", *line.split()], env=environment, capture_output=True, text=True, timeout=300
    )
    assert (done.returncode == 0) == (code == 0), done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_elements_document_themselves(environment: dict[str, str]) -> None:
    for element, words in (
        ("uarerestore", ("bundle", "strength", "scale", "assess-interval", "skip-above", "max-latency", "stats")),
        ("uareassess", ("bundle", "interval")),
    ):
        text = subprocess.run(
            ["gst-inspect-1.0", element], env=environment, capture_output=True, text=True, check=True
        ).stdout
        assert all(f"  {word}  " in text for word in words)
        assert "P010_10LE" in text


def test_a_test_picture_becomes_an_mp4(environment: dict[str, str], shipped: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    launch(
        environment,
        "videotestsrc num-buffers=100 ! video/x-raw,format=NV12,width=640,height=360 ! "
        f"uarerestore bundle={shipped} ! x264enc ! mp4mux ! filesink location={out}",
    )
    with av.open(str(out)) as container:
        times = [frame.pts * frame.time_base for frame in container.decode(video=0) if frame.pts is not None]
        assert (container.streams.video[0].width, container.streams.video[0].height) == (640, 360)
    assert [after - before for before, after in pairwise(times)] == [Fraction(1, 30)] * 99


def planes_of(data: bytes, width: int, height: int) -> Iterator[list[np.ndarray[Any, Any]]]:
    """The frames of raw I420 as GStreamer writes it, rows at multiples of four bytes."""
    sizes = [(height, width), ((height + 1) // 2, (width + 1) // 2), ((height + 1) // 2, (width + 1) // 2)]
    rows = [(h, (w + 3) // 4 * 4, w) for h, w in sizes]
    frame = sum(h * row for h, row, _ in rows)
    assert len(data) % frame == 0
    values = np.frombuffer(data, np.uint8)
    for start in range(0, len(data), frame):
        planes, at = [], start
        for h, row, w in rows:
            planes.append(np.ascontiguousarray(values[at : at + h * row].reshape(h, row)[:, :w]))
            at += h * row
        yield planes


@pytest.mark.parametrize("name", ["shipped", "tiny"])
def test_a_real_clip_is_restored_as_python_restores_it(
    environment: dict[str, str], name: str, clip: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """The same decoded frames through the element and through Python, both enlarged twice and turned into RGB."""
    bundle = request.getfixturevalue(name)
    decoded, restored, expected, reference = (tmp_path / name for name in ("decoded", "restored", "yuv", "rgb"))
    source = f"filesrc location={clip} ! decodebin"
    launch(environment, f"{source} ! video/x-raw,format=I420 ! filesink location={decoded}")
    launch(
        environment,
        f"{source} ! uarerestore bundle={bundle} scale=2 threads=1 ! videoconvert ! video/x-raw,format=RGB ! "
        f"filesink location={restored}",
    )
    from uare_rt.video.scenes import ContextTracker

    colour = YuvColour("bt601", siting="centre")  # what GStreamer means by caps of this size that do not say
    with uare_rt.load(bundle, backend="openvino", threads=1) as session, expected.open("wb") as file:
        tracker = ContextTracker(session, every=30)
        for planes in planes_of(decoded.read_bytes(), 160, 90):
            frame = yuv_to_rgb(planes, "I420", colour)
            better = session.restore(frame, scale=2, context=tracker.follow(frame).context).image
            file.write(b"".join(plane.tobytes() for plane in rgb_to_yuv(better, "I420", colour)))
    # The same caps as in the pipeline: rawvideoparse would add a chroma siting. No row needs padding at this size.
    caps = "video/x-raw,format=I420,width=320,height=180,framerate=25/1,colorimetry=bt601"
    launch(
        environment,
        f"filesrc location={expected} ! rawvideoparse format=i420 width=320 height=180 framerate=25/1 ! "
        f"capssetter replace=true caps={caps} ! videoconvert ! video/x-raw,format=RGB ! filesink location={reference}",
    )
    got, wanted = (np.frombuffer(path.read_bytes(), np.uint8).astype(int) for path in (restored, reference))
    assert got.size == wanted.size == 8 * 320 * 180 * 3
    assert np.abs(got - wanted).max() <= 2


SEVEN = "videotestsrc num-buffers=7 ! video/x-raw,format=RGB,width=96,height=64,framerate=25/1"


def pixels(environment: dict[str, str], element: str, out: Path) -> np.ndarray[Any, np.dtype[np.int16]]:
    """Seven test pictures after an element: int16 [7, 64, 96, 3], RGB."""
    launch(environment, f"{SEVEN} ! {element} ! filesink location={out}")
    return np.frombuffer(out.read_bytes(), np.uint8).reshape(7, 64, 96, 3).astype(np.int16)


def reported(environment: dict[str, str], elements: str, option: str) -> str:
    """What gst-launch-1.0 prints of seven test pictures."""
    return subprocess.run(
        ["gst-launch-1.0", option, *f"{SEVEN} ! {elements} ! fakesink".split()],
        env=environment, capture_output=True, text=True, timeout=300, check=True,
    ).stdout  # fmt: skip


def verdicts(environment: dict[str, str], element: str) -> dict[int, float]:
    """Scores in an element's messages, by the number of the frame."""
    pattern = r"uare-assessment, pts=\(guint64\)(\d+),.* score=\(double\)([\d.]+),"
    found = re.findall(pattern, reported(environment, element, "-m"))
    return {int(pts) // 40_000_000: float(score) for pts, score in found}


def test_what_an_element_is_told_reaches_the_engine(environment: dict[str, str], tiny: Path, tmp_path: Path) -> None:
    restore = f"uarerestore bundle={tiny} threads=1"
    given = pixels(environment, "identity", tmp_path / "given")
    full = pixels(environment, restore, tmp_path / "full")
    assert np.abs(full - given).max() > 10
    half = pixels(environment, f"{restore} strength=0.5", tmp_path / "half")
    inside = (full > 0) & (full < 255)  # the mix is made before values are clipped
    assert np.abs(half - (given + full) / 2)[inside].max() <= 1
    for left_alone in ("strength=0", "skip-above=1"):
        assert np.array_equal(pixels(environment, f"{restore} {left_alone}", tmp_path / "alone"), given)
    assert list(verdicts(environment, f"{restore} assess-interval=3")) == [0, 3, 6]
    assert list(verdicts(environment, f"{restore} assess-interval=0")) == [0]
    text = reported(environment, f"{restore} ! identity silent=false", "-v")
    assert len(re.findall(r"meta: [\w, ]*\bUareAssessmentMeta\b", text)) == 7


def test_frames_that_are_too_old_pass_as_they_are(environment: dict[str, str], tiny: Path, tmp_path: Path) -> None:
    """Each is 20 ms old when it arrives."""
    live = f"{SEVEN.replace('videotestsrc', 'videotestsrc is-live=true')} ! identity sleep-time=20000"
    given = pixels(environment, "identity", tmp_path / "given").astype(np.uint8).tobytes()
    for bound, restored in ((1, False), (60_000, True)):
        out = tmp_path / str(bound)
        element = f"uarerestore bundle={tiny} threads=1 max-latency={bound}"
        launch(environment, f"{live} ! {element} ! filesink location={out}")
        assert len(out.read_bytes()) == len(given)
        assert (out.read_bytes() != given) is restored


def test_verdicts_of_a_pipeline_are_those_of_python(environment: dict[str, str], shipped: Path, tmp_path: Path) -> None:
    found = verdicts(environment, f"uareassess bundle={shipped} interval=3 threads=1")
    given = pixels(environment, "identity", tmp_path / "given").astype(np.uint8)
    with uare_rt.load(shipped, backend="openvino", threads=1) as session:
        expected = {index: session.assess(given[index]).score for index in (0, 3, 6)}
    assert found == pytest.approx(expected, abs=1e-3)


def test_a_pipeline_that_cannot_work_says_so(environment: dict[str, str], tiny: Path, tmp_path: Path) -> None:
    missing = launch(environment, f"videotestsrc ! uarerestore bundle={tmp_path}/none.uare ! fakesink", code=1)
    assert "no bundle at" in missing
    unmet = launch(
        environment, f"videotestsrc ! uarerestore bundle={tiny} scale=2 ! video/x-raw,width=99 ! fakesink", code=1
    )
    assert "not-negotiated" in unmet or "could not link" in unmet.lower()


def test_pipelines_are_sources_and_sinks(session: uare_rt.Session, tmp_path: Path) -> None:
    """Odd widths too, whose rows are padded."""
    out = tmp_path / "out.webm"
    source = "gst:videotestsrc num-buffers=12 ! video/x-raw,format=I420,width=98,height=66,framerate=25/1"
    counts = LiveStream(source, session, LiveOptions(policy="every")).run(
        f"gst:videoconvert ! vp8enc deadline=1 ! webmmux ! filesink location={out}"
    )
    assert (counts.delivered, counts.copies) == (12, 24)
    with av.open(str(out)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert [frame.shape for frame in frames] == [(66, 98, 3)] * 12
    bars = frames[0][8, 7::14].astype(int)  # white, yellow, cyan, green, magenta, red, blue
    assert all(bars[0] > 150)
    assert bars[5][0] > 150 > 100 > bars[5][2]


def test_frames_of_a_pipeline_are_those_that_were_given(session: uare_rt.Session, tmp_path: Path) -> None:
    out = tmp_path / "frames.rgb"
    camera = SyntheticCamera(66, 18, rate=None, frames=7)
    kept = SyntheticCamera(66, 18, rate=None, frames=7)
    kept.open()
    LiveStream(camera, session, EVERY).run(f"gst:filesink location={out}")
    rows = np.frombuffer(out.read_bytes(), np.uint8).reshape(7, 18, 200)[:, :, :198].reshape(7, 18, 66, 3)
    for frame in rows:
        shot = kept.read()
        assert shot is not None
        assert np.array_equal(frame, shot.pixels)
    source = f"gst:filesrc location={out} blocksize=3600 ! rawvideoparse format=rgb width=66 height=18 framerate=25/1"
    assert [frame_number(result.pixels) for result in LiveStream(source, session, EVERY)] == list(range(7))


def test_pipelines_that_fail_are_errors_not_hangs(
    session: uare_rt.Session, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast = LiveOptions(policy="every", strength=0, retry=Retry(attempts=2, first=0.01))
    with pytest.raises(UsageError, match="nonsense"):
        LiveStream("gst:nonsense", session).run("null")
    with pytest.raises(UsageError, match="nonsense"):
        LiveStream("synthetic", session).run("gst:nonsense")
    with pytest.raises(InputError, match="none"):
        LiveStream("gst:filesrc location=/none ! decodebin", session).run("null")
    stream = LiveStream("gst:videotestsrc ! identity error-after=3", session, fast)
    with pytest.raises(InputError, match="Failed after iterations"):
        stream.run("null")
    with pytest.raises(OutputError, match="none"):
        LiveStream("synthetic:64x16@100", session, EVERY).run("gst:filesink location=/none/x")
    monkeypatch.setattr("uare_rt.live.gstreamer._FIRST_SECONDS", 0.5)
    monkeypatch.setattr("uare_rt.live.gstreamer._READ_SECONDS", 0.5)
    monkeypatch.setattr("uare_rt.live.gstreamer._WRITE_SECONDS", 0.5)
    with pytest.raises(InputError, match="no frame came"):
        LiveStream("gst:videotestsrc ! valve drop=true", session, fast).run("null")
    with pytest.raises(OutputError, match="took no frame"):
        LiveStream("synthetic:64x16@100", session, EVERY).run("gst:identity sleep-time=2000000 ! fakesink")


class Camera:
    """A network camera in a process of its own, which can be unplugged."""

    def __init__(self, program: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as found:
            self.port = found.getsockname()[1]
        self._program, self._process = program, None

    def plug(self) -> None:
        self._process = subprocess.Popen([self._program, str(self.port)])
        deadline = time.monotonic() + 20
        while not self._answers():
            assert time.monotonic() < deadline, "the RTSP server did not start"
            time.sleep(0.05)

    def _answers(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def unplug(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def test_an_rtsp_camera_is_unplugged_and_plugged_in_again(native_build: Path, session: uare_rt.Session) -> None:
    program = native_build / "tests" / "native" / "rtsp_server"
    camera = Camera(program)
    camera.plug()
    retry = Retry(attempts=6, first=0.2, longest=1)
    stream = LiveStream(
        f"rtsp://127.0.0.1:{camera.port}/camera", session, LiveOptions(scale=2, strength=0, retry=retry)
    )
    times: list[float] = []

    def watch(result: LiveResult) -> None:
        assert result.pixels.shape == (128, 192, 3)
        times.append(result.time)
        if len(times) == 10:
            camera.unplug()
            camera.plug()
        if stream.statistics.reconnects == 1 and len(times) >= 20:
            camera.unplug()

    try:
        with pytest.raises(InputError, match="given up after 6 tries"):
            stream.run(watch)
    finally:
        camera.unplug()
    assert stream.statistics.reconnects == 1
    assert len(times) >= 20
    assert times == sorted(set(times))
