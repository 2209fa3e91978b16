"""What a restoration or an assessment costs on a device at the least: operations, bytes, memory, seconds.

A floor, not a forecast: every phase takes the longer of its operations at the device's peak and its bytes at full
bandwidth, guidance branches run as one batch, and weights are read once per pass. Needs no PyTorch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.resources import files
from typing import TYPE_CHECKING, Literal, get_args

import msgspec

from uare_rt.errors import UsageError
from uare_rt.model.costs import (
    WEIGHT_BYTES,
    Work,
    codec_bytes,
    codec_flops,
    decoder,
    kv_bytes,
    parameters,
    pass_bytes,
    vision,
)
from uare_rt.model.flow import Forecast, times
from uare_rt.model.memory import PLAIN, Sizes, loaded_bytes, weight_bytes
from uare_rt.model.transforms import fitted_size

if TYPE_CHECKING:
    from uare_rt.model.flow import Flow
    from uare_rt.model.memory import MemoryOptions
    from uare_rt.model.presets.uare_7b import UnifiedConfig

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

    def bound(self, work: Work) -> str:
        """What limits a phase at 16 bit: ``compute`` or ``bandwidth``."""
        return "compute" if work.flops / self.fp16 >= 1e3 * work.bytes / self.bandwidth else "bandwidth"

    def floor(self, work: Work, arithmetic: Arithmetic = "fp16") -> float:
        """Seconds that a phase takes at the least."""
        linear = self.fp16 if arithmetic == "fp16" else self.eight_bit
        compute = work.linear / (linear * 1e12) + work.other / (self.fp16 * 1e12)
        return max(compute, work.bytes / (self.bandwidth * 1e9))


def devices() -> dict[str, Device]:
    """The device table, by name."""
    source = files("uare_rt.model.presets") / "devices.yaml"
    return msgspec.yaml.decode(source.read_bytes(), type=dict[str, Device])


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
        memory: bytes by component while it is loaded: weights (16 bit but for the experts and the autoencoder and
            tables, which are float32), ``cache`` of all contexts, and ``activations``, the most that any phase holds.
        peak: bytes at most at any time, residency considered.
    """

    layout: Layout
    phases: tuple[Phase, ...]
    memory: dict[str, float]
    peak: float

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


_SIZES = Sizes(model=2, codec=4)


def _memory(
    config: UnifiedConfig,
    options: MemoryOptions,
    layout: Layout,
    tokens: int,
    passes: tuple[int, int],
    branches: int = 1,
) -> tuple[dict[str, float], float]:
    """Bytes by component, and at most.

    Args:
        config: the model.
        options: how it is kept.
        layout: of the picture.
        tokens: in all caches.
        passes: tokens of the prefill and of an evaluation.
        branches: run at once.
    """
    prefill, evaluation = passes
    # Its keys and values are stacked while those of the layers are still there.
    activations = [pass_bytes(config, prefill) + kv_bytes(config, prefill)]
    if evaluation:
        coded = codec_bytes(config.codec, *layout.size, options.tile)
        activations += [
            pass_bytes(config, evaluation, branches=branches),
            *(elements * _SIZES.codec for elements in coded),
        ]
    parts = weight_bytes(config, options, _SIZES)
    # One float32 scale per token and head of 8-bit keys and values.
    share = (config.mot.head_dim + 4) / (2 * config.mot.head_dim) if options.cache == "int8" else 1.0
    parts["cache"] = kv_bytes(config, tokens) * share
    parts["activations"] = float(max(activations))
    peak = loaded_bytes(config, options, _SIZES) + parts["cache"] + parts["activations"]
    return parts, peak


def _computed(flow: Flow) -> dict[int, int]:
    """How many evaluations run how many branches: {branches: evaluations}."""
    counts: dict[int, int] = {}
    guided = 1 + flow.guidance.by_image
    main, others = Forecast(), Forecast()
    for time in times(flow.points, flow.shift)[:-1].tolist():
        branches = 1 if not flow.forecast or _due(main) else 0
        if flow.guidance.active(time) and (not flow.forecast or _due(others)):
            branches += guided
        if branches:
            counts[branches] = counts.get(branches, 0) + 1
    return counts


def _due(forecast: Forecast) -> bool:
    due = forecast.advance()
    if due:
        forecast.record(0.0)
    return due


def plan_restoration(
    config: UnifiedConfig, width: int, height: int, flow: Flow, *, prompt: int = 32, memory: MemoryOptions = PLAIN
) -> Plan:
    """Plan the restoration of one picture.

    Args:
        config: the model.
        width: of the picture, in pixels.
        height: of the picture, in pixels.
        flow: schedule, guidance and forecasts.
        prompt: ids of the instruction.
        memory: how the model is kept; reading streamed or released weights again is not in the work.

    Returns:
        The plan.

    Raises:
        UsageError: a size or setting that cannot be.
    """
    layout = Layout.of(config, width, height, prompt)
    latents, patches, text = layout.latents + _DELIMITERS, layout.patches + _DELIMITERS, layout.text
    main = latents + patches + text
    free = text if flow.guidance.by_image else 0
    evaluations = _computed(flow)
    batch = 1 if flow.batched is False else max(evaluations)
    parts, peak = _memory(config, memory, layout, main + free, (main, latents), batch)
    encode, decode = codec_flops(config.codec, *layout.size)
    reads = [(latents, latents), (patches, latents + patches), (text, main), (free, free)]
    phases = [
        Phase("encode", Work(other=encode)),
        Phase("vision", vision(config, layout.patches)),
        Phase("prefill", decoder(config, reads, memory.weights)),
    ]
    # In the order in which branches join: everything, without the text, without the images.
    contexts = (main, latents + patches, text)
    for branches, count in sorted(evaluations.items(), reverse=True):
        seen = [(latents, context + latents) for context in contexts[:branches]]
        # The text-free cache is the beginning of the main one.
        cache = kv_bytes(config, main + (free if branches > 2 else 0))
        work = decoder(config, seen, memory.weights)
        phases.append(Phase(f"evaluation, branches: {branches}", replace(work, bytes=work.bytes + cache), count))
    phases.append(Phase("decode", Work(other=decode)))
    return Plan(layout, tuple(phases), parts, peak)


def plan_assessment(
    config: UnifiedConfig, width: int, height: int, *, text: int = 52, words: int = 0, memory: MemoryOptions = PLAIN
) -> Plan:
    """Plan the assessment of one picture.

    Args:
        config: the model.
        width: of the picture, in pixels.
        height: of the picture, in pixels.
        text: tokens of the question and the forced answers, delimiters of the picture included.
        words: tokens of a free description to decode after it.
        memory: how the model is kept.

    Returns:
        The plan.
    """
    layout = Layout.of(config, width, height, max(text - 2 * _DELIMITERS, 0))
    seen = layout.patches + _DELIMITERS
    asked = max(text - _DELIMITERS, 0)
    prefill = decoder(config, [(seen, seen), (asked, seen + asked)], memory.weights, experts=1)
    phases = [Phase("vision", vision(config, layout.patches)), Phase("prefill", prefill)]
    if words:
        context = seen + asked
        step = decoder(config, [(1, context + 1)], memory.weights, experts=1)
        head = parameters(config)["vocabulary"]
        read = step.bytes + head * WEIGHT_BYTES[memory.weights] + kv_bytes(config, context)
        phases.append(Phase("word", Work(step.linear + 2.0 * head, step.other, read), words))
    parts, peak = _memory(config, memory, layout, seen + asked + words, (seen + asked, 0))
    return Plan(layout, tuple(phases), parts, peak)
