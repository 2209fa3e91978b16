"""Quality of the graphs together: assessment and restoration of the same samples, in whatever precision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from uare_rt.calibration.execution import each
from uare_rt.calibration.metrics import psnr, ssim
from uare_rt.calibration.sensitivity import Quality
from uare_rt.slots import SLOTS, expected_score, softmax
from uare_rt.views import extract_views

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from uare_rt.calibration.data import Sample

__all__ = ["CONTEXT", "Run", "assess_all", "frame_of", "judge", "measure_restoration", "restore_all"]

CONTEXT = ("ctx_k", "ctx_v", "ctx_vec")
Run = "Callable[[Mapping[str, NDArray[Any]]], dict[str, NDArray[Any]]]"
"""Runs a graph on named arrays."""


@dataclass(frozen=True)
class Verdict:
    """What the assessment of a sample leaves behind: the score, and the context as inputs of a restore graph."""

    score: float
    context: dict[str, NDArray[np.float32]]


def frame_of(sample: Sample) -> NDArray[np.float32]:
    """The sample as a restore graph takes it, float32 [1, 3, H, W] in [0, 1]."""
    planes = np.ascontiguousarray(sample.frame.transpose(2, 0, 1)[None], dtype=np.float32)
    planes /= np.float32(255)
    return planes


def assess_all(
    run: Callable[[Mapping[str, NDArray[Any]]], dict[str, NDArray[Any]]], samples: Sequence[Sample]
) -> list[Verdict]:
    """Assess every sample.

    Args:
        run: the assess graph.
        samples: the samples.
    """

    def assess(sample: Sample) -> Verdict:
        answer = run({"views": extract_views(sample.frame)})
        score = expected_score(softmax(answer["slot_logits"])[SLOTS.index("quality")])
        return Verdict(score, {name: answer[name] for name in CONTEXT})

    return each(assess, samples)


def restore_all(
    run: Callable[[Mapping[str, NDArray[Any]]], dict[str, NDArray[Any]]],
    samples: Sequence[Sample],
    verdicts: Sequence[Verdict],
) -> list[NDArray[np.float32]]:
    """Restore every sample with its context: float32 [scale * H, scale * W, 3], in 8-bit levels, not rounded."""

    def restore(pair: tuple[Sample, Verdict]) -> NDArray[np.float32]:
        sample, verdict = pair
        restored = run({"frame": frame_of(sample), **verdict.context})["restored"][0]
        return np.asarray(restored.transpose(1, 2, 0) * np.float32(255))

    return each(restore, zip(samples, verdicts, strict=True))


def measure_restoration(
    run: Callable[[Mapping[str, NDArray[Any]]], dict[str, NDArray[Any]]],
    samples: Sequence[Sample],
    verdicts: Sequence[Verdict],
) -> Quality:
    """Restore every sample with its context and compare with the truth."""
    return judge(restore_all(run, samples, verdicts), samples, verdicts)


def judge(restored: Sequence[NDArray[np.floating]], samples: Sequence[Sample], verdicts: Sequence[Verdict]) -> Quality:
    """Compare what `restore_all` made of samples with their truth."""

    def near(pair: tuple[NDArray[np.floating], Sample]) -> tuple[float, float]:
        result, sample = pair
        return psnr(result, sample.truth), ssim(np.clip(result, 0, 255), sample.truth)

    found = each(near, zip(restored, samples, strict=True))
    return Quality(
        tuple(signal for signal, _ in found),
        tuple(likeness for _, likeness in found),
        tuple(verdict.score for verdict in verdicts),
        tuple(np.array_equal(sample.frame, sample.truth) for sample in samples),
        tuple(sample.before for sample in samples),
    )
