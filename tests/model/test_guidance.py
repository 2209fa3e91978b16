"""Guidance settings that cannot be used are refused, and those that do nothing are told."""

from __future__ import annotations

import warnings

import pytest
import torch

from uare_rt.errors import UsageError
from uare_rt.model.flow import Flow, Guidance, GuidanceWarning, guide

TIMES = [1.0, 0.9, 0.75, 0.5]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"renorm": "local"}, "'local', but must be one of global, channel, text_channel"),
        ({"renorm_min": 1.5}, "renorm_min is 1.5"),
        ({"text_scale": float("nan")}, "text_scale is nan"),
        ({"image_scale": -1.0}, "image_scale is -1.0"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Guidance(**settings)


@pytest.mark.parametrize(
    ("guidance", "message"),
    [
        (Guidance(1.0, 2.0), "image_scale 2.0 has no effect while text_scale is 1.0"),
        (Guidance(renorm_min=0.5), "renorm_min 0.5 has no effect while text_scale is 1.0"),
        (Guidance(interval=(0.4, 1.0)), r"interval \(0.4, 1.0\) has no effect while text_scale is 1.0"),
        (Guidance(0.5), "text_scale 0.5 has no effect"),
        (Guidance(4.0, 0.5), "image_scale 0.5 has no effect"),
        (Guidance(4.0, interval=(0.6, 0.7)), r"no evaluation lies in the interval \(0.6, 0.7\)"),
        (Guidance(4.0, interval=(1.0, 0.0)), "no evaluation lies in the interval"),
    ],
)
def test_settings_without_effect_are_told(guidance: Guidance, message: str) -> None:
    with pytest.warns(GuidanceWarning, match=message):
        guidance.warn(TIMES)


@pytest.mark.parametrize("guidance", [Guidance(), Guidance(4.0), Guidance(4.0, 2.0, "text_channel", 0.5, (0.6, 1.0))])
def test_settings_with_effect_raise_no_warning(guidance: Guidance) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        guidance.warn(TIMES)


def test_forecasts_of_too_few_evaluations_are_told() -> None:
    with pytest.warns(GuidanceWarning, match="the first 5 evaluations are always computed, and there are 5"):
        Flow(6, forecast=True).warn()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Flow(7, forecast=True).warn()


def test_the_interval_is_open_below_and_closed_above_in_float32() -> None:
    guidance = Guidance(2.0, interval=(0.4, 0.9))
    assert not guidance.active(float(torch.tensor(0.4)))
    assert guidance.active(float(torch.tensor(0.9)))
    assert not guidance.active(0.95)


@pytest.mark.parametrize("renorm", ["global", "channel"])
def test_a_limited_velocity_is_no_longer_than_the_plain_one(renorm: str) -> None:
    main, text_free, image_free = torch.randn(3, 6, 4).unbind()
    guided = guide(main, text_free, image_free, Guidance(4.0, 2.0, renorm))
    axes = None if renorm == "global" else -1
    norms = [torch.linalg.vector_norm(v, dim=axes) for v in (guided, main)]
    assert bool((norms[0] <= norms[1] * 1.00001).all())
    free = guide(main, text_free, image_free, Guidance(4.0, 2.0, renorm, renorm_min=1.0))
    text = text_free + 4 * (main - text_free)
    torch.testing.assert_close(free, image_free + 2 * (text - image_free))
