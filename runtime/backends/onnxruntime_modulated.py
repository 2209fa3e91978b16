"""Restore graphs whose quality context changes the weights of convolutions instead of their results.

``leaky_relu((1 + s) conv(x) + t)`` is a convolution with weights ``(1 + s) W`` and bias ``(1 + s) b + t``. Written so,
nothing stands between the convolutions: ONNX Runtime fuses their activations and keeps its blocked layout from the
first to the last. It lays out weights for that layout only where they are constants, so it optimises the graph without
modulation first, and the weights that it laid out are multiplied afterwards, in its own order: of channels in blocks,
[outputs / block, inputs / block, rows, columns, block of inputs, block of outputs]. None of this is promised by
ONNX Runtime, so the result is compared with the plain graph's before it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from uare_rt.onnx_parts import Node, OnnxModel

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["BLOCKS", "REVISION", "Modulation", "modulate", "set_aside"]

BLOCKS = (16, 8, 4)
"""Channels in a block: with AVX-512, with AVX or NEON, and with what is smaller."""
REVISION = 1
"""Of what is done here: graphs that were kept by another are made anew."""
_BLOCKED = "com.microsoft.nchwc"


class Modulation(NamedTuple):
    """One modulated convolution, by names of values.

    Attributes:
        bias: of the convolution; it keeps its name while the graph is optimised.
        scale: ``1 + s``, float32 [1, channels, 1, 1].
        shift: ``t``, the same shape.
    """

    bias: str
    scale: str
    shift: str


def set_aside(model: OnnxModel, moving: str) -> list[Modulation]:
    """Take the modulation out of a graph; its factors and summands become outputs.

    Args:
        model: changed.
        moving: the input that factors and summands may not depend on.

    Returns:
        What was taken out; nothing, and the graph is as it was, where there is none.
    """
    makers, readers = model.makers(), model.readers()

    def split(node: Node, kind: str, other: str) -> tuple[str, str] | None:
        """Of a node's two inputs, the one that a node of a type makes for it alone, and the other."""
        if node.type == kind:
            for one, rest in (node.inputs, node.inputs[::-1]):
                if one in makers and makers[one].type == other and len(readers[one]) == 1:
                    return one, rest
        return None

    found: list[Modulation] = []
    bare: dict[str, str] = {}  # results of convolutions, by those of their modulation
    gone = set[str]()
    for node in model.nodes:
        summed = split(node, "Add", "Mul")
        scaled = split(makers[summed[0]], "Mul", "Conv") if summed else None
        if summed is None or scaled is None or moving in model.needed([summed[1], scaled[1]]):
            continue
        biases = makers[scaled[0]].inputs[2:]
        if biases and [reader.type for reader in readers.get(node.outputs[0], [])] == ["LeakyRelu"]:
            found.append(Modulation(biases[0], scaled[1], summed[1]))
            bare[node.outputs[0]] = scaled[0]
            gone |= {node.outputs[0], summed[0]}
    if len({modulation.bias for modulation in found}) < len(found):
        return []

    def without(node: Node) -> list[Node]:
        if not gone.isdisjoint(node.outputs):
            return []
        return [node._replace(inputs=tuple(bare.get(name, name) for name in node.inputs))]

    if found:
        model.rewire(without)
    for modulation in found:
        model.add_output(modulation.scale)
        model.add_output(modulation.shift)
    return found


def modulate(model: OnnxModel, modulations: Sequence[Modulation], block: int) -> bool:
    """Put modulation back into a graph that ONNX Runtime has optimised, on weights and biases.

    Args:
        model: changed, its convolutions in ONNX Runtime's blocked layout.
        modulations: what `set_aside` gave.
        block: channels in a block.

    Returns:
        Whether it could; if not, the graph is good for nothing.
    """
    by_bias = {modulation.bias: modulation for modulation in modulations}
    done = set[str]()

    def change(node: Node) -> list[Node]:
        modulation = by_bias.get(node.inputs[2]) if len(node.inputs) > 2 else None
        if node.domain != _BLOCKED or node.type != "Conv" or modulation is None:
            return [node]
        weight, bias = node.inputs[1:3]
        if weight not in model.initializers or bias not in model.initializers:
            return [node]
        shape = model.shape(weight)
        outputs, inputs, rows, columns = shape
        if outputs % block or inputs % block or model.shape(bias) != (outputs,):
            return [node]
        done.add(bias)
        names = {part: f"{weight}.{part}" for part in ("shape", "blocks", "factors", "product", "modulated")}
        names |= {part: f"{bias}.{part}" for part in ("flat", "factor", "summand", "scaled", "shifted")}
        model.reshape(weight, (outputs // block, inputs * rows * columns, block))
        model.add_integers(names["shape"], shape)
        model.add_integers(names["blocks"], (outputs // block, 1, block))
        model.add_integers(names["flat"], (outputs,))
        steps = (
            ("Reshape", modulation.scale, names["blocks"], names["factors"]),
            ("Mul", weight, names["factors"], names["product"]),
            ("Reshape", names["product"], names["shape"], names["modulated"]),
            ("Reshape", modulation.scale, names["flat"], names["factor"]),
            ("Reshape", modulation.shift, names["flat"], names["summand"]),
            ("Mul", bias, names["factor"], names["scaled"]),
            ("Add", names["scaled"], names["summand"], names["shifted"]),
        )
        modulated = node._replace(inputs=(node.inputs[0], names["modulated"], names["shifted"], *node.inputs[3:]))
        return [*(Node(kind, "", (one, other), (result,)) for kind, one, other, result in steps), modulated]

    model.rewire(change)
    for modulation in modulations:
        for name in modulation[1:]:
            model.outputs.pop(name, None)
    return done == set(by_bias)
