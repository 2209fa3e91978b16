"""Guidance's branches in one batch and one after another; the cache of contexts in fewer bytes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mot_reference import relative_rms
from safetensors.torch import load_file
from torch import Tensor

from uare_rt.model.checkpoint import load_unified
from uare_rt.model.costs import kv_bytes
from uare_rt.model.flow import Flow, Guidance
from uare_rt.model.kv_cache import Int8KVCache
from uare_rt.model.mot import KVCache
from uare_rt.model.sampling import Branches, read_branches, sample
from uare_rt.model.unified import EMPTY, Block, UnifiedModel

TINY = Path(__file__).parents[1] / "data" / "mot-tiny"
GRID = (5, 6)
GUIDANCE = Guidance(4.0, 2.0, "text_channel")


@pytest.fixture(scope="module")
def inputs() -> dict[str, Tensor]:
    return load_file(TINY / "inputs.safetensors")


@pytest.fixture
def model() -> UnifiedModel:
    return load_unified(TINY)[0]


def blocks_of(model: UnifiedModel, inputs: dict[str, Tensor]) -> list[Block]:
    latent = model.codec.encode(inputs["vae_image"])
    text = model.text_block(inputs["edit_ids"].tolist())
    return [model.latent_block(latent), model.vision_block(inputs["vit_image"]), text]


@torch.no_grad()
def branches_of(model: UnifiedModel, inputs: dict[str, Tensor], guidance: Guidance = GUIDANCE) -> Branches:
    return read_branches(model, blocks_of(model, inputs), guidance)


def passes(model: UnifiedModel, branches: Branches, noise: Tensor, flow: Flow) -> tuple[Tensor, list[int]]:
    """The sampled tokens, and the batch of every pass of the decoder."""
    batches: list[int] = []
    handle = model.language.mot.layers[0].register_forward_hook(lambda _, args, __: batches.append(len(args[0])))
    tokens = sample(model, branches, noise, GRID, flow)
    handle.remove()
    return tokens, batches


@pytest.mark.parametrize(
    ("guidance", "points", "forecast", "expected"),
    [
        (GUIDANCE, 4, False, [3, 3, 3]),
        (Guidance(4.0), 4, False, [2, 2, 2]),
        (Guidance(4.0, 2.0, interval=(0.8, 1.0)), 4, False, [3, 3, 1]),
        (GUIDANCE, 10, True, [3, 3, 3, 3, 3, 3]),
    ],
)
def test_branches_in_one_batch_give_what_they_give_one_by_one(
    model: UnifiedModel,
    inputs: dict[str, Tensor],
    guidance: Guidance,
    points: int,
    forecast: bool,
    expected: list[int],
) -> None:
    branches = branches_of(model, inputs, guidance)
    together, batches = passes(
        model, branches, inputs["noise"], Flow(points, 3.0, guidance, forecast=forecast, batched=True)
    )
    apart, ones = passes(
        model, branches, inputs["noise"], Flow(points, 3.0, guidance, forecast=forecast, batched=False)
    )
    assert batches == expected
    assert ones == [1] * sum(expected)
    assert relative_rms(together, apart) < 1e-5


@pytest.mark.parametrize(("free", "expected"), [(1 << 10, [1, 1, 1]), (1 << 40, [3]), (None, [3])])
def test_branches_are_batched_when_memory_allows(
    model: UnifiedModel,
    inputs: dict[str, Tensor],
    monkeypatch: pytest.MonkeyPatch,
    free: int | None,
    expected: list[int],
) -> None:
    monkeypatch.setattr("uare_rt.model.sampling.free_memory", lambda _: free)
    assert passes(model, branches_of(model, inputs), inputs["noise"], Flow(2, 3.0, GUIDANCE))[1] == expected


def test_an_int8_cache_rounds_to_half_a_step_of_each_token_and_head() -> None:
    k, v = torch.randn(2, 3, 1, 2, 7, 16).unbind()
    k[..., 3, :] *= 1000
    v[0, 0, 0, 5] = 0
    cache = Int8KVCache.of(KVCache(k, v))
    assert (cache.k.dtype, cache.tokens) == (torch.int8, 7)
    for layer in range(3):
        for got, exact in zip(cache.layer(layer), (k[layer], v[layer]), strict=True):
            step = exact.abs().amax(dim=-1, keepdim=True) / 127
            assert bool(((got - exact).abs() <= step * 0.5001).all())
    assert not cache.layer(0)[1][0, 0, 5].any()


def test_an_int8_cache_grows_and_is_cut_as_the_plain_one() -> None:
    caches = [KVCache(*torch.randn(2, 3, 1, 2, tokens, 16).unbind()) for tokens in (4, 5)]
    grown = Int8KVCache.of(caches[0]).extended(Int8KVCache.of(caches[1]))
    whole = Int8KVCache.of(caches[0].extended(caches[1]))
    for one, other in zip(grown.layer(1), whole.layer(1), strict=True):
        assert torch.equal(one, other)
    assert torch.equal(grown.first(4).layer(2)[0], Int8KVCache.of(caches[0]).layer(2)[0])


# Measured: 7.9e-5 and 1.5e-3.
@pytest.mark.parametrize(("kind", "bound", "share"), [("fp16", 2e-4, 0.5), ("int8", 4e-3, 0.32)])
def test_a_smaller_cache_costs_little_accuracy(
    model: UnifiedModel, inputs: dict[str, Tensor], kind: str, bound: float, share: float
) -> None:
    flow = Flow(5, 3.0, GUIDANCE)
    exact = sample(model, branches_of(model, inputs), inputs["noise"], GRID, flow)
    model.cache_type = kind
    branches = branches_of(model, inputs)
    error = relative_rms(sample(model, branches, inputs["noise"], GRID, flow), exact)
    assert 0 < error < bound
    held = sum(t.nbytes for t in vars(branches.main.cache).values() if isinstance(t, Tensor))
    assert held <= share * 2 * kv_bytes(model.config, branches.main.tokens)


@torch.no_grad()
def test_text_is_decoded_from_a_smaller_cache_too(model: UnifiedModel, inputs: dict[str, Tensor]) -> None:
    text = model.text_block(inputs["edit_ids"].tolist())
    exact, _ = model.extend(model.extend(EMPTY, [text])[0], [text])
    model.cache_type = "int8"
    context, _ = model.extend(model.extend(EMPTY, [text])[0], [text])
    assert context.tokens == exact.tokens
    assert relative_rms(context.cache.layer(1)[0], exact.cache.layer(1)[0]) < 2e-2
