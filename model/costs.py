"""Arithmetic and bytes of every part of the unified model, from its dimensions alone.

A multiply-add counts as two operations; norms, activations and tables are left out, being far below one percent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from uare_rt.model.memory import WeightType
    from uare_rt.model.presets.uare_7b import CodecConfig, UnifiedConfig, VisionConfig

__all__ = [
    "WEIGHT_BYTES",
    "Work",
    "codec_bytes",
    "codec_flops",
    "codec_parameters",
    "decoder",
    "kv_bytes",
    "parameters",
    "pass_bytes",
    "vision",
]

# As 16-bit numbers, or as integers; int4 has one 16-bit scale per group of 128.
WEIGHT_BYTES: dict[WeightType, float] = {"same": 2.0, "int8": 1.0, "int4": 0.5 + 2 / 128}
_CACHE_BYTES = 2  # bf16


@dataclass(frozen=True)
class Work:
    """What one phase does.

    Attributes:
        linear: operations in linear layers, which 8-bit arithmetic can take over.
        other: operations in attention and convolutions, which stay at 16 bit.
        bytes: read from memory at the least.
    """

    linear: float = 0.0
    other: float = 0.0
    bytes: float = 0.0

    @property
    def flops(self) -> float:
        """All operations."""
        return self.linear + self.other


def parameters(config: UnifiedConfig) -> dict[str, int]:
    """Weights by part: one expert's linear layers, embedding and head, the encoders, what surrounds the latents."""
    mot, seen = config.mot, config.vision
    heads, kv_heads = mot.heads * mot.head_dim, mot.kv_heads * mot.head_dim
    expert = mot.hidden * (2 * heads + 2 * kv_heads + 3 * mot.mlp)
    layer = 4 * seen.hidden * (seen.hidden + 1) + 2 * seen.hidden * seen.mlp + seen.mlp + seen.hidden
    edge = seen.hidden * (3 * seen.patch**2 + 1) + seen.side**2 * seen.hidden + 2 * seen.hidden
    connector = mot.hidden * (seen.hidden + 1) + mot.hidden * (mot.hidden + 1)
    latents = mot.hidden * (257 + mot.hidden + 1 + config.latent_width + 1) + config.latent_width * (mot.hidden + 1)
    return {
        "expert": expert * mot.layers,
        "expert_mlp": 3 * mot.hidden * mot.mlp * mot.layers,
        "vocabulary": config.vocabulary * mot.hidden,
        "vision": seen.layers * (layer + 4 * seen.hidden) + edge + connector,
        "latents": latents,
    }


def kv_bytes(config: UnifiedConfig, tokens: int) -> int:
    """Bytes of the keys and values of ``tokens`` tokens in bf16."""
    mot = config.mot
    return tokens * mot.layers * 2 * mot.kv_heads * mot.head_dim * _CACHE_BYTES


def decoder(config: UnifiedConfig, reads: Sequence[tuple[int, int]], weights: WeightType, experts: int = 2) -> Work:
    """One pass of the decoder.

    Args:
        config: the model.
        reads: (new tokens, tokens they see) of every block in the pass, a block's own tokens included.
        weights: how weights are stored.
        experts: whose weights are read, once.

    Returns:
        The work; the cache is not in its bytes.
    """
    mot, expert = config.mot, parameters(config)["expert"]
    tokens = sum(new for new, _ in reads)
    pairs = sum(new * seen for new, seen in reads)
    attention = 4.0 * pairs * mot.heads * mot.head_dim * mot.layers
    return Work(2.0 * tokens * expert, attention, experts * expert * WEIGHT_BYTES[weights])


def pass_bytes(config: UnifiedConfig, tokens: int, element: int = 2, branches: int = 1) -> int:
    """Bytes that the activations of one decoder pass hold at most, in elements of so many bytes.

    The peak lies in the MLP: three tensors of its inner width beside the residual stream. Scores come in chunks, one
    branch after another.
    """
    mot, every = config.mot, branches * tokens
    scores = min(2**26, tokens**2 * mot.heads) * (4 + element)
    return max(every * element * (3 * mot.mlp + 4 * mot.hidden), scores + every * element * 12 * mot.hidden)


def vision(config: UnifiedConfig, tokens: int) -> Work:
    """Understanding encoder and connector over one image of ``tokens`` patches."""
    seen: VisionConfig = config.vision
    layer = 4 * seen.hidden**2 + 2 * seen.hidden * seen.mlp
    ends = 3 * seen.patch**2 * seen.hidden + config.mot.hidden * (seen.hidden + config.mot.hidden)
    attention = 4.0 * tokens**2 * seen.hidden * seen.layers
    return Work(2.0 * tokens * (seen.layers * layer + ends), attention, parameters(config)["vision"] * 2.0)


def codec_parameters(config: CodecConfig) -> tuple[int, int]:
    """Weights of the autoencoder's encoder and decoder."""
    widths = [config.channels * m for m in config.multipliers]

    def conv(inside: int, outside: int, taps: int = 9) -> int:
        return taps * inside * outside + outside

    def residuals(inside: int, outside: int, count: int) -> int:
        total = 0
        for first in [inside, *[outside] * (count - 1)]:
            shortcut = conv(first, outside, 1) if first != outside else 0
            total += 2 * first + conv(first, outside) + 2 * outside + conv(outside, outside) + shortcut
        return total

    last = widths[-1]
    middle = residuals(last, last, 2) + 2 * last + 4 * conv(last, last, 1)
    encode = conv(config.picture_channels, widths[0]) + middle + 2 * last + conv(last, 2 * config.latent_channels)
    decode = conv(config.latent_channels, last) + middle + 2 * widths[0] + conv(widths[0], config.picture_channels)
    for level, (inside, outside) in enumerate(zip([widths[0], *widths], widths, strict=False)):
        encode += residuals(inside, outside, config.blocks)
        encode += conv(outside, outside) if level < len(widths) - 1 else 0
    for level, (inside, outside) in enumerate(zip([*widths[1:], last], widths, strict=True)):
        decode += residuals(inside, outside, config.blocks + 1)
        decode += conv(outside, outside) if level else 0
    return encode, decode


def codec_bytes(config: CodecConfig, width: int, height: int, tile: int | None = None) -> tuple[float, float]:
    """Elements that encoding and decoding an image of so many pixels hold at most; multiply by their size.

    The peak lies in the outermost residual blocks: the input, its normalised and its activated copy, and what the
    first convolution made of it.
    """
    widths = [config.channels * m for m in config.multipliers]
    inward = [*widths[1:], widths[-1]]
    pixels = width * height
    sizes = [pixels / 4**level for level in range(len(widths))]
    whole = 0.0
    if tile:
        # The two finest levels see a tile; their input and output are kept whole.
        sizes[:2] = [min(size, tile**2 / 4**level) for level, size in enumerate(sizes[:2])]
        whole = pixels * (config.picture_channels + inward[min(1, len(widths) - 1)] / 16)
    encode = max(4 * w * size for w, size in zip(widths, sizes, strict=True))
    decode = max(max(3 * i, i + 4 * w) * size for i, w, size in zip(inward, widths, sizes, strict=True))
    return encode + whole, decode + whole


def codec_flops(config: CodecConfig, width: int, height: int) -> tuple[float, float]:
    """Operations to encode and to decode an image of so many pixels."""
    widths = [config.channels * m for m in config.multipliers]
    pixels = [width * height / 4**level for level in range(len(widths))]
    deep, last = pixels[-1], widths[-1]

    def residuals(inside: int, outside: int, count: int) -> int:
        shortcut = inside * outside if inside != outside else 0
        return 9 * inside * outside + 9 * outside**2 + shortcut + (count - 1) * 18 * outside**2

    middle = deep * (2 * 18 * last**2 + 4 * last**2) + 2 * deep**2 * last
    encode = pixels[0] * 9 * config.picture_channels * widths[0] + middle
    encode += deep * 9 * last * 2 * config.latent_channels
    decode = deep * 9 * config.latent_channels * last + middle
    decode += pixels[0] * 9 * widths[0] * config.picture_channels
    for level, (inside, outside) in enumerate(zip([widths[0], *widths], widths, strict=False)):
        encode += pixels[level] * residuals(inside, outside, config.blocks)
        if level < len(widths) - 1:
            encode += pixels[level + 1] * 9 * outside**2
    for level, (inside, outside) in enumerate(zip([*widths[1:], last], widths, strict=True)):
        decode += pixels[level] * residuals(inside, outside, config.blocks + 1)
        if level:
            decode += pixels[level - 1] * 9 * outside**2
    return 2 * encode, 2 * decode
