"""What a restoration or an assessment costs on a device at the least: operations, bytes, memory, seconds.

A floor, not a forecast: every phase takes the longer of its operations at the device's peak and its bytes at full
bandwidth, guidance branches run as one batch, and weights are read once per pass.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.resources import files
from typing import TYPE_CHECKING, Literal, get_args

import msgspec
import torch

from uare_rt.errors import MissingExtraError, UsageError
from uare_rt.model.costs import WEIGHT_BYTES, Weights, Work, codec_flops, decoder, kv_bytes, parameters, vision
from uare_rt.model.flow import Forecast, schedule
from uare_rt.model.transforms import fitted_size
from uare_rt.model.vae import Autoencoder

if TYPE_CHECKING:
    from uare_rt.model.presets.uare_7b import UnifiedConfig
    from uare_rt.model.sampling import Flow

__all__ = ["Arithmetic", "Device", "Layout", "Phase", "Plan", "devices", "plan_assessment", "plan_restoration"]

Arithmetic = Literal["fp16", "w8a8"]
_DELIMITERS = 2


class Device(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Peak rates of a device.

    Attributes:
        memory: GB.
        bandwidth: GB/s.
        fp16: dense 16-bit matrix products, 1e12 operations per second.
        eight_bit: dense 8-bit ones.
        source: where the figures come from.
    """

    memory: float
    bandwidth: float
    fp16: float
    eight_bit: float
    source: str

    def floor(self, work: Work, arithmetic: Arithmetic = "fp16") -> float:
        """Seconds that a phase takes at the least."""
        linear = self.fp16 if arithmetic == "fp16" else self.eight_bit
        compute = work.linear / (linear * 1e12) + work.other / (self.fp16 * 1e12)
        return max(compute, work.bytes / (self.bandwidth * 1e9))


def devices() -> dict[str, Device]:
    """The device table, by name.

    Raises:
        MissingExtraError: PyYAML is not installed.
    """
    source = files("uare_rt.model.presets") / "devices.yaml"
    try:
        return msgspec.yaml.decode(source.read_bytes(), type=dict[str, Device])
    except ImportError:
        raise MissingExtraError("pyyaml", "vlm") from None


@dataclass(frozen=True)
class Layout:
    """Tokens of a picture and a prompt.

    Attributes:
        size: (width, height) that the model works at.
        latents: latent tokens.
        patches: understanding tokens.
        text: prompt tokens with ``bos`` and ``eos``.
    """

    size: tuple[int, int]
    latents: int
    patches: int
    text: int

    @classmethod
    def of(cls, config: UnifiedConfig, width: int, height: int, prompt: int) -> Layout:
        """The layout of a picture of width x height pixels and a prompt of so many ids.

        Raises:
            UsageError: no pixels, or a prompt of negative length.
        """
        if min(width, height) < 1 or prompt < 0:
            raise UsageError(f"cannot plan for {width}x{height} pixels and {prompt} prompt tokens; give a real size")
        size = fitted_size(width, height, config.vae_transform)
        seen = fitted_size(*size, config.vit_transform)
        latents = size[0] * size[1] // config.latent_stride**2
        return cls(size, latents, seen[0] * seen[1] // config.vision.patch**2, prompt + _DELIMITERS)


@dataclass(frozen=True)
class Phase:
    """A part of the run.

    Attributes:
        name: for people.
        work: what it does, once.
        times: how often it runs.
    """

    name: str
    work: Work
    times: int = 1


@dataclass(frozen=True)
class Plan:
    """A run in numbers.

    Attributes:
        layout: tokens.
        phases: what runs.
        memory: bytes by component: weights (bf16 but for the experts and the autoencoder, which is float32) and
            caches; activations are not in it.
    """

    layout: Layout
    phases: tuple[Phase, ...]
    memory: dict[str, float]

    @property
    def flops(self) -> float:
        """Operations of the whole run."""
        return sum(phase.work.flops * phase.times for phase in self.phases)

    def floor(self, device: Device, arithmetic: Arithmetic = "fp16") -> float:
        """Seconds that the run takes at the least.

        Raises:
            UsageError: an arithmetic that is not known.
        """
        if arithmetic not in get_args(Arithmetic):
            raise UsageError(f"arithmetic is {arithmetic!r}, but must be one of {', '.join(get_args(Arithmetic))}")
        return sum(device.floor(phase.work, arithmetic) * phase.times for phase in self.phases)


def _weight_bytes(weights: Weights) -> float:
    if weights not in WEIGHT_BYTES:
        raise UsageError(f"weights are {weights!r}, but must be one of {', '.join(WEIGHT_BYTES)}")
    return WEIGHT_BYTES[weights]


def _memory(config: UnifiedConfig, weights: Weights, tokens: int) -> dict[str, float]:
    counts = parameters(config)
    with torch.device("meta"):
        codec = sum(parameter.numel() for parameter in Autoencoder(config.codec).parameters())
    return {
        "experts": 2 * counts["expert"] * _weight_bytes(weights),
        "vocabulary": 2 * counts["vocabulary"] * 2.0,
        "vision": counts["vision"] * 2.0,
        "latents": counts["latents"] * 2.0,
        "codec": codec * 4.0,
        "cache": float(kv_bytes(config, tokens)),
    }


def _computed(flow: Flow) -> dict[int, int]:
    """How many evaluations run how many branches: {branches: evaluations}."""
    counts: dict[int, int] = {}
    times, _ = schedule(flow.points, flow.shift)
    guided = 1 + flow.guidance.by_image
    main, others = Forecast(), Forecast()
    for time in times.tolist():
        branches = 1 if not flow.forecast or _due(main) else 0
        if flow.guidance.active(time) and (not flow.forecast or _due(others)):
            branches += guided
        if branches:
            counts[branches] = counts.get(branches, 0) + 1
    return counts


def _due(forecast: Forecast) -> bool:
    due = forecast.advance()
    if due:
        forecast.record(torch.zeros(()))
    return due


def plan_restoration(
    config: UnifiedConfig, width: int, height: int, flow: Flow, *, prompt: int = 32, weights: Weights = "bf16"
) -> Plan:
    """Plan the restoration of one picture.

    Args:
        config: the model.
        width: of the picture, in pixels.
        height: of the picture, in pixels.
        flow: schedule, guidance and forecasts.
        prompt: ids of the instruction.
        weights: how the experts' weights are stored.

    Returns:
        The plan.

    Raises:
        UsageError: a size or setting that cannot be.
    """
    layout = Layout.of(config, width, height, prompt)
    latents, patches, text = layout.latents + _DELIMITERS, layout.patches + _DELIMITERS, layout.text
    main = latents + patches + text
    free = text if flow.guidance.by_image else 0
    memory = _memory(config, weights, main + free)
    encode, decode = codec_flops(config.codec, *layout.size)
    reads = [(latents, latents), (patches, latents + patches), (text, main), (free, free)]
    phases = [
        Phase("encode", Work(other=encode)),
        Phase("vision", vision(config, layout.patches)),
        Phase("prefill", decoder(config, reads, weights)),
    ]
    # In the order in which branches join: everything, without the text, without the images.
    contexts = (main, latents + patches, text)
    for branches, times in sorted(_computed(flow).items(), reverse=True):
        seen = [(latents, context + latents) for context in contexts[:branches]]
        # The text-free cache is the beginning of the main one.
        cache = kv_bytes(config, main + (free if branches > 2 else 0))
        work = decoder(config, seen, weights)
        phases.append(Phase(f"evaluation, branches: {branches}", replace(work, bytes=work.bytes + cache), times))
    phases.append(Phase("decode", Work(other=decode)))
    return Plan(layout, tuple(phases), memory)


def plan_assessment(
    config: UnifiedConfig, width: int, height: int, *, text: int = 52, words: int = 0, weights: Weights = "bf16"
) -> Plan:
    """Plan the assessment of one picture.

    Args:
        config: the model.
        width: of the picture, in pixels.
        height: of the picture, in pixels.
        text: tokens of the question and the forced answers, delimiters of the picture included.
        words: tokens of a free description to decode after it.
        weights: how weights are stored.

    Returns:
        The plan.
    """
    layout = Layout.of(config, width, height, max(text - 2 * _DELIMITERS, 0))
    seen = layout.patches + _DELIMITERS
    asked = max(text - _DELIMITERS, 0)
    prefill = decoder(config, [(seen, seen), (asked, seen + asked)], weights, experts=1)
    phases = [Phase("vision", vision(config, layout.patches)), Phase("prefill", prefill)]
    if words:
        context = seen + asked
        step = decoder(config, [(1, context + 1)], weights, experts=1)
        head = parameters(config)["vocabulary"]
        read = step.bytes + head * _weight_bytes(weights) + kv_bytes(config, context)
        phases.append(Phase("word", Work(step.linear + 2.0 * head, step.other, read), words))
    return Plan(layout, tuple(phases), _memory(config, weights, seen + asked + words))
