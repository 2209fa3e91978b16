"""Comparing with the reference tensors of a directory made by the original code (tests/data/mot-tiny)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file

from uare_rt.model.checkpoint import load_unified

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

TOLERANCE = 2e-5  # relative RMS in float32
LEVELS = 1  # difference allowed between 8-bit pictures


class Reference:
    """One reference set: its configuration, inputs and expected tensors, and the model loaded from it."""

    def __init__(self, directory: Path, part: str, dtype: torch.dtype = torch.float32) -> None:
        try:
            self.settings = json.loads((directory / "config.json").read_text())
            self.inputs = load_file(directory / "inputs.safetensors")
            self.expected = load_file(directory / f"expected_{part}.safetensors")
        except Exception as error:
            pytest.fail(f"the reference tensors in {directory} cannot be read: {error}")
        self._directory, self._part = directory, part
        self.model, _ = load_unified(directory, dtype=dtype)
        self.layers = self.settings["llm"]["num_hidden_layers"]

    def faults(self, produced: dict[str, Tensor], names: list[str] | None = None) -> list[str]:
        """Tensors that differ: floats by relative RMS, pictures by level, integers at all."""
        found = []
        for name in names or sorted(self.expected):
            expected, got = self.expected[name], produced[name].detach()
            if got.shape != expected.shape:
                found.append(f"{name} is {list(got.shape)}, expected {list(expected.shape)}")
            elif expected.dtype == torch.uint8:
                apart = int((got.int() - expected.int()).abs().max())
                if apart > LEVELS:
                    found.append(f"{name} differs by {apart} levels")
            elif not expected.is_floating_point():
                if not torch.equal(got, expected):
                    found.append(f"{name} differs: {got.tolist()}, expected {expected.tolist()}")
            elif not (error := relative_rms(got, expected)) <= TOLERANCE:
                found.append(f"{name} is off by {error:.2e}")
        return found

    def half_faults(self, produced: dict[str, Tensor], at_least: float = 0.0) -> list[str]:
        """Tensors off by more than twice what the original code's own bf16 run is off, where that is known."""
        floor = json.loads((self._directory / "noise_floor.json").read_text())
        entries = {name: floor.get(f"{self._part}:{name}", {}).get("bf16_relrms", 0.0) for name in produced}
        known = {name: error for name, error in entries.items() if error > at_least}
        assert known, "no error of the original code to compare with"
        errors = {name: relative_rms(produced[name], self.expected[name]) for name in known}
        return [
            f"{name} is off by {e:.2e}, the original by {known[name]:.2e}"
            for name, e in errors.items()
            if not e <= 2 * known[name]
        ]


def relative_rms(got: Tensor, expected: Tensor) -> float:
    difference = (got.detach().double() - expected.double()).square().mean().sqrt()
    return float(difference / expected.double().square().mean().sqrt())


class Outputs:
    """Catches what modules return while a block runs, the first batch entry of each call."""

    def __init__(self, modules: dict[str, nn.Module]) -> None:
        self.caught: dict[str, Tensor] = {}
        self._modules = modules
        self._handles: list[torch.utils.hooks.RemovableHandle] = []

    def _catch(self, name: str) -> object:
        def hook(_module: nn.Module, _args: tuple[object, ...], output: Tensor | tuple[Tensor, ...]) -> None:
            self.caught[name] = output[0][0] if isinstance(output, tuple) else output

        return hook

    def __enter__(self) -> dict[str, Tensor]:
        self._handles = [module.register_forward_hook(self._catch(name)) for name, module in self._modules.items()]
        return self.caught

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()


def decoder_layers(reference: Reference) -> dict[str, nn.Module]:
    return {f"layer{i}": layer for i, layer in enumerate(reference.model.language.mot.layers)}


def stored(tensor: Tensor) -> Tensor:
    """Cached keys or values [L, 1, K, T, d] in the order of the reference, [L, T, K, d]."""
    return tensor[:, 0].transpose(1, 2)
