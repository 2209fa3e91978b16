"""`uare-nano`: what its graphs promise before and after training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from uare_rt.model.flops import restore_flops
from uare_rt.model.mot import Segment, rotary
from uare_rt.model.nano import QualityContext, UareNano
from uare_rt.model.presets.nano import UARE_NANO, NanoConfig

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Maker = Callable[[NanoConfig], UareNano]
    Contexts = Callable[[UareNano, int], QualityContext]


@pytest.fixture(scope="module")
def preset() -> UareNano:
    """The real preset, untrained."""
    torch.manual_seed(1)
    return UareNano(UARE_NANO).eval().requires_grad_(False)


def test_the_restore_graph_is_within_its_budget(preset: UareNano) -> None:
    flops = restore_flops(preset)
    assert flops["total"] <= 50_000
    assert flops["mot"] <= 12_000
    config, mot = preset.config, preset.config.mot
    # The gen expert counted by hand: a multiply-add is two, a token has 256 pixels.
    linear = mot.hidden * mot.head_dim * (2 * mot.heads + 2 * mot.kv_heads) + 3 * mot.hidden * mot.mlp
    # Windows shifted by half are one more a side: 5x5 for 4x4 on the counted frame.
    rows = (16 // config.window + 1) ** 2 / (16 // config.window) ** 2
    attention = 2 * mot.heads * mot.head_dim * (config.window**2 + preset.context_tokens)
    layers = (mot.layers - config.shifted_layers) + config.shifted_layers * rows
    assert flops["mot"] == pytest.approx(2 * (linear + attention) * layers / 256, rel=0.02)


def test_larger_scales_cost_less_per_output_pixel(preset: UareNano) -> None:
    costs = [restore_flops(preset, scale)["total"] for scale in (1, 2, 4)]
    assert costs[0] > 2 * costs[1] > 4 * costs[2]


def keys_bicubic(image: NDArray[np.float64], scale: int) -> NDArray[np.float64]:
    """Cubic convolution with a = -0.5 (Keys 1981), pixel centres aligned, edges repeated, [C, H, W]."""

    def weight(x: float) -> float:
        x = abs(x)
        if x < 1:
            return (1.5 * x - 2.5) * x * x + 1
        return ((-0.5 * x + 2.5) * x - 4) * x + 2 if x < 2 else 0.0

    for axis in (1, 2):
        length = image.shape[axis]
        lines = []
        for i in range(length * scale):
            place = (i + 0.5) / scale - 0.5
            taps = range(int(np.floor(place)) - 1, int(np.floor(place)) + 3)
            lines.append(sum(weight(place - t) * np.take(image, min(max(t, 0), length - 1), axis) for t in taps))
        image = np.stack(lines, axis)
    return image


@pytest.mark.parametrize("scale", [1, 2, 4])
def test_an_untrained_model_enlarges_by_bicubic_and_nothing_else(preset: UareNano, scale: int) -> None:
    frame = torch.rand(2, 3, 48, 32)
    views = torch.rand(2, 9, 3, 96, 96)
    _, context = preset.assess(views)
    for given in (context, preset.null_context()):
        restored = preset.restore(frame, given, scale)
        assert restored.shape == (2, 3, 48 * scale, 32 * scale)
        expected = np.stack([keys_bicubic(picture.double().numpy(), scale) for picture in frame])
        np.testing.assert_allclose(restored.numpy(), expected, atol=2e-6)


def test_the_whole_context_guides_the_restoration(
    small: NanoConfig, random_model: Maker, random_context: Contexts
) -> None:
    model = random_model(small)
    context, frame = random_context(model, 1), torch.rand(1, 3, 32, 32, dtype=torch.float64)
    plain = model.restore(frame, context)
    for name in ("k", "v", "vec"):
        fields = {**vars(context), name: getattr(context, name) + 0.5 * torch.randn_like(getattr(context, name))}
        assert (model.restore(frame, QualityContext(**fields)) - plain).abs().max() > 1e-4, name


def test_every_view_and_every_slot_has_its_say(small: NanoConfig, random_model: Maker) -> None:
    model = random_model(small)
    views = torch.rand(1, 9, 3, 96, 96, dtype=torch.float64)
    logits, context = model.assess(views)
    assert logits.shape == (1, 7, 5)
    for view in range(9):
        changed = views.clone()
        changed[0, view, 1, 30:40, 50:60] += 0.5
        other, after = model.assess(changed)
        assert ((other - logits).abs().amax(dim=2) > 1e-9).all()
        assert (after.vec - context.vec).abs().max() > 1e-9
        # Blocks are causal: what an earlier view left in the cache does not know of a later one.
        before = (after.k - context.k).abs().amax(dim=(0, 1, 2, 4)) > 0
        assert before.tolist() == [False] * (4 * view) + [True] * (model.context_tokens - 4 * view)


def test_assessment_does_not_depend_on_the_rest_of_the_batch(small: NanoConfig, random_model: Maker) -> None:
    model = random_model(small)
    views = torch.rand(3, 9, 3, 96, 96, dtype=torch.float64)
    logits, context = model.assess(views)
    alone, own = model.assess(views[1:2])
    torch.testing.assert_close(logits[1:2], alone, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(context.k[:, 1:2], own.k, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(context.vec[1:2], own.vec, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("size", [(16, 16), (48, 80), (112, 16)], ids=str)
@pytest.mark.parametrize("scale", [1, 2])
def test_a_shared_context_is_that_context_for_every_picture(
    small: NanoConfig, random_model: Maker, random_context: Contexts, size: tuple[int, int], scale: int
) -> None:
    model = random_model(small)
    frames = torch.rand(3, 3, *size, dtype=torch.float64)
    one = random_context(model, 1)
    copies = QualityContext(one.k.expand(-1, 3, -1, -1, -1), one.v.expand(-1, 3, -1, -1, -1), one.vec.expand(3, -1))
    shared = model.restore(frames, one, scale)
    torch.testing.assert_close(shared, model.restore(frames, copies, scale), atol=1e-6, rtol=1e-6)
    alone = torch.cat([model.restore(frame[None], one, scale) for frame in frames])
    torch.testing.assert_close(shared, alone, atol=1e-6, rtol=1e-6)


def test_every_picture_gets_its_own_context(small: NanoConfig, random_model: Maker, random_context: Contexts) -> None:
    model = random_model(small)
    frames, each = torch.rand(3, 3, 48, 80, dtype=torch.float64), random_context(model, 3)
    together = model.restore(frames, each)
    for i in range(3):
        own = QualityContext(each.k[:, i : i + 1], each.v[:, i : i + 1], each.vec[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], model.restore(frames[i : i + 1], own), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("rows", [1, 3, 4, 5, 7])
def test_tokens_that_pad_a_window_are_never_seen(
    small: NanoConfig, random_model: Maker, random_context: Contexts, rows: int
) -> None:
    """A grid inside whole windows gives what the same tokens give when the windows end with the grid."""
    model = random_model(small)
    context = random_context(model, 1)
    latent = torch.randn(1, small.mot.hidden, rows, 3, dtype=torch.float64)
    got = model.generate(latent, context)
    assert got.shape == latent.shape
    # By hand: every window as the list of its real tokens.
    layers, side = model.mot.layers, small.window
    position = model.positions[-1:] + 1
    places = [(r, c) for r in range(rows) for c in range(3)]
    stream = {p: latent[0, :, p[0], p[1]] + model.latent_embedding[p[0] % side * side + p[1] % side] for p in places}
    for index, layer in enumerate(layers):
        shift = side // 2 if index >= len(layers) - small.shifted_layers else 0
        windows: dict[tuple[int, int], list[tuple[int, int]]] = {}
        for r, c in places:
            windows.setdefault(((r + shift) // side, (c + shift) // side), []).append((r, c))
        for tokens in windows.values():
            rope = rotary(position.expand(len(tokens)), small.mot.head_dim, small.mot.rope_theta)
            x = torch.stack([stream[p] for p in tokens])[None]
            y, _, _ = layer(x, [Segment("gen", len(tokens))], rope, (context.k[index], context.v[index]))
            stream |= dict(zip(tokens, y[0], strict=True))
    expected = torch.stack([stream[p] for p in places])[None]
    expected = model.mot.final_norm(expected, [Segment("gen", len(places))])[0].T.reshape_as(got[0])
    torch.testing.assert_close(got[0], expected, atol=2e-6, rtol=2e-6)
