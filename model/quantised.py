"""Linear layers that store their weights in 8 or 4 bits and compute as before: dequantised layer by layer.

Symmetric, rounded to nearest. int8 has one scale per output channel, int4 one per group of 128 inputs of a channel.
Only storage shrinks; products run in the type of the activations.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from uare_rt.kernels import dispatch

if TYPE_CHECKING:
    from uare_rt.model.unified import UnifiedModel

__all__ = ["GROUP", "QuantisedLinear", "quantise_experts"]

GROUP = 128
_LARGEST = {"int8": 127, "int4": 7}


class QuantisedLinear(nn.Module):
    """A linear layer whose weights are integers.

    Args:
        weight: [outputs, inputs] of a floating type, on the device where the result is to stay.
        bias: [outputs] in the type to compute in, or None.
        kind: ``int8`` or ``int4``.

    Attributes:
        weight: int8 [outputs, inputs], or uint8 [outputs, padded inputs / 2] with the even input in the low four bits.
        scale: float32 [outputs, 1], or bfloat16 [outputs, groups, 1], which has the range for tiny weights.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.inputs = weight.shape[1]
        wide = weight.detach().float()
        if kind == "int4":
            wide = F.pad(wide, (0, -self.inputs % self._group)).unflatten(1, (-1, self._group))
        scale = wide.abs().amax(dim=-1, keepdim=True) / _LARGEST[kind]
        if kind == "int4":
            scale = scale.to(torch.bfloat16)
        # A row or group of zeros has a scale of zero, and stays zero.
        levels = (wide / scale.float().clamp(min=torch.finfo(torch.float32).tiny)).round()
        levels = levels.clamp(-_LARGEST[kind], _LARGEST[kind]).to(torch.int8)
        self.weight = nn.Parameter(levels if kind == "int8" else _packed(levels.flatten(1)), requires_grad=False)
        self.scale = nn.Parameter(scale, requires_grad=False)
        self.register_parameter("bias", None if bias is None else nn.Parameter(bias.detach(), requires_grad=False))

    @property
    def _group(self) -> int:
        """Inputs that share a scale; fewer than 128 only in layers that have fewer, an even number always."""
        return min(GROUP, self.inputs + self.inputs % 2)

    def dequantised(self, dtype: torch.dtype) -> Tensor:
        """The weights that the layer computes with, [outputs, inputs]."""
        if self.kind == "int8":
            return (self.weight * self.scale).to(dtype)
        levels = _unpacked(self.weight).unflatten(1, (-1, self._group))
        return (levels.to(dtype) * self.scale.to(dtype)).flatten(1)[:, : self.inputs]

    def forward(self, x: Tensor) -> Tensor:
        """[..., inputs] -> [..., outputs]."""
        fused = dispatch.linear(x, self.weight, self.scale, self.bias)
        if fused is not None:
            return fused
        return F.linear(x, self.dequantised(x.dtype), self.bias)


def quantise_experts(model: UnifiedModel, kind: str) -> None:
    """Put a `QuantisedLinear` in the place of every linear layer of a model's experts."""
    for layer in model.language.mot.layers:
        layer.fusable = False
        for expert in (layer.und, layer.gen):
            for name, module in list(expert.named_children()):
                if isinstance(module, nn.Linear):
                    setattr(expert, name, QuantisedLinear(module.weight, module.bias, kind))


def _packed(levels: Tensor) -> Tensor:
    """int8 [N, 2 M] of -8..7 -> uint8 [N, M]."""
    low, high = levels[:, ::2] & 15, levels[:, 1::2] & 15
    return (low | (high << 4)).view(torch.uint8)


def _unpacked(packed: Tensor) -> Tensor:
    """uint8 [N, M] -> int8 [N, 2 M] of -8..7."""
    both = torch.stack((packed.view(torch.int8) << 4, packed.view(torch.int8)), dim=-1)
    return (both >> 4).flatten(1)  # an arithmetic shift brings the sign along
