"""Runs of the command line, in this process and in one of its own, on a tiny bundle and small real files."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from uare_rt.cli.app import app

DATA = Path(__file__).parents[1] / "data"
Run = Callable[..., Result]
Spawn = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test works in an empty directory of its own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tiny bundle, which a test may damage."""
    return Path(shutil.copytree(DATA / "tiny.uare", tmp_path_factory.mktemp("bundle") / "tiny.uare"))


@pytest.fixture
def photo(here: Path) -> Path:
    """A real photo, small."""
    path = Path("photo.jpg")
    with Image.open(DATA / "photos" / "bridge.jpg") as image:
        image.resize((96, 64)).save(path, quality=90, icc_profile=image.info.get("icc_profile"))
    return path


@pytest.fixture
def clip(here: Path, photo: Path) -> Path:
    """A second of video: a crop that moves over the photo."""
    path = Path("clip.mp4")
    pixels = np.asarray(Image.open(photo))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=12, width=64, height=48, pix_fmt="yuv420p")
        for index in range(12):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels[index : index + 48, index : index + 64]))
            frame.pts, frame.time_base = index, Fraction(1, 12)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.fixture
def run() -> Run:
    """Run `uare-rt` with these arguments in this process."""
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="uare-rt")


@pytest.fixture
def spawn() -> Spawn:
    """Run `uare-rt` with these arguments in a process of its own."""

    def spawned(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "uare_rt.cli", *map(str, arguments)]
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options}
        return subprocess.run(command, timeout=120, check=False, **options)

    return spawned
