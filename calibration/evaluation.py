"""Quality of the graphs together: assessment and restoration of the same samples, in whatever precision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from uare_rt.calibration.metrics import psnr, ssim
from uare_rt.calibration.sensitivity import Quality
from uare_rt.slots import SLOTS, expected_score, softmax
from uare_rt.views import extract_views

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from uare_rt.calibration.data import Sample

__all__ = ["CONTEXT", "Run", "assess_all", "frame_of", "measure_restoration", "restore_all"]

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
    found = []
    for sample in samples:
        answer = run({"views": extract_views(sample.frame)})
        score = expected_score(softmax(answer["slot_logits"])[SLOTS.index("quality")])
        found.append(Verdict(score, {name: answer[name] for name in CONTEXT}))
    return found


def restore_all(
    run: Callable[[Mapping[str, NDArray[Any]]], dict[str, NDArray[Any]]],
    samples: Sequence[Sample],
    verdicts: Sequence[Verdict],
) -> list[NDArray[np.float32]]:
    """Restore every sample with its context: float32 [scale * H, scale * W, 3], in 8-bit levels, not rounded."""
    return [
        run({"frame": frame_of(sample), **verdict.context})["restored"][0].transpose(1, 2, 0) * np.float32(255)
        for sample, verdict in zip(samples, verdicts, strict=True)
    ]


def measure_restoration(
    run: Callable[[Mapping[str, NDArray[Any]]], dict[str, NDArray[Any]]],
    samples: Sequence[Sample],
    verdicts: Sequence[Verdict],
) -> Quality:
    """Restore every sample with its context and compare with the truth."""
    restored = restore_all(run, samples, verdicts)
    return Quality(
        tuple(psnr(result, sample.truth) for result, sample in zip(restored, samples, strict=True)),
        tuple(ssim(np.clip(result, 0, 255), sample.truth) for result, sample in zip(restored, samples, strict=True)),
        tuple(verdict.score for verdict in verdicts),
        tuple(np.array_equal(sample.frame, sample.truth) for sample in samples),
    )
