"""Structural re-parameterisation (RepVGG, Ding et al. 2021): branches while training, one convolution after.

Batch normalisation and parallel 1x1 and identity branches speed up and steady the training of plain
convolutional networks; all of them are linear at inference, so they fold exactly into one convolution.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["NormedLinear", "RepConv2d", "fold"]


def _folded(weight: Tensor, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    assert norm.running_var is not None
    assert norm.running_mean is not None
    factor = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    return weight * factor[:, None, None, None], norm.bias - norm.running_mean * factor


class RepConv2d(nn.Module):
    """A convolution with batch normalisation and, where the shape allows, 1x1 and identity branches.

    Args:
        inputs: channels in.
        outputs: channels out.
        kernel: side of the kernel. A 3x3 one of stride 1 gets a 1x1 branch, and an identity branch where
            ``inputs == outputs``.
        stride: stride.
        padding: zeros around the input.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, padding: int = 0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        self.norm = nn.BatchNorm2d(outputs)
        nn.init.kaiming_normal_(self.conv.weight)
        branched = kernel == 3 and stride == 1
        self.point = nn.Conv2d(inputs, outputs, 1, bias=False) if branched else None
        self.point_norm = nn.BatchNorm2d(outputs) if branched else None
        self.skip_norm = nn.BatchNorm2d(outputs) if branched and inputs == outputs else None

    def forward(self, x: Tensor) -> Tensor:
        """[N, inputs, H, W] -> [N, outputs, H', W']."""
        y: Tensor = self.norm(self.conv(x))
        if self.point is not None and self.point_norm is not None:
            y = y + self.point_norm(self.point(x))
        if self.skip_norm is not None:
            y = y + self.skip_norm(x)
        return y

    @torch.no_grad()
    def folded(self) -> nn.Conv2d:
        """The one convolution that computes the same with the running statistics."""
        conv = self.conv
        side, middle = conv.kernel_size[0], conv.kernel_size[0] // 2
        plain = nn.Conv2d(conv.in_channels, conv.out_channels, side, conv.stride, conv.padding)  # type: ignore[arg-type]
        weight, bias = _folded(conv.weight, self.norm)
        branches = []
        if self.point is not None and self.point_norm is not None:
            branches.append(_folded(self.point.weight, self.point_norm))
        if self.skip_norm is not None:
            eye = torch.eye(conv.in_channels, device=weight.device)[..., None, None]
            branches.append(_folded(eye, self.skip_norm))
        for kernel, shift in branches:
            weight[..., middle : middle + 1, middle : middle + 1] += kernel
            bias = bias + shift
        plain.to(weight)
        plain.weight.copy_(weight)
        plain.bias.copy_(bias)
        return plain


class NormedLinear(nn.Module):
    """A linear layer whose inputs are standardised by batch statistics.

    Args:
        inputs: features in.
        outputs: features out.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(inputs, affine=False)
        self.linear = nn.Linear(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """[..., inputs] -> [..., outputs]."""
        y: Tensor = self.linear(self.norm(x.flatten(0, -2)))
        return y.unflatten(0, x.shape[:-1])

    @torch.no_grad()
    def folded(self) -> nn.Linear:
        """The one linear layer that computes the same with the running statistics."""
        norm, linear = self.norm, self.linear
        assert norm.running_var is not None
        assert norm.running_mean is not None
        plain = nn.Linear(linear.in_features, linear.out_features).to(linear.weight)
        plain.weight.copy_(linear.weight / torch.sqrt(norm.running_var + norm.eps))
        plain.bias.copy_(linear.bias - plain.weight @ norm.running_mean)
        return plain


def fold(module: nn.Module) -> None:
    """Replace every re-parameterised layer below ``module`` by its folded one, in place."""
    for name, child in module.named_children():
        if isinstance(child, RepConv2d | NormedLinear):
            setattr(module, name, child.folded())
        else:
            fold(child)
