"""The training loop."""

from __future__ import annotations

import csv
import dataclasses
import logging
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from uare_rt.errors import OutputError, UareError, UsageError
from uare_rt.model.nano import UareNano
from uare_rt.model.presets.nano import UARE_NANO
from uare_rt.model.weights import save_nano, write_tensors
from uare_rt.reserving import reserved
from uare_rt.training.loader import Loader
from uare_rt.training.objective import Losses, objective
from uare_rt.training.recipe import Recipe, load_recipe
from uare_rt.training.samples import Batch, find_photos
from uare_rt.training.state import TrainingState
from uare_rt.training.validation import Validation, hold_out

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["TrainingProgress", "TrainingReport", "run"]

_CHECKPOINT_SECONDS = 300.0
_VALIDATE_EVERY = 500
_REPORT_EVERY = 10
_BAD_STEPS_ALLOWED = 5
_LOSSES = ("restore", "tone", "assess")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingProgress:
    """State of a running training.

    Attributes:
        step: steps done.
        steps: steps in all.
        loss: restoration loss, averaged over the last steps (ln MSE) in which it was learned.
        tone_loss: loss of the tone operator alone, likewise.
        assess_loss: level loss, likewise.
        seconds_per_step: over the last steps.
        validation: mean PSNR in dB per type, only where a validation has just run.
    """

    step: int
    steps: int
    loss: float
    tone_loss: float
    assess_loss: float
    seconds_per_step: float
    validation: dict[str, float] | None = None

    @property
    def eta_seconds(self) -> float:
        """Expected time to the last step."""
        return (self.steps - self.step) * self.seconds_per_step


@dataclass(frozen=True)
class TrainingReport:
    """What a training run left behind.

    Attributes:
        weights: averaged weights, safetensors.
        steps: steps done in all sittings.
        finished: whether the recipe's last step was reached.
        skipped: steps left out because their loss was not finite.
        validation: last PSNR in dB per type.
        photos: photos trained on.
    """

    weights: Path
    steps: int
    finished: bool
    skipped: int
    validation: dict[str, float]
    photos: int


def run(
    recipe: Path | str,
    data: Path,
    out: Path,
    *,
    start: Path | None = None,
    resume: bool = False,
    steps: int | None = None,
    threads: int | None = None,
    time_budget: float | None = None,
    workers: int = 1,
    progress: Callable[[TrainingProgress], None] | None = None,
) -> TrainingReport:
    """Train `uare-nano`.

    Args:
        recipe: YAML file or the name of a recipe that comes with the package.
        data: directory of photos, searched recursively.
        out: directory for ``checkpoint.safetensors``, ``weights.safetensors``, ``weights.json`` and ``metrics.csv``.
        start: ``weights.safetensors`` of an earlier training, or a bundle, to begin from; random weights if None. The
            recipe must say ``reparameterised: false``, since stored weights are folded.
        resume: continue from the checkpoint in ``out``.
        steps: replaces the recipe's number of steps.
        threads: CPU threads of the optimiser; PyTorch's default if None.
        time_budget: minutes after which to stop with a checkpoint.
        workers: loader processes.
        progress: called every few steps.

    Returns:
        The report; unfinished when the time budget ended the run.

    Raises:
        UsageError: the recipe is wrong, ``out`` holds another run, or ``start`` does not go with the recipe.
        InputError: no usable photos, a damaged checkpoint, or ``start`` holds no weights of the preset.
        OutputError: ``out`` cannot be written, or another process trains there.
        UareError: the loss was not finite several times; the batch is saved for inspection.
        KeyboardInterrupt: passed on after a checkpoint was written.
    """
    plan = load_recipe(recipe, steps)
    photos, held_out = hold_out(find_photos(data))
    checkpoint = out / "checkpoint.safetensors"
    if checkpoint.exists() and not resume:
        raise UsageError(f"{out} holds a training already; continue it with --resume or choose another directory")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{out}: cannot be created ({error.strerror}); choose another directory") from None
    with reserved(out, "training", inside=True):
        if threads:
            torch.set_num_threads(threads)
        torch.manual_seed(plan.seed)
        state = TrainingState(_new_model(plan), _new_model(plan), plan)
        if resume and checkpoint.exists():
            state.load(checkpoint)
        elif start is not None:
            state.begin_from(start)
        trainer = _Trainer(plan, state, out, Validation(held_out), progress)
        deadline = math.inf if time_budget is None else time.monotonic() + 60 * time_budget
        with Loader(photos, plan, state.step, workers) as batches:
            try:
                for batch in batches:
                    trainer.train_on(batch)
                    if time.monotonic() > deadline:
                        break
            except KeyboardInterrupt:
                trainer.save(len(photos))
                raise
        trainer.save(len(photos))
        return TrainingReport(
            out / "weights.safetensors",
            state.step,
            state.step >= plan.steps,
            trainer.skipped,
            trainer.validation,
            len(photos),
        )


def _new_model(recipe: Recipe) -> UareNano:
    model = UareNano(UARE_NANO, reparameterised=recipe.reparameterised)
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


class _Trainer:
    def __init__(
        self,
        recipe: Recipe,
        state: TrainingState,
        out: Path,
        validate: Validation,
        progress: Callable[[TrainingProgress], None] | None,
    ) -> None:
        self.recipe, self.state, self.out = recipe, state, out
        self.validate, self.progress = validate, progress
        self.skipped = 0
        self.validation: dict[str, float] = {}
        self._saved = time.monotonic()
        self._means = dict.fromkeys(_LOSSES, math.nan)
        self._start_sums()

    def train_on(self, batch: Batch) -> None:
        """One optimiser step, then whatever is due: report, validation, checkpoint."""
        losses = self._step(batch)
        self.state.step += 1
        self.state.update_average()
        if losses is not None:
            for name in _LOSSES:
                if getattr(losses, name) is not None:
                    self._sums[name] += float(getattr(losses, name))
                    self._counts[name] += 1
        last = self.state.step >= self.recipe.steps
        validated = self.state.step % _VALIDATE_EVERY == 0 or last
        if validated:
            self.validation = self.validate(self.state.average.eval())
        if validated or self.state.step % _REPORT_EVERY == 0:
            self._report(self.validation if validated else None)
        if time.monotonic() - self._saved > _CHECKPOINT_SECONDS:
            self.state.save(self.out / "checkpoint.safetensors")
            self._saved = time.monotonic()

    def _step(self, batch: Batch) -> Losses | None:
        model = self.state.model
        self.state.set_rate(batch.step)
        losses = objective(model, batch, self.recipe)
        model.zero_grad(set_to_none=True)
        losses.total.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), self.recipe.clip, foreach=True)
        if not (torch.isfinite(losses.total) and torch.isfinite(norm)):
            self._skip(batch)
            return None
        self.state.apply_gradients()
        return losses

    def _skip(self, batch: Batch) -> None:
        self.skipped += 1
        _log.warning("step %d left out: the loss or its gradient is not finite", batch.step)
        if self.skipped >= _BAD_STEPS_ALLOWED:
            path = self.out / f"bad-batch-{batch.step}.safetensors"
            arrays = {k: v for k, v in dataclasses.asdict(batch).items() if not isinstance(v, int)}
            write_tensors(path, {k: torch.from_numpy(v) for k, v in arrays.items()}, {"step": str(batch.step)})
            raise UareError(f"the loss was not finite {self.skipped} times; the last batch is in {path}")

    def _report(self, validation: dict[str, float] | None) -> None:
        now = time.monotonic()
        self._means |= {name: self._sums[name] / count for name, count in self._counts.items() if count}
        info = TrainingProgress(
            self.state.step,
            self.recipe.steps,
            *self._means.values(),
            (now - self._since) / max(self._counts["restore"], 1),
            validation,
        )
        self._start_sums()
        losses = (info.loss, info.tone_loss, info.assess_loss)
        row: list[object] = [info.step, *(f"{loss:.4f}" for loss in losses), f"{info.seconds_per_step:.3f}"]
        row += [f"{v:.2f}" for v in (validation or {}).values()]
        self._log_metrics(row)
        if self.progress:
            self.progress(info)

    def _start_sums(self) -> None:
        self._sums, self._counts = dict.fromkeys(_LOSSES, 0.0), dict.fromkeys(_LOSSES, 0)
        self._since = time.monotonic()

    def _log_metrics(self, row: list[object]) -> None:
        log = self.out / "metrics.csv"
        try:
            fresh = not log.exists()
            with log.open("a", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                if fresh:
                    writer.writerow(["step", *_LOSSES, "seconds_per_step", *self.validate.types])
                writer.writerow(row)
        except OSError as error:
            raise OutputError(f"{log}: cannot be written ({error.strerror}); free some space, then --resume") from None

    def save(self, photos: int) -> None:
        """Write the checkpoint and the averaged weights."""
        self.state.save(self.out / "checkpoint.safetensors")
        facts = {
            "recipe": self.recipe.digest(),
            "start": self.state.start,
            "steps": self.state.step,
            "planned_steps": self.recipe.steps,
            "photos": photos,
            "validation_psnr": {k: round(v, 2) for k, v in self.validation.items()},
        }
        save_nano(self.state.average.folded(), self.out / "weights.safetensors", facts)
