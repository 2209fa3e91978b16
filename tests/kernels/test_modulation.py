"""Quality modulation, alone and behind a convolution: as exact as torch, in both memory layouts."""

from __future__ import annotations

import pytest
import torch
from harness import DTYPES, READ, TARGET, Memory, as_good_as, doubles
from torch import Tensor

from uare_rt.errors import UsageError
from uare_rt.kernels import modulated_conv, modulation
from uare_rt.kernels.tiles import Tile

TYPES = pytest.mark.parametrize("dtype", DTYPES)
LAST = torch.channels_last


def last(memory: Memory, *shape: int, dtype: torch.dtype) -> Tensor:
    """A poisoned tensor [N, C, H, W] with channels last in memory."""
    batch, channels, height, width = shape
    return memory.normal(batch, height, width, channels, dtype=dtype).permute(0, 3, 1, 2)


@pytest.mark.parametrize("dtype", READ)
@pytest.mark.parametrize("activation", modulation.ACTIVATIONS)
@pytest.mark.parametrize("layout", ["first", "last"])
def test_modulation(dtype: torch.dtype, activation: str, layout: str) -> None:
    memory = Memory()
    shape = (2, 37, 5, 9)
    x, residual = (
        memory.normal(*shape, dtype=dtype) if layout == "first" else last(memory, *shape, dtype=dtype) for _ in range(2)
    )
    scale, shift = memory.normal(2, 74, dtype=dtype).chunk(2, dim=1)  # two halves of one projection, as in the codec
    bias = memory.normal(37, dtype=dtype)
    got = modulation.run(x, scale, shift, bias=bias, residual=residual, activation=activation, target=TARGET)
    own = modulation.reference(x, scale, shift, bias=bias, residual=residual, activation=activation)
    wide = doubles((x, scale, shift, bias, residual))
    exact = modulation.reference(*wide[:3], bias=wide[3], residual=wide[4], activation=activation)
    assert as_good_as(got, own, exact)
    assert got.stride() == x.stride()
    assert memory.intact()


@TYPES
@pytest.mark.parametrize(("inside", "channels", "size"), [(32, 32, (7, 11)), (19, 21, (5, 3)), (40, 8, (1, 13))])
@pytest.mark.parametrize("residual", [False, True])
def test_modulated_conv(dtype: torch.dtype, inside: int, channels: int, size: tuple[int, int], residual: bool) -> None:
    memory = Memory()
    x, weight = last(memory, 2, inside, *size, dtype=dtype), last(memory, channels, inside, 3, 3, dtype=dtype)
    scale, shift = memory.normal(1, 2 * channels, dtype=dtype).chunk(2, dim=1)
    arguments = (x, weight, memory.normal(channels, dtype=dtype), scale, shift)
    extra = last(memory, 2, channels, *size, dtype=dtype) if residual else None
    tile = Tile({"BLOCK_M": 32, "BLOCK_N": 16, "BLOCK_K": 16}, 4, 1)
    got = modulated_conv.run(*arguments, residual=extra, target=TARGET, tile=tile)
    exact = modulated_conv.reference(*doubles(arguments), residual=None if extra is None else extra.double())
    assert as_good_as(got, modulated_conv.reference(*arguments, residual=extra), exact)
    assert got.is_contiguous(memory_format=LAST)
    assert memory.intact()


def test_arguments_that_do_not_fit_are_refused_by_name() -> None:
    x, vector = torch.zeros(2, 4, 3, 3), torch.zeros(1, 4)
    with pytest.raises(UsageError, match=r"modulation: x's stride is .* but must be 1 along the last axis"):
        modulation.run(x[:, :, :, ::2], vector, vector, target=TARGET)
    with pytest.raises(UsageError, match=r"modulation: activation is 'relu', but must be one of none, leaky, silu"):
        modulation.run(x, vector, vector, activation="relu", target=TARGET)
    with pytest.raises(UsageError, match=r"modulation: scale's batch is 3, but must be 1 or 2"):
        modulation.run(x, vector.expand(3, 4), vector.expand(3, 4), target=TARGET)
    weight = torch.zeros(4, 4, 3, 3)
    with pytest.raises(UsageError, match=r"modulated conv: x's stride is .* channels last in memory"):
        modulated_conv.run(x, weight.to(memory_format=LAST), vector[0], vector, vector, target=TARGET)
