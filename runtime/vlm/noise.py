"""Seeded noise that is the same wherever a model runs.

Philox is a counter (Salmon et al., SC 2011) whose raw numbers NumPy guarantees for all its versions; normal numbers
are made of them here (Box and Muller 1958), for those that NumPy makes itself may change with its version.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from uare_rt.errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Noise"]

_LARGEST_SEED = 2**64 - 1


class Noise:
    """A stream of random numbers; what is drawn depends on the seed and on what was drawn before.

    Args:
        seed: 0 to 2^64 - 1.

    Raises:
        UsageError: a seed out of that range.
    """

    def __init__(self, seed: int) -> None:
        if not 0 <= seed <= _LARGEST_SEED:
            raise UsageError(f"the seed is {seed}, but must be from 0 to {_LARGEST_SEED}")
        self._source = np.random.Philox(key=seed)

    def uniform(self, count: int) -> NDArray[np.float64]:
        """``count`` numbers in [0, 1), of 53 bits."""
        raw = np.asarray(self._source.random_raw(count))
        return np.asarray((raw >> np.uint64(11)).astype(np.float64) * 2.0**-53)

    def normal(self, *shape: int) -> NDArray[np.float32]:
        """Standard normal numbers of a shape."""
        count = int(np.prod(shape))
        half = -(-count // 2)
        radius = np.sqrt(-2 * np.log(1 - self.uniform(half)))
        angle = 2 * np.pi * self.uniform(half)
        pairs = np.concatenate((radius * np.cos(angle), radius * np.sin(angle)))
        return pairs[:count].astype(np.float32).reshape(shape)
