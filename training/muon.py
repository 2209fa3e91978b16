"""Muon: momentum whose matrices are orthogonalised before they are applied (Jordan et al. 2024).

A kernel counts as the matrix [outputs, inputs x side x side]. Updates have the size that AdamW's usually have, as in
Liu et al. 2025 (arXiv 2502.16982), so that rates compare.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor

__all__ = ["Muon", "orthogonalised"]

_ITERATIONS = 5
_QUINTIC = (3.4445, -4.7750, 2.0315)  # Jordan's coefficients: singular values end between 0.7 and 1.2
_ADAMW_SIZE = 0.2


def orthogonalised(matrices: Tensor) -> Tensor:
    """Matrices with all singular values near 1, by a Newton-Schulz iteration.

    Args:
        matrices: float [N, rows, columns].

    Returns:
        [N, rows, columns] with about the same singular vectors.
    """
    a, b, c = _QUINTIC
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class Muon(torch.optim.Optimizer):
    """Muon over parameters of two or more axes; matrices of one shape are orthogonalised together.

    Args:
        params: parameters, or groups of them.
        lr: rate.
        momentum: decay of the average gradient, applied in Nesterov's way.
        weight_decay: decoupled decay.
    """

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-3, momentum: float = 0.95, weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Apply one update."""
        for group in self.param_groups:
            shapes: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    update = self._momentum(parameter, group["momentum"])
                    shapes.setdefault((update.shape[0], update.shape[1]), []).append((parameter, update))
            for shape, pairs in shapes.items():
                updates = orthogonalised(torch.stack([update for _, update in pairs]))
                size = group["lr"] * _ADAMW_SIZE * math.sqrt(max(shape))
                for (parameter, _), update in zip(pairs, updates, strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.add_(update.reshape(parameter.shape), alpha=-size)

    def _momentum(self, parameter: Tensor, decay: float) -> Tensor:
        gradient = parameter.grad.reshape(parameter.shape[0], -1)  # type: ignore[union-attr]
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(gradient)
        average = state["momentum"].lerp_(gradient, 1 - decay)
        nesterov: Tensor = gradient.lerp(average, decay)
        return nesterov
