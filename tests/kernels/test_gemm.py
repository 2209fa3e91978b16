"""Quantised products: exact up to the activations' type, for any size, in the layout of the model's own layers."""

from __future__ import annotations

import pytest
import torch
from harness import DTYPES, TARGET, Memory, as_good_as
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from uare_rt.errors import UsageError
from uare_rt.kernels import dispatch, gemm, gemm_w8a8
from uare_rt.kernels.tiles import Tile
from uare_rt.model.quantised import QuantisedLinear

TYPES = pytest.mark.parametrize("dtype", DTYPES)
KINDS = pytest.mark.parametrize("kind", ["int8", "int4"])


def layer(memory: Memory, channels: int, width: int, kind: str) -> tuple[Tensor, Tensor, Tensor]:
    made = QuantisedLinear(torch.randn(channels, width), None, kind)
    return memory.put(made.weight.data), memory.put(made.scale.data), made.dequantised(torch.float32).double()


@TYPES
@KINDS
@pytest.mark.parametrize(("rows", "width", "channels"), [(1, 256, 40), (5, 123, 17), (19, 300, 33), (3, 37, 9)])
def test_weight_only(dtype: torch.dtype, kind: str, rows: int, width: int, channels: int) -> None:
    memory = Memory()
    weight, scale, exact_weight = layer(memory, channels, width, kind)
    x, bias = memory.normal(rows, width, dtype=dtype), memory.normal(channels, dtype=dtype)
    got = gemm.run(x, weight, scale, bias, target=TARGET)
    exact = gemm.reference(x.double(), weight, scale, bias.double())
    own = torch.nn.functional.linear(x, exact_weight.to(dtype), bias)
    assert as_good_as(got, own, exact)
    assert torch.allclose(x.double() @ exact_weight.T + bias.double(), exact, rtol=1e-5, atol=1e-5)
    assert memory.intact()


@settings(max_examples=10, deadline=None)
@given(
    shape=st.lists(st.integers(1, 3), max_size=2),
    width=st.integers(1, 290),
    channels=st.integers(1, 40),
    kind=st.sampled_from(["int8", "int4"]),
    block=st.sampled_from([32, 64, 128]),
)
def test_any_size_and_leading_axes(shape: list[int], width: int, channels: int, kind: str, block: int) -> None:
    memory = Memory(width)
    weight, scale, exact = layer(memory, channels, width, kind)
    x = memory.normal(*shape, 2, width, dtype=torch.float32)
    got = gemm.run(x, weight, scale, target=TARGET, tile=Tile({"BLOCK_M": 16, "BLOCK_N": 16, "BLOCK_K": block}, 4, 2))
    assert got.shape == (*shape, 2, channels)
    assert torch.allclose(got.double(), x.double() @ exact.T, rtol=1e-5, atol=1e-4)
    assert memory.intact()


@TYPES
@pytest.mark.parametrize(("rows", "width", "channels"), [(1, 256, 40), (21, 123, 17)])
def test_int8_by_int8(dtype: torch.dtype, rows: int, width: int, channels: int) -> None:
    memory = Memory()
    weight, scale, _ = layer(memory, channels, width, "int8")
    x, bias = memory.normal(rows, width, dtype=dtype), memory.normal(channels, dtype=dtype)
    x[0, : width // 2] = 0
    got = gemm_w8a8.run(x, weight, scale, bias, target=TARGET)
    # The sums are exact: only levels on the edge of two may differ, by the division's last bit.
    assert torch.allclose(got, gemm_w8a8.reference(x, weight, scale, bias), rtol=2e-3, atol=2e-2)
    plain = x.double() @ (weight.double() * scale.double()).T + bias.double()
    assert float((got.double() - plain).square().mean().sqrt() / plain.square().mean().sqrt()) < 0.02
    assert memory.intact()


def test_a_row_of_zeros_stays_zero() -> None:
    weight, scale = torch.ones(4, 32, dtype=torch.int8), torch.ones(4)
    assert gemm_w8a8.run(torch.zeros(2, 32), weight, scale, target=TARGET).tolist() == [[0.0] * 4] * 2


def test_arguments_that_do_not_fit_are_refused_by_name() -> None:
    x, weight, scale = torch.zeros(2, 256), torch.zeros(4, 128, dtype=torch.uint8), torch.zeros(4, 2)
    with pytest.raises(UsageError, match=r"gemm: weight's shape is \[4, 128\], but must be \[4, 192\]"):
        gemm.run(torch.zeros(2, 300), weight, scale, target=TARGET)
    with pytest.raises(UsageError, match=r"gemm: scale's shape is \[4, 1\], but must be \[4, 2\]"):
        gemm.run(x, weight, scale[:, :1].contiguous(), target=TARGET)
    with pytest.raises(UsageError, match="gemm: weight's dtype is float32, but must be int8 or uint8"):
        gemm.run(x, weight.float(), scale, target=TARGET)
    with pytest.raises(UsageError, match="gemm w8a8: weight's dtype is uint8, but must be int8"):
        gemm_w8a8.run(torch.zeros(2, 128), weight, scale[:, 0].contiguous(), target=TARGET)


@KINDS
def test_the_models_quantised_layer_gives_the_same_either_way(kind: str) -> None:
    made = QuantisedLinear(torch.randn(24, 200), torch.randn(24), kind)
    x = torch.randn(2, 3, 200)
    with dispatch.using("triton"):
        got = made(x)
    assert torch.allclose(got, made(x), rtol=1e-3, atol=1e-2)
