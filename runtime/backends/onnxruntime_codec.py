"""Restore graphs of `uare-nano` in compiled code; ONNX Runtime makes contexts ready, and what lies beside the codec."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from itertools import accumulate
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from uare_rt.backends.codec_graph import LATENT, Codec, Layer
from uare_rt.backends.convolutions import BLOCK, Convolutions, aligned, room
from uare_rt.errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

__all__ = ["CodecSession"]

_HIDDEN = -30000.0  # added to the scores of keys that fill up
_HALVES = {"stem": 1, "down": 1, "up": -1}  # how often a layer halves its map
_IDLE = 4  # memories for maps that are kept for the next runs


class _Step(NamedTuple):
    """One layer, the places of the maps that it reads and writes, and how often what it reads was halved."""

    layer: Layer
    source: int | None  # None is the base
    target: int
    halvings: int

    def result(self, height: int, width: int) -> int:
        """Floats of its result, for a frame of a size."""
        shift = self.halvings + _HALVES.get(self.layer.kind, 0)
        return self.layer.outputs * (height >> shift) * (width >> shift)


class _Ready(NamedTuple):
    """What a context is made into.

    Attributes:
        factors: for each step, what its result is multiplied by, and what is added then.
        layers: of the tokens, by the names of ``uare_token_layer``.
        mask: added to the scores of the context's keys: they are filled up to a multiple of 16.
    """

    factors: tuple[tuple[Floats, Floats], ...]
    layers: tuple[Mapping[str, Floats], ...]
    mask: Floats


class CodecSession:
    """Stands where an ``InferenceSession`` of the whole graph would; may be used from several threads at once.

    Args:
        codec: what to run.
        open_graph: makes a session of ONNX Runtime of one of its graphs.
        threads: of one run.
        beside: runs at the same time that shall each have that many; those that come on top have one.

    Raises:
        BackendError: there are no compiled layers, or no threads.
    """

    def __init__(self, codec: Codec, open_graph: Callable[[bytes], Any], threads: int, beside: int = 1) -> None:
        self._codec = codec
        self._alone = Convolutions(1)
        self._pools = [Convolutions(threads) for _ in range(beside)]  # those that nobody uses now
        self._graphs = {name: open_graph(content) for name, content in codec.graphs.items()}
        self._reads = {name: [value.name for value in graph.get_inputs()] for name, graph in self._graphs.items()}
        self._steps = _steps(codec)
        self._idle: list[Floats] = []
        self._lock = threading.Lock()
        self._last: tuple[list[bytes], _Ready] | None = None

    def get_outputs(self) -> list[Any]:
        """As of an ``InferenceSession``."""
        return [SimpleNamespace(name=self._codec.output)]

    def get_providers(self) -> list[str]:
        """As of an ``InferenceSession``."""
        providers: list[str] = self._graphs["context"].get_providers()
        return providers

    def run(self, names: Sequence[str] | None, inputs: Mapping[str, NDArray[Any]], options: Any = None) -> list[Any]:
        """As ``InferenceSession.run``, of the one output.

        Raises:
            BackendError: the frame is no float32 [N, 3, H, W] of whole tokens, or there is no memory.
        """
        frames = inputs[self._codec.inputs[0]]
        if frames.dtype != np.float32 or frames.ndim != 4 or frames.shape[1] != 3:
            raise BackendError(f"frames are {frames.dtype} {frames.shape}, but must be float32 [N, 3, H, W]")
        if any(side % LATENT for side in frames.shape[2:]):
            raise BackendError(f"the frame is {frames.shape}, but its sides must be multiples of {LATENT}")
        ready = self._of_context(inputs, options)
        restored = []
        for at in range(len(frames)):
            frame = {**inputs, self._codec.inputs[0]: frames[at : at + 1]}
            base = self._made("base", frame, options)[0] if "base" in self._graphs else frames[at : at + 1]
            base = np.ascontiguousarray(base)
            addend = self._made("addend", {self._codec.base: base}, options)[0] if "addend" in self._graphs else base
            with self._pool() as convolutions:
                restored.append(self._restored(convolutions, base, addend[0], ready)[None])
        return [restored[0] if len(restored) == 1 else np.concatenate(restored)]

    @contextmanager
    def _pool(self) -> Iterator[Convolutions]:
        """Threads that no other run uses."""
        with self._lock:
            pool = self._pools.pop() if self._pools else self._alone
        try:
            yield pool
        finally:
            if pool is not self._alone:
                with self._lock:
                    self._pools.append(pool)

    def _restored(self, convolutions: Convolutions, base: Floats, addend: Floats, ready: _Ready) -> Floats:
        codec = self._codec
        height, width = base.shape[2:]
        sizes = [0] * (1 + max(step.target for step in self._steps))
        for step in self._steps:
            sizes[step.target] = max(sizes[step.target], step.result(height, width))
        ends = list(accumulate(sizes))
        memory = self._take(ends[-1])
        maps = [memory[end - size : end] for end, size in zip(ends, sizes, strict=True)]
        for at, (step, factors) in enumerate(zip(self._steps, ready.factors, strict=True)):
            layer, size = step.layer, (height >> step.halvings, width >> step.halvings)
            source = base if step.source is None else maps[step.source]
            if at == len(codec.encoder):
                self._add_tokens(convolutions, source, size, ready)
            channels = layer.inputs, layer.outputs
            convolutions.convolve(
                layer.kind, source, maps[step.target], channels, size, layer.weights, factors, layer.slope
            )
        restored = convolutions.shuffle(maps[step.target], codec.times, size, addend)
        with self._lock:
            if len(self._idle) < _IDLE:
                self._idle.append(memory)
        return restored

    def _add_tokens(self, convolutions: Convolutions, latent: Floats, size: tuple[int, int], ready: _Ready) -> None:
        tokens = self._codec.tokens
        area, hidden = tokens.embedding.shape
        depth = len(tokens.layers[0].q_norm)
        sizes = {
            "shifted": tokens.shifted,
            "hidden": hidden,
            "heads": len(tokens.layers[0].qkv_bias) // depth - 2,
            "head_dim": depth,
            "mlp": tokens.layers[0].down.size // hidden,
            "side": round(area**0.5),
            "context": len(ready.mask),
        }
        whole = {"embedding": tokens.embedding, "final_norm": tokens.final_norm, "context_mask": ready.mask}
        convolutions.run_tokens(ready.layers, whole, sizes, tokens.epsilon, size, latent)

    def _made(self, name: str, inputs: Mapping[str, NDArray[Any]], options: Any) -> list[Floats]:
        """The results of one of the codec's graphs."""
        found: list[Floats] = self._graphs[name].run(None, {key: inputs[key] for key in self._reads[name]}, options)
        return found

    def _of_context(self, inputs: Mapping[str, NDArray[Any]], options: Any) -> _Ready:
        key = [inputs[name].tobytes() for name in self._codec.inputs[1:]]
        last = self._last
        if last is None or last[0] != key:
            *factors, keys = self._made("context", inputs, options)
            last = self._last = key, self._ready(factors, keys, inputs[self._codec.tokens.values])
        return last[1]

    def _ready(self, modulations: Sequence[Floats], keys: Floats, values: Floats) -> _Ready:
        factors = []
        for layer, _, _, _ in self._steps:
            scale, shift = np.ones_like(layer.bias), layer.bias
            if layer.modulation is not None:
                scale, more = (part.ravel() for part in modulations[2 * layer.modulation : 2 * layer.modulation + 2])
                shift = scale * layer.bias + more
            factors.append((aligned(scale), aligned(shift)))
        count, depth = keys.shape[-2:]
        more = -count % BLOCK
        mask = np.zeros(count + more, np.float32)
        mask[count:] = _HIDDEN
        layers = []
        for one, own_keys, own_values in zip(self._codec.tokens.layers, keys, values, strict=True):
            filled = [np.pad(part.reshape(count, depth), ((0, more), (0, 0))) for part in (own_keys, own_values)]
            keys_of, values_of = (aligned(blocks) for blocks in (
                filled[0].reshape(-1, BLOCK, depth).transpose(0, 2, 1),
                filled[1].reshape(count + more, -1, BLOCK).transpose(1, 0, 2),
            ))  # fmt: skip
            layers.append(one._asdict() | {"context_keys": keys_of, "context_values": values_of})
        return _Ready(tuple(factors), tuple(layers), aligned(mask))

    def _take(self, count: int) -> Floats:
        """Memory for the maps of one run."""
        with self._lock:
            while self._idle:
                memory = self._idle.pop()
                if len(memory) >= count:
                    return memory
        return room(count)


def _steps(codec: Codec) -> tuple[_Step, ...]:
    """Each layer writes to one of two places in turn; what is read again later has a place of its own."""
    steps, skips, free, halvings = list[_Step](), list[int](), 2, 0
    source: int | None = None
    layers = (*codec.encoder, *codec.decoder)
    for at, layer in enumerate(layers):
        latent = at == len(codec.encoder) - 1
        if layer.kind == "up":
            target = skips.pop()
        elif latent or (at + 1 < len(layers) and layers[at + 1].kind == "down"):
            target, free = free, free + 1
            skips += [] if latent else [target]
        else:
            target = 1 if source == 0 else 0
        steps.append(_Step(layer, source, target, halvings))
        halvings += _HALVES.get(layer.kind, 0)
        source = target
    return tuple(steps)
