"""Calibration data: repeatable, representative, and refused with a reason."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage.metrics import structural_similarity

from uare_rt.calibration.data import CONDITIONS, HELD_OUT, digest, make_samples, patterns, read_pictures
from uare_rt.calibration.metrics import psnr, spearman, ssim
from uare_rt.errors import InputError
from uare_rt.slots import DEGRADATIONS


def test_the_same_sources_give_the_same_samples(photos: list[Path], tmp_path: Path) -> None:
    copies = [Path(shutil.copy(photo, tmp_path)) for photo in photos]
    first = make_samples(read_pictures(photos), count=6, side=64)
    again = make_samples(read_pictures([tmp_path]), count=6, side=64)
    assert digest(first) == digest(again)
    assert digest(first) != digest(make_samples(read_pictures(copies[:1]), count=6, side=64))
    assert digest(first) != digest(make_samples(read_pictures(photos), count=6, side=64, seed=1))


def test_every_condition_comes_equally_often_and_reaches_both_ends(photos: list[Path]) -> None:
    samples = make_samples(read_pictures(photos), count=2 * len(CONDITIONS), side=96)
    names = [sample.condition for sample in samples]
    assert all(names.count(condition) == 2 for condition in CONDITIONS)
    means = [sample.frame.mean() for sample in samples]
    assert min(means) < 40
    assert max(means) > 180
    damage = {s.condition: psnr(s.frame, s.truth) for s in samples}
    assert damage["clean"] == pytest.approx(78.1, abs=0.1)
    assert damage["severe"] < 16


def test_samples_of_the_proof_are_of_every_kind_from_light_to_severe() -> None:
    samples = make_samples(patterns(1), HELD_OUT, count=len(HELD_OUT), side=64, seed=2)
    assert digest(samples) == digest(make_samples(patterns(1), HELD_OUT, count=len(HELD_OUT), side=64, seed=2))
    assert [sample.condition for sample in samples] == list(HELD_OUT)
    for kind in DEGRADATIONS:
        severities = [
            step.severity for steps in HELD_OUT.values() for step in steps if len(steps) == 1 and step.kind == kind
        ]
        assert severities == sorted(severities)
        assert severities[0] <= 0.3 < 0.8 <= severities[-1]
    seen = {sample.name for sample in make_samples(patterns(0), count=2 * len(CONDITIONS), side=64)}
    assert not seen & {sample.name for sample in samples}


@pytest.mark.parametrize("scale", [1, 2])
def test_samples_know_how_near_they_came_in(scale: int) -> None:
    for sample in make_samples(patterns(0), HELD_OUT, count=3, side=48, scale=scale):
        size = (48 * scale, 48 * scale)
        enlarged = np.asarray(Image.fromarray(sample.frame).resize(size, Image.Resampling.BICUBIC), np.float32)
        assert sample.before == psnr(enlarged, sample.truth)


@pytest.mark.parametrize("scale", [2, 4])
def test_truth_is_larger_by_the_scale(photos: list[Path], scale: int) -> None:
    for sample in make_samples(read_pictures(photos), count=3, side=48, scale=scale):
        assert sample.frame.shape == (48, 48, 3)
        assert sample.truth.shape == (48 * scale, 48 * scale, 3)


def test_pictures_smaller_than_a_sample_are_extended(tmp_path: Path, rng: np.random.Generator) -> None:
    Image.fromarray(rng.integers(0, 255, (20, 30, 3), dtype=np.uint8)).save(tmp_path / "small.png")
    (sample,) = make_samples(read_pictures([tmp_path]), count=1, side=64)
    assert sample.frame.shape == (64, 64, 3)


def test_frames_of_videos() -> None:
    clip = Path(__file__).parents[2] / "examples" / "sample.mp4"
    pictures = read_pictures([clip])
    assert len(pictures) == 8
    assert len({picture.name for picture in pictures}) == 8


def test_synthetic_pictures_have_structure_and_are_repeatable() -> None:
    first, again = patterns(3), patterns(3)
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.pixels, other.pixels)
        assert one.pixels.std() > 20


@pytest.mark.parametrize("level", [0, 255])
def test_flat_pictures_are_refused(tmp_path: Path, level: int) -> None:
    for name in "ab":
        Image.fromarray(np.full((64, 64, 3), level, np.uint8)).save(tmp_path / f"{name}.png")
    with pytest.raises(InputError, match=f"every calibration picture is flat .brightest level {level} of 255"):
        read_pictures([tmp_path])


def test_missing_empty_and_unreadable_sources(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such calibration picture"):
        read_pictures([tmp_path / "absent"])
    with pytest.raises(InputError, match="no images or videos to calibrate with"):
        read_pictures([tmp_path])
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"broken\.png"):
        read_pictures([tmp_path])


def test_ssim_is_that_of_scikit_image(rng: np.random.Generator, photo: Path) -> None:
    truth = np.asarray(Image.open(photo).convert("RGB"))[:96, :128]
    noisy = np.clip(truth + rng.normal(0, 20, truth.shape), 0, 255)
    expected = structural_similarity(
        truth.astype(float), noisy, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
        data_range=255,
    )  # fmt: skip
    assert ssim(noisy, truth) == pytest.approx(expected, abs=1e-6)


def test_spearman() -> None:
    assert spearman([1, 2, 3, 4], [10, 20, 30, 400]) == pytest.approx(1)
    assert spearman([1, 2, 3, 4], [4, 3, 2, 1]) == pytest.approx(-1)
    assert spearman([1, 2, 2, 3], [1, 2, 3, 4]) == pytest.approx(0.9487, abs=1e-3)
    assert spearman([1, 1], [1, 1]) == 1
    assert spearman([1, 1], [1, 2]) == 0
