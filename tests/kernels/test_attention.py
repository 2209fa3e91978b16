"""MoT attention: as exact as torch's own, blind to what is hidden, and never outside its memory."""

from __future__ import annotations

import pytest
import torch
from harness import DEVICE, DTYPES, TARGET, Memory, as_good_as, doubles
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from uare_rt.errors import UsageError
from uare_rt.kernels import attention, checks, qk_rope
from uare_rt.kernels.routing import Run
from uare_rt.kernels.tiles import Tile
from uare_rt.model.mot import block_causal_mask, rotary

SMALL = Tile({"BLOCK_M": 16, "BLOCK_N": 16}, 4, 1)
Pair = tuple[Tensor, Tensor]


def torchs_own(q: Tensor, k: Tensor, v: Tensor, past: Pair | None, ranges: Tensor | None) -> Tensor:
    """What torch's attention gives in the same type."""
    prefix = 0
    if past is not None:
        prefix = past[0].shape[2]
        k, v = (
            torch.cat((old.expand(q.shape[0], -1, -1, -1), new), dim=2) for old, new in zip(past, (k, v), strict=True)
        )
    seen = None
    if ranges is not None:
        own = torch.arange(-prefix, q.shape[2])
        first, start, end = (column[:, None] for column in ranges.unbind(1))
        seen = (own < first) | ((own >= start) & (own < end))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=seen, enable_gqa=True)


def three(memory: Memory, batch: int, heads: int, kv_heads: int, tokens: int, dim: int, dtype: torch.dtype):  # noqa: ANN201
    return (
        memory.normal(batch, heads, tokens, dim, dtype=dtype),
        memory.normal(batch, kv_heads, tokens, dim, dtype=dtype),
        memory.normal(batch, kv_heads, tokens, dim, dtype=dtype),
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("heads", "kv_heads", "dim", "tokens", "prefix"),
    [(7, 1, 128, 13, 37), (4, 2, 72, 21, 0), (2, 2, 64, 5, 19), (5, 1, 32, 1, 67), (2, 1, 16, 33, 3)],
)
def test_it_is_as_exact_as_torch(
    dtype: torch.dtype, heads: int, kv_heads: int, dim: int, tokens: int, prefix: int
) -> None:
    memory = Memory()
    q, k, v = three(memory, 2, heads, kv_heads, tokens, dim, dtype)
    past = tuple(memory.normal(1, kv_heads, prefix, dim, dtype=dtype) for _ in range(2)) if prefix else None
    blocks = [(tokens // 3, True), (tokens - tokens // 3, False)] if tokens > 2 else [(tokens, True)]
    ranges = attention.visible_ranges(block_causal_mask(blocks))
    got = attention.run(q, k, v, past=past, ranges=ranges, target=TARGET)
    own = torchs_own(q, k, v, past, ranges)
    exact = attention.reference(*doubles((q, k, v)), past=past and doubles(past), ranges=ranges)
    assert as_good_as(got, own, exact)
    assert memory.intact()


@pytest.mark.parametrize("splits", [1, 4, 16])
def test_split_prefixes_are_combined_exactly(splits: int) -> None:
    memory = Memory()
    q, k, v = three(memory, 2, 6, 2, 2, 32, torch.float32)
    past = tuple(memory.normal(2, 2, 97, 32, dtype=torch.float32) for _ in range(2))
    got = attention.run(q, k, v, past=past, target=TARGET, splits=splits, tile=SMALL)
    exact = attention.reference(*doubles((q, k, v)), past=doubles(past))
    assert as_good_as(got, torchs_own(q, k, v, past, None), exact)
    assert memory.intact()


@settings(max_examples=12, deadline=None)
@given(
    blocks=st.lists(st.tuples(st.integers(1, 13), st.booleans()), min_size=1, max_size=3),
    apart=st.booleans(),
    groups=st.sampled_from([1, 2, 3]),
    prefix=st.integers(0, 20),
    at=st.floats(0, 1, exclude_max=True),
)
def test_a_token_never_sees_what_the_mask_hides(
    blocks: list[tuple[int, bool]], apart: bool, groups: int, prefix: int, at: float
) -> None:
    """What one query may not see is poisoned, keys with no number, values with large ones: nothing may change."""
    mask = block_causal_mask(blocks)
    if apart and len(blocks) > 2:  # the last block does not see the one before it, as in `extend_each`
        last = blocks[-1][0]
        start = mask.shape[0] - last - blocks[-2][0]
        mask[-last:, start : start + blocks[-2][0]] = False
    tokens = mask.shape[0]
    ranges = attention.visible_ranges(mask)
    assert ranges is not None
    memory = Memory(1)
    q, k, v = three(memory, 1, groups, 1, tokens, 16, torch.float32)
    past = tuple(memory.normal(1, 1, prefix, 16, dtype=torch.float32) for _ in range(2)) if prefix else None
    got = attention.run(q, k, v, past=past, ranges=ranges, target=TARGET, tile=SMALL)
    for token in {0, int(at * tokens)}:
        hidden = ~mask[token]
        bad_k, bad_v = k.clone(), v.clone()
        bad_k[:, :, hidden], bad_v[:, :, hidden] = float("nan"), 1e30
        again = attention.run(q, bad_k, bad_v, past=past, ranges=ranges, target=TARGET, tile=SMALL)
        assert torch.equal(again[:, :, token], got[:, :, token])
    exact = attention.reference(*doubles((q, k, v)), past=past and doubles(past), ranges=ranges)
    assert as_good_as(got, torchs_own(q, k, v, past, ranges), exact)


@settings(max_examples=8, deadline=None)
@given(
    pieces=st.lists(st.tuples(st.integers(1, 9), st.integers(0, 1)), min_size=1, max_size=4),
    groups=st.sampled_from([1, 3]),
    kv_heads=st.sampled_from([1, 2]),
)
def test_a_cache_filled_in_pieces_gives_what_one_pass_gives(
    pieces: list[tuple[int, int]], groups: int, kv_heads: int
) -> None:
    """Keys are normed, turned and appended where the next pass reads them; what is not written yet is poison."""
    memory, dim, total = Memory(2), 16, sum(length for length, _ in pieces)
    q, k, v = (memory.normal(1, total, h, dim, dtype=torch.float32) for h in (groups * kv_heads, kv_heads, kv_heads))
    norms = qk_rope.Norms(*((memory.normal(dim, dtype=torch.float32),) * 2 for _ in range(2)), 1e-6)
    rope = rotary(torch.arange(total), dim, 1e4)
    cache = qk_rope.Cache(*(memory.put(torch.full((1, kv_heads, total + 3, dim), float("nan"))) for _ in range(2)))
    ranges = attention.visible_ranges(block_causal_mask([(total, True)]))
    outputs, start = [], 0
    for length, expert in pieces:
        stop = start + length
        part, own = slice(start, stop), tuple(table[start:stop].contiguous() for table in rope)
        there = qk_rope.Cache(cache.k, cache.v, start)
        runs = (Run(expert, length),)
        query = qk_rope.run(q[:, part], k[:, part], v[:, part], norms, own, runs, there, target=TARGET)
        past = (cache.k[:, :, :start], cache.v[:, :, :start])
        keys, values = cache.k[:, :, part], cache.v[:, :, part]
        seen = ranges[:length].contiguous()
        outputs.append(attention.run(query, keys, values, past=past, ranges=seen, target=TARGET, tile=SMALL))
        start = stop
    wide = doubles((q, k, v))
    whole = qk_rope.Cache(*(torch.zeros(1, kv_heads, total, dim, dtype=torch.float64) for _ in range(2)))
    exact_norms = qk_rope.Norms(doubles(norms.q), doubles(norms.k), 1e-6)
    query = qk_rope.reference(*wide, exact_norms, rope, tuple(Run(e, n) for n, e in pieces), whole)
    exact = attention.reference(query, whole.k, whole.v, ranges=ranges)
    assert torch.allclose(torch.cat(outputs, dim=2).double(), exact, atol=1e-5)
    assert memory.intact()


def test_ranges_say_what_the_mask_says_or_that_they_cannot() -> None:
    gaps = torch.tensor([[1, 0, 0], [1, 1, 0], [1, 0, 1]], dtype=torch.bool)
    assert attention.visible_ranges(gaps).tolist() == [[1, 1, 1], [2, 2, 2], [1, 2, 3]]
    assert attention.visible_ranges(torch.tensor([[1, 0, 1, 0, 1]] * 5, dtype=torch.bool)) is None
    assert attention.visible_ranges(torch.zeros(2, 2, dtype=torch.bool)) is None


def test_transposed_views_are_read_by_their_strides() -> None:
    memory = Memory()
    q, k, v = (memory.normal(2, 9, heads, 16, dtype=torch.float32).transpose(1, 2) for heads in (4, 2, 2))
    got = attention.run(q, k, v, target=TARGET)
    assert torch.allclose(got, attention.reference(q, k, v), atol=1e-5)
    assert got.transpose(1, 2).is_contiguous()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"q": torch.zeros(1, 4, 3, 16, dtype=torch.float64)},
            "attention: q's dtype is float64, but must be float16 or",
        ),
        ({"q": torch.zeros(1, 4, 3, 12)}, "q's head dim is 12, but must be a multiple of 8"),
        ({"k": torch.zeros(1, 3, 3, 16)}, "k's head count is 3, but must be a divisor of q's 4"),
        ({"v": torch.zeros(1, 2, 4, 16)}, r"v's shape is \[1, 2, 4, 16\], but must be \[1, 2, 3, 16\]"),
        ({"k": torch.zeros(1, 2, 16, 3).mT}, "k's stride is .* but must be 1 along the last axis"),
        ({"k": torch.zeros(1, 2, 3, 16, device="meta")}, f"k's device is meta, but must be {DEVICE}"),
        ({"ranges": torch.zeros(3, 3, dtype=torch.int64)}, "ranges's dtype is int64, but must be int32"),
        ({"past": (torch.zeros(2, 2, 5, 16),) * 2}, "past's batch is 2, but must be 1 or 1"),
        ({"splits": 3}, "splits is 3, but must be a power of two"),
        ({"q": torch.zeros(1, 4, 3, 16).expand(70000, -1, -1, -1)}, "q's batch is 70000, but must be at most 65535"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_by_name(change: dict[str, object], message: str) -> None:
    arguments = {"q": torch.zeros(1, 4, 3, 16), "k": torch.zeros(1, 2, 3, 16), "v": torch.zeros(1, 2, 3, 16), **change}
    with pytest.raises(UsageError, match=message):
        attention.run(**arguments, target=TARGET)


def test_a_cpu_tensor_is_refused_where_kernels_are_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "interpreted", lambda: False)
    x = torch.zeros(1, 2, 3, 16, device="cpu")
    with pytest.raises(UsageError, match="attention: the device is cpu, but must be cuda with TRITON_INTERPRET=0"):
        attention.run(x, x, x, target=TARGET)
