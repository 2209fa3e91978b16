"""The autoencoder against the original code, tensor by tensor."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from uare_rt.model.patches import patchify, unpatchify

sys.path.insert(0, str(Path(__file__).parent))  # these modules run without any conftest too
from mot_reference import Outputs, Reference

FIXTURES = Path(os.environ.get("UARE_MOT_FIXTURES", Path(__file__).parents[1] / "data" / "mot-tiny"))


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference(FIXTURES, "vae")


@pytest.fixture(scope="module")
def produced(reference: Reference) -> dict[str, Tensor]:
    model, inputs = reference.model, reference.inputs
    codec, patch = model.codec, model.config.latent_patch
    modules = {"encoder.mid_attn_out": codec.encoder.mid.attn_1, "moments": codec.encoder}
    with torch.no_grad(), Outputs(modules) as caught:
        latent = codec.encode(inputs["vae_image"])
        sampled = codec.encode(inputs["vae_image"], inputs["vae_eps"])
        decoded = codec.decode(latent)
    found = {name: tensor[0] for name, tensor in caught.items()}
    mean, log_variance = found["moments"].chunk(2)
    return found | {
        "mean": mean,
        "logvar": log_variance,
        "latent_mean": latent,
        "latent_sampled": sampled,
        "tokens_mean": patchify(latent, patch),
        "tokens_sampled": patchify(sampled, patch),
        "decode_of_latent_mean": decoded,
    }


def test_no_expected_tensor_is_left_out(reference: Reference, produced: dict[str, Tensor]) -> None:
    assert produced.keys() == reference.expected.keys()


def test_every_tensor_agrees(reference: Reference, produced: dict[str, Tensor]) -> None:
    assert reference.faults(produced) == []


def test_latent_tokens_are_put_back_in_place(reference: Reference) -> None:
    latent, patch = reference.expected["latent_mean"], reference.model.config.latent_patch
    grid = (latent.shape[1] // patch, latent.shape[2] // patch)
    assert torch.equal(unpatchify(patchify(latent, patch), grid, patch), latent)
