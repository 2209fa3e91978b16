"""What the unified model says of pictures: levels after forced answers, a description, which of two is better."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from uare_rt.model.decoding import decode_text
from uare_rt.model.transforms import normalise, resize
from uare_rt.model.unified import EMPTY, Context
from uare_rt.slots import DEGRADATIONS, SLOTS, expected_score, expected_severity, softmax
from uare_rt.slots import describe as describe_slots
from uare_rt.vlm.decoding import LIMIT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from uare_rt.model.prompts import AnswerIds, ChoiceIds, QuestionIds
    from uare_rt.model.unified import Block, UnifiedModel

__all__ = ["Verdict", "answer", "assess", "compare", "describe", "picture_block"]


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
        return describe_slots(self.probabilities)


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
    return answer(model, [picture_block(model, picture)], questions)


@torch.no_grad()
def answer(model: UnifiedModel, blocks: Sequence[Block], questions: QuestionIds) -> Verdict:
    """Ask for every slot after a context that shows the picture; see `assess`.

    Args:
        model: the model.
        blocks: the context.
        questions: see `uare_rt.model.prompts.question_ids`.

    Returns:
        The verdict; its context ends with the question.
    """
    context, odds = _odds(model, [*blocks, model.text_block(questions.question)], questions.answers)
    return Verdict(dict(zip(SLOTS, odds, strict=True)), context)


@torch.no_grad()
def compare(model: UnifiedModel, first: NDArray[np.uint8], second: NDArray[np.uint8], choice: ChoiceIds) -> float:
    """The probability, 0 to 1, that the second picture is the better one, both in one context.

    Args:
        model: the model.
        first: uint8 [H, W, 3], RGB.
        second: as ``first``, of any size.
        choice: see `uare_rt.model.prompts.choice_ids`.
    """
    blocks = [picture_block(model, first), picture_block(model, second), model.text_block(choice.question)]
    _, (odds,) = _odds(model, blocks, [choice.answer])
    return float(odds[1])


@torch.no_grad()
def describe(
    model: UnifiedModel,
    picture: NDArray[np.uint8],
    request: Sequence[int],
    *,
    limit: int = LIMIT,
    temperature: float = 0.0,
    seed: int = 0,
) -> list[int]:
    """Describe a picture in the model's own words.

    Args:
        model: the model.
        picture: uint8 [H, W, 3], RGB.
        request: token ids without delimiters.
        limit: tokens, at most.
        temperature: 0 picks the most likely words, above 0 samples.
        seed: of the samples.

    Returns:
        Token ids of the answer.
    """
    context, _ = model.extend(EMPTY, [picture_block(model, picture), model.text_block(request)])
    return decode_text(model, context, limit=limit, temperature=temperature, seed=seed)


def _odds(
    model: UnifiedModel, blocks: Sequence[Block], answers: Sequence[AnswerIds]
) -> tuple[Context, list[NDArray[np.float64]]]:
    """The context of ``blocks``, and for every forced answer the odds of its words."""
    bos = model.config.special.bos
    forced = [model.tokens_block([bos, *answer.prefix]) for answer in answers]
    context, hidden = model.extend_each(EMPTY, blocks, forced)
    logits = model.logits(torch.stack([states[-1] for states in hidden])).cpu().numpy()
    return context, [softmax(row[list(a.levels)]) for row, a in zip(logits, answers, strict=True)]
