"""Comparing the graphs of ``uare-7b`` with PyTorch, one layer of the decoder at a time.

A 7B model in float32 does not fit the machines it is exported on, but one of its layers does: every layer is compared
in graphs of one layer, which are written by the same code as the whole ones and read the same file of weights.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort
import torch
from torch import nn

from uare_rt.errors import UareError
from uare_rt.export.codec_graphs import decoder_norms, encoder_norms
from uare_rt.export.mot_graphs import decode_graph, denoise_graph, prefill_graph, velocity_graph
from uare_rt.export.weight_file import OneLayer
from uare_rt.model.kv_cache import stored
from uare_rt.model.mot import KVCache
from uare_rt.model.unified import Context, UnifiedModel
from uare_rt.model.vae import GROUPS
from uare_rt.vlm.contexts import Context as Cached
from uare_rt.vlm.contexts import Together
from uare_rt.vlm.engine import Engine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from uare_rt.export.weight_file import WeightFile, WeightSource
    from uare_rt.model.presets.uare_7b import UnifiedConfig
    from uare_rt.vlm.engine import Embedding
    from uare_rt.vlm.layout import CacheType, UnifiedLayout

__all__ = ["LIMIT", "compare_unified"]

LIMIT = 1e-4
"""Largest allowed difference between a graph and PyTorch, root mean square over that of the values."""

_GRID = (2, 3)
_ENCODERS = ("vision", "encode", "decode_image", "encode_outer", "encode_inner", "decode_inner", "decode_outer")
_CACHED = 4
_WRITTEN = 0.3  # of an export, when comparing begins


class _Runner:
    """Runs ONNX files with ONNX Runtime; one is loaded at a time."""

    def __init__(self, paths: Mapping[str, Path]) -> None:
        self._paths = paths
        self._name, self._session = "", None

    def __call__(self, name: str, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        if name != self._name:
            self._session = None
            self._session, self._name = _session(self._paths[name]), name
        session: Any = self._session
        names = [output.name for output in session.get_outputs()]
        return dict(zip(names, session.run(names, dict(inputs)), strict=True))


def _session(path: Path) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    # Packed copies of the weights would double what is held.
    options.add_session_config_entry("session.disable_prepacking", "1")
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


class _Worst:
    """The largest difference of every graph."""

    def __init__(self) -> None:
        self.found: dict[str, float] = {}

    def add(self, graph: str, got: NDArray[Any], expected: torch.Tensor) -> None:
        wanted = expected.detach().double().numpy()
        apart = np.sqrt(np.mean((got - wanted) ** 2)) / max(float(np.sqrt(np.mean(wanted**2))), 1e-30)
        # NumPy's maximum keeps NaN.
        self.found[graph] = float(np.maximum(self.found.get(graph, 0.0), apart))
        if not self.found[graph] <= LIMIT:
            raise UareError(
                f"graph {graph} differs from PyTorch by {self.found[graph]:.1e} of its values, more than {LIMIT:.0e}; "
                "nothing was written. Check the weights, then the versions of torch, onnx and onnxruntime"
            )

    def add_cache(self, graph: str, got: Cached, expected: Cached, tokens: slice) -> None:
        """Keys and values of some tokens; int8 levels may be rounded to either side."""
        for name in "kv":
            values, wanted = (
                {k: p[..., tokens, :].astype(np.float64) for k, p in c.cache.items()} for c in (got, expected)
            )
            scale = f"{name}_scale"
            if scale not in wanted:
                self.add(graph, values[name], torch.from_numpy(wanted[name]))
                continue
            self.add(graph, values[scale], torch.from_numpy(wanted[scale]))
            apart = np.abs(values[name] - wanted[name])
            values[name] = wanted[name] + np.where(apart <= 1, 0, apart)
            self.add(graph, values[name], torch.from_numpy(wanted[name]))


def _as_graphs_take(context: Context, order: list[int]) -> Cached:
    """A context of the model with its tokens in the order of the graphs."""
    parts = vars(context.cache).items()
    cache = {name: part[..., order, :].numpy() for name, part in parts if isinstance(part, torch.Tensor)}
    return Cached(cache, context.position)


def compare_unified(
    config: UnifiedConfig,
    layout: UnifiedLayout,
    source: WeightSource,
    weights: WeightFile,
    embedding: Embedding,
    folder: Path,
    say: Callable[[str, float], None],
) -> dict[str, float]:
    """Compare all graphs with PyTorch on random inputs, in float32.

    Args:
        config: of the model.
        layout: of the model, as the bundle describes it.
        source: of the weights.
        weights: where the graphs find them; all of them are written.
        embedding: of the tokens.
        folder: holds the graphs, and takes those of one layer for a while.
        say: called with what is being done, and the finished part of an export, 0 to 1.

    Returns:
        For each graph the relative RMS of the difference, at most `LIMIT`.

    Raises:
        UareError: a graph differs by more, or gives NaN.
    """
    worst = _Worst()
    one = replace(config, mot=replace(config.mot, layers=1))
    with torch.device("meta"):
        model = UnifiedModel(one).eval()
    model.cache_type = layout.cache
    runner = _Runner({name: folder / f"{name}.onnx" for name in _ENCODERS})
    with torch.no_grad():
        say("comparing vision with PyTorch", _WRITTEN)
        _fill(model.vision, "vision", source)
        _compare_vision(model, runner, worst)
        model.vision.to("meta")
        say("comparing encode and decode_image with PyTorch", _WRITTEN)
        _fill(model.codec, "codec", source)
        _compare_codec(model, runner, worst)
        model.codec.to("meta")
        for part in ("latents", "language.embed", "language.head", "language.mot.und_norm", "language.mot.gen_norm"):
            _fill(model.get_submodule(part), part, source)
        for index in range(config.mot.layers):
            done = _WRITTEN + (1 - _WRITTEN) * index / config.mot.layers
            say(f"comparing layer {index + 1} of {config.mot.layers} with PyTorch", done)
            _fill(model.language.mot.layers[0], f"language.mot.layers.{index}", source)
            paths = _one_layer_graphs(one, weights, index, layout.cache, folder)
            try:
                _compare_decoder(model, Engine(_one_layer(layout), embedding, _Runner(paths)), worst)
            finally:
                for path in paths.values():
                    path.unlink()
    return worst.found


def _one_layer(layout: UnifiedLayout) -> UnifiedLayout:
    import msgspec

    return msgspec.structs.replace(layout, layers=1)


def _fill(module: nn.Module, path: str, source: WeightSource) -> None:
    for name, part in module.named_modules(prefix=path):
        for leaf in [leaf for leaf, _ in part.named_parameters(recurse=False)]:
            setattr(part, leaf, nn.Parameter(source.tensor(f"{name}.{leaf}").float(), requires_grad=False))
        for leaf in [leaf for leaf, _ in part.named_buffers(recurse=False)]:
            setattr(part, leaf, source.tensor(f"{name}.{leaf}").float())


def _one_layer_graphs(
    one: UnifiedConfig, weights: WeightFile, index: int, cache: CacheType, folder: Path
) -> dict[str, Path]:
    paths, layer = {}, OneLayer(weights, index)
    graphs = [write(one, layer, cache) for write in (prefill_graph, decode_graph, denoise_graph)]
    for proto in [*graphs, velocity_graph(one, layer)]:
        paths[proto.graph.name] = folder / f"one-layer-{proto.graph.name}.onnx"
        paths[proto.graph.name].write_bytes(proto.SerializeToString())
    weights.flush()
    return paths


def _normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape)))


def _compare_vision(model: UnifiedModel, runner: _Runner, worst: _Worst) -> None:
    vision = model.config.vision
    patch = vision.patch
    image = _normal(3, _GRID[0] * patch, _GRID[1] * patch)
    patches = image.reshape(3, _GRID[0], patch, _GRID[1], patch).permute(1, 3, 2, 4, 0).reshape(-1, 3 * patch**2)
    rows = np.add.outer(np.arange(_GRID[0]) * vision.side, np.arange(_GRID[1])).ravel()
    got = runner("vision", {"patches": patches.numpy(), "rows": rows})["embeddings"]
    worst.add("vision", got, model.vision(image))


def _compare_codec(model: UnifiedModel, runner: _Runner, worst: _Worst) -> None:
    stride = model.config.latent_stride
    image = _normal(3, _GRID[0] * stride, _GRID[1] * stride).clamp(-1, 1)
    got = runner("encode", {"image": image[None].numpy()})
    latent = model.codec.encode(image)
    worst.add("encode", got["latent"][0], latent)
    worst.add("encode", (got["latent"] + got["spread"])[0], model.codec.encode(image, torch.ones_like(latent)))
    out = runner("decode_image", {"latent": latent[None].numpy()})["image"][0]
    worst.add("decode_image", out, model.codec.decode(latent))
    _compare_halves(model, runner, worst, image, latent)


def _compare_halves(
    model: UnifiedModel, runner: _Runner, worst: _Worst, image: torch.Tensor, latent: torch.Tensor
) -> None:
    """The outer levels on one tile that is the whole picture, with statistics of its own and with given ones."""
    codec, config = model.codec, model.codec.config
    features = codec.encoder.outer(image[None])
    cells = features.shape[2], features.shape[3]
    given, norms = {"image": image[None].numpy()}, encoder_norms(config)
    for got in _outer_runs(runner, "encode_outer", given, cells, norms):
        worst.add("encode_outer", got["features"], features)
    inner = runner("encode_inner", {"features": features.numpy()})
    worst.add("encode_inner", inner["latent"][0], codec.encode(image))
    features = codec.decoder.inner((latent / config.scale + config.shift)[None])
    worst.add("decode_inner", runner("decode_inner", {"latent": latent[None].numpy()})["features"], features)
    cells = features.shape[2], features.shape[3]
    given, norms = {"features": features.numpy()}, decoder_norms(config)
    for got in _outer_runs(runner, "decode_outer", given, cells, norms):
        worst.add("decode_outer", got["image"], codec.decoder.outer(features))


def _outer_runs(
    runner: _Runner, graph: str, given: dict[str, NDArray[Any]], cells: tuple[int, int], norms: int
) -> Iterator[dict[str, NDArray[Any]]]:
    """A first pass, and one with the statistics that it gave."""
    core = np.array([0, cells[0], 0, cells[1]], np.int64)
    used = [np.zeros((norms, GROUPS), np.float32)] * 2
    for settled in (False, True):
        means, variances = used
        inputs = {**given, "core": core, "settled": np.array([settled]), "means": means, "variances": variances}
        out = runner(graph, inputs)
        used = [out["found_means"], out["found_variances"]]
        yield out


def _compare_decoder(model: UnifiedModel, engine: Engine, worst: _Worst) -> None:
    """An image and a text after a context, a word after them, a target after all."""
    config = model.config
    mot, side = config.mot, config.latent_patch
    past = [_normal(1, 1, mot.kv_heads, _CACHED, mot.head_dim) for _ in "kv"]
    before = Context(stored(KVCache(*past), model.cache_type), 2)
    after = _as_graphs_take(before, list(range(_CACHED)))
    latent = _normal(config.codec.latent_channels, _GRID[0] * side, _GRID[1] * side)
    ids = [0, config.vocabulary - 1, config.vocabulary // 2]

    context, hidden = model.extend(before, [model.latent_block(latent), model.text_block(ids)])
    followed, logits = engine.extend(after, [engine.latent_block(latent.numpy()), engine.text_block(ids)])
    worst.add("prefill", logits, model.logits(hidden[-1:]))
    count = _GRID[0] * _GRID[1]
    # Graphs put the image's own tokens before its delimiters.
    order = [*range(_CACHED), *(_CACHED + 1 + i for i in range(count)), _CACHED, _CACHED + 1 + count]
    order += range(_CACHED + count + 2, context.tokens)
    expected = _as_graphs_take(context, order)
    worst.add_cache("prefill", followed, expected, slice(_CACHED, None))
    followed = expected  # a level that was rounded the other way goes no further

    longer, hidden = model.extend(context, [model.tokens_block(ids[:1])])
    told, logits = engine.follow(followed, ids[0])
    worst.add("decode", logits, model.logits(hidden)[0])
    worst.add_cache("decode", told, _as_graphs_take(longer, [*order, context.tokens]), slice(-1, None))

    x, time = _normal(count, config.latent_width), 0.6
    # Two contexts of different lengths in one batch, as guidance has them.
    block, contexts = model.target_block(x, time, _GRID), Together.of([followed, after])
    velocities, streams = engine.denoise(contexts, x.numpy(), engine.latent_rows(_GRID), time)
    for one, velocity, streamed in zip((context, before), velocities, streams, strict=True):
        stream = model.target_stream(one, block)
        worst.add("denoise", velocity, model.velocity(stream))
        worst.add("denoise", streamed, stream)
    worst.add("velocity", engine.velocity(stream.numpy()), model.velocity(stream))
