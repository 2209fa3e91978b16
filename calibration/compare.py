"""What a precision costs against float32, on held-out samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from uare_rt.calibration.metrics import psnr, spearman
from uare_rt.calibration.precision import LEAST_SPEARMAN
from uare_rt.calibration.sensitivity import LEAST_FLAWLESS, drops, keeps_flawless, mean_drop

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from uare_rt.calibration.data import Sample
    from uare_rt.calibration.precision import Proved, Typed
    from uare_rt.calibration.sensitivity import Quality

__all__ = ["GraphProof", "compare", "drop", "missed", "nearness", "rank_correlation"]


@dataclass(frozen=True)
class GraphProof:
    """Quality of all graphs in one precision.

    Attributes:
        precision: `fp32`, `fp16`, `int8` or `naive int8`.
        quality: by restore graph.
        conditions: condition of every sample, by restore graph.
        weights: bytes as stored, and in float32.
        pictures: what became of the samples, by restore graph; uint8 [H, W, 3] each.
    """

    precision: str
    quality: Mapping[str, Quality]
    conditions: Mapping[str, tuple[str, ...]]
    weights: tuple[int, int]
    pictures: Mapping[str, Sequence[NDArray[np.uint8]]] = field(default_factory=dict)

    @property
    def scores(self) -> tuple[float, ...]:
        """Scores of all samples."""
        return tuple(score for quality in self.quality.values() for score in quality.scores)

    def to_dict(self, reference: GraphProof) -> dict[str, Any]:
        """For the manifest, beside the proof in float32."""
        graphs = {
            name: {
                "psnr_db": round(float(np.mean(quality.psnr)), 4),
                "ssim": round(float(np.mean(quality.ssim)), 5),
                "samples": len(quality.psnr),
                **_loss(reference.quality[name], quality),
                "to_fp32_db": round(nearness(self, reference, name), 3),
            }
            for name, quality in self.quality.items()
        }
        sizes = {"weight_bytes": self.weights[0], "weight_bytes_fp32": self.weights[1]}
        return {**graphs, "score_rank": round(rank_correlation(self, reference), 4), **sizes}


def _loss(reference: Quality, quality: Quality) -> dict[str, float]:
    """Loss against float32, and what flawless pictures that float32 leaves alone keep at the least, both in dB."""
    found = {"loss_db": round(mean_drop(reference, quality), 4)}
    flawless = np.array(quality.psnr)[reference.unharmed]
    return found | ({"flawless_db": round(float(flawless.min()), 2)} if flawless.size else {})


def compare(
    typed: Typed, proved: Mapping[str, Proved], samples: Mapping[int, Sequence[Sample]], weights: tuple[int, int]
) -> GraphProof:
    """Put together what was measured for one precision."""
    conditions = {
        name: tuple(sample.condition for sample in samples[int(name.removeprefix("restore_x"))]) for name in proved
    }
    quality, pictures = ({n: getattr(p, what) for n, p in proved.items()} for what in ("quality", "pictures"))
    return GraphProof(typed.precision, quality, conditions, weights, pictures)


def drop(proof: GraphProof, reference: GraphProof, graph: str) -> NDArray[np.float64]:
    """Loss of PSNR of every sample that counts, in dB; minus infinity for the others."""
    exact = reference.quality[graph]
    return np.where(exact.counted, drops(exact, proof.quality[graph]), -np.inf)


def nearness(proof: GraphProof, reference: GraphProof, graph: str) -> float:
    """Mean PSNR of the results against those of float32 in dB: what a precision changes, for better or worse."""
    pairs = zip(proof.pictures[graph], reference.pictures[graph], strict=True)
    return float(np.mean([psnr(picture, exact) for picture, exact in pairs]))


def rank_correlation(proof: GraphProof, reference: GraphProof) -> float:
    """Spearman's rank correlation of the scores with those of float32."""
    return spearman(reference.scores, proof.scores)


def missed(proof: GraphProof, reference: GraphProof, budget: float) -> list[str]:
    """Which promises a precision does not keep, each with its figures."""
    problems = []
    for name in proof.quality:
        mean = mean_drop(reference.quality[name], proof.quality[name])
        if mean > budget:
            problems.append(f"{name} in {proof.precision} loses {mean:.3f} dB, the budget is {budget:g} dB")
        if not keeps_flawless(reference.quality[name], proof.quality[name]):
            problems.append(f"{name} in {proof.precision} brings a flawless picture below {LEAST_FLAWLESS:g} dB")
    correlation = rank_correlation(proof, reference)
    if correlation < LEAST_SPEARMAN:
        problems.append(f"scores in {proof.precision} rank with {correlation:.4f}, at least {LEAST_SPEARMAN} is needed")
    if proof.precision != reference.precision and proof.weights[0] >= proof.weights[1]:
        problems.append(f"{proof.precision} is not smaller: {proof.weights[0]} bytes of weights")
    return problems
