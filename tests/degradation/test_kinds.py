"""Every kind and variant: seeded, identity at 0, worse with severity, labelled, any size."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from uare_rt.degradation import (
    VARIANTS,
    blur_sigma,
    degrade,
    from_uint8,
    haze_transmission,
    jpeg_quality,
    light_gain,
    linear_to_srgb,
    noise_sigma,
    resolution_factor,
    severity_of_blur_sigma,
    severity_of_haze_transmission,
    severity_of_jpeg_quality,
    severity_of_light_gain,
    severity_of_noise_sigma,
    severity_of_resolution_factor,
    srgb_to_linear,
    to_uint8,
)
from uare_rt.errors import UsageError
from uare_rt.slots import DEGRADATIONS

ALL = [(kind, variant) for kind, variants in VARIANTS.items() for variant in variants]
every_variant = pytest.mark.parametrize(("kind", "variant"), ALL)

Image = NDArray[np.float32]


def psnr(a: Image, b: Image) -> float:
    return float(-10 * np.log10(np.mean((a.astype(np.float64) - b) ** 2) + 1e-12))


def run(image: Image, kind: str, variant: str | None, severity: float, seed: int = 3) -> Image:
    return degrade(image, kind, severity, np.random.default_rng(seed), variant=variant).image


def test_kinds_are_the_slots() -> None:
    assert set(VARIANTS) == set(DEGRADATIONS)


@every_variant
def test_same_seed_same_pixels(image: Image, kind: str, variant: str) -> None:
    np.testing.assert_array_equal(run(image, kind, variant, 0.5), run(image, kind, variant, 0.5))


@pytest.mark.parametrize(
    ("kind", "variant"), [(k, v) for k, v in ALL if k in {"noise", "low_light", "haze"} or v == "motion"]
)
def test_other_seed_other_pixels(image: Image, kind: str, variant: str) -> None:
    assert not np.array_equal(run(image, kind, variant, 0.5, seed=3), run(image, kind, variant, 0.5, seed=4))


@every_variant
def test_severity_zero_is_the_identity(kind: str, variant: str) -> None:
    unrounded = np.random.default_rng(0).random((9, 7, 3), dtype=np.float32)
    result = degrade(unrounded, kind, 0.0, np.random.default_rng(1), variant=variant)
    np.testing.assert_array_equal(result.image, unrounded)
    assert result.severities == dict.fromkeys(DEGRADATIONS, 0.0)


@every_variant
def test_loss_grows_with_severity_from_nearly_none(image: Image, kind: str, variant: str) -> None:
    curve = [psnr(run(image, kind, variant, severity), image) for severity in (0.02, 0.1, 0.25, 0.5, 0.75, 1.0)]
    assert all(later < earlier - 0.1 for earlier, later in pairwise(curve[1:])), curve
    assert curve[0] > max(curve[1], 29.0), curve  # a slight severity is a slight loss


@every_variant
def test_result_is_float32_on_8_bit_levels(image: Image, kind: str, variant: str) -> None:
    result = run(image, kind, variant, 0.7)
    assert result.dtype == np.float32
    assert result.shape == image.shape
    np.testing.assert_array_equal(result, from_uint8(to_uint8(result)))


@every_variant
@pytest.mark.parametrize("shape", [(1, 1), (17, 3), (3, 17), (1, 40)])
def test_odd_sizes(kind: str, variant: str, shape: tuple[int, int]) -> None:
    tiny = np.random.default_rng(5).random((*shape, 3), dtype=np.float32)
    result = run(tiny, kind, variant, 0.8)
    assert result.shape == tiny.shape
    assert np.isfinite(result).all()


@every_variant
def test_label_names_what_was_done(image: Image, kind: str, variant: str) -> None:
    label = degrade(image, kind, 0.6, np.random.default_rng(0), variant=variant).severities
    assert set(label) == set(DEGRADATIONS)
    assert label[kind] == 0.6
    also = {"noise"} if kind == "low_light" else set()  # read noise comes with the dark
    assert {name for name, severity in label.items() if severity > 0} == {kind} | also


def test_variants_are_drawn_by_the_generator(image: Image) -> None:
    results = {run(image, "noise", None, 0.5, seed).tobytes() for seed in range(3)}
    assert len(results) == 3


@pytest.mark.parametrize("sigma", [5, 15, 25])  # beyond, clipping narrows the spread around mid-grey
@pytest.mark.parametrize("variant", VARIANTS["noise"])
def test_noise_has_its_sigma_at_mid_grey(variant: str, sigma: float) -> None:
    grey = np.full((128, 128, 3), 0.5, np.float32)
    noisy = run(grey, "noise", variant, severity_of_noise_sigma(sigma))
    if variant == "poisson_gaussian":  # defined in linear light, where 1.0795 is the slope of the transfer function
        deviation = float(srgb_to_linear(noisy).std()) * 1.0795
    else:
        deviation = float((noisy - grey).std())
    assert deviation * 255 == pytest.approx(sigma, rel=0.05)


def test_poisson_noise_grows_with_light() -> None:
    dark, bright = (np.full((64, 64, 3), value, np.float32) for value in (0.3, 0.8))
    spread = [float(srgb_to_linear(run(grey, "noise", "poisson_gaussian", 0.1)).std()) for grey in (dark, bright)]
    assert spread[1] > 1.5 * spread[0]


def test_correlated_noise_is_smooth() -> None:
    grey = np.full((128, 128, 3), 0.5, np.float32)
    white, smooth = (run(grey, "noise", variant, 0.3)[..., 0] - 0.5 for variant in ("gaussian", "correlated"))

    def neighbours(field: NDArray[np.float32]) -> float:
        return float(np.corrcoef(field[:, 1:].ravel(), field[:, :-1].ravel())[0, 1])

    assert abs(neighbours(white)) < 0.05
    assert neighbours(smooth) > 0.2


def test_per_channel_noise_is_mostly_colour() -> None:
    grey = np.full((128, 128, 3), 0.5, np.float32)
    luma = [float(run(grey, "noise", v, 0.3).mean(axis=2).std()) for v in ("gaussian", "per_channel")]
    assert luma[1] < 0.85 * luma[0]


@pytest.mark.parametrize("variant", VARIANTS["blur"])
def test_blur_keeps_a_flat_picture(variant: str) -> None:
    grey = np.full((40, 40, 3), 102 / 255, np.float32)
    np.testing.assert_allclose(run(grey, "blur", variant, 1.0), grey, atol=1e-6)


@pytest.mark.parametrize("sigma", [1.0, 2.0])
def test_gaussian_blur_has_its_deviation(sigma: float) -> None:
    edge = np.zeros((8, 81, 3), np.float32)
    edge[:, 41:] = 1
    line = np.diff(run(edge, "blur", "gaussian", severity_of_blur_sigma(sigma))[4, :, 0].astype(np.float64))
    offsets = np.arange(-40, 40)
    assert np.sqrt((line * offsets**2).sum()) == pytest.approx(sigma, rel=0.06)


def test_gain_darkens_linear_light_and_haze_brightens_it() -> None:
    grey = np.full((96, 96, 3), 0.6, np.float32)
    light = float(srgb_to_linear(grey).mean())
    dark = float(srgb_to_linear(run(grey, "low_light", "gain", severity_of_light_gain(0.3))).mean())
    assert dark / light == pytest.approx(0.3, rel=0.03)
    assert float(srgb_to_linear(run(grey, "haze", "scattering", 0.6)).mean()) > light


def test_haze_at_full_severity_lets_three_tenths_through() -> None:
    black = np.zeros((64, 64, 3), np.float32)
    white = np.ones((64, 64, 3), np.float32)
    through = [
        float(
            np.mean(srgb_to_linear(run(white, "haze", None, 1.0, s)) - srgb_to_linear(run(black, "haze", None, 1.0, s)))
        )
        for s in range(12)
    ]
    assert np.mean(through) == pytest.approx(0.3, abs=0.04)


@pytest.mark.parametrize(
    ("forward", "inverse"),
    [
        (noise_sigma, severity_of_noise_sigma),
        (blur_sigma, severity_of_blur_sigma),
        (jpeg_quality, severity_of_jpeg_quality),
        (resolution_factor, severity_of_resolution_factor),
        (light_gain, severity_of_light_gain),
        (haze_transmission, severity_of_haze_transmission),
    ],
)
def test_maps_and_their_inverses_agree(forward: object, inverse: object) -> None:
    for severity in (0.0, 0.1, 0.5, 0.9, 1.0):
        assert inverse(forward(severity)) == pytest.approx(severity, abs=0.01)  # type: ignore[operator]


def test_physical_test_types_lie_inside_the_range() -> None:
    inside = [
        severity_of_noise_sigma(50),
        severity_of_jpeg_quality(10),
        severity_of_blur_sigma(2),
        severity_of_resolution_factor(4),
        severity_of_light_gain(0.15),
        severity_of_haze_transmission(0.55),
    ]
    assert all(0.2 < severity < 0.9 for severity in inside), inside


def test_transfer_function_matches_the_standard() -> None:
    value = np.linspace(0, 1, 10_001, dtype=np.float32)
    exact = np.where(value <= 0.04045, value / 12.92, ((value.astype(np.float64) + 0.055) / 1.055) ** 2.4)
    assert np.abs(srgb_to_linear(value) - exact).max() < 1e-4
    assert np.abs(linear_to_srgb(exact.astype(np.float32)) - value).max() < 1e-4
    np.testing.assert_array_equal(linear_to_srgb(np.array([-1, 2], np.float32)), np.array([0, 1], np.float32))


@pytest.mark.parametrize(
    ("kind", "severity", "variant", "message"),
    [
        ("rain", 0.5, None, "unknown degradation 'rain'"),
        ("noise", 1.5, None, "1.5 of noise is outside 0..1"),
        ("noise", float("nan"), None, "outside 0..1"),
        ("blur", 0.5, "gausian", "unknown variant 'gausian' of blur"),
    ],
)
def test_wrong_requests_are_refused(
    image: Image, kind: str, severity: float, variant: str | None, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        degrade(image, kind, severity, np.random.default_rng(0), variant=variant)


@pytest.mark.parametrize(
    "wrong",
    [np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.float32), np.zeros((0, 4, 3), np.float32), [[0.5]]],
)
def test_wrong_images_are_refused(wrong: object) -> None:
    with pytest.raises(UsageError, match="a degradation needs"):
        degrade(wrong, "noise", 0.5, np.random.default_rng(0))  # type: ignore[arg-type]
