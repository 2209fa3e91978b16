"""The C library gives the Python runtime's pictures: RGB within 1/255, YUV within 2/255, the same verdicts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import get_args, get_type_hints

import numpy as np
import pytest
from binding import FREEZE, I420, NV12, P010, RESET, SEVERITIES, Library, frame_of
from PIL import Image

import uare_rt
from uare_rt.live.yuv import YuvColour, rgb_to_yuv, yuv_to_rgb

SIZES = ((1, 1), (5, 7), (97, 131), (160, 200))
KINDS = {"NV12": NV12, "I420": I420, "P010": P010}
MATRIX = {None: 0, "bt601": 1, "bt709": 2, "bt2020": 3}
SITING = {"left": 0, "centre": 1, "top-left": 2}


@pytest.fixture(scope="module")
def picture(photo: Path) -> np.ndarray:
    with Image.open(photo) as opened:
        return np.asarray(opened.convert("RGB"))


@pytest.fixture(scope="module")
def python(tiny: Path) -> Iterator[uare_rt.Session]:
    with uare_rt.load(tiny, backend="openvino", threads=1) as session:
        yield session


def distance(a: np.ndarray, b: np.ndarray) -> int:
    assert a.shape == b.shape
    assert a.dtype == b.dtype
    return int(np.abs(a.astype(np.int64) - b.astype(np.int64)).max())


def codes(colour: YuvColour) -> dict[str, int]:
    return {"matrix": MATRIX[colour.matrix], "range": int(colour.full_range), "siting": SITING[colour.siting]}


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_rgb_pictures_and_verdicts_are_those_of_python(
    library: Library, tiny: Path, python: uare_rt.Session, picture: np.ndarray, scale: int
) -> None:
    with library.session(tiny, scale=scale, threads=1) as native:
        for height, width in SIZES:
            image = np.ascontiguousarray(picture[:height, :width])
            expected = python.restore(image, scale=scale)
            native.call("uare_context_control", RESET)
            assert distance(native.restore(image, scale), expected.image) <= 1
            verdict = native.assess(image)
            assert verdict.score == pytest.approx(expected.assessment.score, abs=1e-4)
            assert verdict.description.decode() == expected.assessment.description
            for name in SEVERITIES:
                assert getattr(verdict, name) == pytest.approx(expected.assessment.severities[name], abs=1e-4)


@pytest.mark.parametrize("strength", [0.0, 0.3])
def test_strength_below_one_blends_as_python_does(
    library: Library, tiny: Path, python: uare_rt.Session, picture: np.ndarray, strength: float
) -> None:
    image = np.ascontiguousarray(picture[:90, :121])
    for scale in (1, 2):
        with library.session(tiny, scale=scale, threads=1, strength=strength) as native:
            expected = python.restore(image, scale=scale, strength=strength).image
            assert distance(native.restore(image, scale), expected) <= 1


def test_tiles_change_nothing_and_rows_may_be_apart(
    library: Library, tiny: Path, python: uare_rt.Session, picture: np.ndarray
) -> None:
    apart = picture[10:310, 5:318]  # a view: its rows are those of the whole picture
    with library.session(tiny, scale=2, threads=1, tile=192) as native:
        assert distance(native.restore(apart, 2), python.restore(np.ascontiguousarray(apart), scale=2).image) <= 1


def test_alpha_is_kept_or_enlarged(library: Library, tiny: Path, python: uare_rt.Session, picture: np.ndarray) -> None:
    alpha = picture[:60, :80, 1:2]
    image = np.ascontiguousarray(np.concatenate([picture[:60, :80], alpha], axis=2))
    for scale in (1, 2):
        with library.session(tiny, scale=scale, threads=1) as native:
            out = native.restore(image, scale)
        expected = python.restore(np.ascontiguousarray(image[..., :3]), scale=scale).image
        assert distance(np.ascontiguousarray(out[..., :3]), expected) <= 1
        large = Image.fromarray(alpha[..., 0]).resize((80 * scale, 60 * scale), Image.Resampling.BICUBIC)
        assert distance(out[..., 3], np.asarray(large)) <= 1


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("scale", [1, 2, 4])
def test_yuv_pictures_are_those_of_python(
    library: Library, tiny: Path, python: uare_rt.Session, picture: np.ndarray, kind: str, scale: int
) -> None:
    deep = kind == "P010"
    sitings = get_args(get_type_hints(YuvColour)["siting"])
    colours = [YuvColour("bt709", False, siting) for siting in sitings] + [YuvColour("bt601", True), YuvColour()]
    with library.session(tiny, scale=scale, threads=1) as native:
        for colour in [*colours, YuvColour("bt2020")]:
            for height, width in ((7, 5), (96, 130)):
                source = picture[:height, :width].astype(np.uint16) * 257 if deep else picture[:height, :width]
                planes = rgb_to_yuv(source, kind, colour)
                rgb = yuv_to_rgb(planes, kind, colour)
                expected = rgb_to_yuv(python.restore(rgb, scale=scale).image, kind, colour, sized_as=(height, width))
                got = [np.zeros_like(plane) for plane in expected]
                native.call("uare_context_control", RESET)
                native.process(
                    frame_of(planes, KINDS[kind], width, height, **codes(colour)),
                    frame_of(got, KINDS[kind], width * scale, height * scale, **codes(colour)),
                )
                allowed = 2 * 257 if deep else 2
                assert max(map(distance, got, expected)) <= allowed, (colour, height, width)


def test_a_guessed_matrix_is_that_of_the_input(library: Library, tiny: Path) -> None:
    """640 px are BT.601; the 1280 px they become must not turn into BT.709."""
    image = np.zeros((32, 640, 3), np.uint8) + np.array([200, 30, 60], np.uint8)
    for colour in (YuvColour(), YuvColour("bt601")):
        planes = rgb_to_yuv(image, "NV12", colour)
        got = [np.zeros((64, 1280), np.uint8), np.zeros((32, 640, 2), np.uint8)]
        with library.session(tiny, scale=2, threads=1, strength=0) as native:
            native.process(
                frame_of(planes, NV12, 640, 32, **codes(colour)), frame_of(got, NV12, 1280, 64, **codes(colour))
            )
        assert (
            distance(yuv_to_rgb(got, "NV12", YuvColour("bt601")), np.zeros((64, 1280, 3), np.uint8) + image[0, 0]) <= 2
        )


def test_strength_zero_at_scale_one_keeps_every_code(library: Library, tiny: Path, rng: np.random.Generator) -> None:
    planes = [rng.integers(0, 256, (30, 40), np.uint8), rng.integers(0, 256, (15, 20, 2), np.uint8)]
    got = [np.zeros_like(plane) for plane in planes]
    with library.session(tiny, threads=1, strength=0) as native:
        native.process(frame_of(planes, NV12, 40, 30), frame_of(got, NV12, 40, 30))
    assert max(map(distance, got, planes)) == 0


def test_int8_alone_is_computed_as_it_was_proven(library: Library, tiny: Path, picture: np.ndarray) -> None:
    """A bundle for GPUs on a processor: sums of INT8 would saturate where it has no VNNI."""
    bundle = tiny.with_name("tiny-int8.uare")
    image = np.ascontiguousarray(picture[:128, :160])
    with uare_rt.load(bundle, backend="onnxruntime", threads=1) as proven:
        for scale in (1, 2, 4):
            with library.session(bundle, scale=scale, threads=1) as native:
                assert distance(native.restore(image, scale), proven.restore(image, scale=scale).image) <= 2
                assert native.assess(image).score == pytest.approx(proven.assess(image).score, abs=0.01)


def test_the_context_follows_frames_as_in_video(
    library: Library, tiny: Path, python: uare_rt.Session, picture: np.ndarray
) -> None:
    """Taken at the first frame and at a cut, moved inside a scene, kept while frozen: as ContextTracker does."""
    from uare_rt.video.scenes import ContextTracker

    dark = (picture[:64, :80] // 4).astype(np.uint8)
    clip = [picture[:64, :80] // (1 + i % 2) for i in (0, 0, 1)] + [255 - dark[::-1], 255 - dark[::-1]]
    tracker = ContextTracker(python, every=2)
    with library.session(tiny, threads=1, assess_interval=2) as native:
        for frame in map(np.ascontiguousarray, clip):
            context = tracker.follow(frame).context
            assert distance(native.restore(frame), python.restore(frame, context=context).image) <= 1
        info = native.info()
        assert (info.scenes, info.frames, info.restored) == (tracker.scenes, 5, 5)
        assert info.latency_max_ns >= info.latency_ns > 0
        native.call("uare_context_control", FREEZE)
        kept = python.restore(dark, context=context).image
        assert distance(native.restore(dark), kept) <= 1
        assert native.info().assessed == info.assessed


def test_good_frames_are_left_alone(library: Library, tiny: Path, picture: np.ndarray) -> None:
    image = np.ascontiguousarray(picture[:64, :80])
    with library.session(tiny, threads=1, skip_above=1) as native:
        assert distance(native.restore(image), image) == 0
        assert native.info().restored == 0
        native.call("uare_set", b"skip-above=5")
        native.restore(image)
        assert native.info().restored == 1
