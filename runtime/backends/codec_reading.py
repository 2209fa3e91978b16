"""Restore graphs of `uare-nano` read as a codec and its tokens.

Convolutions are recognised by how they are joined, the transformer by the names of its weights; a graph that is joined
otherwise is not read.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

from uare_rt.backends.codec_graph import LATENT, Codec, Layer, TokenLayer, Tokens
from uare_rt.backends.convolutions import BLOCK, blocked_weights
from uare_rt.backends.onnxruntime_modulated import Modulation, set_aside
from uare_rt.onnx_parts import Node, OnnxModel

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["NotACodecError", "read_codec"]

_EMBEDDING, _FINAL_NORM = "model.latent_embedding", "model.mot.gen_norm.weight"
_WIDEST = 8  # tokens, the side of a window
_KINDS = {
    ((6, 6), (2, 2), (2, 2, 2, 2)): "stem",
    ((3, 3), (1, 1), (1, 1, 1, 1)): "3x3",
    ((2, 2), (2, 2), (0, 0, 0, 0)): "down",
    ((1, 1), (1, 1), (0, 0, 0, 0)): "up",
}
_TO_ROWS, _TO_PLANES = (0, 2, 3, 1), (0, 3, 1, 2)
_NEAREST = {"mode": "nearest", "nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}


class NotACodecError(Exception):
    """A graph is built otherwise; the message says where."""


def read_codec(model: OnnxModel, folder: Path, optimised: Callable[[bytes], bytes]) -> Codec:
    """Read a restore graph.

    Args:
        model: the graph, or the part of it behind the base; changed.
        folder: of its external weights.
        optimised: what is done to the graphs that stay ONNX before they are kept.

    Raises:
        NotACodecError: it is built otherwise.
        BundleError: it cannot be read.
    """
    inputs, outputs = tuple(model.inputs), tuple(model.outputs)
    if len(outputs) != 1:
        raise NotACodecError(f"it has {len(outputs)} outputs")
    modulations = set_aside(model, inputs[0])
    reader = _Reader(model, modulations, folder)
    base, latent, encoder = reader.encoder()
    rows, merged, joined = reader.between(latent)
    tokens = reader.tokens(rows, merged)
    decoder, times, addend = reader.decoder(joined)
    factors = tuple(name for modulation in modulations for name in modulation[1:])
    whole = model.to_bytes()

    def part(given: str | None, *made: str) -> bytes:
        found = OnnxModel(whole)
        sources = inputs[1:] if given is None else (given, *inputs[1:])
        found.keep_between(dict.fromkeys(sources, ("N", 3, "H", "W")), made)
        return optimised(found.to_bytes())

    graphs = {"context": part(None, *factors, tokens.keys)}
    if base != inputs[0]:
        graphs["base"] = part(inputs[0], base)
    if addend != base:
        graphs["addend"] = part(base, addend)
    return Codec(encoder, tokens, decoder, times, inputs, outputs[0], base, factors, graphs)


def _weight(index: int, name: str) -> str:
    return f"model.mot.layers.{index}.gen.{name}"


class _Reader:
    """Follows a graph from its stem to its head.

    Args:
        model: its modulation set aside.
        modulations: what was.
        folder: of external weights.
    """

    def __init__(self, model: OnnxModel, modulations: list[Modulation], folder: Path) -> None:
        self._model, self._folder = model, folder
        self._makers, self._readers = model.makers(), model.readers()
        self._modulation = {modulation.bias: at for at, modulation in enumerate(modulations)}
        self._skips: list[str] = []

    def encoder(self) -> tuple[str, str, tuple[Layer, ...]]:
        """What the stem reads, what the tokens are made of, and the layers."""
        stem = next((node for node in self._model.nodes if node.type == "Conv"), None)
        if stem is None:
            raise NotACodecError("it has no convolution")
        base, layers = value, _ = stem.inputs[0], list[Layer]()
        while (convolution := self._convolution(value)) is not None:
            layer, result = self._layer(convolution)
            if (layer.kind == "stem") != (not layers) or layer.kind == "up":
                raise NotACodecError(f"its encoder has {layer.kind} in layer {len(layers)}")
            if layer.kind == "down":
                self._skips.append(value)
            layers.append(layer)
            value = result
        if 2 << len(self._skips) != LATENT or layers[-1].kind != "down":
            raise NotACodecError(f"its encoder halves frames {1 + len(self._skips)} times")
        return base, value, tuple(layers)

    def between(self, latent: str) -> tuple[str, str, str]:
        """The tokens' input and output, and their sum with the codec's own."""
        readers = self._readers.get(latent, [])
        turned = [node for node in readers if node.type == "Transpose" and node.attributes().get("perm") == _TO_ROWS]
        summed = [node for node in readers if node.type == "Add"]
        if len(readers) != 2 or len(turned) != 1 or len(summed) != 1:
            raise NotACodecError("its tokens are joined otherwise")
        back = self._makers.get(self._other(summed[0], latent))
        if back is None or back.type != "Transpose" or back.attributes().get("perm") != _TO_PLANES:
            raise NotACodecError("its tokens are turned otherwise")
        return turned[0].outputs[0], back.inputs[0], summed[0].outputs[0]

    def tokens(self, rows: str, merged: str) -> Tokens:
        """The transformer that makes ``merged`` of ``rows``."""
        model = self._model
        count = next(index for index in itertools.count() if not self._there(_weight(index, "q.weight_T")))
        shaped = [name for name in (_EMBEDDING, _FINAL_NORM) if not self._there(name)]
        if not count or shaped:
            raise NotACodecError(f"it has {count} layers on tokens, and lacks {', '.join(shaped) or 'nothing else'}")
        # Tokens are cut into windows by Pad: those that layers depend on already are cut into shifted ones.
        cut = [seen for node in model.nodes if node.type == "Pad" if rows in (seen := model.needed(node.inputs[:1]))]
        plain = max((sum(_weight(index, "down.weight_T") in seen for index in range(count)) for seen in cut), default=0)
        keys, values = self._seen(rows, merged)
        added = {
            float(self._constant(self._other(reader, node.outputs[0])).ravel()[0])
            for node in model.nodes
            if node.type == "ReduceMean"
            for reader in self._readers.get(node.outputs[0], ())
            if reader.type == "Add"
        }
        embedding, final_norm = self._constant(_EMBEDDING), self._constant(_FINAL_NORM)
        side = round(len(embedding) ** 0.5)
        if len(added) != 1 or side**2 != len(embedding) or side % 2 or side > _WIDEST or len(embedding) % BLOCK:
            raise NotACodecError(f"its windows have {len(embedding)} tokens, its norms {len(added)} constants")
        layers = tuple(self._token_layer(index) for index in range(count))
        return Tokens(layers, count - plain, embedding, final_norm, added.pop(), keys, values)

    def _seen(self, rows: str, merged: str) -> tuple[str, str]:
        """What tokens see of the context: the keys as they are made ready, and the input with the values."""
        model = self._model
        gathered = {node.inputs[0] for node in model.nodes if node.type == "Gather" and node.inputs[0] in self._makers}
        sources = {name: model.needed([name]) for name in gathered & model.needed([merged])}
        found: dict[str, list[str]] = {}
        for name, needed in sorted(sources.items()):
            inputs = needed & model.inputs.keys()
            if rows not in needed and len(inputs) == 1:
                found.setdefault(inputs.pop(), []).append(name)
        # Values are only given another shape; keys are turned.
        made = {
            name: {self._makers[each].type for each in model.needed(made) if each in self._makers}
            for name, made in found.items()
        }
        keys = [found[name] for name, kinds in made.items() if "Mul" in kinds]
        values = [name for name, kinds in made.items() if "Mul" not in kinds]
        if len(keys) != 1 or len(keys[0]) != 1 or len(values) != 1:
            raise NotACodecError("its tokens see another context")
        return keys[0][0], values[0]

    def _token_layer(self, index: int) -> TokenLayer:
        names = ("q.weight_T", "k.weight_T", "v.weight_T", "q.bias", "k.bias", "v.bias", "gate.weight_T", "up.weight_T")
        q, k, v, *biases, gate, up = (self._constant(_weight(index, name)) for name in names)
        norms = (self._constant(_weight(index, f"{name}_norm.weight")) for name in ("input", "q", "k", "mlp"))
        o, down = (self._constant(_weight(index, name)) for name in ("o.weight_T", "down.weight_T"))
        input_norm, q_norm, k_norm, mlp_norm = norms
        depth = len(q_norm)
        sides = {side for matrix in (q, k, v, o, gate, up, down) for side in matrix.shape}
        if any(side % BLOCK for side in sides) or {k.shape[1], v.shape[1]} != {depth} or q.shape[1] % depth:
            raise NotACodecError(f"its heads have keys of {k.shape[1]} for queries of {depth}")
        qkv = np.concatenate((q, k, v), axis=1)
        matrices = (qkv, o, np.concatenate((gate, up), axis=1), down)
        qkv, o, gate_up, down = (blocked_weights("up", matrix.T[..., None, None]) for matrix in matrices)
        return TokenLayer(input_norm, qkv, np.concatenate(biases), q_norm, k_norm, o, mlp_norm, gate_up, down)

    def decoder(self, value: str) -> tuple[tuple[Layer, ...], int, str]:
        """The layers, how much larger the result is than the head's, and what that is added to."""
        layers = list[Layer]()
        while True:
            convolution = self._convolution(value)
            if convolution is None or len(self._readers[value]) != 1:
                raise NotACodecError(f"its decoder ends behind layer {len(layers)}")
            layer, value = self._layer(convolution)
            layers.append(layer)
            if layer.kind == "up":
                value = self._raised(value)
            elif layer.kind != "3x3":
                raise NotACodecError(f"its decoder has {layer.kind}")
            elif layer.slope == 1:
                break
        if self._skips:
            raise NotACodecError("it leaves skips out")
        shuffle = self._only(value, "DepthToSpace")
        summed = self._only(shuffle.outputs[0], "Add")
        attributes = shuffle.attributes()
        times = attributes.get("blocksize")
        if attributes.get("mode") != "CRD" or not isinstance(times, int) or layer.outputs < 3 * times**2:
            raise NotACodecError("its head is put together otherwise")
        if summed.outputs[0] not in self._model.outputs:
            raise NotACodecError("its result is not the head's")
        return tuple(layers), times, self._other(summed, shuffle.outputs[0])

    def _convolution(self, value: str) -> Node | None:
        """The convolution that reads a value; None if none does."""
        found = [node for node in self._readers.get(value, ()) if node.type == "Conv"]
        if len(found) > 1 or any(node.inputs[0] != value for node in found):
            raise NotACodecError(f"{value} is read by {len(found)} convolutions")
        return found[0] if found else None

    def _layer(self, node: Node) -> tuple[Layer, str]:
        """A convolution with its activation, and the name of its result."""
        attributes, result, slope = node.attributes(), node.outputs[0], 1.0
        sides = tuple(attributes.get(name) for name in ("kernel_shape", "strides", "pads"))
        kind = _KINDS.get(sides)  # type: ignore[arg-type]
        plain = attributes.get("group", 1) == 1 and attributes.get("dilations", (1, 1)) == (1, 1)
        if kind is None or not plain or attributes.get("auto_pad", "NOTSET") != "NOTSET" or len(node.inputs) != 3:
            raise NotACodecError(f"it has a convolution of {sides}")
        readers = self._readers.get(result, [])
        if [reader.type for reader in readers] == ["LeakyRelu"]:
            alpha = readers[0].attributes().get("alpha", 0.01)
            result, slope = readers[0].outputs[0], float(alpha) if isinstance(alpha, float) else -1.0
        weights, bias = self._constant(node.inputs[1]), self._constant(node.inputs[2])
        inputs, more = weights.shape[1], -weights.shape[0] % BLOCK
        if (inputs % BLOCK and kind != "stem") or (kind == "stem" and inputs != 3) or not 0 <= slope <= 1:
            raise NotACodecError(f"it has a convolution of {inputs} channels with slope {slope}")
        weights = np.pad(weights, ((0, more), (0, 0), (0, 0), (0, 0)))
        modulation = self._modulation.get(node.inputs[2])
        if modulation is not None and more:
            raise NotACodecError(f"it modulates {len(bias)} channels")
        ready = blocked_weights(kind, weights)
        return Layer(kind, inputs, len(weights), slope, modulation, ready, np.pad(bias, (0, more))), result

    def _raised(self, value: str) -> str:
        """A map of twice the size, added to its skip."""
        resize = self._only(value, "Resize")
        attributes = resize.attributes()
        scales = self._model.array(resize.inputs[2], self._folder) if len(resize.inputs) == 3 else np.empty(0)
        if any(attributes.get(name) != wanted for name, wanted in _NEAREST.items()) or scales.tolist() != [1, 1, 2, 2]:
            raise NotACodecError("its decoder resizes otherwise")
        summed = self._only(resize.outputs[0], "Add")
        if not self._skips or self._other(summed, resize.outputs[0]) != self._skips.pop():
            raise NotACodecError("its decoder has no such skip")
        return summed.outputs[0]

    def _only(self, value: str, kind: str) -> Node:
        readers = self._readers.get(value, [])
        if [node.type for node in readers] != [kind]:
            raise NotACodecError(f"{value} is not read by one {kind}")
        return readers[0]

    def _other(self, summed: Node, value: str) -> str:
        others = [name for name in summed.inputs if name != value]
        if len(others) != 1:
            raise NotACodecError(f"{summed.outputs[0]} adds {value} to itself")
        return others[0]

    def _there(self, name: str) -> bool:
        return name in self._makers or name in self._model.initializers

    def _constant(self, name: str) -> NDArray[np.float32]:
        maker = self._makers.get(name)
        source = maker.inputs[0] if maker is not None and maker.type == "Cast" else name
        if source not in self._model.initializers:
            raise NotACodecError(f"{name} is no constant")
        return np.ascontiguousarray(self._model.array(source, self._folder), np.float32)
