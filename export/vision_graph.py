"""The graph of the understanding encoder: ``vision``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from uare_rt.export.graph_writer import GraphWriter

if TYPE_CHECKING:
    import onnx

    from uare_rt.export.weight_file import Weights
    from uare_rt.model.presets.uare_7b import UnifiedConfig

__all__ = ["vision_graph"]


def vision_graph(config: UnifiedConfig, weights: Weights) -> onnx.ModelProto:
    """Patches of one image -> embeddings for the decoder.

    Inputs ``patches`` [N, 3 patch^2] in [-1, 1], channel fastest, and their ``rows`` [N] in the position tables
    (row * side + column). Output ``embeddings`` [N, decoder hidden].
    """
    vision = config.vision
    g = GraphWriter("vision", weights)
    patches = g.input("patches", "float32", ("N", 3 * vision.patch**2))
    rows = g.input("rows", "int64", ("N",))
    x = g.linear(patches, "vision.patch")
    x = g.op("Add", x, g.op("Gather", g.weight("vision.position.weight"), rows, axis=0))

    def norm(x: str, module: str) -> str:
        scale, bias = (g.weight(f"{module}.{leaf}") for leaf in ("weight", "bias"))
        return g.op("LayerNormalization", x, scale, bias, epsilon=vision.eps)

    def gelu(x: str) -> str:
        return g.op("Gelu", x, approximate="tanh")

    width = vision.hidden // vision.heads
    for index in range(vision.layers):
        stem = f"vision.layers.{index}"
        normed = norm(x, f"{stem}.norm1")
        q, k, v = (
            g.op("Reshape", g.linear(normed, f"{stem}.{part}"), g.ints(0, vision.heads, width)) for part in "qkv"
        )
        q = g.op("Transpose", g.op("Mul", q, g.constant(width**-0.5)), perm=[1, 0, 2])
        scores = g.op("MatMul", q, g.op("Transpose", k, perm=[1, 2, 0]))
        mixed = g.op("MatMul", g.op("Softmax", scores, axis=-1), g.op("Transpose", v, perm=[1, 0, 2]))
        mixed = g.op("Reshape", g.op("Transpose", mixed, perm=[1, 0, 2]), g.ints(0, vision.hidden))
        x = g.op("Add", x, g.linear(mixed, f"{stem}.out"))
        inner = gelu(g.linear(norm(x, f"{stem}.norm2"), f"{stem}.fc1"))
        x = g.op("Add", x, g.linear(inner, f"{stem}.fc2"))
    x = gelu(g.linear(norm(x, "vision.post_norm"), "vision.connector.fc1"))
    x = g.linear(x, "vision.connector.fc2")
    x = g.op("Add", x, g.op("Gather", g.weight("vision.table"), rows, axis=0))
    g.output("embeddings", x, ("N", config.mot.hidden))
    return g.model()
