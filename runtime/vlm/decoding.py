"""Picking the next token."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from uare_rt.errors import UsageError
from uare_rt.slots import softmax

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from uare_rt.vlm.noise import Noise

__all__ = ["LIMIT", "check_decoding", "pick"]

LIMIT = 1000
"""Tokens of an answer, at most, unless asked otherwise."""


def check_decoding(temperature: float, limit: int) -> None:
    """Refuse settings that cannot be used.

    Raises:
        UsageError: a negative temperature, or no token is asked for.
    """
    if not 0 <= temperature < np.inf:
        raise UsageError(f"temperature is {temperature}, but must be at least 0 (0 picks the most likely token)")
    if limit < 1:
        raise UsageError(f"the limit is {limit} tokens, but must be at least 1")


def pick(logits: NDArray[np.float32], temperature: float, noise: Noise) -> int:
    """The next token: the most likely one, or one sampled from the softmax of ``logits / temperature``.

    Args:
        logits: [vocabulary].
        temperature: 0 for the most likely.
        noise: one number is drawn from it for a sample.
    """
    if not temperature:
        return int(logits.argmax())
    likely = np.cumsum(softmax(logits.astype(np.float64) / temperature))
    # The last sum may be a hair below 1.
    return min(int(np.searchsorted(likely, noise.uniform(1)[0], side="right")), len(likely) - 1)
