"""Compositions, random mixtures and clips."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from numpy.typing import NDArray

from uare_rt.degradation import (
    CAMERA_ORDER,
    Mixture,
    Step,
    camera_order,
    combine,
    compose,
    degrade,
    degrade_clip,
    from_uint8,
    h264_crf,
    sample_steps,
    second_order,
    to_uint8,
)
from uare_rt.errors import UsageError
from uare_rt.slots import DEGRADATIONS

KINDS = dict.fromkeys(DEGRADATIONS, 1.0)


def test_no_step_returns_the_image_itself(image: NDArray[np.float32]) -> None:
    result = compose(image, [], np.random.default_rng(0))
    assert result.image is image
    assert not any(result.severities.values())


def test_steps_are_applied_in_the_order_given(image: NDArray[np.float32]) -> None:
    noise, blur = Step("noise", 0.4, "gaussian"), Step("blur", 0.5, "gaussian")
    grain = [
        float(np.diff(compose(image, steps, np.random.default_rng(0)).image, axis=1).std())
        for steps in ([noise, blur], [blur, noise])
    ]
    assert grain[0] < 0.5 * grain[1]


def test_one_step_composition_is_degrade(image: NDArray[np.float32]) -> None:
    composed = compose(image, [Step("blur", 0.3)], np.random.default_rng(9))
    single = degrade(image, "blur", 0.3, np.random.default_rng(9))
    np.testing.assert_array_equal(composed.image, single.image)
    assert composed.severities == single.severities


def test_repeated_kinds_combine_in_the_label(image: NDArray[np.float32]) -> None:
    steps = [Step("blur", 0.5), Step("noise", 0.3), Step("blur", 0.2)]
    label = compose(image, steps, np.random.default_rng(0)).severities
    assert label["blur"] == pytest.approx(1 - 0.5 * 0.8)
    assert label["noise"] == 0.3
    assert combine([{"haze": 1.0}, {"haze": 0.5}])["haze"] == 1.0


def test_camera_order_sorts_and_keeps_repeats_in_order() -> None:
    shuffled = [Step(kind, 0.5) for kind in reversed(CAMERA_ORDER)] + [Step("haze", 0.1)]
    ordered = camera_order(shuffled)
    assert [step.kind for step in ordered] == ["haze", *CAMERA_ORDER]
    assert [step.severity for step in ordered[:2]] == [0.5, 0.1]


def test_mixture_follows_its_counts_weights_and_range() -> None:
    mixture = Mixture(0, 3, kinds={"noise": 3.0, "blur": 1.0, "haze": 1.0, "compression": 0.0}, severity=(0.2, 0.6))
    rng = np.random.default_rng(11)
    samples = [mixture.sample(rng) for _ in range(3000)]
    counts = Counter(len(steps) for steps in samples)
    assert set(counts) == {0, 1, 2, 3}
    assert all(count == pytest.approx(750, rel=0.15) for count in counts.values())
    first = Counter(steps[0].kind for steps in samples if len(steps) == 1)
    assert set(first) == {"noise", "blur", "haze"}
    assert first["noise"] / counts[1] == pytest.approx(0.6, abs=0.06)
    severities = [step.severity for steps in samples for step in steps]
    assert 0.2 <= min(severities) < 0.23
    assert 0.57 < max(severities) <= 0.6
    assert 0.36 < float(np.mean(severities)) < 0.39  # below the middle, 0.4
    assert all(steps == camera_order(steps) for steps in samples)
    assert all(len({step.kind for step in steps}) == len(steps) for steps in samples)


def test_mixture_is_seeded() -> None:
    mixture = Mixture(1, 3, second_order=0.5)
    rng, again = np.random.default_rng(4), np.random.default_rng(4)
    first = [mixture.sample(rng) for _ in range(20)]
    assert [mixture.sample(again) for _ in range(20)] == first
    assert [mixture.sample(rng) for _ in range(20)] != first


def test_second_order_adds_a_weaker_pass_without_air_or_exposure() -> None:
    rng = np.random.default_rng(8)
    for _ in range(200):
        steps = second_order(rng, kinds=KINDS, count=(2, 2), severity=(0.8, 1.0))
        first, again = steps[:2], steps[2:]
        assert 1 <= len(again) <= 2
        assert first == camera_order(first)
        assert all(step.severity >= 0.8 for step in first)
        assert {step.kind for step in again} <= {"blur", "low_resolution", "noise", "compression"}
        assert all(0.48 <= step.severity <= 0.6 for step in again)


def test_probability_of_the_second_pass() -> None:
    rng = np.random.default_rng(2)
    lengths = [len(Mixture(1, 1, second_order=0.3).sample(rng)) for _ in range(2000)]
    assert np.mean([length > 1 for length in lengths]) == pytest.approx(0.3, abs=0.04)


def test_random_order_is_not_always_the_cameras() -> None:
    rng = np.random.default_rng(1)
    samples = [sample_steps(rng, kinds=KINDS, count=(3, 3), order="random") for _ in range(50)]
    assert any(steps != camera_order(steps) for steps in samples)


@pytest.mark.parametrize(
    "settings",
    [
        {"min_count": 2, "max_count": 1},
        {"min_count": -1, "max_count": 1},
        {"min_count": 0, "max_count": 1, "kinds": {"rain": 1.0}},
        {"min_count": 0, "max_count": 1, "kinds": {"noise": 0.0}},
        {"min_count": 0, "max_count": 1, "kinds": {"noise": -1.0, "blur": 1.0}},
        {"min_count": 0, "max_count": 1, "severity": (0.5, 1.2)},
        {"min_count": 0, "max_count": 1, "second_order": 2.0},
    ],
)
def test_impossible_mixtures_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        Mixture(**settings)  # type: ignore[arg-type]


@pytest.fixture
def clip(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8 [6, 65, 63, 3]: a pan over the photograph, of odd size."""
    return np.stack([pixels[60:125, 2 * shift : 2 * shift + 63] for shift in range(6)])


def _loss(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> NDArray[np.float64]:
    return np.mean((a.astype(np.float64) - b) ** 2, axis=(1, 2, 3))


def test_clip_through_h264_keeps_its_frames_in_order(clip: NDArray[np.uint8]) -> None:
    losses = []
    for severity in (0.1, 0.5, 1.0):
        result = degrade_clip(clip, [Step("compression", severity)], np.random.default_rng(0))
        assert result.frames.shape == clip.shape
        assert result.frames.dtype == np.uint8
        assert result.severities["compression"] == severity
        losses.append(_loss(result.frames, clip))
        if severity == 0.1:
            nearest = [int(np.argmin(_loss(np.broadcast_to(frame, clip.shape), clip))) for frame in result.frames]
            assert nearest == list(range(len(clip)))
    assert losses[0].mean() < losses[1].mean() < losses[2].mean()
    assert h264_crf(0) < h264_crf(1) == 51


def test_clip_noise_changes_and_haze_stays(clip: NDArray[np.uint8]) -> None:
    still = np.repeat(clip[:1], 3, axis=0)
    hazed = degrade_clip(still, [Step("haze", 0.6)], np.random.default_rng(0)).frames
    np.testing.assert_array_equal(hazed[0], hazed[2])
    noisy = degrade_clip(still, [Step("noise", 0.3)], np.random.default_rng(0)).frames
    assert not np.array_equal(noisy[0], noisy[1])


def test_clip_is_seeded_and_untouched_at_zero(clip: NDArray[np.uint8]) -> None:
    steps = [Step("low_light", 0.3), Step("noise", 0.2), Step("compression", 0.4)]
    first, second = (degrade_clip(clip, steps, np.random.default_rng(6)) for _ in range(2))
    np.testing.assert_array_equal(first.frames, second.frames)
    zeros = degrade_clip(clip, [Step(kind, 0.0) for kind in DEGRADATIONS], np.random.default_rng(6))
    np.testing.assert_array_equal(zeros.frames, clip)


def test_clip_of_one_frame_and_a_spatial_step_is_compose(clip: NDArray[np.uint8]) -> None:
    steps = [Step("blur", 0.4)]
    frames = degrade_clip(clip[:1], steps, np.random.default_rng(0)).frames
    alone = compose(from_uint8(clip[0]), steps, np.random.default_rng(0)).image
    np.testing.assert_array_equal(frames[0], to_uint8(alone))


def test_wrong_clips_are_refused(clip: NDArray[np.uint8]) -> None:
    with pytest.raises(UsageError, match="a clip is uint8"):
        degrade_clip(clip[0], [], np.random.default_rng(0))
    with pytest.raises(UsageError, match="not webp"):
        degrade_clip(clip, [Step("compression", 0.5, "webp")], np.random.default_rng(0))
