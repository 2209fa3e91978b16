"""What `uare-nano` does to restore a frame, layer by layer: operations, bytes and kernel launches, without PyTorch.

A multiply-add counts as two operations; convolutions are counted as direct ones. Bytes are what a layer must move when
everything behind a convolution (modulation, activation, sum) is fused into it: input, output and weights once each.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from uare_rt.model.presets.nano import NanoConfig

__all__ = ["LATENT", "Layer", "restore_layers"]

LATENT = 16
"""Pixels per latent token and side."""

_VIEW_TOKENS, _SLOTS = 36, 7  # of the quality context: nine views of 2x2 tokens, and a token for each slot
# Norm, projections, norm of queries and keys, scores, softmax, values, projection; norm, gate and up, product, down.
_LAUNCHES = 13


@dataclass(frozen=True)
class Layer:
    """One layer, or a few that are alike, for one frame.

    Attributes:
        name: for people.
        part: ``tone``, ``encoder``, ``tokens``, ``decoder`` or ``head``.
        flops: operations in convolutions and matrix products.
        values: numbers read and written, each once.
        weights: numbers of weights read.
        launches: kernels, if each layer with what is fused to it is one.
        eight_bit: whether it may run in 8 bits: inner convolutions.
    """

    name: str
    part: str
    flops: float
    values: float
    weights: float
    launches: int = 1
    eight_bit: bool = field(default=False)


def restore_layers(config: NanoConfig, width: int, height: int, scale: int = 1) -> list[Layer]:
    """The layers of the restore graph in order.

    Args:
        config: the model's shape.
        width: of the frame, in px; padded to whole latent tokens.
        height: of the frame, in px.
        scale: of the output.
    """
    columns, rows = -(-width // LATENT), -(-height // LATENT)
    pixels = float(columns * rows * LATENT**2)
    first, widths = config.widths[0], config.widths
    below = (*widths[1:], config.mot.hidden)
    layers = [
        Layer("tone curve", "tone", 0, 6 * pixels, 0),
        _conv("stem 6x6", "encoder", pixels / 4, 3, first, 36, 3 * pixels, eight_bit=False),
    ]
    for level, (inside, outside, count) in enumerate(zip(widths, below, config.encoder_convs, strict=True)):
        there = pixels / 4 ** (level + 1)
        layers += [_conv(f"3x3 at /{2 << level}", "encoder", there, inside, inside, 9) for _ in range(count)]
        layers.append(_conv(f"down to /{4 << level}", "encoder", there / 4, inside, outside, 4, inside * there))
    layers += _tokens(config, columns, rows)
    for level in reversed(range(len(widths))):
        there, inside = pixels / 4 ** (level + 1), widths[level]
        # Added to the skip where the pixels are four times as many.
        up = _conv(f"up to /{2 << level}", "decoder", there / 4, below[level], inside, 1)
        layers += [up, Layer(f"skip at /{2 << level}", "decoder", 0, 2.25 * inside * there, 0)]
        layers += [
            _conv(f"3x3 at /{2 << level}", "decoder", there, inside, inside, 9)
            for _ in range(config.decoder_convs[level])
        ]
    layers.append(_conv("head 3x3", "head", pixels / 4, first, 12 * scale**2, 9, eight_bit=False))
    if scale > 1:
        layers.append(_conv("bicubic", "head", pixels, 3, 3 * scale**2, 25, eight_bit=False))
    layers.append(Layer("shuffle and sum", "head", 0, 9 * scale**2 * pixels, 0))
    return layers


def _conv(
    name: str,
    part: str,
    pixels: float,
    inside: int,
    outside: int,
    taps: int,
    read: float | None = None,
    *,
    eight_bit: bool = True,
) -> Layer:
    values = (inside * pixels if read is None else read) + outside * pixels
    flops = 2.0 * taps * inside * outside * pixels
    return Layer(name, part, flops, values, taps * inside * outside + outside, eight_bit=eight_bit)


def _tokens(config: NanoConfig, columns: int, rows: int) -> list[Layer]:
    """The gen expert's layers, first on plain windows, then on shifted ones, of which there are more."""
    mot, side = config.mot, config.window
    heads = mot.heads * mot.head_dim
    linear = mot.hidden * (2 * heads + 2 * mot.kv_heads * mot.head_dim) + 3 * mot.hidden * mot.mlp
    layers = []
    for name, count, shift in (
        ("tokens, windows", mot.layers - config.shifted_layers, 0),
        ("tokens, shifted windows", config.shifted_layers, side // 2),
    ):
        windows = -(-(columns + shift) // side) * -(-(rows + shift) // side)
        tokens = windows * side**2
        seen = side**2 + _VIEW_TOKENS + _SLOTS
        each = 2.0 * tokens * linear + 4.0 * tokens * seen * heads
        values = tokens * (12 * mot.hidden + 3 * mot.mlp)
        layers.append(Layer(name, "tokens", count * each, count * values, count * linear, count * _LAUNCHES))
    return layers
