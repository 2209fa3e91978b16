"""Training recipes: YAML files, validated once when read."""

from __future__ import annotations

import hashlib
from importlib import resources
from pathlib import Path
from typing import Literal

import msgspec
import yaml

from uare_rt.degradation import Mixture
from uare_rt.errors import InputError, UsageError

__all__ = ["Phase", "Recipe", "ScaleTask", "load_recipe"]

_RANGES = (
    (("steps", "warmup_steps", "decay_steps", "floor_steps"), 1, 1e9),
    (("seed", "tail_steps", "pairs"), 0, 1e9),
    (("assess_every",), 1, 1e6),
    (("learning_rate", "tail_rate", "context_rate", "clip"), 1e-9, 1e3),
    (("photo_scale",), 0.01, 1),
    (("weight_decay", "matrix_rate", "assess_weight", "compare_weight", "tone_weight"), 0, 1e3),
    (("ema", "context_dropout"), 0, 1),
)


class Phase(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A stretch of the curriculum.

    Attributes:
        start: first step of the phase.
        mixtures: weighted mixtures of degradations; keys of each are those of `uare_rt.degradation.Mixture`
            and ``weight``.
        assess_batch: further pictures per step that are assessed but not restored.
        assess_mixtures: mixtures of those pictures.
    """

    start: int
    mixtures: tuple[dict[str, object], ...]
    assess_batch: int = 0
    assess_mixtures: tuple[dict[str, object], ...] = ()

    def options(self) -> list[tuple[float, Mixture]]:
        """The mixtures of the pictures to restore, with their weights.

        Raises:
            UsageError: a key or a value cannot be used.
        """
        return _options(self.mixtures, f"phase at step {self.start}")

    def assess_options(self) -> list[tuple[float, Mixture]]:
        """The mixtures of the pictures to assess only, with their weights.

        Raises:
            UsageError: a key or a value cannot be used.
        """
        return _options(self.assess_mixtures, f"assessment of the phase at step {self.start}")


def _options(mixtures: tuple[dict[str, object], ...], where: str) -> list[tuple[float, Mixture]]:
    found = []
    for number, given in enumerate(mixtures, 1):
        fields = {"weight": 1.0, "severity": (0.0, 1.0), **given}
        try:
            weight, fields["severity"] = float(fields.pop("weight")), tuple(fields["severity"])  # type: ignore[arg-type]
            found.append((weight, Mixture(**fields)))  # type: ignore[arg-type]
        except (AttributeError, TypeError, ValueError, IndexError, UsageError) as error:
            raise UsageError(f"{where}, mixture {number}: {error}") from None
    if not found or min(weight for weight, _ in found) < 0 or not any(weight for weight, _ in found):
        raise UsageError(f"{where}: weights must be 0 or more, with at least one above 0")
    return found


class ScaleTask(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How one output scale is trained.

    Attributes:
        weight: share of the steps that train this scale.
        region: side in pixels of the degraded picture that is assessed.
        size: side of the part of it that is restored, a multiple of 16.
        batch: pictures per step.
        degrade: probability that a reduced picture (scale above 1) is degraded as well.
    """

    weight: float
    region: int
    size: int
    batch: int
    degrade: float = 1.0


class Recipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that decides the weights besides the photos.

    Attributes:
        preset: model preset.
        seed: seed of weights, samples and dropout.
        steps: optimiser steps in all.
        warmup_steps: linear rise of the learning rate.
        decay_steps: final fall of the learning rate to zero; constant in between, so that a run that stops
            earlier than planned is the recipe with fewer steps.
        tail_steps: last steps, in which the rate begins again lower and falls to zero once more: a second helping of
            a curriculum that has ended, 0 for none.
        tail_rate: rate at their beginning.
        learning_rate: peak rate of AdamW for the codec's convolutions and the tone operator.
        matrix_rate: peak rate of Muon for the codec's kernels and the matrices of the gen expert, which then leave
            AdamW; 0 for AdamW alone.
        reparameterised: train the codec's convolutions with branches and norms (`uare_rt.model.reparam`): they learn
            faster from nothing; weights that were trained before go on faster without.
        context_rate: factor of the rate for all else: vision encoder, MoT, modulation.
        weight_decay: of matrices and kernels, none on biases, norms and embeddings.
        clip: largest gradient norm.
        ema: decay of the averaged weights.
        mse_floor: first and last floor of the restoration loss, see `uare_rt.training.objective`; a high one
            early on keeps nearly clean samples from holding the model at the identity.
        floor_steps: steps over which the floor falls, geometrically.
        assess_weight: weight of the level loss beside the restoration loss.
        assess_every: assessment and tone learn in one step of so many; in the others they only serve, which
            leaves more time for restoration.
        teacher: what quality is learned from: ``severity``, the product of `uare_rt.training.samples.quality_of`, or
            ``reference``, the full-reference measure of `uare_rt.training.teacher` on the clean and degraded pair.
        pairs: how many of the pictures that are only assessed come in two versions, to be compared.
        compare_weight: weight, within the level loss, of telling which of two pictures of a batch is better.
        tone_weight: weight of the tone operator's own loss.
        context_dropout: probability that a sample is restored with the null context.
        photo_scale: smallest factor by which photos are reduced before a region is taken.
        assess_regions: sides in pixels of pictures that are only assessed, drawn with equal chance.
        scales: one entry per output scale.
        phases: the curriculum, by first step.
    """

    preset: str
    seed: int
    steps: int
    warmup_steps: int
    decay_steps: int
    learning_rate: float
    context_rate: float
    weight_decay: float
    clip: float
    ema: float
    mse_floor: tuple[float, float]
    floor_steps: int
    assess_weight: float
    tone_weight: float
    context_dropout: float
    photo_scale: float
    assess_regions: tuple[int, ...]
    scales: dict[int, ScaleTask]
    phases: tuple[Phase, ...]
    tail_steps: int = 0
    tail_rate: float = 1e-4
    matrix_rate: float = 0.0
    reparameterised: bool = True
    assess_every: int = 1
    teacher: Literal["severity", "reference"] = "severity"
    pairs: int = 0
    compare_weight: float = 0.0

    def rate(self, step: int) -> float:
        """Learning rate of a step: linear warm-up, constant, linear decay to zero; then the tail's decay."""
        left = self.steps - self.tail_steps - step
        if left <= 0 < self.tail_steps:
            return self.tail_rate * (self.steps - step) / self.tail_steps
        rise = min(1.0, (step + 1) / self.warmup_steps)
        fall = min(1.0, left / self.decay_steps)
        return self.learning_rate * min(rise, fall)

    def assesses(self, step: int) -> bool:
        """Whether assessment and tone learn in a step."""
        return step % self.assess_every == 0

    def floor(self, step: int) -> float:
        """Floor of the restoration loss at a step."""
        first, last = self.mse_floor
        return float(first * (last / first) ** min(1.0, step / self.floor_steps))

    def phase(self, step: int) -> Phase:
        """The phase that a step belongs to."""
        return max((p for p in self.phases if p.start <= step), key=lambda p: p.start)

    def digest(self) -> str:
        """SHA-256 over everything but ``steps``: two runs with the same digest and start agree until one decays."""
        return hashlib.sha256(msgspec.json.encode(msgspec.structs.replace(self, steps=0))).hexdigest()


def load_recipe(name: str | Path, steps: int | None = None) -> Recipe:
    """Read a recipe.

    Args:
        name: a YAML file, or the name of a recipe that comes with the package.
        steps: replaces the recipe's number of steps.

    Raises:
        InputError: no such recipe, or not YAML.
        UsageError: a field is unknown, missing or has an impossible value.
    """
    path = Path(name)
    if not path.is_file():
        shipped = resources.files("uare_rt.training") / "recipes"
        names = sorted(f.name.removesuffix(".yaml") for f in shipped.iterdir() if f.name.endswith(".yaml"))
        if str(name) not in names:
            raise InputError(f"{name}: no such recipe file; recipes that come with uare-rt: {', '.join(names)}")
        path = Path(str(shipped / f"{name}.yaml"))
    try:
        recipe = msgspec.convert(yaml.safe_load(path.read_text("utf-8")), Recipe, str_keys=True)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: not readable as YAML: {' '.join(str(error).split())}") from None
    except msgspec.ValidationError as error:
        raise UsageError(f"{path}: {error}") from None
    if steps is not None:
        recipe = msgspec.structs.replace(recipe, steps=steps)
    _check(recipe, path)
    return recipe


def _check(recipe: Recipe, path: Path) -> None:
    faults = []
    if recipe.preset != "uare-nano":
        faults.append(f"preset {recipe.preset!r} cannot be trained, only 'uare-nano'")
    for names, least, most in _RANGES:
        values = {name: getattr(recipe, name) for name in names}
        faults += [f"{n} is {v}, expected {least:g} to {most:g}" for n, v in values.items() if not least <= v <= most]
    if not 0 < recipe.mse_floor[1] <= recipe.mse_floor[0]:
        faults.append(f"mse_floor {list(recipe.mse_floor)} must fall and stay above 0")
    if not recipe.assess_regions or min(recipe.assess_regions) < 16:
        faults.append(f"assess_regions {list(recipe.assess_regions)} must be at least 16 each")
    if not recipe.phases or min(p.start for p in recipe.phases) != 0:
        faults.append("the first phase must start at step 0")
    if not set(recipe.scales) <= {1, 2, 4} or not recipe.scales:
        faults.append(f"scales {sorted(recipe.scales)} must be among 1, 2, 4")
    elif not any(task.weight for task in recipe.scales.values()):
        faults.append("no scale has a weight above 0")
    for scale, task in recipe.scales.items():
        if task.size < 16 or task.size % 16 or task.region < task.size:
            faults.append(
                f"size {task.size} of scale {scale} must be a multiple of 16, region {task.region} no smaller"
            )
        if task.batch < 1 or not task.weight >= 0 or not 0 <= task.degrade <= 1:
            faults.append(f"scale {scale} needs a batch of at least 1, a weight of at least 0 and degrade in 0 to 1")
    faults += [fault for phase in recipe.phases for fault in _faults_of(phase)]
    if faults:
        raise UsageError(f"{path}: {'; '.join(faults)}")


def _faults_of(phase: Phase) -> list[str]:
    if phase.assess_batch < 0:
        return [f"assess_batch of the phase at step {phase.start} is {phase.assess_batch}, expected 0 or more"]
    try:
        phase.options()
        if phase.assess_batch:
            phase.assess_options()
    except UsageError as error:
        return [str(error)]
    return []
