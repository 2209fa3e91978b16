"""Untrained weights with every part at work, and the bundles made of them."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
import pytest
import torch

from uare_rt.export import bundling
from uare_rt.export.graphs import NanoGraph
from uare_rt.export.tracing import trace
from uare_rt.model.mot import MoTConfig
from uare_rt.model.nano import UareNano
from uare_rt.model.presets.nano import UARE_NANO, NanoConfig
from uare_rt.model.weights import save_nano

if TYPE_CHECKING:
    from collections.abc import Iterator

SMALL = NanoConfig(
    mot=MoTConfig(hidden=32, layers=2, heads=2, kv_heads=1, head_dim=16, mlp=32),
    vision_channels=(8, 8, 8, 8),
    widths=(8, 8, 16),
    encoder_convs=(1, 1, 1),
    decoder_convs=(1, 1, 1),
    context_vector=32,
    window=2,
    shifted_layers=1,
)


def weights(config: NanoConfig, path: Path) -> Path:
    torch.manual_seed(21)
    model = UareNano(config)
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)
    save_nano(model, path, {"recipe": "0" * 64, "steps": 3})
    return path


@pytest.fixture(scope="session")
def one_scale() -> Iterator[None]:
    """Exports hold x1 only: tracing is what takes the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bundling, "SCALES", (1,))
        yield


@pytest.fixture(scope="session")
def small_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a small model."""
    return weights(SMALL, tmp_path_factory.mktemp("small") / "weights.safetensors")


@pytest.fixture(scope="session")
def preset_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of the real preset."""
    return weights(UARE_NANO, tmp_path_factory.mktemp("preset") / "weights.safetensors")


@pytest.fixture(scope="session")
def small_traces() -> dict[str, onnx.ModelProto]:
    """The traced graphs of the small model by name, filled when its bundle is made."""
    return {}


@pytest.fixture(scope="session")
def small_bundle(small_weights: Path, one_scale: None, small_traces: dict[str, onnx.ModelProto]) -> Path:
    """The small model, exported."""

    def kept(graph: NanoGraph) -> onnx.ModelProto:
        small_traces[graph.name] = trace(graph)
        return copy.deepcopy(small_traces[graph.name])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bundling, "trace", kept)
        return bundling.export_bundle(small_weights, small_weights.with_name("small.uare"))


@pytest.fixture(scope="session")
def preset_bundle(preset_weights: Path, one_scale: None, data_dir: Path) -> Path:
    """The real preset, exported and compared on real photos."""
    return bundling.export_bundle(
        preset_weights, preset_weights.with_name("preset.uare"), real_images=data_dir / "photos"
    )
