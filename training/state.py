"""Training state that survives: weights, averaged weights, optimiser and step in one safetensors file."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import torch

from uare_rt.errors import InputError, UsageError
from uare_rt.model.nano import UareNano
from uare_rt.model.weights import load_nano, read_tensors, weights_digest, write_tensors
from uare_rt.training.muon import Muon

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from uare_rt.training.recipe import Recipe

__all__ = ["TrainingState"]

_FORMAT = "uare-training/1"


def _floats(model: UareNano) -> list[Tensor]:
    """Weights and running statistics."""
    return [tensor for tensor in model.state_dict().values() if tensor.is_floating_point()]


def _is_matrix(name: str) -> bool:
    """Whether Muon may take a parameter: hidden kernels and matrices of what restores, no outputs, no modulation."""
    hidden = name.startswith("codec.") and "modulation" not in name and ".heads." not in name
    return hidden or ".gen." in name


def _laid_out_like(parameter: Tensor, moment: Tensor) -> Tensor:
    """Laid out in memory like the parameter where shapes agree: the fused update is slow over two layouts."""
    if moment.shape != parameter.shape:
        return moment
    return torch.empty_like(parameter, requires_grad=False).copy_(moment)


class TrainingState:
    """Model, average and optimiser of a run.

    Attributes:
        model: the weights being trained.
        average: their exponential moving average, used for validation and shipped.
        optimizers: AdamW, with decay on matrices and kernels only; before it Muon, where the recipe asks for it.
        step: next step to run.
        start: SHA-256 of the weights that the run began from, None for random ones.
    """

    def __init__(self, model: UareNano, average: UareNano, recipe: Recipe) -> None:
        self.model, self.average, self.recipe = model, average, recipe
        average.requires_grad_(False)
        average.load_state_dict(model.state_dict())
        self.step = 0
        self.start: str | None = None
        matrices: list[torch.nn.Parameter] = []
        groups: dict[tuple[bool, bool], list[torch.nn.Parameter]] = {}
        for name, parameter in model.named_parameters():
            local = name.startswith(("codec.", "tone.")) and "modulation" not in name
            decayed = parameter.ndim > 1 and not name.startswith("null") and "embedding" not in name
            if recipe.matrix_rate and decayed and _is_matrix(name):
                matrices.append(parameter)
            else:
                groups.setdefault((local, decayed), []).append(parameter)
        settings = [
            {
                "params": parameters,
                "weight_decay": recipe.weight_decay if decayed else 0.0,
                "factor": 1.0 if local else recipe.context_rate,
            }
            for (local, decayed), parameters in groups.items()
        ]
        self.optimizers: list[torch.optim.Optimizer] = []
        if matrices:
            group = {"params": matrices, "factor": recipe.matrix_rate / recipe.learning_rate}
            self.optimizers.append(Muon([group], weight_decay=recipe.weight_decay))
        self.optimizers.append(torch.optim.AdamW(settings, lr=recipe.learning_rate, betas=(0.9, 0.99), foreach=True))

    def begin_from(self, weights: Path) -> None:
        """Take the weights of an earlier training, folded ones: a weight file or a bundle.

        Raises:
            BundleError: the bundle is damaged.
            InputError: they cannot be read, or belong to another preset.
            UsageError: the recipe trains branches that folded weights do not have.
        """
        if self.recipe.reparameterised:
            raise UsageError(
                f"{weights}: folded weights have no branches; the recipe must say 'reparameterised: false'"
            )
        model, _ = load_nano(weights)
        if model.config != self.model.config:
            raise InputError(
                f"{weights}: has another shape than the preset that is trained; give weights of that preset"
            )
        self.model.load_state_dict(model.state_dict())
        self.average.load_state_dict(model.state_dict())
        self.start = weights_digest(weights)

    def set_rate(self, step: int) -> None:
        """Set the learning rates of a step."""
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.recipe.rate(step) * group["factor"]

    def apply_gradients(self) -> None:
        """Take one step of every optimiser."""
        for optimizer in self.optimizers:
            optimizer.step()

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
        for optimizer in self.optimizers:
            for parameter, moments in optimizer.state.items():
                for moment, tensor in moments.items():
                    tensors[f"optimizer.{moment}.{names[id(parameter)]}"] = tensor
        tensors |= {f"model.{k}": v for k, v in self.model.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.state_dict().items()}
        facts = {"step": self.step, "recipe": self.recipe.digest(), "start": self.start}
        header = {"format": _FORMAT, "facts": json.dumps(facts)}
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
        self.step, self.start = facts["step"], facts.get("start")
        moments: dict[str, dict[str, Tensor]] = {}
        for key, tensor in parts["optimizer"].items():
            moment, name = key.split(".", 1)
            moments.setdefault(name, {})[moment] = tensor
        names = {id(parameter): name for name, parameter in self.model.named_parameters()}
        for optimizer in self.optimizers:
            for parameter in (p for group in optimizer.param_groups for p in group["params"]):
                if names[id(parameter)] in moments:
                    optimizer.state[parameter] = {
                        moment: _laid_out_like(parameter, tensor)
                        for moment, tensor in moments[names[id(parameter)]].items()
                    }
