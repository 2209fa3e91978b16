"""The understanding encoder against the original code, tensor by tensor."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from uare_rt.errors import InputError
from uare_rt.model.patches import patchify
from uare_rt.model.tables import grid_rows
from uare_rt.model.transforms import normalise, resize

sys.path.insert(0, str(Path(__file__).parent))  # these modules run without any conftest too
from mot_reference import Outputs, Reference

FIXTURES = Path(os.environ.get("UARE_MOT_FIXTURES", Path(__file__).parents[1] / "data" / "mot-tiny"))


@pytest.fixture(scope="module")
def reference() -> Reference:
    return Reference(FIXTURES, "vit")


def run(reference: Reference) -> dict[str, Tensor]:
    vision, image = reference.model.vision, reference.inputs["vit_image"]
    modules = {"post_layernorm": vision.post_norm, "connector": vision.connector}
    modules |= {f"layer{i}": layer for i, layer in enumerate(vision.layers)}
    with torch.no_grad(), Outputs(modules) as caught:
        embedded = vision(image)
        embeddings = vision.embed(image)
    return {
        "patches": patchify(image, vision.config.patch),
        "pos_ids": grid_rows(*vision.grid(image), vision.config.side),
        "embeddings": embeddings,
        "llm_embed": embedded,
        **caught,
    }


@pytest.fixture(scope="module")
def produced(reference: Reference) -> dict[str, Tensor]:
    return run(reference)


def test_no_expected_tensor_is_left_out(reference: Reference, produced: dict[str, Tensor]) -> None:
    assert produced.keys() == reference.expected.keys()


def test_every_tensor_agrees(reference: Reference, produced: dict[str, Tensor]) -> None:
    assert reference.faults(produced) == []


def test_the_encoders_inputs_are_exact(reference: Reference) -> None:
    """Picture -> resized for the autoencoder, and that again for the understanding encoder."""
    config, inputs = reference.model.config, reference.inputs
    fitted = resize(inputs["raw_image"].numpy(), config.vae_transform)
    assert np.array_equal(fitted, inputs["resized_image"].numpy())
    torch.testing.assert_close(normalise(fitted), inputs["vae_image"], rtol=0, atol=2e-7)
    seen = normalise(resize(fitted, config.vit_transform))
    torch.testing.assert_close(seen, inputs["vit_image"], rtol=0, atol=2e-7)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_within_twice_the_reference_error(dtype: torch.dtype) -> None:
    half = Reference(FIXTURES, "vit", dtype)
    assert half.half_faults(run(half)) == []


def test_the_patches_come_from_the_picture(reference: Reference) -> None:
    """The table row of a patch is that of its place, not of its number: a taller crop keeps its rows."""
    vision, image = reference.model.vision, reference.inputs["vit_image"]
    patch = vision.config.patch
    cropped = vision.embed(image[:, : 2 * patch, :patch])
    torch.testing.assert_close(cropped, vision.embed(image)[[0, image.shape[2] // patch]], rtol=1e-5, atol=1e-5)


def test_an_image_beyond_the_patch_table_is_refused(reference: Reference) -> None:
    side = reference.model.vision.config.side * reference.model.vision.config.patch
    patch = reference.model.vision.config.patch
    with pytest.raises(InputError, match=f"at most {side} px"):
        reference.model.vision(torch.zeros(3, patch, side + patch))
    with pytest.raises(InputError, match=f"multiples of {patch} px"):
        reference.model.vision(torch.zeros(3, patch, patch + 1))
