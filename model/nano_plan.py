"""How fast `uare-nano` can be on a device that is not here: a roofline, and what to expect of it.

Every layer takes the longer of its operations at the device's peak and its bytes at full bandwidth: the floor. What to
expect is the floor over an assumed efficiency, and a launch for every kernel. The same method on this machine's
processor, with its peak measured, says how far such a floor is from what is real.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from uare_rt.model.nano_costs import Layer

__all__ = ["EFFICIENCY", "LAUNCH_SECONDS", "Rates", "expected", "floor"]

EFFICIENCY = 0.5
"""Assumed share of the floor's speed: small layers fill a GPU badly. `--device this` tells that of a processor."""
LAUNCH_SECONDS = 3e-6
"""Assumed for every kernel, without a CUDA graph."""


@dataclass(frozen=True)
class Rates:
    """What a device does at most, in one precision.

    Attributes:
        flops: operations per second.
        eight_bit: the same in layers that may run in 8 bits.
        bandwidth: bytes per second.
        number: bytes of a value or weight.
        eight_bit_number: the same in these layers.
    """

    flops: float
    eight_bit: float
    bandwidth: float
    number: float
    eight_bit_number: float

    def seconds(self, layer: Layer) -> float:
        """A layer takes at the least."""
        return max(layer.flops / self._peak(layer), self.bytes(layer) / self.bandwidth)

    def bytes(self, layer: Layer) -> float:
        """A layer moves at the least."""
        return (layer.values + layer.weights) * (self.eight_bit_number if layer.eight_bit else self.number)

    def bound(self, layer: Layer) -> str:
        """What limits a layer: ``compute`` or ``bandwidth``."""
        return "compute" if layer.flops / self._peak(layer) >= self.bytes(layer) / self.bandwidth else "bandwidth"

    def _peak(self, layer: Layer) -> float:
        return self.eight_bit if layer.eight_bit else self.flops


def floor(layers: Sequence[Layer], rates: Rates) -> float:
    """Seconds that a frame takes at the least."""
    return sum(rates.seconds(layer) for layer in layers)


def expected(layers: Sequence[Layer], rates: Rates) -> float:
    """Seconds to expect for a frame: `EFFICIENCY` and `LAUNCH_SECONDS` are assumptions, nothing was measured."""
    return floor(layers, rates) / EFFICIENCY + LAUNCH_SECONDS * sum(layer.launches for layer in layers)
