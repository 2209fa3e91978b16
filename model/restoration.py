"""Restoring a picture with the unified model: context, flow, picture at the input's size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from uare_rt.model.assessment import picture_block
from uare_rt.model.flow import Guidance
from uare_rt.model.sampling import Flow, read_branches, sample
from uare_rt.model.transforms import normalise, resize, resize_to, to_pixels

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from uare_rt.model.sampling import Step
    from uare_rt.model.unified import UnifiedModel

__all__ = ["EDITING", "RestoredPicture", "restore"]

# What the reference edits pictures with.
EDITING = Flow(points=50, shift=3.0, guidance=Guidance(text_scale=4.0, image_scale=2.0, renorm="text_channel"))


@dataclass(frozen=True, eq=False)
class RestoredPicture:
    """A restored picture.

    Attributes:
        picture: uint8 [H, W, 3], the input's size.
        generated: uint8 [H', W', 3], as decoded at the size the model works at.
    """

    picture: NDArray[np.uint8]
    generated: NDArray[np.uint8]


@torch.no_grad()
def restore(
    model: UnifiedModel,
    picture: NDArray[np.uint8],
    instruction: Sequence[int],
    flow: Flow = EDITING,
    *,
    seed: int = 0,
    sample_posterior: bool = False,
    watch: Callable[[Step], None] | None = None,
) -> RestoredPicture:
    """Restore a picture.

    The same seed gives the same picture on the same machine: noise is drawn on the CPU, in float32.

    Args:
        model: the model.
        picture: uint8 [H, W, 3], RGB.
        instruction: token ids without delimiters.
        flow: schedule and guidance.
        seed: of the noise, and of the posterior's before it.
        sample_posterior: sample the input's latent as the reference does, instead of taking its mean.
        watch: called after every evaluation; may raise to stop.

    Returns:
        The restored picture.

    Raises:
        InputError: not such a picture, or its shape is beyond a position table.
        UsageError: no evaluation is asked for, or the context is too long.
    """
    config = model.config
    fitted = resize(picture, config.vae_transform)
    height, width = fitted.shape[:2]
    grid = (height // config.latent_stride, width // config.latent_stride)
    generator = torch.Generator().manual_seed(seed)
    eps = None
    if sample_posterior:
        side = config.latent_patch
        shape = (config.codec.latent_channels, grid[0] * side, grid[1] * side)
        eps = torch.randn(shape, generator=generator)
    noise = torch.randn(grid[0] * grid[1], config.latent_width, generator=generator)
    latent = model.codec.encode(normalise(fitted), eps)
    blocks = [model.latent_block(latent), picture_block(model, picture), model.text_block(instruction)]
    tokens = sample(model, read_branches(model, blocks, flow.guidance), noise, grid, flow, watch=watch)
    generated = to_pixels(model.picture(tokens, grid))
    return RestoredPicture(resize_to(generated, (picture.shape[1], picture.shape[0])), generated)
