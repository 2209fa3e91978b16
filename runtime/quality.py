"""What an assessment says, and the quality context that guides restoration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from uare_rt.errors import UsageError
from uare_rt.questions import Answer, answer
from uare_rt.slots import DEGRADATIONS, LEVELS, SLOTS, describe, expected_score, expected_severity, softmax

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = ["Assessment", "Judgement", "QualityContext", "read_slots"]


@dataclass(frozen=True, eq=False)
class QualityContext:
    """What the understanding pass leaves behind for the generator.

    Attributes:
        k: float32 [layers, kv_heads, tokens, head_dim], keys.
        v: float32, same shape, values.
        vec: float32 [vector], pooled.
    """

    k: NDArray[np.float32]
    v: NDArray[np.float32]
    vec: NDArray[np.float32]

    def blend(self, other: QualityContext, weight: float) -> QualityContext:
        """Move towards another context: ``(1 - weight) * self + weight * other``.

        Applied frame after frame it is an exponential moving average over time.

        Args:
            other: a context of the same model.
            weight: 0 keeps this one, 1 takes the other.

        Raises:
            UsageError: weight is outside 0..1, or the contexts are of different models.
        """
        if not 0.0 <= weight <= 1.0:
            raise UsageError(f"weight is {weight}, but must be from 0 to 1")
        if self.shapes() != other.shapes():
            raise UsageError(f"contexts of different models cannot be blended: {self.shapes()}, {other.shapes()}")
        w = np.float32(weight)
        return QualityContext(
            self.k + w * (other.k - self.k), self.v + w * (other.v - self.v), self.vec + w * (other.vec - self.vec)
        )

    def shapes(self) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """Shapes of ``k``, ``v`` and ``vec``."""
        return self.k.shape, self.v.shape, self.vec.shape

    def finite(self) -> bool:
        """Whether every value is a number."""
        return all(bool(np.isfinite(part).all()) for part in (self.k, self.v, self.vec))

    def inputs(self) -> dict[str, NDArray[np.float32]]:
        """The context as graph inputs."""
        return {"ctx_k": self.k, "ctx_v": self.v, "ctx_vec": self.vec}


@dataclass(frozen=True, eq=False)
class Judgement:
    """How good an image is and what is wrong with it.

    Attributes:
        score: 1 (bad) to 5 (excellent); MOS-like, learned from synthetic degradations, not from human ratings.
        level: the level nearest to the score, in words.
        severities: for every degradation 0 (none) to 1 (severe).
        probabilities: for every slot the probability of each of its five levels.
        description: one sentence for people.
    """

    score: float
    level: str
    severities: dict[str, float]
    probabilities: dict[str, tuple[float, ...]]
    description: str

    def answer(self, question: str) -> Answer:
        """Answer a question in free words from the slots, see `uare_rt.questions`.

        Raises:
            UsageError: the question is empty.
        """
        return answer(question, self.probabilities)

    def to_dict(self) -> dict[str, object]:
        """Ready for JSON."""
        return {
            "score": self.score,
            "level": self.level,
            "severities": dict(self.severities),
            "probabilities": {name: list(row) for name, row in self.probabilities.items()},
            "description": self.description,
        }


def read_slots(rows: Mapping[str, NDArray[np.float64]]) -> dict[str, Any]:
    """The fields of a `Judgement` from the levels' probabilities, float64 [5] for every slot."""
    score = expected_score(rows["quality"])
    return {
        "score": score,
        "level": LEVELS["quality"][round(score) - 1],
        "severities": {name: expected_severity(rows[name]) for name in DEGRADATIONS},
        "probabilities": {name: tuple(float(p) for p in row) for name, row in rows.items()},
        "description": describe(rows),
    }


@dataclass(frozen=True, eq=False)
class Assessment(Judgement):
    """A judgement, and what it leaves for the restoration.

    Attributes:
        context: guides ``Session.restore``.
    """

    context: QualityContext

    @classmethod
    def from_logits(cls, logits: NDArray[np.floating], context: QualityContext) -> Assessment:
        """Read the answer of the ``assess`` graph: float [7, 5], in the order of ``slots.SLOTS``."""
        rows = dict(zip(SLOTS, softmax(logits), strict=True))
        return cls(**read_slots(rows), context=context)
