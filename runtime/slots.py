"""Slots: the fixed list of attributes the model answers for, and how answers are read.

Each slot is a distribution over five levels. The score is the expected level of ``quality`` on
1..5, as in Q-Align (arXiv 2312.17090, eq. 2); a severity is the expected level of a degradation, 0..1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = ["DEGRADATIONS", "LEVELS", "SLOTS", "describe", "expected_score", "expected_severity", "softmax", "spoken"]

DEGRADATIONS = ("noise", "blur", "compression", "low_resolution", "low_light", "haze")
SLOTS = ("quality", *DEGRADATIONS)

_QUALITY_LEVELS = ("bad", "poor", "fair", "good", "excellent")
_SEVERITY_LEVELS = ("none", "slight", "moderate", "strong", "severe")
LEVELS: Mapping[str, tuple[str, ...]] = {
    slot: _QUALITY_LEVELS if slot == "quality" else _SEVERITY_LEVELS for slot in SLOTS
}
_PHRASES = {"low_resolution": "low resolution", "low_light": "low light"}


def spoken(slot: str) -> str:
    """A slot's name as people say it."""
    return _PHRASES.get(slot, slot)


def softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Softmax over the last axis, in float64: [..., 5] -> [..., 5]."""
    x = np.asarray(logits, dtype=np.float64)
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return np.asarray(e / e.sum(axis=-1, keepdims=True))


def expected_score(probabilities: NDArray[np.floating]) -> float:
    """Expected quality level, 1 (bad) .. 5 (excellent), of a distribution [5]."""
    return float(np.dot(probabilities, np.arange(1, 6)))


def expected_severity(probabilities: NDArray[np.floating]) -> float:
    """Expected degradation level, 0 (none) .. 1 (severe), of a distribution [5]."""
    return float(np.dot(probabilities, np.arange(5)) / 4)


def describe(probabilities: Mapping[str, NDArray[np.floating]]) -> str:
    """One plain English sentence for the slots.

    Args:
        probabilities: for every name in ``SLOTS`` its distribution, float [5].

    Returns:
        For example ``"Fair quality: strong compression, slight blur; otherwise clean."``
    """
    levels = {slot: int(np.rint(np.dot(probabilities[slot], np.arange(5)))) for slot in SLOTS}
    head = f"{_QUALITY_LEVELS[levels['quality']].capitalize()} quality"
    found = sorted((d for d in DEGRADATIONS if levels[d] > 0), key=lambda d: -levels[d])
    if not found:
        return f"{head}: clean."
    faults = ", ".join(f"{_SEVERITY_LEVELS[levels[d]]} {spoken(d)}" for d in found)
    return f"{head}: {faults}; otherwise clean." if len(found) < len(DEGRADATIONS) else f"{head}: {faults}."
