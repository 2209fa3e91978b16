"""Training of `uare-nano`: recipes, samples, the loop, evaluation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uare_rt.training.loop import TrainingProgress, TrainingReport, run

__all__ = ["TrainingProgress", "TrainingReport", "run"]


def __getattr__(name: str) -> Any:
    """The training loop loads PyTorch, which evaluation does without."""
    if name in __all__:
        from uare_rt.training import loop

        return getattr(loop, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
