"""Sensitivity: switches compute what placement writes, bad layers are found, and the budget is kept."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pytest
from numpy.typing import NDArray

from uare_rt.calibration.execution import Executor
from uare_rt.calibration.graph import Graph
from uare_rt.calibration.half import plan_half, to_half
from uare_rt.calibration.layers import Layer, find_layers
from uare_rt.calibration.observation import observe
from uare_rt.calibration.qdq import place
from uare_rt.calibration.rounding import rounded
from uare_rt.calibration.sensitivity import Quality, Sensitivity, choose, measure_layers, score_error
from uare_rt.calibration.switches import Switchable

Frames = list[dict[str, NDArray[np.float32]]]


@pytest.mark.parametrize("chosen", [(), ("first",), ("last",), ("first", "last")])
def test_switches_compute_what_placement_writes(network: Graph, frames: Frames, chosen: tuple[str, ...]) -> None:
    layers = find_layers(network)
    seen = observe(network, layers, frames)
    ranges = {name: histogram.range("mse") for name, histogram in seen.histograms.items()}
    plan = plan_half(network, seen.largest)
    switchable = Switchable(rounded(to_half(network, plan)), network, layers, ranges)
    written = rounded(to_half(place(network, [x for x in layers if x.name in chosen], ranges), plan))
    for feeds in frames:
        np.testing.assert_allclose(
            switchable.run(feeds, chosen)["restored"], Executor(written).run(feeds)["restored"], atol=1e-5
        )


DROPS = {"fragile": 3.0, "large": 0.04, "middle": 0.03, "small": 0.02, "tiny": 0.0}
MACS = {"fragile": 2000, "large": 5000, "middle": 2000, "small": 999, "tiny": 1}


def quality(int8: Collection[str]) -> Quality:
    drop = sum(DROPS[name] for name in int8)
    return Quality((40.0 - drop, 30.0 - drop), (0.9 - drop / 100, 0.8 - drop / 100))


def sensitivities() -> list[Sensitivity]:
    layers = [Layer(name, name, "conv", (f"{name}.in",), key=name) for name in DROPS]
    return measure_layers(layers, MACS, quality, {}, lambda done, total: None)


def test_each_layer_is_measured_alone() -> None:
    found = {s.layer.name: s for s in sensitivities()}
    assert {name: s.drop_db for name, s in found.items()} == pytest.approx(DROPS, abs=1e-9)
    assert found["fragile"].drop_ssim == pytest.approx(0.03)
    assert found["large"].share == pytest.approx(0.5)


def test_known_drops_are_not_measured_again() -> None:
    layers = [Layer(name, name, "conv", (f"{name}.in",), key=name) for name in DROPS]
    measured: list[Collection[str]] = []

    def measure(int8: Collection[str]) -> Quality:
        measured.append(tuple(int8))
        return quality(int8)

    found = measure_layers(layers, MACS, measure, {"large": (0.5, 0.1, 0.0)}, lambda done, total: None)
    assert ("large",) not in measured
    assert next(s for s in found if s.layer.name == "large").drop_db == 0.5


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        (9.0, {"fragile", "large", "middle", "small"}),
        (0.1, {"large", "middle", "small"}),
        (0.075, {"large", "middle"}),
        (0.05, {"large"}),
        (0.001, set()),
    ],
)
def test_as_many_multiplications_as_the_budget_allows(budget: float, expected: set[str]) -> None:
    choice = choose(sensitivities(), quality, quality(()), budget)
    assert choice.int8 == expected
    assert choice.drop_db <= budget + 1e-9
    assert choice.kept["tiny"] == "too small"
    assert set(choice.kept) == set(DROPS) - expected


def test_what_fits_as_a_whole_is_measured_once() -> None:
    asked: list[Collection[str]] = []

    def measure(int8: Collection[str]) -> Quality:
        asked.append(frozenset(int8))
        return quality(int8)

    choose(sensitivities(), measure, quality(()), 9.0)
    assert asked == [{"fragile", "large", "middle", "small"}]


def test_layers_without_a_range_and_attention_stay() -> None:
    found = sensitivities()
    attention = Sensitivity(Layer("attend", "", "attention", ("q", "k")), 5000, 0.4, 0.0, 0.0)
    choice = choose([*found, attention], quality, quality(()), 9.0, unusable=["large"])
    assert choice.kept["attend"] == "attention"
    assert choice.kept["large"] == "no range"


def test_where_scores_decide_the_layer_that_moves_them_most_is_given_up() -> None:
    """Its loss of PSNR is none, so by that alone it would be the last to go."""

    def measure(int8: Collection[str]) -> Quality:
        moved = 0.05 * ("large" in int8) + 0.01 * ("middle" in int8) + 0.001 * len(int8)
        drop = 0.001 * ("large" not in int8) * len(int8)
        return Quality((40.0 - drop, 30.0 - drop), (0.9, 0.8), scores=(2.0 + moved, 3.0 - moved))

    layers = [Layer(name, name, "conv", (f"{name}.in",), key=name) for name in DROPS]
    found = measure_layers(layers, MACS, measure, {}, lambda done, total: None)
    moved = {s.layer.name: s.score_error for s in found}
    assert moved == pytest.approx({"fragile": 0.001, "large": 0.051, "middle": 0.011, "small": 0.001, "tiny": 0.001})
    reference = measure(())
    choice = choose(
        found, measure, reference, 9.0, largest_score_error=0.04,
        accept=lambda q: score_error(reference, q) <= 0.04,
    )  # fmt: skip
    assert choice.int8 == {"fragile", "middle", "small"}
    assert choice.kept["large"] == "sensitive"


def test_a_further_condition_counts() -> None:
    choice = choose(sensitivities(), quality, quality(()), 9.0, accept=lambda q: q.psnr[0] > 39.95)
    assert "fragile" not in choice.int8
