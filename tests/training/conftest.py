"""A recipe and a model small enough to train within a test."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
import yaml

from uare_rt.model.mot import MoTConfig
from uare_rt.model.presets.nano import NanoConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FIELDS: dict[str, Any] = {
    "preset": "uare-nano",
    "seed": 5,
    "steps": 6,
    "warmup_steps": 2,
    "decay_steps": 2,
    "learning_rate": 0.002,
    "context_rate": 0.5,
    "weight_decay": 0.01,
    "clip": 1.0,
    "ema": 0.9,
    "mse_floor": [0.002, 0.0001],
    "floor_steps": 4,
    "assess_weight": 0.2,
    "tone_weight": 0.5,
    "context_dropout": 0.3,
    "photo_scale": 0.4,
    "assess_regions": [48, 64],
    "scales": {
        1: {"weight": 0.6, "region": 48, "size": 32, "batch": 2},
        2: {"weight": 0.2, "region": 32, "size": 16, "batch": 2, "degrade": 0.5},
        4: {"weight": 0.2, "region": 32, "size": 16, "batch": 2, "degrade": 0.5},
    },
    "phases": [
        {"start": 0, "mixtures": [{"min_count": 1, "max_count": 1, "kinds": {"noise": 1.0, "compression": 1.0}}]},
        {
            "start": 3,
            "mixtures": [
                {"weight": 0.7, "min_count": 1, "max_count": 2, "severity": [0.2, 0.9], "second_order": 0.5},
                {"weight": 0.3, "min_count": 0, "max_count": 0},
            ],
            "assess_batch": 1,
            "assess_mixtures": [{"min_count": 1, "max_count": 1, "kinds": {"haze": 1.0}}],
        },
    ],
}


@pytest.fixture
def write_recipe(tmp_path: Path) -> Callable[..., Path]:
    """Writes the small recipe with some fields changed (``None`` leaves one out)."""

    def write(**changes: object) -> Path:
        path = tmp_path / "recipe.yaml"
        fields = {k: v for k, v in {**FIELDS, **changes}.items() if v is not None}
        path.write_text(yaml.safe_dump(fields), "utf-8")
        return path

    return write


@pytest.fixture
def data(tmp_path: Path, photos: list[Path]) -> Path:
    """A directory with the real photos of the test data."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for photo in photos[:3]:
        shutil.copy(photo, folder)
    return folder


@pytest.fixture
def tiny_preset(monkeypatch: pytest.MonkeyPatch) -> Iterator[NanoConfig]:
    """The preset is replaced by a tiny one; PyTorch runs on one thread."""
    config = NanoConfig(
        mot=MoTConfig(hidden=16, layers=2, heads=2, kv_heads=1, head_dim=8, mlp=16),
        vision_channels=(4, 4, 4, 8),
        widths=(8, 8, 8),
        encoder_convs=(1, 1, 1),
        decoder_convs=(1, 1, 1),
        context_vector=8,
        window=2,
        shifted_layers=1,
    )
    monkeypatch.setattr("uare_rt.training.loop.UARE_NANO", config)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield config
    torch.set_num_threads(threads)
