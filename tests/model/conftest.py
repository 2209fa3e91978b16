"""Small nano models with weights that let every part matter; makes `mot_reference` importable."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from uare_rt.model.mot import MoTConfig
from uare_rt.model.nano import QualityContext, UareNano
from uare_rt.model.presets.nano import NanoConfig

if TYPE_CHECKING:
    from collections.abc import Callable

sys.path.insert(0, str(Path(__file__).parent))  # importlib mode does not do it by itself


@pytest.fixture(scope="session")
def small() -> NanoConfig:
    """The preset's shape in small: every kind of layer, windows of two tokens."""
    return NanoConfig(
        mot=MoTConfig(hidden=16, layers=3, heads=4, kv_heads=2, head_dim=8, mlp=24),
        vision_channels=(4, 4, 4, 8),
        widths=(8, 8, 8),
        encoder_convs=(2, 1, 1),
        decoder_convs=(1, 2, 1),
        context_vector=8,
        window=2,
        shifted_layers=1,
    )


@pytest.fixture(scope="session")
def random_model() -> Callable[[NanoConfig], UareNano]:
    """Makes a model in float64 whose weights are all random, those that start at zero too."""

    def make(config: NanoConfig) -> UareNano:
        torch.manual_seed(11)
        model = UareNano(config).double().eval().requires_grad_(False)
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
        return model

    return make


@pytest.fixture(scope="session")
def random_context() -> Callable[[UareNano, int], QualityContext]:
    """Makes a random quality context for a batch."""

    def make(model: UareNano, batch: int) -> QualityContext:
        null = model.null_context()
        generator = torch.Generator().manual_seed(12)

        def random(like: torch.Tensor, axis: int) -> torch.Tensor:
            shape = [*like.shape[:axis], batch, *like.shape[axis + 1 :]]
            return torch.randn(shape, generator=generator, dtype=like.dtype)

        return QualityContext(random(null.k, 1), random(null.v, 1), random(null.vec, 0))

    return make
