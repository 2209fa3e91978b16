"""Resize rule, schedule, forecasts, position tables and key list against tables made by the original code."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from uare_rt.errors import InputError, UsageError
from uare_rt.model.checkpoint import expected_shapes
from uare_rt.model.flow import Forecast, Guidance, schedule
from uare_rt.model.presets.uare_7b import UARE_7B, Transform
from uare_rt.model.tables import sincos_table
from uare_rt.model.transforms import fitted_size, normalise, resize, to_pixels

TABLES = Path(__file__).parents[1] / "data" / "mot-tables"
CASES = json.loads((TABLES / "resize_cases.json").read_text())
SCHEDULES = json.loads((TABLES / "schedules.json").read_text())


@pytest.mark.parametrize("case", CASES, ids=lambda case: "x".join(map(str, case["in_wh"])))
def test_sizes_are_those_of_the_reference(case: dict[str, list[int]]) -> None:
    size = tuple(case["in_wh"])
    fitted = fitted_size(*size, UARE_7B.vae_transform)
    assert list(fitted) == case["vae_1024_512_16"]
    assert list(fitted_size(*size, UARE_7B.vit_transform)) == case["vit_980_224_14"]
    assert list(fitted_size(*size, Transform(518, 224, 14))) == case["train_edit_vit_518_224_14"]
    seen = fitted_size(*fitted, UARE_7B.vit_transform)
    assert list(seen) == case["inferencer_vae_then_vit"]
    assert fitted[0] * fitted[1] // UARE_7B.latent_stride**2 == case["latent_tokens"]
    assert seen[0] * seen[1] // UARE_7B.vision.patch**2 == case["vit_tokens"]
    assert (max(fitted) <= UARE_7B.latent_side * UARE_7B.latent_stride) == case["fits_latent_table_64"]


def test_pictures_are_resized_normalised_and_put_back() -> None:
    ramp = np.tile(np.arange(256, dtype=np.uint8)[None, :, None], (64, 1, 3))
    transform = Transform(longest=256, shortest=64, stride=16)
    assert np.array_equal(resize(ramp, transform), ramp)
    values = normalise(ramp)
    assert values.shape == (3, 64, 256)
    assert (values.min(), values.max()) == (-1, 1)
    # Truncation may lose one level where 255 * v is a hair below a whole number, never more.
    assert set(np.unique(ramp.astype(int) - to_pixels(values))) <= {0, 1}
    assert to_pixels(torch.full((3, 1, 1), 0.999)).max() == 254
    with pytest.raises(InputError, match=r"uint8 \[H, W, 3\], got float32"):
        resize(ramp.astype(np.float32), transform)


@pytest.mark.parametrize("case", SCHEDULES, ids=lambda case: f"{case['num_timesteps']}-{case['shift']}")
def test_schedules_are_exact(case: dict[str, object]) -> None:
    times, steps = schedule(case["num_timesteps"], case["shift"])
    assert times.tolist() == case["t"]
    assert steps.tolist() == case["dt"]
    assert len(times) == case["evaluations"]
    guidance = Guidance(text_scale=2.0, interval=(0.4, 1.0))
    assert sum(map(guidance.active, times.tolist())) == case["cfg_evals_interval_0p4"]


@pytest.mark.parametrize(("points", "shift"), [(0, 3.0), (1, 3.0), (-4, 3.0), (5, 0.0), (5, -1.0), (5, float("nan"))])
def test_schedules_without_an_evaluation_are_refused(points: int, shift: float) -> None:
    with pytest.raises(UsageError, match=r"at least 2|must be positive"):
        schedule(points, shift)


def test_forecasts_skip_the_evaluations_that_the_reference_skips() -> None:
    table = json.loads((TABLES / "taylor_schedule_49.json").read_text())
    forecast, computed = Forecast(), []
    for step in range(table["evaluations"]):
        if forecast.advance():
            computed.append(step)
            forecast.record(torch.zeros(1))
    assert computed == table["full_steps"]


def test_forecasts_of_a_line_are_exact_and_of_a_parabola_close() -> None:
    def run(curve: torch.Tensor) -> torch.Tensor:
        forecast, out = Forecast(), []
        for value in curve:
            if forecast.advance():
                forecast.record(value)
            out.append(forecast.predict())
        return torch.stack(out)

    steps = torch.arange(30, dtype=torch.float64)
    torch.testing.assert_close(run(3 * steps + 1), 3 * steps + 1)
    # Backward differences lag a quadratic by a bounded amount; holding the last value would lag ever more.
    assert (run(steps**2) - steps**2).abs().max() < 8


def test_position_tables_put_the_column_first() -> None:
    table = sincos_table(5, 8).double()
    row, column = 3, 1
    rates = torch.tensor([1.0, 0.01], dtype=torch.float64)
    parts = [f(place * rates) for place in (column, row) for f in (torch.sin, torch.cos)]
    torch.testing.assert_close(table[row * 5 + column], torch.cat(parts), rtol=0, atol=1e-7)


def test_the_full_model_has_the_names_and_shapes_of_the_release() -> None:
    weights, codec = {}, {}
    target = weights
    for line in (TABLES / "bagel7b-keys.txt").read_text().splitlines():
        if line.startswith("# ae"):
            target = codec
        if not line or line.startswith("#"):
            continue
        name, shape, *times = line.split("\t")
        for layer in range(int(times[0][1:]) if times else 1):
            target[re.sub(r"layers\.N\.", f"layers.{layer}.", name)] = tuple(json.loads(shape))
    assert expected_shapes(UARE_7B) == (weights, codec)
    count = sum(int(np.prod(shape)) for shape in weights.values())
    assert (len(weights), count, len(codec)) == (1223, 14_607_260_128, 244)
