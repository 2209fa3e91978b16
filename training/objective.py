"""The training objective: restoration in the log domain beside level classification."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from uare_rt.model.nano import QualityContext, UareNano
from uare_rt.training.recipe import Recipe
from uare_rt.training.samples import Batch

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Losses", "objective", "to_image_tensor"]

_DISTINCT = 0.25  # levels of quality between two pictures that are worth comparing
_COMPARED_OVER = 0.25  # levels of difference at which a comparison is 73 % sure


@dataclass(frozen=True)
class Losses:
    """Scalar losses of one batch: what is minimised, and its parts; None where a part does not learn in this step."""

    total: Tensor
    restore: Tensor
    tone: Tensor | None
    assess: Tensor | None


def to_image_tensor(images: NDArray[np.uint8]) -> Tensor:
    """uint8 [B, H, W, 3] array -> float32 [B, 3, H, W] in [0, 1], channels last in memory."""
    return (
        torch.from_numpy(np.require(images, requirements="W"))
        .permute(0, 3, 1, 2)
        .float()
        .div_(255)
        .contiguous(memory_format=torch.channels_last)
    )


def _with_nulls(context: QualityContext, null: QualityContext, dropped: Tensor) -> QualityContext:
    rows = dropped[None, :, None, None, None]
    return QualityContext(
        torch.where(rows, null.k, context.k),
        torch.where(rows, null.v, context.v),
        torch.where(dropped[:, None], null.vec, context.vec),
    )


def _log_error(restored: Tensor, targets: Tensor, floor: float) -> Tensor:
    return torch.log((restored - targets).square().flatten(1).mean(1) + floor).mean()


def _comparison(logits: Tensor, levels: Tensor) -> Tensor:
    """Telling which of two pictures is better, over all pairs of a batch whose qualities differ enough.

    Bradley and Terry's model on the difference of expected levels.

    Args:
        logits: of the quality slot, [N, 5].
        levels: targets, [N, 5].
    """
    scale = torch.arange(levels.shape[1], dtype=levels.dtype)
    expected, wanted = logits.softmax(dim=-1) @ scale, levels @ scale
    found, truth = expected[:, None] - expected, wanted[:, None] - wanted
    better = truth >= _DISTINCT
    return (F.softplus(-found / _COMPARED_OVER) * better).sum() / better.sum().clamp_min(1)


def objective(model: UareNano, batch: Batch, recipe: Recipe) -> Losses:
    """Forward pass and losses of one batch.

    Assessment: cross-entropy with soft levels, summed over slots, and comparisons. Restoration: the mean over
    samples of ln(MSE + floor), so that dark, hazy and clean pictures weigh alike (a step of 1 dB is worth the same
    everywhere); samples better than the floor pull less. The tone operator learns from thumbnails, in which
    only tone is left to mend; the codec gets its output as given, or dark and hazy pictures would drown what
    is local. In steps in which assessment does not learn (``Recipe.assesses``), the context is taken as given.
    """
    floor, assesses = recipe.floor(batch.step), recipe.assesses(batch.step)
    views = to_image_tensor(batch.views.reshape(-1, *batch.views.shape[2:])).unflatten(0, batch.views.shape[:2])
    with torch.set_grad_enabled(assesses):
        logits, context = model.assess(views)
    if batch.dropped.any():
        context = _with_nulls(context, model.null_context(), torch.from_numpy(batch.dropped))
    tone = assess = None
    if assesses:
        levels = torch.from_numpy(batch.levels)
        assess = F.cross_entropy(logits.flatten(0, 1), levels.flatten(0, 1)) * logits.shape[1]
        if recipe.compare_weight:
            assess = assess + recipe.compare_weight * _comparison(logits[:, 0], levels[:, 0])
        tone = _log_error(model.tone(views[:, 0], context.vec), to_image_tensor(batch.thumbnails), floor)
    frames, targets = to_image_tensor(batch.frames), to_image_tensor(batch.targets)
    count = len(frames)
    context = QualityContext(context.k[:, :count], context.v[:, :count], context.vec[:count])
    with torch.no_grad():
        base = model.tone(frames, context.vec)
    restore = _log_error(model.repair(base, context, batch.scale), targets, floor)
    if assess is None or tone is None:
        return Losses(restore, restore.detach(), None, None)
    total = restore + recipe.tone_weight * tone + recipe.assess_weight * assess
    return Losses(total, restore.detach(), tone.detach(), assess.detach())
