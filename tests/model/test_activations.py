"""What the plan says activations hold, against the tensors that PyTorch makes and keeps."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from live_bytes import LiveBytes

from uare_rt.model.checkpoint import load_unified
from uare_rt.model.costs import codec_bytes, kv_bytes, pass_bytes
from uare_rt.model.unified import EMPTY, UnifiedModel

if TYPE_CHECKING:
    from collections.abc import Callable

TINY = Path(__file__).parents[1] / "data" / "mot-tiny"


@pytest.fixture(scope="module")
def model() -> UnifiedModel:
    return load_unified(TINY)[0]


def peak(call: Callable[[], object]) -> int:
    with torch.no_grad(), LiveBytes() as live:
        call()
    return live.peak


def test_reading_a_context(model: UnifiedModel) -> None:
    block = model.text_block([1] * 398)
    planned = pass_bytes(model.config, 400, 4) + 2 * kv_bytes(model.config, 400) * 2
    # Masks and their biases make up the rest in so small a model.
    assert 0.75 < planned / peak(lambda: model.extend(EMPTY, [block])) < 1.25


@pytest.mark.parametrize("branches", [1, 3])
def test_evaluations_of_branches_at_once(model: UnifiedModel, branches: int) -> None:
    context, _ = model.extend(EMPTY, [model.text_block([1, 2, 3])])
    block = model.target_block(torch.zeros(64, model.config.latent_width), 0.5, (8, 8))
    planned = pass_bytes(model.config, block.length, 4, branches)
    assert 0.75 < planned / peak(lambda: model.target_streams([context] * branches, block)) < 1.4


@pytest.mark.parametrize("tile", [None, 96])
@pytest.mark.parametrize("side", [128, 256])
def test_coding_a_picture(model: UnifiedModel, side: int, tile: int | None) -> None:
    config = model.config.codec
    model.codec.tile = tile
    latent = torch.zeros(config.latent_channels, side // config.stride, side // config.stride)
    held = [peak(lambda: model.codec.encode(torch.zeros(3, side, side))), peak(lambda: model.codec.decode(latent))]
    for got, planned in zip(held, codec_bytes(config, side, side, tile), strict=True):
        assert 0.85 < 4 * planned / got < 1.35


def test_attention_in_chunks_bounds_the_scores(model: UnifiedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    block = model.text_block([1] * 398)
    whole = peak(lambda: model.extend(EMPTY, [block]))
    monkeypatch.setattr("uare_rt.model.mot._SCORES", 400 * 4 * 40)
    assert peak(lambda: model.extend(EMPTY, [block])) < 0.6 * whole
