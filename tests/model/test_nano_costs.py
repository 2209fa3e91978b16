"""The operations of `uare-nano` counted from its shape are those that PyTorch counts; floors and forecasts add up."""

from __future__ import annotations

import pytest

from uare_rt.model.flops import restore_flops
from uare_rt.model.nano import UareNano
from uare_rt.model.nano_costs import restore_layers
from uare_rt.model.nano_plan import EFFICIENCY, LAUNCH_SECONDS, Rates, expected, floor
from uare_rt.model.presets.nano import UARE_NANO

RATES = Rates(flops=1e12, eight_bit=2e12, bandwidth=1e11, number=2, eight_bit_number=1)


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_operations_are_those_that_pytorch_counts(scale: int) -> None:
    counted = restore_flops(UareNano(UARE_NANO), scale)
    layers = restore_layers(UARE_NANO, 256, 256, scale)
    pixels = (256 * scale) ** 2
    assert sum(layer.flops for layer in layers) / pixels == pytest.approx(counted["total"], rel=1e-3)
    tokens = sum(layer.flops for layer in layers if layer.part == "tokens")
    assert tokens / pixels == pytest.approx(counted["mot"], rel=1e-3)


def test_a_frame_costs_what_its_padded_size_does() -> None:
    assert restore_layers(UARE_NANO, 500, 497) == restore_layers(UARE_NANO, 512, 512)
    small, large = (floor(restore_layers(UARE_NANO, side, side), RATES) for side in (512, 1024))
    assert large == pytest.approx(4 * small, rel=0.05)


def test_a_layer_is_bound_by_what_takes_longer() -> None:
    layers = restore_layers(UARE_NANO, 512, 512)
    for layer in layers:
        compute = layer.flops / (2e12 if layer.eight_bit else 1e12)
        moved = (layer.values + layer.weights) * (1 if layer.eight_bit else 2) / 1e11
        assert RATES.seconds(layer) == pytest.approx(max(compute, moved))
        assert RATES.bound(layer) == ("compute" if compute >= moved else "bandwidth")
    assert {RATES.bound(layer) for layer in layers} == {"compute", "bandwidth"}
    launches = sum(layer.launches for layer in layers)
    assert expected(layers, RATES) == pytest.approx(floor(layers, RATES) / EFFICIENCY + LAUNCH_SECONDS * launches)
