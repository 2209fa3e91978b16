"""The graphs of the image autoencoder: ``encode`` and ``decode_image``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from uare_rt.export.graph_writer import GraphWriter

if TYPE_CHECKING:
    import onnx

    from uare_rt.export.weight_file import Weights
    from uare_rt.model.presets.uare_7b import CodecConfig

__all__ = ["decode_image_graph", "encode_graph"]

_GROUPS = 32
_EPS = 1e-6


class _Codec:
    """Writes the parts that encoder and decoder share."""

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
        grouped = g.op("Reshape", x, g.ints(0, _GROUPS, -1))
        ones, zeros = (g.constant(np.full(_GROUPS, value)) for value in (1.0, 0.0))
        normed = g.op("InstanceNormalization", grouped, ones, zeros, epsilon=_EPS)
        normed = g.op("Reshape", normed, g.op("Shape", x))
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


def encode_graph(config: CodecConfig, weights: Weights) -> onnx.ModelProto:
    """``image`` [1, 3, H, W] in [-1, 1] -> ``latent`` and ``spread`` [1, z, H / stride, W / stride].

    The latent is the posterior's mean; ``latent + spread * normal`` samples it.
    """
    g = GraphWriter("encode", weights)
    codec, widths = _Codec(g), [config.channels * m for m in config.multipliers]
    x = codec.conv(g.input("image", "float32", (1, config.picture_channels, "H", "W")), "codec.encoder.conv_in")
    for index, (inside, outside) in enumerate(zip([config.channels, *widths], widths, strict=False)):
        x = codec.level(x, f"codec.encoder.down.{index}", inside, outside, config.blocks)
        if index < len(widths) - 1:
            x = codec.conv(x, f"codec.encoder.down.{index}.downsample.conv", (0, 0, 1, 1), 2)
    x = codec.end(codec.middle(x, "codec.encoder.mid", widths[-1]), "codec.encoder")
    mean, log_variance = g.ops("Split", 2, x, axis=1, num_outputs=2)
    scale = g.constant(config.scale)
    shape = (1, config.latent_channels, "H/stride", "W/stride")
    g.output("latent", g.op("Mul", g.op("Sub", mean, g.constant(config.shift)), scale), shape)
    deviation = g.op("Exp", g.op("Mul", log_variance, g.constant(0.5)))
    g.output("spread", g.op("Mul", deviation, scale), shape)
    return g.model()


def decode_image_graph(config: CodecConfig, weights: Weights) -> onnx.ModelProto:
    """``latent`` [1, z, h, w] -> ``image`` [1, 3, stride h, stride w], about [-1, 1], not clamped."""
    g = GraphWriter("decode_image", weights)
    codec, widths = _Codec(g), [config.channels * m for m in config.multipliers]
    latent = g.input("latent", "float32", (1, config.latent_channels, "h", "w"))
    x = g.op("Add", g.op("Div", latent, g.constant(config.scale)), g.constant(config.shift))
    x = codec.middle(codec.conv(x, "codec.decoder.conv_in"), "codec.decoder.mid", widths[-1])
    inward = [*widths[1:], widths[-1]]
    for index in reversed(range(len(widths))):
        x = codec.level(x, f"codec.decoder.up.{index}", inward[index], widths[index], config.blocks + 1)
        if index:
            sizes = g.constant([1.0, 1.0, 2.0, 2.0])
            how = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
            x = g.op("Resize", x, "", sizes, **how)
            x = codec.conv(x, f"codec.decoder.up.{index}.upsample.conv")
    g.output("image", codec.end(x, "codec.decoder"), (1, config.picture_channels, "stride*h", "stride*w"))
    return g.model()
