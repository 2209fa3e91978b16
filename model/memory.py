"""Memory: how a model is kept in less of it, how much that takes, and whether the device has it.

PyTorch is imported only to ask a device, so that memory can be planned without it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from uare_rt.errors import BackendError, UsageError
from uare_rt.machine import available_memory
from uare_rt.model.costs import WEIGHT_BYTES, codec_parameters, parameters
from uare_rt.vlm import memory
from uare_rt.vlm.layout import CacheType

if TYPE_CHECKING:
    import torch

    from uare_rt.model.presets.uare_7b import UnifiedConfig

__all__ = [
    "PLAIN",
    "CacheType",
    "MemoryOptions",
    "Residency",
    "Sizes",
    "WeightType",
    "check_loading",
    "free_memory",
    "loaded_bytes",
    "require",
    "weight_bytes",
]

WeightType: TypeAlias = Literal["same", "int8", "int4"]
Residency: TypeAlias = Literal["all", "encoders", "one"]
_GB = 1e9


@dataclass(frozen=True)
class MemoryOptions:
    """How to trade time or accuracy for memory.

    Attributes:
        weights: storage of the experts' linear layers: as the rest (``same``), ``int8`` or ``int4``, see
            `uare_rt.model.quantised`.
        cache: storage of contexts, see `uare_rt.model.kv_cache`.
        tile: pixels along the side of what the autoencoder's outer levels work on at once, see
            `uare_rt.model.vae_tiling`; None takes the whole picture.
        residency: ``all`` loads everything once; ``encoders`` loads the understanding encoder and either half of the
            autoencoder for each of their calls; ``one`` moreover releases the decoder during those calls, so that
            each of the four is there alone.
        stream_und_mlp: load the MLP of the understanding expert layer by layer in every pass, and release it after.
            Meant for restoration, where its tokens are few; in text every word pays for it.

    Raises:
        UsageError: a value that is not known.
    """

    weights: WeightType = "same"
    cache: CacheType = "same"
    tile: int | None = None
    residency: Residency = "all"
    stream_und_mlp: bool = False

    def __post_init__(self) -> None:
        for name, known in (("weights", WeightType), ("cache", CacheType), ("residency", Residency)):
            value = getattr(self, name)
            if value not in get_args(known):
                raise UsageError(f"{name} is {value!r}, but must be one of {', '.join(get_args(known))}")
        if self.tile is not None and self.tile < 1:
            raise UsageError(f"tile is {self.tile} px, but must be positive")


PLAIN = MemoryOptions()
# What reduces the memory of weights, one by one and together, in the order to try.
_SAVINGS: tuple[tuple[str, dict[str, object]], ...] = (
    ("weights='int8'", {"weights": "int8"}),
    ("weights='int4'", {"weights": "int4"}),
    ("residency='one'", {"residency": "one"}),
    ("stream_und_mlp", {"stream_und_mlp": True}),
    ("the last three", {"weights": "int4", "residency": "one", "stream_und_mlp": True}),
)


@dataclass(frozen=True)
class Sizes:
    """Bytes per element: of everything but the autoencoder, and of the autoencoder."""

    model: int = 2
    codec: int = 4


def weight_bytes(config: UnifiedConfig, options: MemoryOptions, sizes: Sizes) -> dict[str, float]:
    """Bytes of each component's weights while it is loaded.

    The understanding expert's MLP counts as one layer where it is streamed. Norms and biases of the decoder, below a
    thousandth, are left out.
    """
    counts = parameters(config)
    each = float(sizes.model) if options.weights == "same" else WEIGHT_BYTES[options.weights]
    mlp = counts["expert_mlp"] * each
    encoder, decoder = codec_parameters(config.codec)
    tables = (config.latent_side**2 + config.vision.side**2) * config.mot.hidden
    return {
        "gen_expert": counts["expert"] * each,
        "und_attention": counts["expert"] * each - mlp,
        "und_mlp": mlp / config.mot.layers if options.stream_und_mlp else mlp,
        "vocabulary": 2.0 * counts["vocabulary"] * sizes.model,
        "vision": float(counts["vision"] * sizes.model),
        "latents": float(counts["latents"] * sizes.model),
        "tables": 4.0 * tables,
        "encoder": float(encoder * sizes.codec),
        "decoder": float(decoder * sizes.codec),
    }


def loaded_bytes(config: UnifiedConfig, options: MemoryOptions, sizes: Sizes) -> float:
    """The most that weights take at any time."""
    parts = weight_bytes(config, options, sizes)
    always = parts["latents"] + parts["tables"]
    called = [parts[name] for name in ("vision", "encoder", "decoder")]
    language = sum(parts[name] for name in ("gen_expert", "und_attention", "und_mlp", "vocabulary"))
    if options.residency == "all":
        return always + language + sum(called)
    return always + (language + max(called) if options.residency == "encoders" else max(language, *called))


def free_memory(device: torch.device | str) -> int | None:
    """Bytes that can still be allocated on a device, or None where the system does not say.

    A GPU that shares the machine's memory (Jetson) has what the machine has: cached files make room when asked.
    """
    import torch

    device = torch.device(device)
    if device.type == "cpu":
        return available_memory()
    if device.type != "cuda":
        return None
    if torch.cuda.get_device_properties(device).is_integrated:
        return available_memory()
    held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + held


def check_loading(config: UnifiedConfig, options: MemoryOptions, sizes: Sizes, free: int | None, name: str) -> None:
    """Refuse to load weights that the device has no room for.

    Args:
        config: the model.
        options: how it is to be kept.
        sizes: what it is to be loaded in.
        free: bytes; None is not checked.
        name: of the checkpoint, for the message.

    Raises:
        BackendError: how much is needed, how much there is, and what would need less.
    """
    need = loaded_bytes(config, options, sizes)
    if free is None or need <= free:
        return
    less = []
    for words, change in _SAVINGS:
        reduced = loaded_bytes(config, replace(options, **change), sizes)
        if reduced < need:
            less.append(f"{words} {reduced / _GB:.3g} GB")
    if sizes.model > 2:
        half = loaded_bytes(config, options, replace(sizes, model=2))
        less.insert(0, f"16-bit weights {half / _GB:.3g} GB")
    ways = f"; less is needed with {', '.join(less)}" if less else "; no option reduces it further"
    raise BackendError(
        f"{name}: not enough memory: its weights need {need / _GB:.3g} GB, but {free / _GB:.3g} GB are free{ways}"
    )


def require(what: str, need: float, device: torch.device, way_out: str) -> None:
    """Refuse to start what the device has no room for.

    Args:
        what: is to be done, for the message.
        need: bytes of its activations and results.
        device: where.
        way_out: what to do about it.

    Raises:
        BackendError: there is less.
    """
    memory.require(what, need, way_out, lambda: free_memory(device))
