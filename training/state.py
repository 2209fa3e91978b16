"""Training state that survives: weights, averaged weights, optimiser and step in one safetensors file."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import torch

from uare_rt.errors import InputError, UsageError
from uare_rt.model.nano import UareNano
from uare_rt.model.weights import read_tensors, write_tensors

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from uare_rt.training.recipe import Recipe

__all__ = ["TrainingState"]

_FORMAT = "uare-training/1"
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


def _floats(model: UareNano) -> list[Tensor]:
    """Weights and running statistics."""
    return [tensor for tensor in model.state_dict().values() if tensor.is_floating_point()]


class TrainingState:
    """Model, average and optimiser of a run.

    Attributes:
        model: the weights being trained.
        average: their exponential moving average, used for validation and shipped.
        optimizer: AdamW; decay on matrices and kernels only.
        step: next step to run.
    """

    def __init__(self, model: UareNano, average: UareNano, recipe: Recipe) -> None:
        self.model, self.average, self.recipe = model, average, recipe
        average.requires_grad_(False)
        average.load_state_dict(model.state_dict())
        self.step = 0
        groups: dict[tuple[bool, bool], list[torch.nn.Parameter]] = {}
        for name, parameter in model.named_parameters():
            local = name.startswith(("codec.", "tone.")) and "modulation" not in name
            decayed = parameter.ndim > 1 and not name.startswith("null") and "embedding" not in name
            groups.setdefault((local, decayed), []).append(parameter)
        settings = [
            {
                "params": parameters,
                "weight_decay": recipe.weight_decay if decayed else 0.0,
                "factor": 1.0 if local else recipe.context_rate,
            }
            for (local, decayed), parameters in groups.items()
        ]
        self.optimizer = torch.optim.AdamW(settings, lr=recipe.learning_rate, betas=(0.9, 0.99), foreach=True)

    def set_rate(self, step: int) -> None:
        """Set the learning rates of a step."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.rate(step) * group["factor"]

    def update_average(self) -> None:
        """Move the average towards the model; the decay grows with the step so that the start is forgotten."""
        decay = min(self.recipe.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(_floats(self.average), _floats(self.model), 1 - decay)

    def save(self, path: Path) -> None:
        """Write everything needed to continue; the previous file stays until this one is complete.

        Raises:
            OutputError: no space or no permission.
        """
        tensors: dict[str, Tensor] = {}
        names = {id(p): name for name, p in self.model.named_parameters()}
        for parameter, moments in self.optimizer.state.items():
            for moment in _MOMENTS:
                tensors[f"optimizer.{moment}.{names[id(parameter)]}"] = moments[moment]
        tensors |= {f"model.{k}": v for k, v in self.model.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.state_dict().items()}
        header = {"format": _FORMAT, "facts": json.dumps({"step": self.step, "recipe": self.recipe.digest()})}
        write_tensors(path, tensors, header)

    def load(self, path: Path) -> None:
        """Continue from a checkpoint.

        Raises:
            InputError: damaged, or not a training checkpoint.
            UsageError: made by another recipe.
        """
        tensors, header = read_tensors(path)
        if header.get("format") != _FORMAT:
            raise InputError(f"{path}: not a training checkpoint; remove it or train into another directory")
        facts = json.loads(header["facts"])
        if facts["recipe"] != self.recipe.digest():
            raise UsageError(
                f"{path}: was made by another recipe; use that recipe, or train into another directory without --resume"
            )
        parts: dict[str, dict[str, Tensor]] = {"model": {}, "average": {}, "optimizer": {}}
        for name, tensor in tensors.items():
            part, key = name.split(".", 1)
            parts[part][key] = tensor
        try:
            self.model.load_state_dict(parts["model"])
            self.average.load_state_dict(parts["average"])
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise InputError(f"{path}: was made by another version of the model ({reason[:200]})") from None
        self.step = facts["step"]
        saved = parts["optimizer"]
        for name, parameter in self.model.named_parameters():
            if f"step.{name}" in saved:
                moments = {moment: saved[f"{moment}.{name}"] for moment in _MOMENTS}
                # Laid out in memory like the parameter: the fused update is slow over two layouts.
                self.optimizer.state[parameter] = {
                    moment: torch.empty_like(parameter, requires_grad=False).copy_(tensor) if tensor.ndim else tensor
                    for moment, tensor in moments.items()
                }
