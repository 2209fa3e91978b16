"""Damaged files in bulk: whatever bytes a file holds, it is read, or refused with one of our errors in one line."""

from __future__ import annotations

import json
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import pytest

from uare_rt.errors import UareError
from uare_rt.images import Metadata, Picture, read_image, write_image
from uare_rt.manifest import parse_manifest
from uare_rt.video.source import VideoSource

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

pytestmark = pytest.mark.fuzz

RUNS = 1500
FORMATS = ("jpg", "png", "webp", "tif", "png16", "tif16")


def damaged(content: bytes, rng: np.random.Generator) -> bytes:
    """Some bytes changed, a run of them doubled, removed or zeroed, or the end cut off."""
    data = bytearray(content)
    for _ in range(int(rng.integers(1, 6))):
        # Headers decide more than pixels: half of the damage goes there.
        reach = min(len(data), 256) if rng.random() < 0.5 else len(data)
        start = int(rng.integers(reach))
        stop = min(len(data), start + int(rng.integers(1, 64)))
        kind = int(rng.integers(5))
        if kind == 0:
            data[start] = int(rng.integers(256))
        elif kind == 1:
            data[start:stop] = bytes(stop - start)
        elif kind == 2:
            data[start:start] = data[start:stop]
        elif kind == 3:
            del data[start:stop]
        elif rng.random() < 0.3:
            del data[start:]
        if not data:
            break
    return bytes(data)


def is_refused(attempt: Callable[[], object]) -> bool:
    """Whether an attempt ends in one of our errors; any other error fails the test."""
    try:
        attempt()
    except UareError as error:
        if "\n" in str(error):
            raise
        return True
    return False


def sample(folder: Path, name: str, photo: NDArray[np.uint8]) -> bytes:
    pixels = photo[:56, :72].copy()
    deep = name.endswith("16")
    path = folder / f"sample.{name.removesuffix('16')}"
    write_image(path, Picture(pixels.astype(np.uint16) * 257 if deep else pixels, None, Metadata()))
    return path.read_bytes()


@pytest.mark.parametrize("name", FORMATS)
def test_a_damaged_picture_is_read_or_refused(tmp_path: Path, photo: NDArray[np.uint8], name: str) -> None:
    good, rng = sample(tmp_path, name, photo), np.random.default_rng(FORMATS.index(name))
    path, refused = tmp_path / f"damaged.{name.removesuffix('16')}", 0
    for _ in range(RUNS):
        path.write_bytes(damaged(good, rng))
        refused += is_refused(lambda: read_image(path))
    assert RUNS // 20 < refused < RUNS  # the damage is real, and not all of it is deadly


def test_a_damaged_manifest_is_parsed_or_refused(data_dir: Path) -> None:
    good, rng, refused = (data_dir / "tiny.uare" / "manifest.json").read_bytes(), np.random.default_rng(1), 0
    for _ in range(10 * RUNS):
        bad = damaged(good, rng)
        refused += is_refused(lambda bad=bad: parse_manifest(bad, "fuzz.uare"))
    assert refused > RUNS


def test_values_of_a_wrong_type_are_refused(data_dir: Path) -> None:
    good, rng = (data_dir / "tiny.uare" / "manifest.json").read_bytes(), np.random.default_rng(2)
    odd, refused = [None, -1, 1e308, "", "../x", [], {}, True, [[]], "\u0000"], 0
    for _ in range(2 * RUNS):
        place = manifest = json.loads(good)
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            key = keys[int(rng.integers(len(keys)))]
            deeper = place[key]
            if not isinstance(deeper, dict | list) or not deeper or rng.random() < 0.2:
                break
            place = deeper
        place[key] = odd[int(rng.integers(len(odd)))]
        bad = json.dumps(manifest).encode()
        refused += is_refused(lambda bad=bad: parse_manifest(bad, "fuzz.uare"))
    assert refused > RUNS


def first_frames(path: Path) -> None:
    source = VideoSource(path)
    try:
        for _ in islice(source, 12):
            pass
    finally:
        source.close()


def test_a_damaged_clip_is_decoded_or_refused(tmp_path: Path, data_dir: Path) -> None:
    good = (data_dir.parents[1] / "examples" / "sample.mp4").read_bytes()
    rng, path, refused = np.random.default_rng(3), tmp_path / "damaged.mp4", 0
    for _ in range(200):
        path.write_bytes(damaged(good, rng))
        refused += is_refused(lambda: first_frames(path))
    assert 0 < refused < 200
