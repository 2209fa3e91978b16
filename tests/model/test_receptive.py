"""The tiling rule: how far a pixel is seen, and that tiles cut by the rule compute what the whole does."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest
import torch

from uare_rt.model.presets.nano import UARE_NANO, NanoConfig
from uare_rt.model.receptive import TilingRule, tiling_rule

if TYPE_CHECKING:
    from collections.abc import Callable

    from uare_rt.model.nano import QualityContext, UareNano

    Maker = Callable[[NanoConfig], UareNano]
    Contexts = Callable[[UareNano, int], QualityContext]

SCALES = (1, 2, 4)


def windows(small: NanoConfig) -> list[NanoConfig]:
    return [
        small,
        dataclasses.replace(small, window=4, encoder_convs=(1, 1, 1)),
        dataclasses.replace(small, shifted_layers=2, encoder_convs=(1, 0, 2)),
    ]


@pytest.mark.parametrize("variant", range(3))
def test_the_rule_is_the_reach_and_not_more_than_it_needs(
    small: NanoConfig, random_model: Maker, random_context: Contexts, variant: int
) -> None:
    """Along a line: the inputs that an output has a gradient for are those the rule allows, and nearly all of them."""
    config = windows(small)[variant]
    model, rule = random_model(config), tiling_rule(config)
    context = random_context(model, 1)
    length = 8 * rule.grid
    widest = [0, 0]
    for place in range(3 * rule.grid, 5 * rule.grid, 3):
        frame = torch.rand(1, 3, 16, length, dtype=torch.float64, requires_grad=True)
        (gradient,) = torch.autograd.grad(model.restore(frame, context)[0, :, 7, place].sum(), frame)
        touched = gradient.abs().amax(dim=(0, 1, 2)).nonzero().flatten()
        first, last = int(touched[0]), int(touched[-1])
        assert place - rule.before <= first
        assert last < place + 1 + rule.after
        widest = [max(widest[0], place - first), max(widest[1], last - place)]
    assert widest[0] > rule.before - 16
    assert widest[1] > rule.after - 16


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("place", [(100, 37), (64, 64), (127, 128), (0, 160), (191, 0)], ids=str)
def test_a_pixel_beyond_the_reach_changes_nothing(
    small: NanoConfig, random_model: Maker, random_context: Contexts, place: tuple[int, int], scale: int
) -> None:
    model, rule = random_model(small), tiling_rule(small)
    context = random_context(model, 1)
    y, x = place
    frame = torch.rand(1, 3, 192, 192, dtype=torch.float64)
    poisoned = frame.clone()
    poisoned[0, :, y, x] += 5.0
    changed = (model.restore(poisoned, context, scale) - model.restore(frame, context, scale)).abs().amax(dim=1)[0]
    changed = torch.nn.functional.max_pool2d(changed[None], scale)[0]
    rows, columns = torch.arange(192)[:, None], torch.arange(192)[None]
    # The pixel is input to an output at row r if it lies in [r - before, r + 1 + after).
    inside = (rows <= y + rule.before) & (rows >= y - rule.after)
    near = inside & (columns <= x + rule.before) & (columns >= x - rule.after)
    assert (changed[~near] == 0).all()
    assert (~near).any()
    assert changed[y, x] > 1e-3
    assert (changed[near] > 0).float().mean() > 0.1


def tiled(
    model: UareNano, frame: torch.Tensor, context: QualityContext, rule: TilingRule, tile: int, scale: int
) -> torch.Tensor:
    """The frame from tiles of ``tile`` exact pixels a side, each fed what the rule asks for."""
    _, _, height, width = frame.shape
    out = frame.new_empty(1, 3, height * scale, width * scale)

    def spans(length: int) -> list[tuple[int, int, int, int]]:
        found = []
        for start in range(0, length, tile):
            stop = min(start + tile, length)
            first = max((start - rule.before) // rule.grid * rule.grid, 0)
            last = min(-(-(stop + rule.after) // rule.multiple) * rule.multiple, length)
            found.append((start, stop, first, last))
        return found

    for top, bottom, y0, y1 in spans(height):
        for left, right, x0, x1 in spans(width):
            part = model.restore(frame[:, :, y0:y1, x0:x1], context, scale)
            rows = slice((top - y0) * scale, (bottom - y0) * scale)
            columns = slice((left - x0) * scale, (right - x0) * scale)
            target = out[:, :, top * scale : bottom * scale, left * scale : right * scale]
            target.copy_(part[:, :, rows, columns])
    return out


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("tile", [64, 101])
def test_tiles_cut_by_the_rule_are_the_whole(
    small: NanoConfig, random_model: Maker, random_context: Contexts, tile: int, scale: int
) -> None:
    model, rule = random_model(small), tiling_rule(small)
    context, frame = random_context(model, 1), torch.rand(1, 3, 272, 208, dtype=torch.float64)
    whole = model.restore(frame, context, scale)
    torch.testing.assert_close(tiled(model, frame, context, rule, tile, scale), whole, atol=1e-6, rtol=1e-6)
    short = dataclasses.replace(rule, before=8, after=8)
    assert (tiled(model, frame, context, short, tile, scale) - whole).abs().max() > 1e-4


def test_tiles_of_the_real_preset_are_the_whole(random_model: Maker, random_context: Contexts) -> None:
    model, rule = random_model(UARE_NANO).float(), tiling_rule(UARE_NANO)
    context, frame = random_context(model, 1), torch.rand(1, 3, 560, 80)
    whole = model.restore(frame, context)
    assert whole.std() > 0.05
    difference = (tiled(model, frame, context, rule, 200, 1) - whole).abs().max()
    assert difference <= 1e-4 * whole.abs().max()
