"""Norm, SwiGLU, queries and keys of two experts in one pass: exact, and each token with its own expert's weights."""

from __future__ import annotations

import pytest
import torch
from harness import DTYPES, READ, TARGET, Memory, as_good_as, doubles
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from uare_rt.errors import UsageError
from uare_rt.kernels import qk_rope, routed_norm, swiglu
from uare_rt.kernels.routing import Run, block_table, runs_of
from uare_rt.kernels.tiles import Tile
from uare_rt.model.mot import rotary

EPS = 1e-6
RUNS = (Run(0, 1), Run(1, 11), Run(0, 1), Run(1, 4))
TYPES = pytest.mark.parametrize("dtype", DTYPES)


def weights(memory: Memory, *shape: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    return memory.normal(*shape, dtype=dtype), memory.normal(*shape, dtype=dtype)


@given(
    runs=st.lists(st.tuples(st.sampled_from(["und", "gen"]), st.integers(0, 9)), max_size=6), rows=st.integers(1, 16)
)
def test_a_table_covers_every_token_once_with_its_expert(runs: list[tuple[str, int]], rows: int) -> None:
    covered = []
    for first, stop, expert in block_table(runs_of(runs), rows, torch.device("cpu")).tolist():
        assert 0 < stop - first <= rows
        assert first == len(covered)
        covered += [expert] * (stop - first)
    assert covered == [int(name == "gen") for name, length in runs for _ in range(length)]


@pytest.mark.parametrize("dtype", READ)
@pytest.mark.parametrize(("batch", "width"), [(2, 160), (1, 37), (1, 1100)])
def test_routed_norm(dtype: torch.dtype, batch: int, width: int) -> None:
    memory = Memory()
    x = memory.normal(batch, 17, width, dtype=dtype)
    pair = weights(memory, width, dtype=dtype)
    got = routed_norm.run(x, pair, RUNS, EPS, target=TARGET)
    exact = routed_norm.reference(x.double(), doubles(pair), RUNS, EPS)
    assert as_good_as(got, routed_norm.reference(x, pair, RUNS, EPS), exact)
    assert memory.intact()


@TYPES
@pytest.mark.parametrize(
    ("runs", "batch", "width", "inner"), [(RUNS, 1, 48, 40), ((Run(1, 3),), 2, 123, 75), ((Run(0, 65),), 1, 64, 64)]
)
def test_swiglu(dtype: torch.dtype, runs: tuple[Run, ...], batch: int, width: int, inner: int) -> None:
    memory = Memory()
    x = memory.put((torch.randn(batch, sum(run.length for run in runs), width) * width**-0.5).to(dtype))
    gates, ups = weights(memory, inner, width, dtype=dtype), weights(memory, inner, width, dtype=dtype)
    got = swiglu.run(x, gates, ups, runs, target=TARGET)
    exact = swiglu.reference(x.double(), doubles(gates), doubles(ups), runs)
    assert as_good_as(got, swiglu.reference(x, gates, ups, runs), exact)
    assert memory.intact()


@TYPES
@pytest.mark.parametrize(
    ("dim", "heads", "kv_heads", "shared"), [(32, 5, 1, True), (128, 3, 1, False), (72, 2, 2, False)]
)
def test_queries_and_keys(dtype: torch.dtype, dim: int, heads: int, kv_heads: int, shared: bool) -> None:
    memory = Memory()
    batch, tokens, start, capacity = 2, 17, 3, 23
    packed = memory.normal(batch, tokens, heads + 2 * kv_heads, dim, dtype=dtype)  # one projection, three views
    q, k, v = packed.split((heads, kv_heads, kv_heads), dim=2)
    norms = qk_rope.Norms(weights(memory, dim, dtype=dtype), weights(memory, dim, dtype=dtype), EPS)
    rope = tuple(memory.put(part) for part in rotary(torch.arange(1 if shared else tokens) + 5, dim, 1e4))
    results = []
    for double in (False, True):
        part = (q, k, v) if not double else doubles((q, k, v))
        cache = qk_rope.Cache(*(memory.put(torch.full((batch, kv_heads, capacity, dim), 7.0)) for _ in range(2)), start)
        cache = qk_rope.Cache(cache.k.to(part[0].dtype), cache.v.to(part[0].dtype), start)
        used = qk_rope.Norms(doubles(norms.q), doubles(norms.k), EPS) if double else norms
        results.append((qk_rope.reference(*part, used, rope, RUNS, cache), cache.k, cache.v))
    cache = qk_rope.Cache(*(memory.put(torch.full_like(results[0][1], 7.0)) for _ in range(2)), start)
    got = (qk_rope.run(q, k, v, norms, rope, RUNS, cache, target=TARGET), cache.k, cache.v)
    for mine, own, exact in zip(got, *results, strict=True):
        assert as_good_as(mine, own, exact)
    untouched = torch.ones(capacity, dtype=torch.bool)
    untouched[start : start + tokens] = False
    assert (cache.k[:, :, untouched] == 7).all()
    assert (cache.v[:, :, untouched] == 7).all()
    assert memory.intact()


@settings(max_examples=8, deadline=None)
@given(
    runs=st.lists(st.builds(Run, st.integers(0, 1), st.integers(1, 20)), min_size=1, max_size=5),
    rows=st.sampled_from([1, 4, 16]),
)
def test_any_routing_gives_every_token_its_own_expert(runs: list[Run], rows: int) -> None:
    memory = Memory()
    x = memory.normal(1, sum(run.length for run in runs), 16, dtype=torch.float32)
    pair = weights(memory, 16, dtype=torch.float32)
    tile = Tile({"ROWS": rows}, 4, 1)
    got = routed_norm.run(x, pair, tuple(runs), EPS, target=TARGET, tile=tile)
    alone = [routed_norm.run(x, (weight, weight), tuple(runs), EPS, target=TARGET, tile=tile) for weight in pair]
    expert = torch.tensor([run.expert for run in runs for _ in range(run.length)])
    assert torch.equal(got, torch.where(expert[None, :, None] == 1, alone[1], alone[0]))


def test_arguments_that_do_not_fit_are_refused_by_name() -> None:
    x, weight = torch.zeros(1, 4, 16), torch.zeros(16)
    with pytest.raises(UsageError, match="routed norm: the runs' length is 3, but must be x's 4 tokens"):
        routed_norm.run(x, (weight, weight), (Run(0, 3),), EPS, target=TARGET)
    with pytest.raises(UsageError, match="gen weights's dtype is float16, but must be float32"):
        routed_norm.run(x, (weight, weight.half()), (Run(0, 4),), EPS, target=TARGET)
    matrix = torch.zeros(8, 16)
    with pytest.raises(UsageError, match=r"swiglu: gen up's shape is \[8, 12\], but must be \[8, 16\]"):
        swiglu.run(x, (matrix, matrix), (matrix, torch.zeros(8, 12)), (Run(0, 4),), target=TARGET)
    heads, rope = torch.zeros(1, 4, 2, 16), (torch.zeros(4, 16),) * 2
    norms, cache = qk_rope.Norms((weight,) * 2, (weight,) * 2, EPS), qk_rope.Cache(*(torch.zeros(1, 2, 6, 16),) * 2, 3)
    with pytest.raises(UsageError, match="qk rope: the cache's start is 3, but must be 0 to 2 for 4 tokens of 6"):
        qk_rope.run(heads, heads, heads, norms, rope, (Run(0, 4),), cache, target=TARGET)
    with pytest.raises(UsageError, match=r"segment \('text', 2\) must be one of und, gen"):
        runs_of([("text", 2)])
