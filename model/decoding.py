"""Text from a context, token by token."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from uare_rt.vlm.decoding import LIMIT, check_decoding, pick
from uare_rt.vlm.noise import Noise

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from uare_rt.model.unified import Context, UnifiedModel

__all__ = ["Prediction", "decode_text", "predictions"]


@dataclass(frozen=True)
class Prediction:
    """What follows a token.

    Attributes:
        fed: the token that was read.
        position: its rotary position.
        logits: float32 [vocabulary].
        chosen: the token picked to follow.
    """

    fed: int
    position: int
    logits: Tensor
    chosen: int


@torch.no_grad()
def predictions(
    model: UnifiedModel, context: Context, *, temperature: float = 0.0, seed: int = 0
) -> Iterator[Prediction]:
    """Continue a context without end, starting from a fed ``bos``.

    Args:
        model: the model.
        context: what came before, left as it is.
        temperature: 0 picks the most likely token, above 0 samples the softmax of the logits over it.
        seed: of the samples.

    Raises:
        UsageError: a negative temperature, or the position limit was reached.
    """
    check_decoding(temperature, 1)
    noise = Noise(seed)
    fed = model.config.special.bos
    while True:
        position = context.position
        context, hidden = model.extend(context, [model.tokens_block([fed])])
        logits = model.logits(hidden)[0]
        chosen = pick(logits.cpu().numpy(), temperature, noise)
        yield Prediction(fed, position, logits, chosen)
        fed = chosen


def decode_text(
    model: UnifiedModel, context: Context, *, limit: int = LIMIT, temperature: float = 0.0, seed: int = 0
) -> list[int]:
    """Token ids of the answer, up to ``eos`` (not included) or ``limit`` tokens; arguments as for `predictions`."""
    check_decoding(temperature, limit)
    ids: list[int] = []
    for prediction in predictions(model, context, temperature=temperature, seed=seed):
        if prediction.chosen == model.config.special.eos:
            break
        ids.append(prediction.chosen)
        if len(ids) == limit:
            break
    return ids
