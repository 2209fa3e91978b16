"""The MoT layer against plain arithmetic written for the test."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from uare_rt.model.mot import KVCache, MoT, MoTConfig, RMSNorm, Segment, attend, block_causal_mask, rotary

CONFIG = MoTConfig(hidden=24, layers=3, heads=6, kv_heads=2, head_dim=8, mlp=40, rope_theta=1e4)
# Norms, rotations and the softmax are computed in fp32 whatever the stream is.
CLOSE = {"atol": 2e-6, "rtol": 2e-6}


@pytest.fixture
def mot() -> MoT:
    """Three layers in float64; norm weights are random too."""
    torch.manual_seed(3)
    made = MoT(CONFIG).double().requires_grad_(False)
    for module in made.modules():
        if isinstance(module, RMSNorm):
            module.weight.uniform_(0.5, 1.5)
    return made


def stream(tokens: int, batch: int = 2) -> Tensor:
    return torch.randn(batch, tokens, CONFIG.hidden, dtype=torch.float64, generator=torch.Generator().manual_seed(4))


def plain_norm(x: list[float], weight: list[float]) -> list[float]:
    scale = math.sqrt(sum(v * v for v in x) / len(x) + CONFIG.eps)
    return [v / scale * w for v, w in zip(x, weight, strict=True)]


def plain_rotation(x: list[float], position: int, theta: float) -> list[float]:
    """Every pair (x[j], x[j + d/2]) turned by position * theta^(-2j/d)."""
    half, turned = len(x) // 2, list(x)
    for j in range(half):
        angle = position * theta ** (-2 * j / len(x))
        a, b = x[j], x[j + half]
        turned[j] = a * math.cos(angle) - b * math.sin(angle)
        turned[j + half] = b * math.cos(angle) + a * math.sin(angle)
    return turned


def plain_layer(layer: torch.nn.Module, x: Tensor, experts: list[str], positions: list[int], sees: Tensor) -> Tensor:
    """One layer, one picture [T, hidden], token by token and head by head."""
    groups, dim = CONFIG.heads // CONFIG.kv_heads, CONFIG.head_dim
    queries, keys, values = [], [], []
    for row, expert, position in zip(x, experts, positions, strict=True):
        part = getattr(layer, expert)
        normed = torch.tensor(plain_norm(row.tolist(), part.input_norm.weight.tolist()), dtype=torch.float64)
        q, k, v = (
            (linear.weight @ normed + linear.bias).reshape(-1, dim).tolist() for linear in (part.q, part.k, part.v)
        )
        for heads, norm, kept in ((q, part.q_norm, queries), (k, part.k_norm, keys)):
            normed_heads = [plain_norm(head, norm.weight.tolist()) for head in heads]
            kept.append([plain_rotation(head, position, CONFIG.rope_theta) for head in normed_heads])
        values.append(v)
    out = []
    for t, (row, expert) in enumerate(zip(x, experts, strict=True)):
        part, mixed = getattr(layer, expert), []
        seen = [s for s in range(len(experts)) if sees[t, s]]
        for head in range(CONFIG.heads):
            source = head // groups
            scores = [
                math.exp(sum(a * b for a, b in zip(queries[t][head], keys[s][source], strict=True)) / math.sqrt(dim))
                for s in seen
            ]
            mixed += [
                sum(w * values[s][source][c] for w, s in zip(scores, seen, strict=True)) / sum(scores)
                for c in range(dim)
            ]
        y = row + part.o.weight @ torch.tensor(mixed, dtype=torch.float64)
        normed = torch.tensor(plain_norm(y.tolist(), part.mlp_norm.weight.tolist()), dtype=torch.float64)
        gate = part.gate.weight @ normed
        out.append(y + part.down.weight @ (gate / (1 + torch.exp(-gate)) * (part.up.weight @ normed)))
    return torch.stack(out)


def test_a_layer_is_what_the_paper_says(mot: MoT) -> None:
    experts = ["und", "und", "gen", "gen", "gen", "und"]
    positions = [0, 1, 7, 7, 7, 8]
    sees = block_causal_mask([(2, True), (3, False), (1, True)])
    x = stream(6)
    segments = [Segment("und", 2), Segment("gen", 3), Segment("und", 1)]
    rope = rotary(torch.tensor(positions), CONFIG.head_dim, CONFIG.rope_theta)
    got, _, _ = mot.layers[0](x, segments, rope, mask=sees)
    expected = torch.stack([plain_layer(mot.layers[0], picture, experts, positions, sees) for picture in x])
    torch.testing.assert_close(got, expected, **CLOSE)


def test_blocks_see_themselves_and_what_came_before() -> None:
    sees = block_causal_mask([(2, False), (3, True), (2, False)]).int().tolist()
    assert sees == [
        [1, 1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0],
        [1, 1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 1, 0, 0],
        [1, 1, 1, 1, 1, 1, 1],
        [1, 1, 1, 1, 1, 1, 1],
    ]


@pytest.mark.parametrize("poisoned", range(7))
def test_a_poisoned_token_reaches_only_those_that_may_see_it(mot: MoT, poisoned: int) -> None:
    sees = block_causal_mask([(2, False), (3, True), (2, False)])
    segments = [Segment("und", 5), Segment("gen", 2)]
    x = stream(7)
    before, _ = mot(x, segments, torch.arange(7), mask=sees)
    x[:, poisoned] += 1e3 * torch.randn(CONFIG.hidden, dtype=x.dtype)
    after, _ = mot(x, segments, torch.arange(7), mask=sees)
    changed = (after - before).abs().amax(dim=(0, 2))
    reached = sees[:, poisoned]
    assert (changed[~reached] == 0).all()
    assert (changed[reached] > 1e-6).all()


def test_hidden_keys_have_no_weight_even_beside_a_prefix() -> None:
    q, k, v = (torch.randn(2, heads, 4, 8) for heads in (4, 2, 2))
    past = (torch.randn(1, 2, 3, 8), torch.randn(1, 2, 3, 8))
    nobody = torch.zeros(4, 4, dtype=torch.bool)
    poisoned = attend(q, 1e2 * k, 1e6 * v, past=past, mask=nobody)
    keys, values = (part.repeat_interleave(2, dim=1).expand(2, -1, -1, -1) for part in past)
    torch.testing.assert_close(
        poisoned, torch.nn.functional.scaled_dot_product_attention(q, keys, values), atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("shared", [False, True], ids=["prefix per picture", "one prefix for all"])
def test_grouped_queries_are_heads_with_repeated_keys(shared: bool) -> None:
    q, k, v = (torch.randn(3, heads, 5, 8, dtype=torch.float64) for heads in (6, 2, 2))
    past = tuple(torch.randn(1 if shared else 3, 2, 4, 8, dtype=torch.float64) for _ in range(2))
    mask = block_causal_mask([(5, True)])
    got = attend(q, k, v, past=past, mask=mask)
    keys, values = (
        torch.cat((old.expand(3, -1, -1, -1), new), dim=2).repeat_interleave(3, dim=1)
        for old, new in zip(past, (k, v), strict=True)
    )
    whole = torch.cat((torch.ones(5, 4, dtype=torch.bool), mask), dim=1)
    expected = torch.nn.functional.scaled_dot_product_attention(q, keys, values, attn_mask=whole)
    torch.testing.assert_close(got, expected, **CLOSE)


@pytest.mark.parametrize("kind", ["none", "causal", "shared by all queries"])
@pytest.mark.parametrize("prefix", [0, 4])
def test_attention_in_chunks_is_attention_at_once(monkeypatch: pytest.MonkeyPatch, kind: str, prefix: int) -> None:
    q, k, v = (torch.randn(2, heads, 11, 8, dtype=torch.float64) for heads in (6, 2, 2))
    past = (torch.randn(1, 2, prefix, 8, dtype=torch.float64),) * 2 if prefix else None
    masks = {"none": None, "causal": block_causal_mask([(11, True)]), "shared by all queries": torch.rand(1, 11) > 0.3}
    whole = attend(q, k, v, past=past, mask=masks[kind])
    sizes = []
    softmax = torch.softmax

    def counted(scores: Tensor, **options: object) -> Tensor:
        sizes.append(scores.numel())
        return softmax(scores, **options)

    monkeypatch.setattr(torch, "softmax", counted)
    limit = 3 * 2 * 6 * (11 + prefix)  # three queries a chunk
    monkeypatch.setattr("uare_rt.model.mot._SCORES", limit)
    chunked = attend(q, k, v, past=past, mask=masks[kind])
    assert sizes == [limit, limit, limit, limit * 2 // 3]
    torch.testing.assert_close(chunked, whole, atol=1e-7, rtol=1e-7)


def test_recording_a_graph_leaves_attention_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uare_rt.model.mot._SCORES", 1)

    class Attention(torch.nn.Module):
        def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            return attend(q, k, v)

    inputs = tuple(torch.randn(1, heads, 5, 8) for heads in (6, 2, 2))
    graph = torch.export.export(Attention(), inputs).graph
    assert sum("softmax" in str(node.target) for node in graph.nodes) == 1


@pytest.mark.parametrize("cuts", [[3], [1, 4], [1, 2, 3, 4, 5, 6]])
def test_a_cached_prefix_gives_what_one_pass_gives(mot: MoT, cuts: list[int]) -> None:
    x, positions = stream(7), torch.tensor([0, 1, 2, 5, 6, 7, 9])
    experts = ["und", "und", "und", "und", "gen", "gen", "und"]
    mask = block_causal_mask([(7, True)])
    whole, cache = mot(x, [Segment(e, 1) for e in experts], positions, mask=mask)
    seen: KVCache | None = None
    parts = []
    for start, stop in zip([0, *cuts], [*cuts, 7], strict=True):
        segments = [Segment(e, 1) for e in experts[start:stop]]
        hidden, new = mot(x[:, start:stop], segments, positions[start:stop], seen, mask[start:stop, start:stop])
        assert new.tokens == stop - start
        seen = new if seen is None else seen.extended(new)
        parts.append(hidden)
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, **CLOSE)
    assert seen is not None
    torch.testing.assert_close(seen.k, cache.k, **CLOSE)
    torch.testing.assert_close(seen.v, cache.v, **CLOSE)


def test_every_token_uses_its_own_expert(mot: MoT) -> None:
    """With tokens that see only themselves, a mixed pass is both experts run apart."""
    x, alone = stream(6), torch.eye(6, dtype=torch.bool)
    mixed, _ = mot(x, [Segment("gen", 1), Segment("und", 3), Segment("gen", 2)], torch.arange(6), mask=alone)
    apart = {e: mot(x, [Segment(e, 6)], torch.arange(6), mask=alone)[0] for e in ("und", "gen")}
    gen = torch.tensor([True, False, False, False, True, True])
    torch.testing.assert_close(mixed[:, gen], apart["gen"][:, gen], **CLOSE)
    torch.testing.assert_close(mixed[:, ~gen], apart["und"][:, ~gen], **CLOSE)
    assert (apart["gen"] - apart["und"]).abs().amin(dim=(0, 2)).max() > 1e-3


def test_only_relative_positions_count(mot: MoT) -> None:
    x, mask, segments = stream(5), block_causal_mask([(5, True)]), [Segment("und", 5)]
    here, _ = mot(x, segments, torch.arange(5), mask=mask)
    there, _ = mot(x, segments, torch.arange(5) + 40, mask=mask)
    apart, _ = mot(x, segments, torch.arange(5) * 3, mask=mask)
    torch.testing.assert_close(here, there, atol=5e-5, rtol=5e-5)
    assert (here - apart).abs().max() > 1e-2


@pytest.mark.parametrize(("field", "value", "message"), [("kv_heads", 4, "multiple of kv_heads"), ("head_dim", 7, "7")])
def test_impossible_dimensions_are_refused(field: str, value: int, message: str) -> None:
    fields = {"hidden": 24, "layers": 1, "heads": 6, "kv_heads": 2, "head_dim": 8, "mlp": 40, field: value}
    with pytest.raises(ValueError, match=message):
        MoTConfig(**fields)
