"""Long runs: nothing grows with the clip."""

from __future__ import annotations

import gc
import os
import threading
from pathlib import Path

import av
import numpy as np
import pytest

import uare_rt
from uare_rt.video import VideoOptions, VideoProgress, restore_video

TINY = Path(__file__).parents[2] / "data" / "tiny.uare"
MINUTES = 10


def long_clip(path: Path, seconds: int) -> Path:
    """320x240 at 25 frames a second: something moves in front of a still wall, with noise and a cut each 20 s."""
    rng = np.random.default_rng(4)
    noise = rng.normal(0, 3, (280, 360, 1)).astype(np.int16)
    walls = [rng.integers(30, 200, (15, 20, 3)).repeat(16, 0).repeat(16, 1).astype(np.int16) for _ in range(5)]
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        stream.codec_context.options = {"crf": "24", "preset": "ultrafast"}
        for i in range(seconds * 25):
            y, x = rng.integers(0, 40, 2)
            frame = walls[i // 500 % 5] + noise[y : y + 240, x : x + 320]
            frame[100:140, i * 3 % 280 : i * 3 % 280 + 40] = 220
            out.mux(stream.encode(av.VideoFrame.from_ndarray(np.clip(frame, 0, 255).astype(np.uint8), "rgb24")))
        out.mux(stream.encode(None))
    return path


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


@pytest.mark.soak
@pytest.mark.parametrize("resume", [False, True])
def test_ten_minutes_leave_memory_handles_and_threads_as_they_were(tmp_path: Path, resume: bool) -> None:
    if not Path("/proc/self/statm").exists():
        pytest.skip("this system has no /proc to look at")
    source = long_clip(tmp_path / "in.mp4", MINUTES * 60)
    total = MINUTES * 60 * 25
    seen: dict[int, tuple[int, int, int]] = {}

    def look(progress: VideoProgress) -> None:
        if progress.frames % (total // 20) == 0:
            gc.collect()
            seen[progress.frames] = (resident(), len(os.listdir("/proc/self/fd")), threading.active_count())

    with uare_rt.load(TINY) as session:
        threads = threading.active_count()
        report = restore_video(
            session,
            source,
            tmp_path / "out.mp4",
            resume=resume,
            options=VideoOptions(preset="ultrafast"),
            progress=look,
        )
    assert report.frames == total
    early = [seen[n] for n in sorted(seen)[3:6]]
    late = [seen[n] for n in sorted(seen)[-3:]]
    memory = [max(entry[0] for entry in part) for part in (early, late)]
    assert memory[1] <= memory[0] * 1.05 + 4e6
    assert max(entry[1] for entry in late) <= max(entry[1] for entry in early)
    assert max(entry[2] for entry in late) <= max(entry[2] for entry in early)
    assert threading.active_count() == threads
