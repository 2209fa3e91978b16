"""Restoring a picture with the unified model: context, flow, picture at the input's size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from uare_rt.model.assessment import answer, picture_block
from uare_rt.model.flow import EDITING
from uare_rt.model.sampling import Branches, read_branches, sample
from uare_rt.model.transforms import normalise, resize, resize_to, to_pixels
from uare_rt.model.unified import EMPTY
from uare_rt.vlm.noise import Noise

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from uare_rt.model.assessment import Verdict
    from uare_rt.model.flow import Flow, Guidance
    from uare_rt.model.prompts import Interview
    from uare_rt.model.sampling import Step
    from uare_rt.model.unified import Block, UnifiedModel

__all__ = ["EDITING", "RestoredPicture", "restore"]


@dataclass(frozen=True, eq=False)
class RestoredPicture:
    """A restored picture.

    Attributes:
        picture: uint8 [H, W, 3], the input's size.
        generated: uint8 [H', W', 3], as decoded at the size the model works at.
        verdict: what the model said of the input before it restored it, if it was asked.
    """

    picture: NDArray[np.uint8]
    generated: NDArray[np.uint8]
    verdict: Verdict | None = None


@torch.no_grad()
def restore(
    model: UnifiedModel,
    picture: NDArray[np.uint8],
    instruction: Sequence[int],
    flow: Flow = EDITING,
    *,
    interview: Interview | None = None,
    seed: int = 0,
    sample_posterior: bool = False,
    watch: Callable[[Step], None] | None = None,
) -> RestoredPicture:
    """Restore a picture.

    With an interview, the model first assesses the picture in the same context and is then guided by its own verdict,
    as in the paper: question and verdict stay in the context, and guidance by text strengthens the verdict too.

    The same seed gives the same picture: noise does not depend on the device or on PyTorch's version.

    Args:
        model: the model.
        picture: uint8 [H, W, 3], RGB.
        instruction: token ids without delimiters.
        flow: schedule and guidance.
        interview: asks for the verdict; None restores without one.
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
    draw = Noise(seed)
    eps = None
    if sample_posterior:
        side = config.latent_patch
        eps = torch.from_numpy(draw.normal(config.codec.latent_channels, grid[0] * side, grid[1] * side))
    noise = torch.from_numpy(draw.normal(grid[0] * grid[1], config.latent_width))
    latent = model.codec.encode(normalise(fitted), eps)
    images = [model.latent_block(latent), picture_block(model, picture)]
    asked = model.text_block(instruction)
    verdict = None
    if interview is None:
        branches = read_branches(model, [*images, asked], flow.guidance)
    else:
        verdict = answer(model, images, interview.questions)
        branches = _judged(model, verdict, asked, interview, flow.guidance)
    tokens = sample(model, branches, noise, grid, flow, watch=watch)
    generated = to_pixels(model.picture(tokens, grid))
    fitting = resize_to(generated, (picture.shape[1], picture.shape[0]))
    return RestoredPicture(fitting, generated, verdict)


def _judged(model: UnifiedModel, verdict: Verdict, asked: Block, interview: Interview, guidance: Guidance) -> Branches:
    """The contexts when the model's own verdict comes before the instruction; without text ends with the question."""
    said = model.text_block(interview.verdict(verdict.probabilities))
    main, _ = model.extend(verdict.context, [said, asked])
    image_free = None
    if guidance.by_image:
        question = model.text_block(interview.questions.question)
        image_free, _ = model.extend(EMPTY, [question, said, asked])
    return Branches(main, verdict.context, image_free)
