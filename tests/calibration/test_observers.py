"""Ranges: known distributions, outliers, and how little the cut into samples matters."""

from __future__ import annotations

import numpy as np
import pytest

from uare_rt.calibration.observers import (
    LEVELS,
    OBSERVERS,
    Histogram,
    Observer,
    channel_ranges,
    scale_of,
)
from uare_rt.errors import UsageError


def seen(*samples: np.ndarray) -> Histogram:
    histogram = Histogram()
    for values in samples:
        histogram.add(values.astype(np.float32))
    return histogram


def error(values: np.ndarray, largest: float) -> float:
    step = largest / LEVELS
    return float(np.mean((np.clip(np.rint(values / step), -LEVELS, LEVELS) * step - values) ** 2))


def test_min_max_is_the_largest_magnitude(rng: np.random.Generator) -> None:
    values = rng.standard_normal((3, 1, 4, 8, 8))
    assert seen(*values).range("min-max") == pytest.approx(np.abs(values).max(), rel=1e-6)


def test_moving_min_max_follows_and_forgets(rng: np.random.Generator) -> None:
    steady = [np.full((1, 2, 4, 4), 1.0)] * 40
    assert seen(np.full((1, 2, 4, 4), 9.0), *steady).range("moving-min-max") == pytest.approx(1.0, abs=0.2)


@pytest.mark.parametrize("outlier", [0.0, 3.0, 40.0])
def test_mse_is_as_good_as_the_best_range_there_is(rng: np.random.Generator, outlier: float) -> None:
    values = rng.laplace(size=(1, 16, 64, 64))
    values[0, 0, 0, 0] = max(outlier, 1e-3)
    chosen = error(values, seen(values).range("mse"))
    best = min(error(values, top) for top in np.linspace(0.5, np.abs(values).max(), 200))
    assert chosen <= 1.05 * best


def test_mse_keeps_the_whites_of_a_picture(rng: np.random.Generator) -> None:
    picture = rng.random((1, 3, 64, 64))
    picture[..., :2, :] = 1.0
    assert seen(picture).range("mse") >= 0.99


def test_percentile_clips_outliers(rng: np.random.Generator) -> None:
    values = rng.random((1, 8, 64, 64))
    values[0, 0, 0, 0] = 100.0
    assert seen(values).range("percentile") < 2.0


def test_entropy_clips_outliers_and_keeps_the_bulk(rng: np.random.Generator) -> None:
    values = rng.standard_normal((1, 8, 64, 64))
    values[0, 0, 0, :4] = 12.0
    assert np.quantile(np.abs(values), 0.99) < seen(values).range("entropy") < 9.0


@pytest.mark.parametrize("observer", [name for name in OBSERVERS if name != "moving-min-max"])
def test_ranges_do_not_depend_on_how_samples_are_cut(rng: np.random.Generator, observer: Observer) -> None:
    values = rng.standard_normal((4, 1, 4, 32, 32))
    whole = seen(values.reshape(1, 4, 128, 32)).range(observer)
    assert seen(*values).range(observer) == pytest.approx(whole, rel=0.02 if observer != "entropy" else 0.1)


@pytest.mark.parametrize("observer", OBSERVERS)
def test_zeros_alone_have_no_range(observer: Observer) -> None:
    assert seen(np.zeros((1, 4, 8, 8))).range(observer) == 0.0


def test_unknown_observer() -> None:
    with pytest.raises(UsageError, match="'median' does not exist; choose one of: min-max"):
        seen(np.ones((1, 1, 2, 2))).range("median")  # type: ignore[arg-type]


def test_scales_are_numbers_that_float16_holds() -> None:
    scales = scale_of(np.array([0.0, 1e-7, 1e-3, 0.37, 1.0, 6e4]))
    np.testing.assert_array_equal(scales.astype(np.float16).astype(np.float32), scales)
    assert (scales > 0).all()


@pytest.mark.parametrize("axis", [0, 1])
def test_each_channel_of_a_weight_has_its_own_range(rng: np.random.Generator, axis: int) -> None:
    weight = rng.standard_normal((6, 6, 3, 3)).astype(np.float32)
    shape = [1, 1, 1, 1]
    shape[axis] = 6
    weight *= np.float32(10.0) ** np.arange(-3, 3).reshape(shape)
    np.testing.assert_allclose(
        channel_ranges(weight, axis), np.abs(np.moveaxis(weight, axis, 0)).reshape(6, -1).max(axis=1)
    )
