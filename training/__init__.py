"""Training of `uare-nano`: recipes, samples, the loop, evaluation."""

from __future__ import annotations

from uare_rt.training.loop import TrainingProgress, TrainingReport, run

__all__ = ["TrainingProgress", "TrainingReport", "run"]
