"""The graphs of the image autoencoder: ``encode`` and ``decode_image``, and both in two parts for tiles."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from uare_rt.export.graph_writer import GraphWriter
from uare_rt.model.vae import GROUPS, outer_levels

if TYPE_CHECKING:
    import onnx

    from uare_rt.export.weight_file import Weights
    from uare_rt.model.presets.uare_7b import CodecConfig

__all__ = ["decode_image_graph", "decoder_norms", "encode_graph", "encoder_norms", "tiled_graphs"]

_EPS = 1e-6


class _Codec:
    """Writes the parts that encoder and decoder share."""

    scale = 1

    def __init__(self, g: GraphWriter) -> None:
        self.g = g

    def conv(self, x: str, module: str, pads: int | tuple[int, ...] = 1, stride: int = 1) -> str:
        g = self.g
        pads = (pads,) * 4 if isinstance(pads, int) else pads
        tensors = [g.weight(f"{module}.{leaf}") for leaf in ("weight", "bias")]
        return g.op("Conv", x, *tensors, pads=list(pads), strides=[stride, stride])

    def norm(self, x: str, module: str) -> str:
        """GroupNorm, which in opset 20 is best said with InstanceNormalization."""
        g = self.g
        grouped = g.op("Reshape", x, g.ints(0, GROUPS, -1))
        ones, zeros = (g.constant(np.full(GROUPS, value)) for value in (1.0, 0.0))
        normed = g.op("InstanceNormalization", grouped, ones, zeros, epsilon=_EPS)
        return self.affine(g.op("Reshape", normed, g.op("Shape", x)), module)

    def affine(self, normed: str, module: str) -> str:
        """Gain and shift of a norm, by channel."""
        g = self.g
        scale, bias = (g.op("Unsqueeze", g.weight(f"{module}.{leaf}"), g.ints(1, 2)) for leaf in ("weight", "bias"))
        return g.op("Add", g.op("Mul", normed, scale), bias)

    def residual(self, x: str, module: str, *, widens: bool) -> str:
        h = self.conv(self.g.silu(self.norm(x, f"{module}.norm1")), f"{module}.conv1")
        h = self.conv(self.g.silu(self.norm(h, f"{module}.norm2")), f"{module}.conv2")
        return self.g.op("Add", self.conv(x, f"{module}.nin_shortcut", 0) if widens else x, h)

    def attention(self, x: str, module: str, channels: int) -> str:
        """One head over all positions."""
        g = self.g
        normed = self.norm(x, f"{module}.norm")
        q, k, v = (g.op("Reshape", self.conv(normed, f"{module}.{part}", 0), g.ints(0, channels, -1)) for part in "qkv")
        q = g.op("Transpose", g.op("Mul", q, g.constant(channels**-0.5)), perm=[0, 2, 1])
        weights = g.op("Softmax", g.op("MatMul", q, k), axis=-1)
        mixed = g.op("MatMul", v, g.op("Transpose", weights, perm=[0, 2, 1]))
        mixed = g.op("Reshape", mixed, g.op("Shape", x))
        return g.op("Add", x, self.conv(mixed, f"{module}.proj_out", 0))

    def level(self, x: str, module: str, inside: int, outside: int, blocks: int) -> str:
        for index in range(blocks):
            x = self.residual(x, f"{module}.block.{index}", widens=index == 0 and inside != outside)
        return x

    def middle(self, x: str, module: str, channels: int) -> str:
        x = self.residual(x, f"{module}.block_1", widens=False)
        x = self.attention(x, f"{module}.attn_1", channels)
        return self.residual(x, f"{module}.block_2", widens=False)

    def end(self, x: str, module: str) -> str:
        return self.conv(self.g.silu(self.norm(x, f"{module}.norm_out")), f"{module}.conv_out")


class _TiledCodec(_Codec):
    """The outer levels on one tile, whose norms take the statistics that all tiles gave before.

    Inputs ``core`` [4], where the tile's own share lies in cells (first and last row, first and last column),
    ``settled`` whether to use ``means`` and ``variances`` [norms, groups] of the pass before rather than its own.
    Outputs ``found_means`` and ``found_variances`` of the share.

    Attributes:
        scale: elements per cell and side of what is being written.
    """

    def __init__(self, g: GraphWriter, norms: int, scale: int) -> None:
        super().__init__(g)
        self.scale, self._norms = scale, norms
        self._core = g.input("core", "int64", (4,))
        self._settled = g.input("settled", "bool", (1,))
        self._given = [g.input(name, "float32", (norms, GROUPS)) for name in ("means", "variances")]
        self._found: tuple[list[str], list[str]] = ([], [])

    def norm(self, x: str, module: str) -> str:
        """GroupNorm with the statistics of all tiles."""
        g = self.g
        ends = g.op("Mul", self._core, g.constant(self.scale, np.int64))
        starts, stops = (g.op("Gather", ends, g.ints(*at), axis=0) for at in ((0, 2), (1, 3)))
        share = g.op("Reshape", g.op("Slice", x, starts, stops, g.ints(2, 3)), g.ints(GROUPS, -1))
        mean = g.op("ReduceMean", share, g.ints(1), keepdims=1)
        apart = g.op("Sub", share, mean)
        variance = g.op("ReduceMean", g.op("Mul", apart, apart), g.ints(1), keepdims=1)
        used = []
        for value, given, found in zip((mean, variance), self._given, self._found, strict=True):
            row = g.op("Gather", given, g.constant(len(found), np.int64), axis=0)
            used.append(g.op("Where", self._settled, g.op("Unsqueeze", row, g.ints(1)), value))
            found.append(g.op("Reshape", value, g.ints(1, GROUPS)))
        deviation = g.op("Sqrt", g.op("Add", used[1], g.constant(_EPS)))
        normed = g.op("Div", g.op("Sub", g.op("Reshape", x, g.ints(GROUPS, -1)), used[0]), deviation)
        return self.affine(g.op("Reshape", normed, g.op("Shape", x)), module)

    def statistics(self) -> None:
        """Give out what was found."""
        for name, found in zip(("means", "variances"), self._found, strict=True):
            assert len(found) == self._norms
            self.g.output(f"found_{name}", self.g.op("Concat", *found, axis=0), (self._norms, GROUPS))


def _encoder_levels(codec: _Codec, x: str, config: CodecConfig, levels: range) -> str:
    """Levels of the encoder, each with the reduction after it."""
    widths = [config.channels * m for m in config.multipliers]
    inward = [config.channels, *widths]
    for index in levels:
        x = codec.level(x, f"codec.encoder.down.{index}", inward[index], widths[index], config.blocks)
        if index < len(widths) - 1:
            x = codec.conv(x, f"codec.encoder.down.{index}.downsample.conv", (0, 0, 1, 1), 2)
            codec.scale //= 2
    return x


def _decoder_levels(codec: _Codec, x: str, config: CodecConfig, levels: range) -> str:
    """Levels of the decoder, each with the enlargement before it; they run backwards."""
    widths = [config.channels * m for m in config.multipliers]
    inward = [*widths[1:], widths[-1]]
    for index in reversed(levels):
        if index < len(widths) - 1:
            sizes = codec.g.constant([1.0, 1.0, 2.0, 2.0])
            how = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
            x = codec.conv(codec.g.op("Resize", x, "", sizes, **how), f"codec.decoder.up.{index + 1}.upsample.conv")
            codec.scale *= 2
        x = codec.level(x, f"codec.decoder.up.{index}", inward[index], widths[index], config.blocks + 1)
    return x


def _posterior(codec: _Codec, x: str, config: CodecConfig) -> onnx.ModelProto:
    g = codec.g
    x = codec.end(codec.middle(x, "codec.encoder.mid", config.channels * config.multipliers[-1]), "codec.encoder")
    mean, log_variance = g.ops("Split", 2, x, axis=1, num_outputs=2)
    scale = g.constant(config.scale)
    shape = (1, config.latent_channels, "H/stride", "W/stride")
    g.output("latent", g.op("Mul", g.op("Sub", mean, g.constant(config.shift)), scale), shape)
    deviation = g.op("Exp", g.op("Mul", log_variance, g.constant(0.5)))
    g.output("spread", g.op("Mul", deviation, scale), shape)
    return g.model()


def _features(codec: _Codec, config: CodecConfig, kept: int) -> str:
    """From the latent to what the outer levels begin with."""
    g, last = codec.g, config.channels * config.multipliers[-1]
    latent = g.input("latent", "float32", (1, config.latent_channels, "h", "w"))
    x = g.op("Add", g.op("Div", latent, g.constant(config.scale)), g.constant(config.shift))
    x = codec.middle(codec.conv(x, "codec.decoder.conv_in"), "codec.decoder.mid", last)
    return _decoder_levels(codec, x, config, range(kept, len(config.multipliers)))


def encode_graph(config: CodecConfig, weights: Weights) -> onnx.ModelProto:
    """``image`` [1, 3, H, W] in [-1, 1] -> ``latent`` and ``spread`` [1, z, H / stride, W / stride].

    The latent is the posterior's mean; ``latent + spread * normal`` samples it.
    """
    g = GraphWriter("encode", weights)
    codec = _Codec(g)
    x = codec.conv(g.input("image", "float32", (1, config.picture_channels, "H", "W")), "codec.encoder.conv_in")
    return _posterior(codec, _encoder_levels(codec, x, config, range(len(config.multipliers))), config)


def decode_image_graph(config: CodecConfig, weights: Weights) -> onnx.ModelProto:
    """``latent`` [1, z, h, w] -> ``image`` [1, 3, stride h, stride w], about [-1, 1], not clamped."""
    g = GraphWriter("decode_image", weights)
    codec = _Codec(g)
    x = codec.end(_features(codec, config, 0), "codec.decoder")
    g.output("image", x, (1, config.picture_channels, "stride*h", "stride*w"))
    return g.model()


def tiled_graphs(config: CodecConfig, weights: Weights) -> dict[str, onnx.ModelProto]:
    """Both halves of the autoencoder in two: the outer levels for tiles, and the rest for the whole picture.

    ``encode_outer``: ``image`` and the statistics of `_TiledCodec` -> ``features``, which ``encode_inner`` takes on;
    ``decode_inner``: ``latent`` -> ``features``, which ``decode_outer`` and the statistics make an ``image`` of.
    """
    outer = outer_levels(config)
    cell, levels = 2**outer, range(len(config.multipliers))
    widths = [config.channels * m for m in config.multipliers]

    g = GraphWriter("encode_outer", weights)
    tiled = _TiledCodec(g, encoder_norms(config), cell)
    image = g.input("image", "float32", (1, config.picture_channels, "H", "W"))
    x = _encoder_levels(tiled, tiled.conv(image, "codec.encoder.conv_in"), config, levels[:outer])
    g.output("features", x, (1, widths[outer - 1], "rows", "columns"))
    tiled.statistics()
    made = {"encode_outer": g.model()}

    g = GraphWriter("encode_inner", weights)
    codec = _Codec(g)
    x = g.input("features", "float32", (1, widths[outer - 1], "rows", "columns"))
    made["encode_inner"] = _posterior(codec, _encoder_levels(codec, x, config, levels[outer:]), config)

    g = GraphWriter("decode_inner", weights)
    g.output("features", _features(_Codec(g), config, outer), (1, widths[outer], "rows", "columns"))
    made["decode_inner"] = g.model()

    g = GraphWriter("decode_outer", weights)
    tiled = _TiledCodec(g, decoder_norms(config), 1)
    x = g.input("features", "float32", (1, widths[outer], "rows", "columns"))
    x = tiled.end(_decoder_levels(tiled, x, config, levels[:outer]), "codec.decoder")
    g.output("image", x, (1, config.picture_channels, "cell*rows", "cell*columns"))
    tiled.statistics()
    made["decode_outer"] = g.model()
    return made


def encoder_norms(config: CodecConfig) -> int:
    """Group norms of the encoder's outer levels."""
    return 2 * config.blocks * outer_levels(config)


def decoder_norms(config: CodecConfig) -> int:
    """Group norms of the decoder's outer levels and its end."""
    return 2 * (config.blocks + 1) * outer_levels(config) + 1
