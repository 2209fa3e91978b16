"""Rectified flow as `uare_rt.vlm.flow` defines it for PyTorch and the runtime; schedules as tensors.

PyTorch is imported only where tensors are made, so that a run can be planned without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from uare_rt.vlm.flow import EDITING, Flow, Forecast, Guidance, GuidanceWarning, Renorm, guide, times

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["EDITING", "Flow", "Forecast", "Guidance", "GuidanceWarning", "Renorm", "guide", "schedule", "times"]


def schedule(points: int, shift: float) -> tuple[Tensor, Tensor]:
    """Times of the evaluations and the step that follows each, float32 [points - 1]; arguments as for `times`."""
    import torch

    ends = torch.from_numpy(times(points, shift))
    return ends[:-1], ends[:-1] - ends[1:]
