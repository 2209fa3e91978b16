"""What a restore graph of `uare-nano` is: a codec of convolutions, and a transformer on windows of its tokens.

Both are run by compiled code (`uare_rt.backends.convolutions`); what a context makes of modulations and keys, and what
lies before the stem and beside the head, stays in ONNX.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from uare_rt.backends.convolutions import aligned

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

__all__ = ["CODEC_REVISION", "LATENT", "Codec", "Layer", "TokenLayer", "Tokens"]

CODEC_REVISION = 1
"""Of what is read and kept: graphs that were kept by another are made anew."""
LATENT = 16
"""Pixels per latent token and side; frames' sides are multiples of it."""

_MAGIC = b"uare-codec\0"
_ALIGNMENT = 64


class Layer(NamedTuple):
    """One convolution.

    Attributes:
        kind: ``stem``, ``3x3``, ``down`` or ``up``, see `Convolutions.convolve`.
        inputs: channels.
        outputs: the same, filled up to a multiple of 16.
        slope: of its activation below 0; 1 where there is none.
        modulation: which of the factors and summands are its own; None without.
        weights: of `blocked_weights`.
        bias: float32 [outputs].
    """

    kind: str
    inputs: int
    outputs: int
    slope: float
    modulation: int | None
    weights: NDArray[np.float32]
    bias: NDArray[np.float32]


class TokenLayer(NamedTuple):
    """One layer of the gen expert; matrices in blocks of outputs, float32 [outputs / 16, inputs, 16].

    Attributes:
        input_norm: [hidden].
        qkv: to the queries of all heads, then the key and the value of one.
        qkv_bias: [outputs].
        q_norm: [head_dim].
        k_norm: [head_dim].
        o: from all heads to hidden.
        mlp_norm: [hidden].
        gate_up: to the gates, then to what they are multiplied with.
        down: from there to hidden.
    """

    input_norm: NDArray[np.float32]
    qkv: NDArray[np.float32]
    qkv_bias: NDArray[np.float32]
    q_norm: NDArray[np.float32]
    k_norm: NDArray[np.float32]
    o: NDArray[np.float32]
    mlp_norm: NDArray[np.float32]
    gate_up: NDArray[np.float32]
    down: NDArray[np.float32]


@dataclass(frozen=True)
class Tokens:
    """The gen expert on windows of tokens.

    Attributes:
        layers: in order.
        shifted: how many of the last ones see windows shifted by half.
        embedding: of the places in a window, float32 [side^2, hidden].
        final_norm: [hidden].
        epsilon: of all norms.
        keys: name of the context's keys among the results of the graph ``context``, [layers, .., seen, head_dim].
        values: name of the context's values among the inputs, the same shape.
    """

    layers: tuple[TokenLayer, ...]
    shifted: int
    embedding: NDArray[np.float32]
    final_norm: NDArray[np.float32]
    epsilon: float
    keys: str
    values: str


@dataclass(frozen=True)
class Codec:
    """What a restore graph is.

    Attributes:
        encoder: from the stem to the tokens.
        tokens: what they make of the encoder's last map is added to it.
        decoder: from there to the head; it has as many layers ``up`` as the encoder has ``down``.
        times: how much larger the result is than the head's map, whose channels are put side by side.
        inputs: names of the graph's inputs; the first is the frame, or what the stem reads.
        output: name of its result.
        base: name of what the stem reads.
        factors: names of what modulates, ``1 + s`` and ``t`` of one modulation after another, [1, channels, 1, 1].
        graphs: ONNX by what they make: ``context``, the factors and keys of a context; ``base`` where the frame is not
            it; ``addend``, what the head's result is added to, where that is not the base.
    """

    encoder: tuple[Layer, ...]
    tokens: Tokens
    decoder: tuple[Layer, ...]
    times: int
    inputs: tuple[str, ...]
    output: str
    base: str
    factors: tuple[str, ...]
    graphs: Mapping[str, bytes]

    def to_bytes(self) -> bytes:
        """As a file: a header in JSON, then arrays and graphs."""
        pieces: list[bytes] = []

        def kept(value: Any) -> Any:
            if isinstance(value, tuple):
                return [kept(each) for each in value]
            if not isinstance(value, np.ndarray | bytes):
                return value
            content = value if isinstance(value, bytes) else value.tobytes()
            pieces.append(content + bytes(-len(content) % _ALIGNMENT))
            return {"size": len(content), "shape": None if isinstance(value, bytes) else value.shape}

        fields = {name: kept(value) for name, value in vars(self).items() if name not in ("tokens", "graphs")}
        fields["tokens"] = {name: kept(value) for name, value in vars(self.tokens).items()}
        fields["graphs"] = {name: kept(content) for name, content in self.graphs.items()}
        header = json.dumps(fields).encode()
        return b"".join((_MAGIC, len(header).to_bytes(8, "little"), header, *pieces))

    @classmethod
    def from_bytes(cls, content: bytes) -> Codec | None:
        """From what `to_bytes` gave; None where the content is something else."""
        if not content.startswith(_MAGIC):
            return None
        start = len(_MAGIC) + 8
        at = start + int.from_bytes(content[len(_MAGIC) : start], "little")

        def piece(fields: dict[str, Any]) -> Any:
            nonlocal at
            if fields.keys() != {"size", "shape"}:
                return fields
            size, shape = fields["size"], fields["shape"]
            found = memoryview(content)[at : at + size]
            at += size + -size % _ALIGNMENT
            return bytes(found) if shape is None else aligned(np.frombuffer(found, np.float32)).reshape(shape)

        # Objects end in the order in which they were written, so each piece lies where the one before ended.
        fields = json.loads(content[start:at], object_hook=piece)
        tokens = fields.pop("tokens")
        tokens["layers"] = tuple(TokenLayer(*layer) for layer in tokens["layers"])
        for name in ("encoder", "decoder"):
            fields[name] = tuple(Layer(*layer) for layer in fields[name])
        for name in ("inputs", "factors"):
            fields[name] = tuple(fields[name])
        return cls(tokens=Tokens(**tokens), **fields)
