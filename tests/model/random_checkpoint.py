"""Checkpoints of any dimensions with random weights, none of which is trivial."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file

from uare_rt.model.checkpoint import expected_shapes
from uare_rt.model.layout import read_config
from uare_rt.model.tables import sincos_table

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor


def random_checkpoint(target: Path, settings: dict[str, Any], *, seed: int) -> Path:
    """Write ``config.json``, ``ema.safetensors`` and ``ae.safetensors`` into a new directory and return it."""
    target.mkdir()
    (target / "config.json").write_text(json.dumps(settings))
    config = read_config(target, {}, {})
    tables = {"latent_pos_embed.pos_embed": config.latent_side, "vit_pos_embed.pos_embed": config.vision.side}
    generator = torch.Generator().manual_seed(seed)

    def drawn(name: str, shape: tuple[int, ...]) -> Tensor:
        if name in tables:
            return sincos_table(tables[name], config.mot.hidden)
        values = torch.randn(shape, generator=generator)
        if len(shape) == 1:
            return values * 0.2 + (1.0 if name.endswith("weight") else 0.0)
        if "embed" in name and "patch" not in name:
            return values * 0.7
        return values / torch.Size(shape[1:]).numel() ** 0.5

    for name, shapes in zip(("ema", "ae"), expected_shapes(config), strict=True):
        save_file({key: drawn(key, shape) for key, shape in shapes.items()}, target / f"{name}.safetensors")
    return target
