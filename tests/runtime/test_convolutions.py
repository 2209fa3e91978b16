"""Compiled layers against NumPy, and restore graphs run by them against the graphs as they were exported."""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from uare_rt import compiled as compiled_code
from uare_rt.backends import codec_reading, convolutions, onnxruntime_
from uare_rt.backends.codec_graph import Codec
from uare_rt.backends.codec_reading import NotACodecError, read_codec
from uare_rt.backends.convolutions import (
    BLOCK,
    Convolutions,
    aligned,
    blocked_weights,
    room,
)
from uare_rt.bundle import Bundle, Part, shipped_bundle
from uare_rt.compiled import LIBRARY, compiled_variant, library, use_variant
from uare_rt.errors import BackendError
from uare_rt.manifest import BASE_NAME
from uare_rt.onnx_parts import OnnxModel

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from uare_rt.backends.onnxruntime_codec import CodecSession
    from uare_rt.bundle import GraphFile

VARIANTS = ("avx512", "avx2", "portable")
BEHIND = Part(BASE_NAME, behind=True)
SIZES = ((16, 16), (48, 80), (112, 64), (80, 208))

compiled = pytest.mark.skipif(
    compiled_variant() is None, reason="no C++ compiler was there when the package was installed"
)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle.open(shipped_bundle())


@pytest.fixture(params=VARIANTS)
def variant(request: pytest.FixtureRequest) -> Iterator[str]:
    best = compiled_variant()
    assert best is not None
    try:
        use_variant(request.param)
    except BackendError:
        pytest.skip(f"this processor has no {request.param}")
    yield request.param
    use_variant(best)


def test_they_are_compiled_where_there_is_a_compiler() -> None:
    if os.environ.get("UARE_RT_COMPILE") == "0" or not shutil.which("c++"):
        pytest.skip("no C++ compiler")
    assert compiled_variant() is not None, f"{LIBRARY} is not there: install the package again"


def blocked(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """[channels, height, width] as the layers read it."""
    _, height, width = values.shape
    return aligned(np.ascontiguousarray(values.reshape(-1, BLOCK, height, width).transpose(0, 2, 3, 1)))


def planes(values: NDArray[np.float32], channels: int, height: int, width: int) -> NDArray[np.float32]:
    return values.reshape(-1, height, width, BLOCK).transpose(0, 3, 1, 2).reshape(channels, height, width)


def convolved(values: NDArray[np.float32], weights: NDArray[np.float32], stride: int, pad: int) -> NDArray[np.float64]:
    """In 64 bits, the way it is defined."""
    side = weights.shape[-1]
    padded = np.pad(values.astype(np.float64), ((0, 0), (pad, pad), (pad, pad)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (side, side), axis=(1, 2))[:, ::stride, ::stride]
    return np.einsum("ihwyx,oiyx->ohw", windows, weights.astype(np.float64))


@compiled
@pytest.mark.parametrize(
    ("kind", "inputs", "outputs", "side", "stride", "pad"),
    [("3x3", 16, 48, 3, 1, 1), ("3x3", 96, 32, 3, 1, 1), ("stem", 3, 32, 6, 2, 2), ("down", 48, 64, 2, 2, 0),
     ("up", 32, 16, 1, 1, 0)],
)  # fmt: skip
def test_each_layer_gives_what_it_is_defined_as(
    rng: np.random.Generator, variant: str, kind: str, inputs: int, outputs: int, side: int, stride: int, pad: int
) -> None:
    pool = Convolutions(2)
    weights = rng.normal(0, inputs**-0.5 / side, (outputs, inputs, side, side)).astype(np.float32)
    scale, shift = (aligned(rng.normal(1, 0.5, outputs).astype(np.float32)) for _ in range(2))
    for height, width in ((2, 2), (6, 10), (36, 22), (64, 130)):
        values = rng.normal(0, 1, (inputs, height, width)).astype(np.float32)
        source = aligned(values) if kind == "stem" else blocked(values)
        exact = convolved(values, weights, stride, pad)
        if kind == "up":
            exact = (exact + shift[:, None, None]).repeat(2, 1).repeat(2, 2)
        else:
            exact = exact * scale[:, None, None] + shift[:, None, None]
            exact = np.maximum(exact, 0.1 * exact)
        target = room(exact.size)
        before = rng.normal(0, 1, exact.shape).astype(np.float32)
        target[:] = blocked(before)
        pool.convolve(
            kind, source, target, (inputs, outputs), (height, width), aligned(blocked_weights(kind, weights)),
            (scale, shift), 0.1,
        )  # fmt: skip
        expected = exact + before if kind == "up" else exact
        bound = 1e-5 * np.abs(expected).max()
        np.testing.assert_allclose(planes(target, *exact.shape), expected, rtol=0, atol=bound, err_msg=f"{height}")


@compiled
def test_channels_are_put_side_by_side_and_added(rng: np.random.Generator) -> None:
    for times in (2, 4, 8):
        channels = -(-3 * times**2 // BLOCK) * BLOCK
        values = rng.random((channels, 5, 3), dtype=np.float32)
        base = rng.random((3, 5 * times, 3 * times), dtype=np.float32)
        shuffled = values[: 3 * times**2].reshape(3, times, times, 5, 3).transpose(0, 3, 1, 4, 2).reshape(base.shape)
        np.testing.assert_array_equal(Convolutions(2).shuffle(blocked(values), times, (5, 3), base), shuffled + base)


def graph_of(bundle: Bundle, scale: int, *, whole: bool = False) -> GraphFile:
    graph = bundle.graph(f"restore_x{scale}")
    return graph if whole else graph._replace(part=BEHIND)


def session_of(bundle: Bundle, scale: int, threads: int, *, whole: bool = False) -> CodecSession:
    import onnxruntime as ort

    content = onnxruntime_.as_codec(ort, graph_of(bundle, scale, whole=whole), 1)
    assert content is not None
    session: CodecSession = onnxruntime_._ready_session(ort, content, threads)
    return session


def feed_of(bundle: Bundle, name: str, frames: NDArray[np.float32], seed: int) -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    context = bundle.null_context().inputs()
    moved = {key: value + rng.normal(0, 0.5, value.shape).astype(np.float32) for key, value in context.items()}
    return {name: frames, **moved}


@compiled
@pytest.mark.parametrize(("scale", "whole"), [(1, False), (1, True), (2, False), (4, True)])
def test_the_shipped_graphs_give_what_was_exported(
    bundle: Bundle, rng: np.random.Generator, variant: str, scale: int, whole: bool
) -> None:
    import onnxruntime as ort

    graph = graph_of(bundle, scale, whole=whole)
    options = onnxruntime_.options(ort, 1, graph)
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    plain = ort.InferenceSession(onnxruntime_._part(graph).to_bytes(), options, providers=["CPUExecutionProvider"])
    session = session_of(bundle, scale, 2, whole=whole)
    for seed, (height, width) in enumerate(SIZES):
        frames = rng.random((1 + seed % 2, 3, height, width), dtype=np.float32)
        feed = feed_of(bundle, "frame" if whole else BASE_NAME, frames, seed // 2)
        (expected,), (got,) = plain.run(None, feed), session.run(None, feed)
        assert got.shape == expected.shape
        bound = 2e-5 * max(1.0, float(np.abs(expected).max()))
        np.testing.assert_allclose(got, expected, rtol=0, atol=bound, err_msg=f"{height}x{width}")


@compiled
def test_threads_change_nothing(bundle: Bundle, rng: np.random.Generator) -> None:
    frames = rng.random((1, 3, 112, 208), dtype=np.float32)
    feed = feed_of(bundle, BASE_NAME, frames, 0)
    (alone,) = session_of(bundle, 1, 1).run(None, feed)
    session = session_of(bundle, 1, 3)
    for _ in range(5):
        np.testing.assert_array_equal(session.run(None, feed)[0], alone)


@compiled
def test_what_is_no_frame_is_refused(bundle: Bundle) -> None:
    session = session_of(bundle, 1, 1)
    for shape, kind, words in (
        ((1, 3, 32, 40), np.float32, "multiples of 16"),
        ((1, 1, 32, 32), np.float32, "must be float32"),
        ((1, 3, 32, 32), np.float64, "must be float32"),
        ((3, 32, 32), np.float32, "must be float32"),
    ):
        with pytest.raises(BackendError, match=words):
            session.run(None, feed_of(bundle, BASE_NAME, np.zeros(shape, kind), 0))


@compiled
def test_gates_far_below_zero_let_nothing_through(rng: np.random.Generator) -> None:
    """SiLU where its exponential would leave the range of a float; attention is made to give nothing."""
    hidden, heads, depth, mlp, area = 16, 1, 16, 16, 16
    gate, up, down = (rng.normal(0, 1, (mlp, hidden)).astype(np.float32) for _ in range(3))
    ones = np.ones(hidden, np.float32)
    for factor in (1.0, 100.0, 1e4):
        matrix = np.concatenate((gate * np.float32(factor), up))
        layer = {
            "input_norm": ones, "qkv": np.zeros(hidden * 3 * depth, np.float32),
            "qkv_bias": np.zeros(3 * depth, np.float32), "q_norm": ones, "k_norm": ones,
            "o": np.zeros(heads * depth * hidden, np.float32), "mlp_norm": ones,
            "gate_up": blocked_weights("up", matrix[..., None, None]),
            "down": blocked_weights("up", down[..., None, None]),
            "context_keys": np.zeros(BLOCK * depth, np.float32), "context_values": np.zeros(BLOCK * depth, np.float32),
        }  # fmt: skip
        whole = {
            "embedding": np.zeros((area, hidden), np.float32),
            "final_norm": ones,
            "context_mask": np.zeros(BLOCK, np.float32),
        }  # fmt: skip
        sizes = {
            "shifted": 1,
            "hidden": hidden,
            "heads": heads,
            "head_dim": depth,
            "mlp": mlp,
            "side": 4,
            "context": BLOCK,
        }
        values = rng.normal(0, 1, (hidden, 4, 4)).astype(np.float32)
        target = blocked(values)
        Convolutions(1).run_tokens([layer], whole, sizes, 1e-6, (4, 4), target)
        x = values.reshape(hidden, -1).T.astype(np.float64)

        def normal(rows: NDArray[np.float64]) -> NDArray[np.float64]:
            return rows / np.sqrt((rows**2).mean(axis=1, keepdims=True) + 1e-6)

        gates, others = normal(x) @ (gate * factor).T.astype(np.float64), normal(x) @ up.T
        silu = gates * np.exp(-np.logaddexp(0, -gates))
        expected = values.reshape(hidden, -1).T + normal(x + (silu * others) @ down.T)
        assert factor == 1 or gates.min() < -180
        got = planes(target, hidden, 4, 4).reshape(hidden, -1).T
        np.testing.assert_allclose(got, expected, rtol=0, atol=2e-5)


@compiled
def test_more_runs_than_pools_compute_alone(bundle: Bundle, rng: np.random.Generator) -> None:
    import onnxruntime as ort

    content = onnxruntime_.as_codec(ort, graph_of(bundle, 1), 1)
    assert content is not None
    session = onnxruntime_._ready_session(ort, content, 2, beside=2)
    frames = rng.random((1, 3, 96, 96), dtype=np.float32)
    feed = feed_of(bundle, BASE_NAME, frames, 0)
    (alone,) = session.run(None, feed)
    with ThreadPoolExecutor(5) as pool:
        for (restored,) in pool.map(lambda _: session.run(None, feed), range(20)):
            np.testing.assert_array_equal(restored, alone)
    assert len(session._pools) == 2


@compiled
def test_a_failure_that_passes_is_not_kept(
    bundle: Bundle, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from uare_rt import backends

    def failing(*_: Any) -> Any:
        raise BackendError("no threads")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(onnxruntime_, "read_codec", failing)
        executable = backends.get("onnxruntime").load(graph_of(bundle, 1), threads=1)
        assert not isinstance(executable._session, onnxruntime_.CodecSession)
    executable = backends.get("onnxruntime").load(graph_of(bundle, 1), threads=1)
    assert isinstance(executable._session, onnxruntime_.CodecSession)


def as_it_is(content: bytes) -> bytes:
    return content


@compiled
def test_a_codec_comes_back_from_its_file(bundle: Bundle) -> None:
    graph = graph_of(bundle, 2)
    codec = read_codec(onnxruntime_._part(graph), graph.path.parent, as_it_is)
    assert [layer.kind for layer in codec.encoder] == ["stem", "3x3", "3x3", "down", "3x3", "down", "3x3", "down"]
    assert [layer.kind for layer in codec.decoder] == ["up", "3x3", "up", "3x3", "up", "3x3", "3x3", "3x3"]
    assert (len(codec.tokens.layers), codec.tokens.shifted, codec.times) == (4, 2, 4)
    again = Codec.from_bytes(codec.to_bytes())
    assert again is not None
    assert again.to_bytes() == codec.to_bytes()
    assert Codec.from_bytes(b"ORTM" * 100) is None


Change = tuple[str, dict[str, Any]]


@compiled
@pytest.mark.parametrize(
    "change",
    [
        ("Conv", {"inputs": lambda node: (node.inputs[0], node.inputs[1])}),  # no bias
        ("DepthToSpace", {"rest": lambda node: b""}),  # another order
        ("LeakyRelu", {"type": lambda node: "Relu"}),
        ("Resize", {"rest": lambda node: b""}),
    ],
)
def test_what_is_built_otherwise_is_not_read(bundle: Bundle, change: Change) -> None:
    graph = graph_of(bundle, 1)
    model = onnxruntime_._part(graph)
    at = max(index for index, node in enumerate(model.nodes) if node.type == change[0])
    node = model.nodes[at]
    model.nodes[at] = node._replace(**{name: value(node) for name, value in change[1].items()})
    with pytest.raises(NotACodecError):
        read_codec(OnnxModel(model.to_bytes()), graph.path.parent, as_it_is)


@compiled
def test_the_assessment_is_not_read_and_is_kept_all_the_same(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from uare_rt import backends

    graph = bundle.graph("assess")
    with pytest.raises(NotACodecError, match="outputs"):
        read_codec(onnxruntime_._part(graph), graph.path.parent, as_it_is)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    backends.get("onnxruntime").load(graph, threads=1)
    assert len(list((tmp_path / "uare-rt" / "graphs").glob("*.engine"))) == 1


@compiled
def test_what_gives_something_else_is_not_used(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime as ort

    def wrong(kind: str, weights: NDArray[np.float32]) -> NDArray[np.float32]:
        return blocked_weights(kind, weights) * np.float32(1.001 if kind == "down" else 1)

    graph = graph_of(bundle, 1)
    assert onnxruntime_.as_codec(ort, graph, 1) is not None
    monkeypatch.setattr(codec_reading, "blocked_weights", wrong)
    assert onnxruntime_.as_codec(ort, graph, 1) is None


def test_without_them_the_graph_runs_as_it_is(
    bundle: Bundle, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from uare_rt import backends

    feed = feed_of(bundle, BASE_NAME, rng.random((1, 3, 64, 48), dtype=np.float32), 0)
    results = []
    for folder, found in (("with", library()), ("without", None)):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / folder))
        for module in (compiled_code, convolutions):
            monkeypatch.setattr(module, "library", lambda found=found: found)
        executable = backends.get("onnxruntime").load(graph_of(bundle, 1), threads=1)
        results.append(executable.run(feed)["restored"])
    np.testing.assert_allclose(*results, rtol=0, atol=1e-4)
    with pytest.raises(BackendError, match="cannot be used"):
        Convolutions(1)


@compiled
def test_a_run_needs_little_memory_and_leaves_it_for_the_next(bundle: Bundle, rng: np.random.Generator) -> None:
    """Maps of 30 floats a pixel in all: two of the largest in turn, and those that are read again."""
    session = session_of(bundle, 1, 1)
    for height, width in ((64, 96), (32, 32), (64, 96), (128, 64)):
        frames = rng.random((1, 3, height, width), dtype=np.float32)
        session.run(None, feed_of(bundle, BASE_NAME, frames, 0))
        assert len(session._idle) == 1
        assert len(session._idle[0]) <= 31 * 128 * 64
