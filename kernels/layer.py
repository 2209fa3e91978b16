"""The MoT layer through the kernels: what `uare_rt.model.mot.MoTLayer` computes, with fewer passes over memory.

Norm, SwiGLU and the finishing of queries and keys take both experts at once; matrix products of the projections stay
torch's own, one per run of an expert.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional as F

from uare_rt.kernels import attention, qk_rope, routed_norm, swiglu, window_attention
from uare_rt.kernels.routing import EXPERTS, Run

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

__all__ = ["forward"]


def forward(
    layer: Any,
    x: Tensor,
    runs: tuple[Run, ...],
    rope: tuple[Tensor, Tensor],
    past: tuple[Tensor, Tensor] | None,
    *,
    ranges: Tensor | None = None,
    valid: Tensor | None = None,
    target: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Run a layer.

    Args:
        layer: a `uare_rt.model.mot.MoTLayer`.
        x: residual stream [B, T, hidden].
        runs: the experts of the T tokens.
        rope: see `uare_rt.kernels.qk_rope.run`.
        past: cached keys and values, [B or 1, kv_heads, S, d] each, of equal strides, or None.
        ranges: see `uare_rt.kernels.attention.run`.
        valid: see `uare_rt.kernels.window_attention.run`; with it the B rows are windows.
        target: whose tiles to use.

    Returns:
        The new stream, and the keys and values of the T tokens, [B, kv_heads, T, d].

    Raises:
        UsageError: a tensor of the wrong shape, dtype, device or stride.
    """
    used = {run.expert for run in runs}
    # An expert that has no tokens here need not be on the device.
    experts = [getattr(layer, EXPERTS[index if index in used else min(used)]) for index in range(2)]

    def pair(name: str) -> tuple[Tensor, Tensor]:
        und, gen = (getattr(expert, name).weight for expert in experts)
        return und, gen

    normed = routed_norm.run(x, pair("input_norm"), runs, experts[0].input_norm.eps, target=target)
    dim = experts[0].q_norm.weight.shape[0]
    q, k, v = (_linear(normed, experts, name, runs).unflatten(2, (-1, dim)) for name in ("q", "k", "v"))
    shape = (x.shape[0], k.shape[2], x.shape[1], dim)
    own = qk_rope.Cache(
        torch.empty(shape, dtype=x.dtype, device=x.device), torch.empty(shape, dtype=x.dtype, device=x.device)
    )
    norms = qk_rope.Norms(pair("q_norm"), pair("k_norm"), experts[0].q_norm.eps)
    query = qk_rope.run(q, k, v, norms, rope, runs, own, target=target)
    if valid is not None and past is not None:
        mixed = window_attention.run(query, own.k, own.v, past, valid, target=target)
    else:
        mixed = attention.run(query, own.k, own.v, past=past, ranges=ranges, target=target)
    x = x + _linear(mixed.transpose(1, 2).flatten(2), experts, "o", runs)
    normed = routed_norm.run(x, pair("mlp_norm"), runs, experts[0].mlp_norm.eps, target=target)
    return x + _linear(_gated(normed, experts, runs, target), experts, "down", runs), own.k, own.v


def _gated(x: Tensor, experts: list[Any], runs: tuple[Run, ...], target: str) -> Tensor:
    plain = all(type(part) is nn.Linear for expert in experts for part in (expert.gate, expert.up))
    if not plain:  # quantised layers bring their own product
        return F.silu(_linear(x, experts, "gate", runs)) * _linear(x, experts, "up", runs)
    gates = (experts[0].gate.weight, experts[1].gate.weight)
    ups = (experts[0].up.weight, experts[1].up.weight)
    shape = x.shape
    if len(runs) == 1:  # rows of all pictures or windows are one run
        runs = (Run(runs[0].expert, shape[0] * shape[1]),)
        x = x.reshape(1, -1, shape[2])
    return swiglu.run(x, gates, ups, runs, target=target).reshape(*shape[:2], -1)


def _linear(x: Tensor, experts: list[Any], name: str, runs: tuple[Run, ...]) -> Tensor:
    def apply(run: Run, part: Tensor) -> Tensor:
        product: Callable[[Tensor], Tensor] = getattr(experts[run.expert], name)
        return product(part)

    parts = [apply(run, part) for run, part in zip(runs, x.split([run.length for run in runs], dim=1), strict=True)]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
