from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import av
import pytest

if TYPE_CHECKING:
    from conftest import Run


def test_a_camera_is_restored_into_a_file(run: Run, tiny: Path) -> None:
    result = run("live", "synthetic:64x32@50", "out.mp4", "--frames", "6", "--scale", "2", "--bundle", tiny, "--json")
    assert result.exit_code == 0, result.stderr
    record = json.loads(result.stdout)
    assert record["delivered"] == 6
    assert record["captured"] >= record["delivered"] + record["dropped"]
    assert record["latency"]["p50"] > 0
    with av.open("out.mp4") as container:
        assert sum(1 for _ in container.decode(video=0)) == 6
        assert container.streams.video[0].width == 128


def test_a_line_says_what_was_done(run: Run, tiny: Path) -> None:
    result = run("live", "synthetic:64x32@50", "null", "--frames", "3", "--policy", "every", "--bundle", tiny)
    assert result.exit_code == 0, result.stderr
    assert "synthetic:64x32@50 -> null: 3 frames" in result.stdout
    assert "0 dropped" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["live"], 2, "Missing argument 'SRC'"),
        (["live", "synthetic:8x8", "null"], 2, "8x8"),
        (["live", "synthetic", "out.xyz"], 2, "cannot write a video"),
        (["live", "synthetic", "null", "--policy", "some"], 2, "--policy"),
        (["live", "/dev/video63", "null"], 1, "/dev/video63: cannot be opened"),
        (["live", "none.mp4", "null"], 1, "none.mp4: cannot be opened"),
        (["live", "synthetic", "none/out.mp4"], 1, "does not exist"),
    ],
)
def test_bad_input_is_one_line_and_a_code(run: Run, tiny: Path, arguments: list[str], code: int, message: str) -> None:
    result = run(*arguments, *(["--bundle", tiny] if len(arguments) > 1 else []))
    assert result.exit_code == code
    assert message in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_recording_is_whole(tiny: Path, how: signal.Signals) -> None:
    command = [sys.executable, "-m", "uare_rt.cli", "live", "synthetic:64x32@50", "out.mkv", "--bundle", str(tiny)]
    # A background job's SIGINT is ignored unless it is set back.
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not list(Path().glob(".out.*.part.mkv")) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(1.0)
    process.send_signal(how)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "error: interrupted" in err
    with av.open("out.mkv") as container:
        frames = sum(1 for _ in container.decode(video=0))
    assert f"{frames} frames" in out
    assert not list(Path().glob(".out.*"))
