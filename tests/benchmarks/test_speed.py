"""The benchmarks of speed run on the tiny bundle, say what they measured and on what, and can fail."""

from __future__ import annotations

import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from uare_rt import backends

ROOT = Path(__file__).resolve().parents[2]


def run(name: str, *arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "benchmarks" / f"{name}.py"), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture(scope="module")
def tiny(data_dir: Path) -> Path:
    return data_dir / "tiny.uare"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six frames of a moving pattern whose sides are no multiples of 16."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    noise = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=12, width=72, height=50, pix_fmt="yuv420p")
        for index in range(6):
            part = np.ascontiguousarray(noise[index : index + 50, index : index + 72])
            frame = av.VideoFrame.from_ndarray(part, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 12)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def checked(path: Path, name: str) -> dict[str, Any]:
    result = json.loads(path.read_bytes())
    assert result["benchmark"] == name
    assert result["machine"]["cores"] >= 1
    assert any(key.endswith("sha256") and len(value) == 64 for key, value in result["data"].items())
    return result


@pytest.mark.skipif(not backends.get("openvino").probe().available, reason="openvino is not installed")
def test_engines_give_the_same_pixels_and_are_timed_in_turn(tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "peers.json"
    names = ("uare-rt", "uare-rt, OpenVINO, one size", "ONNX Runtime, tuned")
    chosen = [word for name in names for word in ("--engines", name)]
    done = run("peers", "--bundle", tiny, "--size", 64, "--rounds", 3, "--threads", 1, *chosen, "-o", out)
    measured = checked(out, "peers")["measured"]
    rows = {row["name"]: row for row in measured["engines"]}
    assert set(rows) == set(names)
    for row in rows.values():
        assert row["reason"] is None
        assert len(row["times_ms"]) == 3
        assert row["apart_levels"] <= 1
        assert row["of_gemm"] is None  # the tiny model's operations are not those of nano
    whole = rows["ONNX Runtime, tuned"]
    assert 0 < whole["graph_ms"] < whole["median_ms"]  # its conversions are timed too
    assert rows["uare-rt"]["graph_ms"] is None
    assert measured["gemm_gflops"] > 0.1
    for name in names:
        assert name in done.stdout


def test_an_engine_that_cannot_run_says_why(tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "peers.json"
    options = ("--bundle", tiny, "--size", 16, "--rounds", 1, "--threads", 1)
    run("peers", *options, "--engines", "PyTorch eager", "-o", out)
    (row,) = checked(out, "peers")["measured"]["engines"]
    assert "tiny.uare: its weights cannot be read back" in row["reason"]


def test_an_engine_that_dies_while_it_is_timed_is_a_row(tiny: Path, tmp_path: Path) -> None:
    engine, out = tmp_path / "engine.py", tmp_path / "peers.json"
    engine.write_text(
        f"""
import runpy, sys
sys.path.insert(0, {str(ROOT / "benchmarks")!r})
if sys.argv[1] == "uare-rt":
    runpy.run_path({str(ROOT / "benchmarks" / "engines.py")!r}, run_name="__main__")
print("ready", flush=True)
sys.stdin.readline()
sys.exit(3)
"""
    )
    program = f"""
import sys
sys.path.insert(0, {str(ROOT / "benchmarks")!r})
import engines, peers
engines.__file__ = {str(engine)!r}
sys.exit(peers.main(sys.argv[1:]))
"""
    options = ["--bundle", tiny, "--size", 16, "--rounds", 2, "--threads", 1, "-o", out]
    chosen = ["--engines", "uare-rt", "--engines", "OpenVINO, raw"]
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, options), *chosen], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    alive, dead = checked(out, "peers")["measured"]["engines"]
    assert alive["reason"] is None
    assert len(alive["times_ms"]) == 2
    assert dead["reason"] == "it ended while it was timed, with code 3"
    assert not out.with_name("peers.json.partial").exists()


def test_videos_are_measured_and_what_was_is_kept_when_a_later_part_fails(
    tiny: Path, clip: Path, tmp_path: Path
) -> None:
    out, folder = tmp_path / "video.json", tmp_path / "clips"
    folder.mkdir()
    (folder / "a.mp4").write_bytes(clip.read_bytes())
    (folder / "b.mp4").write_bytes(b"no video")
    options = ("--bundle", tiny, "--seconds", "0.5", "-o", out)
    partial = out.with_name("video.json.partial")
    run("video", folder, *options, "--long", -1, code=1)
    assert set(json.loads(partial.read_bytes())["measured"]["reuse"]) == {"a.mp4", "b.mp4"}
    done = run("video", folder, *options, "--long", 101)
    assert not partial.exists()
    measured = checked(out, "video")["measured"]
    assert measured["reuse"]["a.mp4"]["frames"] == 6
    assert "b.mp4" in measured["reuse"]["b.mp4"]["reason"]
    assert all(measured["whole"][part] > 0 for part in ("decode", "engine", "encode", "run", "wall"))
    assert set(measured["memory"]) == {"100", "101"}
    assert "b.mp4: " in done.stdout


def test_growth_is_measured_and_video_is_held_against_a_plain_loop(tiny: Path, clip: Path, tmp_path: Path) -> None:
    out, plot = tmp_path / "scaling.json", tmp_path / "scaling.svg"
    options = ("--bundle", tiny, "--backend", "onnxruntime", "--rounds", 1, "--largest", 256)
    run("scaling", *options, "--clip", clip, "--static", clip.name, "--plot", plot, "-o", out)
    result = checked(out, "scaling")
    measured = result["measured"]
    assert [(row["width"], row["height"]) for row in measured["pixels"]] == [(128, 128), (256, 256)]
    assert [row["batch"] for row in measured["batch"]] == [1, 2, 4]
    assert [row["sessions"] for row in measured["sessions"]] == [1, 2, 4]
    assert all(row["frames_per_s"] > 0 for row in measured["sessions"])
    assert 0.05 < measured["frame_4k"]["peak_gb"] < 2
    (video,) = measured["video"]
    assert video["still"]
    assert set(video["seconds"]) == {"plain", "uare-rt", "no reuse", "fastest"}
    bounds = {limit["name"]: limit["bound"] for limit in result["limits"]}
    assert bounds[f"{clip.name}, times the plain loop"] == 2.0
    assert "<svg" in plot.read_text()


def test_the_plain_loop_writes_every_frame(tiny: Path, clip: Path, tmp_path: Path) -> None:
    target = tmp_path / "plain.mp4"
    run("plain_loop", clip, target, "--bundle", tiny)
    with av.open(str(target)) as container:
        frames = list(container.decode(video=0))
    assert len(frames) == 6
    assert (frames[0].width, frames[0].height) == (72, 50)


@pytest.mark.parametrize(
    ("name", "arguments", "code", "message"),
    [
        ("peers", ["nowhere"], 1, "not an evaluation set"),
        ("peers", ["--size", "20"], 2, "give a multiple of 16"),
        ("peers", ["--engines", "abacus"], 2, "choose among"),
        ("peers", ["--plot", "plot.txt"], 2, "can draw"),
        ("scaling", ["--clip", "nowhere.mp4"], 1, "no such clip"),
    ],
)
def test_bad_wishes_are_refused(name: str, arguments: list[str], code: int, message: str) -> None:
    done = run(name, *arguments, code=code)
    assert message in done.stderr
