"""Re-parameterised layers fold into plain ones that compute the same."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from uare_rt.model.nano import UareNano
from uare_rt.model.presets.nano import NanoConfig
from uare_rt.model.reparam import NormedLinear, RepConv2d, fold


def settle(module: nn.Module) -> None:
    """Gives batch norms statistics and weights far from their initial ones."""
    generator = torch.Generator().manual_seed(3)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            layer.running_mean.uniform_(-1, 1, generator=generator)
            layer.running_var.uniform_(0.2, 3, generator=generator)
            if layer.affine:
                with torch.no_grad():
                    layer.weight.uniform_(-1.5, 1.5, generator=generator)
                    layer.bias.uniform_(-1, 1, generator=generator)


@pytest.mark.parametrize(
    ("shape", "branches"),
    [((6, 6, 3, 1, 1), 3), ((6, 8, 3, 1, 1), 2), ((6, 8, 2, 2, 0), 1), ((3, 8, 6, 2, 2), 1), ((6, 4, 1, 1, 0), 1)],
    ids=str,
)
def test_a_convolution_folds_exactly(shape: tuple[int, int, int, int, int], branches: int) -> None:
    torch.manual_seed(1)
    layer = RepConv2d(*shape).double().eval()
    settle(layer)
    assert sum(isinstance(part, nn.BatchNorm2d) for part in layer.modules()) == branches
    x = torch.randn(2, shape[0], 12, 10, dtype=torch.float64)
    plain = layer.folded()
    assert type(plain) is nn.Conv2d
    torch.testing.assert_close(plain(x), layer(x))


def test_a_linear_layer_folds_exactly() -> None:
    torch.manual_seed(1)
    layer = NormedLinear(5, 7).double().eval()
    settle(layer)
    x = torch.randn(2, 3, 5, dtype=torch.float64)
    torch.testing.assert_close(layer.folded()(x), layer(x))


def test_a_whole_model_folds_into_the_plain_one(small: NanoConfig) -> None:
    torch.manual_seed(2)
    model = UareNano(small, reparameterised=True).eval().requires_grad_(False)
    settle(model)
    for parameter in model.parameters():
        if not parameter.any():
            parameter.normal_(std=0.1)
    folded = model.folded()
    plain = UareNano(small).eval()
    plain.load_state_dict(folded.state_dict())  # the names and shapes of a model that never had branches
    assert any(isinstance(part, RepConv2d) for part in model.modules())  # the trained one is left as it was
    frame, views = torch.rand(1, 3, 32, 48), torch.rand(1, 9, 3, 96, 96)
    (logits, context), (expected_logits, expected) = plain.assess(views), model.assess(views)
    torch.testing.assert_close(logits, expected_logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(
        plain.restore(frame, context, 2), model.restore(frame, expected, 2), atol=1e-3, rtol=1e-3
    )


def test_what_needs_no_folding_is_left(small: NanoConfig) -> None:
    model = UareNano(small)
    before = dict(model.named_modules())
    fold(model)
    assert dict(model.named_modules()) == before
