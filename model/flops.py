"""Counting the arithmetic of `uare-nano`, part by part."""

from __future__ import annotations

import copy

import torch
from torch.utils.flop_counter import FlopCounterMode

from uare_rt.model.nano import LATENT_STRIDE, UareNano

__all__ = ["restore_flops"]

_SIDE = 256


def restore_flops(model: UareNano, scale: int = 1) -> dict[str, float]:
    """FLOPs per output pixel of the restore graph (a multiply-add counts as two).

    Args:
        model: any weights.
        scale: output scale.

    Returns:
        ``total``, and its part ``mot`` (the gen expert's layers).
    """
    probe = copy.deepcopy(model).requires_grad_(False)
    context = probe.null_context()
    side = _SIDE // LATENT_STRIDE
    pixels = (_SIDE * scale) ** 2
    with torch.no_grad(), FlopCounterMode(display=False) as total:
        probe.restore(torch.zeros(1, 3, _SIDE, _SIDE), context, scale)
    with torch.no_grad(), FlopCounterMode(display=False) as mot:
        probe.generate(torch.zeros(1, model.config.mot.hidden, side, side), context)
    return {"total": total.get_total_flops() / pixels, "mot": mot.get_total_flops() / pixels}
