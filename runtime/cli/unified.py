"""What the commands do differently with a session of uare-7b."""

from __future__ import annotations

import logging
import warnings
from typing import TYPE_CHECKING, Any

from uare_rt.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import TypeIs

    from uare_rt.cli.work import Settings
    from uare_rt.images import Picture
    from uare_rt.session import Session
    from uare_rt.vlm.session import UnifiedSession

__all__ = ["PREFERS", "is_unified", "preference", "refuse_video", "restore_picture"]

PREFERS = 0.05  # a probability this near to one half is a tie


def is_unified(session: Session | UnifiedSession) -> TypeIs[UnifiedSession]:
    """Whether a session is of uare-7b; does not import it to find out."""
    return session.manifest.preset == "uare-7b"


def refuse_video(model: str) -> UsageError:
    """The error for a video given to uare-7b."""
    return UsageError(f"{model} takes images only; leave --model out for videos, the shipped uare-nano takes them")


def restore_picture(
    session: UnifiedSession, picture: Picture, settings: Settings, show: Callable[[float, int], None]
) -> tuple[Any, dict[str, Any]]:
    """Restore one image.

    Args:
        session: of uare-7b.
        picture: as read.
        settings: what the caller gave.
        show: called after every evaluation with the number done and the total.

    Returns:
        The pixels, and what `restore --json` tells of it.
    """
    from uare_rt.vlm.flow import GuidanceWarning

    options, flow = settings.flow, settings.flow.flow()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", GuidanceWarning)
        restored = session.restore(
            picture.pixels,
            flow=flow,
            seed=options.seed or 0,
            verdict=options.verdict is not False,
            strength=settings.strength,
            tile=settings.tile,
            progress=show,
        )
    notes = {str(warning.message) for warning in told if issubclass(warning.category, GuidanceWarning)}
    if options.renorm is not None and not flow.guidance.by_text:
        notes.add(f"renorm {options.renorm.value} has no effect while text_scale is {flow.guidance.text_scale}")
    for text in sorted(notes):
        logging.getLogger("uare_rt.cli").warning("%s", text)
    before = restored.assessment or session.assess(picture.pixels)
    return restored.image, {
        "score": before.score,
        "score_after": session.assess(restored.image).score,
        "width": restored.image.shape[1],
        "height": restored.image.shape[0],
        "evaluations": restored.evaluations,
    }


def preference(probability: float) -> dict[str, Any]:
    """Which of two images is better when both were seen in one context.

    Args:
        probability: that it is the second.

    Returns:
        better ("A", "B" or "tie"), preference (the probability) and a description in one sentence.
    """
    if abs(probability - 0.5) < PREFERS:
        better = "tie"
        sentence = f"A and B are equally good, seen together (odds of {probability:.2f} for B)."
    else:
        better = "B" if probability > 0.5 else "A"
        odds = max(probability, 1 - probability)
        sentence = f"{better} is better, seen together (odds of {odds:.2f})."
    return {"better": better, "preference": probability, "description": sentence}
