"""Components loaded when they are used and released after: the same results from fewer weights at a time."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from uare_rt.model.checkpoint import load_unified
from uare_rt.model.flow import Flow, Guidance
from uare_rt.model.memory import MemoryOptions, Sizes, loaded_bytes, weight_bytes
from uare_rt.model.residency import resident_bytes
from uare_rt.model.sampling import read_branches, sample
from uare_rt.model.unified import UnifiedModel

TINY = Path(__file__).parents[1] / "data" / "mot-tiny"
GUIDANCE = Guidance(4.0, 2.0, "text_channel")
FLOAT = Sizes(4, 4)


@pytest.fixture(scope="module")
def inputs() -> dict[str, Tensor]:
    return load_file(TINY / "inputs.safetensors")


@torch.no_grad()
def restored(model: UnifiedModel, inputs: dict[str, Tensor]) -> tuple[Tensor, dict[str, int]]:
    """A picture, and the bytes of weights that were there while each component ran."""
    peaks: dict[str, int] = {}

    def watch(name: str) -> object:
        def hook(*_: object) -> None:
            peaks[name] = max(peaks.get(name, 0), resident_bytes(model))

        return hook

    parts = ("vision", "codec.encoder", "codec.decoder", "language.mot.layers.0", "language.mot.layers.0.und.gate")
    # Loading comes before in the order of hooks.
    handles = [model.get_submodule(part).register_forward_pre_hook(watch(part)) for part in parts]
    latent = model.codec.encode(inputs["vae_image"])
    text = model.text_block(inputs["edit_ids"].tolist())
    blocks = [model.latent_block(latent), model.vision_block(inputs["vit_image"]), text]
    tokens = sample(model, read_branches(model, blocks, GUIDANCE), inputs["noise"], (5, 6), Flow(3, 3.0, GUIDANCE))
    picture = model.picture(tokens, (5, 6))
    for handle in handles:
        handle.remove()
    return picture, peaks


@pytest.fixture(scope="module")
def whole(inputs: dict[str, Tensor]) -> tuple[Tensor, int]:
    model, _ = load_unified(TINY)
    return restored(model, inputs)[0], resident_bytes(model)


@pytest.mark.parametrize("weights", ["same", "int4"])
@pytest.mark.parametrize("residency", ["encoders", "one"])
@pytest.mark.parametrize("stream", [False, True])
def test_results_are_those_of_a_model_that_is_all_there(
    inputs: dict[str, Tensor], whole: tuple[Tensor, int], weights: str, residency: str, stream: bool
) -> None:
    expected = whole[0]
    if weights != "same":
        expected, _ = restored(load_unified(TINY, memory=MemoryOptions(weights))[0], inputs)
    options = MemoryOptions(weights, residency=residency, stream_und_mlp=stream)
    model, _ = load_unified(TINY, memory=options)
    picture, _ = restored(model, inputs)
    assert torch.equal(picture, expected)
    again, peaks = restored(model, inputs)
    assert torch.equal(again, expected)
    # The tables are buffers, counted by neither side; scales and small vectors are not in the plan.
    parts = weight_bytes(model.config, options, FLOAT)
    allowed = 1.05 * (loaded_bytes(model.config, options, FLOAT) - parts["tables"]) + 4096
    if weights == "same":
        assert max(peaks.values()) <= allowed


def test_encoders_are_there_for_their_calls_alone(inputs: dict[str, Tensor], whole: tuple[Tensor, int]) -> None:
    model, _ = load_unified(TINY, memory=MemoryOptions(residency="encoders"))
    called = [p for part in (model.vision, model.codec) for p in part.parameters()]
    assert all(p.is_meta for p in called)
    _, peaks = restored(model, inputs)
    assert all(p.is_meta for p in called)
    assert not any(p.is_meta for p in model.language.parameters())
    parts = {name: sum(p.nbytes for p in load_unified(TINY)[0].get_submodule(name).parameters()) for name in peaks}
    for name in ("vision", "codec.encoder", "codec.decoder"):
        assert peaks[name] == resident_bytes(model) + parts[name]
    assert peaks["language.mot.layers.0"] == resident_bytes(model) < whole[1]


def test_the_decoder_makes_room_for_the_encoders(inputs: dict[str, Tensor]) -> None:
    model, _ = load_unified(TINY, memory=MemoryOptions(residency="one"))
    start = resident_bytes(model)
    _, peaks = restored(model, inputs)
    assert all(p.is_meta for p in model.language.mot.layers.parameters())
    assert resident_bytes(model) == start
    sizes = {
        name: sum(p.nbytes for p in model.get_submodule(name).parameters()) for name in ("vision", "codec.decoder")
    }
    assert {name: peaks[name] - start for name in sizes} == sizes


def test_the_und_mlp_is_there_one_matrix_at_a_time(inputs: dict[str, Tensor], whole: tuple[Tensor, int]) -> None:
    model, _ = load_unified(TINY, memory=MemoryOptions(stream_und_mlp=True))
    mlps = [
        p
        for layer in model.language.mot.layers
        for m in (layer.und.gate, layer.und.up, layer.und.down)
        for p in m.parameters()
    ]
    assert all(p.is_meta for p in mlps)
    assert resident_bytes(model) == whole[1] - sum(p.nbytes for p in mlps)
    _, peaks = restored(model, inputs)
    assert peaks["language.mot.layers.0.und.gate"] == resident_bytes(model) + mlps[0].nbytes


def test_a_failed_call_releases_too(inputs: dict[str, Tensor]) -> None:
    model, _ = load_unified(TINY, memory=MemoryOptions(residency="encoders"))
    start = resident_bytes(model)
    with pytest.raises(RuntimeError):
        model.codec.decoder(torch.zeros(1, 99, 4, 4))
    assert resident_bytes(model) == start
