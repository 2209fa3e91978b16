"""Does the verdict guide the restoration? The same weights with four quality contexts.

- true: the context of the picture's own assessment;
- null: the trained constant for "nothing known";
- shuffled: the context of the next photograph with the type half the list away, a wrong verdict of the right form;
- oracle: the mean context of all other photographs with the same labels, that is of the same type. No picture sees its
  own context here, so this is what knowing the labels, and nothing else of the picture, is worth.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from uare_rt.errors import InputError
from uare_rt.training.evalset import bicubic, psnr

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from uare_rt.training.evalset import EvaluationSet

    Pixels = NDArray[np.uint8]

__all__ = ["CONTEXTS", "LOCAL_TYPES", "GuidedModel", "evaluate_guidance"]

LOCAL_TYPES = ("noise25", "blur2", "jpeg20", "x2", "mix_a", "mix_b")
CONTEXTS = ("true", "null", "shuffled", "oracle")


class GuidedModel(Protocol):
    """What the ablation needs of a session."""

    def assess(self, image: Pixels) -> Any:
        """An assessment with a context."""

    def restore(self, image: Pixels, *, scale: int = 1, context: Any = None) -> Any:
        """A picture restored with that context."""

    def null_context(self) -> Any:
        """The context for "nothing known"."""


def evaluate_guidance(
    model: GuidedModel,
    evalset: EvaluationSet,
    kinds: Sequence[str] = LOCAL_TYPES,
    progress: Callable[[str], None] = lambda kind: None,
) -> dict[str, Any]:
    """Restore every picture with each context.

    Returns:
        By type: pictures, input PSNR, for each context the mean PSNR in dB, and its mean difference to the null
        context with the standard error of that mean.

    Raises:
        InputError: fewer than two types or photographs, of which contexts could be taken.
    """
    names = evalset.names
    if len(names) < 2 or len(kinds) < 2:
        raise InputError(f"guidance needs two types and two photographs; there are {len(kinds)} and {len(names)}")
    contexts = {(kind, name): model.assess(evalset.picture(kind, name)).context for kind in kinds for name in names}
    null = model.null_context()
    found = {}
    for row, kind in enumerate(kinds):
        progress(kind)
        wrong = kinds[(row + len(kinds) // 2) % len(kinds)]
        before, after = [], []
        for column, name in enumerate(names):
            degraded, truth = evalset.pair(kind, name)
            chosen = {
                "true": contexts[kind, name],
                "null": null,
                "shuffled": contexts[wrong, names[(column + 1) % len(names)]],
                "oracle": _mean([contexts[kind, other] for other in names if other != name]),
            }
            scale = truth.shape[0] // degraded.shape[0]
            before.append(psnr(bicubic(degraded, truth), truth))
            after.append([psnr(model.restore(degraded, scale=scale, context=chosen[c]).image, truth) for c in CONTEXTS])
        table = np.array(after)
        gains = table - table[:, [CONTEXTS.index("null")]]
        errors = gains.std(axis=0, ddof=1) / np.sqrt(len(names))
        found[kind] = {
            "pictures": len(names),
            "input": round(float(np.mean(before)), 4),
            "psnr": _named(table.mean(axis=0)),
            "over_null": _named(gains.mean(axis=0)),
            "standard_error": _named(errors),
        }
    return found


def _named(values: NDArray[np.float64]) -> dict[str, float]:
    return {name: round(float(value), 4) for name, value in zip(CONTEXTS, values, strict=True)}


def _mean(contexts: Sequence[Any]) -> Any:
    kind = type(contexts[0])
    return kind(*(np.mean([getattr(one, part) for one in contexts], axis=0) for part in ("k", "v", "vec")))
