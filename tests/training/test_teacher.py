"""The full-reference teacher: measures equal to published code, a monotone blend, levels that mean something."""

from __future__ import annotations

import json
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from uare_rt.degradation import degrade, from_uint8, to_uint8
from uare_rt.errors import InputError
from uare_rt.slots import DEGRADATIONS
from uare_rt.training.rated import opinion_table, rated_versions
from uare_rt.training.teacher import measures, quality, shipped_teacher

DATA = Path(__file__).parents[1] / "data"
GOLDEN = json.loads((DATA / "fidelity.json").read_text("utf-8"))["values"]


def photo(name: str, side: int = 256) -> np.ndarray:
    with Image.open(DATA / "photos" / f"{name}.jpg") as opened:
        return np.asarray(opened.convert("RGB"))[:side, :side].copy()


def distorted(clean: np.ndarray, kind: str) -> np.ndarray:
    rng = np.random.default_rng(7)
    versions = {
        "noise": lambda: clean + rng.normal(0, 25, clean.shape),
        "dark": lambda: clean * 0.3,
        "blur": lambda: cv2.blur(clean.astype(np.float32), (5, 5)),
        "levels": lambda: clean // 48 * 48 + 20.0,
    }
    return np.clip(np.rint(versions[kind]()), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("case", GOLDEN)
def test_measures_are_those_of_published_code(case: str) -> None:
    name, kind = case.split("/")
    clean = photo(name)[:200, :240]
    found = measures(clean, distorted(clean, kind))
    assert {name: found[name] for name in GOLDEN[case]} == pytest.approx(GOLDEN[case], abs=4e-4)


def test_equal_pictures_are_exactly_excellent() -> None:
    for name in ("bridge", "tiger", "honey-bee"):
        assert quality(photo(name), photo(name)) == 5.0
    flat = np.full((64, 64, 3), 90, np.uint8)
    assert quality(flat, flat) == 5.0


@pytest.mark.parametrize("kind", DEGRADATIONS)
def test_quality_falls_with_severity(kind: str) -> None:
    clean = photo("bridge")
    found = [
        quality(clean, to_uint8(degrade(from_uint8(clean), kind, severity, np.random.default_rng(3)).image))
        for severity in (0.1, 0.4, 0.7, 1.0)
    ]
    assert found == sorted(found, reverse=True)
    assert found[0] > 3.5
    assert found[0] - found[-1] > 1
    assert found[-1] >= 1


def test_a_second_fault_never_helps() -> None:
    clean = photo("tiger")
    noisy = distorted(clean, "noise")
    assert quality(clean, cv2.blur(distorted(noisy, "dark"), (3, 3))) < quality(clean, noisy) < 5


def test_every_curve_is_monotone_and_weights_are_shares() -> None:
    teacher = shipped_teacher()
    assert set(teacher.curves) == set(teacher.weights)
    assert sum(teacher.weights.values()) == pytest.approx(1, abs=2e-3)
    assert min(teacher.weights.values()) > 0
    for curve in (*teacher.curves.values(), teacher.blend):
        assert np.all(np.diff(curve.at) > 0)
        assert np.all(np.diff(curve.score) > 0) or np.all(np.diff(curve.score) < 0)
        assert {min(curve.score), max(curve.score)} == {1.0, 5.0}


def test_scores_follow_mean_opinions() -> None:
    rated = [
        (version.score, quality(clean, version.pixels))
        for name in ("bridge", "tiger")
        for clean in [photo(name)]
        for version in rated_versions(clean, np.random.default_rng(1))
    ]
    opinions, found = np.array(rated).T
    assert len(rated) >= 30
    ranks = [np.argsort(np.argsort(values)) for values in (opinions, found)]
    assert np.corrcoef(ranks)[0, 1] > 0.85
    assert np.abs(opinions - found).mean() < 0.5


def test_rated_versions_have_the_levels_of_the_table() -> None:
    clean = photo("tiger")
    table = opinion_table()
    versions = list(rated_versions(clean, np.random.default_rng(1)))
    assert {version.kind for version in versions} == set(table.mean_opinion)
    for version in versions:
        assert cv2.PSNR(version.pixels, clean) == pytest.approx(version.psnr, abs=0.8)
    assert table.score(table.best) == 5
    assert table.score(table.worst) == 1


def test_cheap_enough_for_every_training_sample() -> None:
    clean = photo("bridge")
    degraded = distorted(clean, "noise")
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        quality(clean, degraded)
        spent = []
        for _ in range(5):
            began = time.thread_time()
            quality(clean, degraded)
            spent.append(time.thread_time() - began)
    finally:
        cv2.setNumThreads(threads)
    assert min(spent) < 0.04


def test_pictures_that_cannot_be_compared_are_refused() -> None:
    clean = photo("bridge")
    with pytest.raises(InputError, match="256, 256"):
        quality(clean, clean[:128])
    with pytest.raises(InputError, match="uint8"):
        quality(clean, clean.astype(np.float32))
    with pytest.raises(InputError, match="24x24"):
        quality(clean[:24, :24], clean[:24, :24])
