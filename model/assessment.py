"""Assessment with the unified model: the odds of level words after forced answers, in one forward pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from uare_rt.model.transforms import normalise, resize
from uare_rt.model.unified import EMPTY, Context
from uare_rt.slots import DEGRADATIONS, SLOTS, describe, expected_score, expected_severity, softmax

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from uare_rt.model.prompts import QuestionIds
    from uare_rt.model.unified import Block, UnifiedModel

__all__ = ["Verdict", "assess", "picture_block"]


@dataclass(frozen=True, eq=False)
class Verdict:
    """What the model says of a picture.

    Attributes:
        probabilities: for every slot its five levels, float64 [5].
        context: picture and question as read, to go on from.
    """

    probabilities: Mapping[str, NDArray[np.float64]]
    context: Context

    @property
    def score(self) -> float:
        """Expected quality level, 1 (bad) to 5 (excellent)."""
        return expected_score(self.probabilities["quality"])

    @property
    def severities(self) -> dict[str, float]:
        """For every degradation 0 (none) to 1 (severe)."""
        return {name: expected_severity(self.probabilities[name]) for name in DEGRADATIONS}

    @property
    def sentence(self) -> str:
        """The slots in one sentence for people."""
        return describe(self.probabilities)


def picture_block(model: UnifiedModel, picture: NDArray[np.uint8]) -> Block:
    """A picture for understanding: uint8 [H, W, 3], resized by both transforms in turn as the reference does."""
    config = model.config
    resized = resize(resize(picture, config.vae_transform), config.vit_transform)
    return model.vision_block(normalise(resized))


@torch.no_grad()
def assess(model: UnifiedModel, picture: NDArray[np.uint8], questions: QuestionIds) -> Verdict:
    """Assess a picture in one forward pass of the decoder.

    Picture and question are read once; the forced beginnings of all answers follow them side by side, each blind
    to the others, so that every slot is answered as if it had been asked alone.

    Args:
        model: the model.
        picture: uint8 [H, W, 3], RGB.
        questions: see `uare_rt.model.prompts.question_ids`.

    Returns:
        The verdict.
    """
    read = [picture_block(model, picture), model.text_block(questions.question)]
    bos = model.config.special.bos
    forced = [model.tokens_block([bos, *answer.prefix]) for answer in questions.answers]
    context, hidden = model.extend_each(EMPTY, read, forced)
    logits = model.logits(torch.stack([states[-1] for states in hidden])).cpu().numpy()
    odds = {
        slot: softmax(row[list(answer.levels)])
        for slot, row, answer in zip(SLOTS, logits, questions.answers, strict=True)
    }
    return Verdict(odds, context)
