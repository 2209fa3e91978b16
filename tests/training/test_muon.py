"""Muon: updates are orthogonal matrices of a known size, whatever the layout of the weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from uare_rt.training.muon import Muon, orthogonalised


@pytest.mark.parametrize("shape", [(3, 8, 32), (2, 32, 8), (1, 16, 16)], ids=str)
def test_singular_values_end_near_one_and_vectors_stay(shape: tuple[int, int, int]) -> None:
    matrices = torch.randn(shape)
    result = orthogonalised(matrices)
    values = torch.linalg.svdvals(result)
    assert float(values.min()) > 0.4
    assert float(values.max()) < 1.3
    u, _, vh = torch.linalg.svd(matrices, full_matrices=False)
    inner = u.mT @ result @ vh.mT
    off_diagonal = inner - torch.diag_embed(inner.diagonal(dim1=1, dim2=2))
    assert float(off_diagonal.abs().max()) < 1e-3


def test_an_update_has_the_size_it_should() -> None:
    layer = nn.Conv2d(8, 16, 3)
    before = layer.weight.detach().clone()
    layer.weight.grad = torch.randn_like(layer.weight)
    Muon([layer.weight], lr=0.01).step()
    moved = (layer.weight.detach() - before).square().mean().sqrt()
    assert float(moved) == pytest.approx(0.2 * 0.01, rel=0.25)


def test_layout_in_memory_does_not_matter() -> None:
    results = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        torch.manual_seed(1)
        layer = nn.Conv2d(6, 4, 3).to(memory_format=memory_format)
        optimizer = Muon([layer.weight], lr=0.1, weight_decay=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            layer(torch.ones(1, 6, 5, 5)).square().sum().backward()
            optimizer.step()
        results.append(layer.weight.detach().contiguous())
    torch.testing.assert_close(*results)


def test_it_finds_the_least_squares_solution() -> None:
    wanted = torch.randn(5, 7)
    weight = nn.Parameter(torch.zeros(5, 7))
    optimizer = Muon([weight], lr=0.3)
    for step in range(200):
        for group in optimizer.param_groups:
            group["lr"] = 0.3 * (1 - step / 200)
        optimizer.zero_grad()
        (weight - wanted).square().sum().backward()
        optimizer.step()
    assert float((weight.detach() - wanted).abs().max()) < 0.1
