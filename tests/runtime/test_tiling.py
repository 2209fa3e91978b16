"""Plans of tiles: every px is written, from enough input, on the grid, and no tile is larger than asked."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uare_rt.errors import UsageError
from uare_rt.manifest import Tiling
from uare_rt.tiling import FEATHER, checked_tile, choose_sides, padded, plan_axis, plan_tiles, reflect, smallest_tile


@st.composite
def rules(draw: st.DrawFn) -> Tiling:
    multiple = draw(st.sampled_from([1, 8, 16]))
    grid = multiple * draw(st.integers(1, 8))
    return Tiling(multiple=multiple, grid=grid, before=draw(st.integers(0, 150)), after=draw(st.integers(0, 150)))


NANO = Tiling(multiple=16, grid=64, before=96, after=160)


@settings(max_examples=400, deadline=None)
@given(length=st.integers(1, 5000), tile=st.integers(1, 2000), tiling=rules())
def test_axis_is_covered_exactly_from_enough_input(length: int, tile: int, tiling: Tiling) -> None:
    whole = padded(length, tiling.multiple)
    spans = plan_axis(length, tile, tiling)
    assert spans[0].begin == 0
    assert spans[0].feather == 0
    assert spans[-1].end == length
    for span in spans:
        assert 0 <= span.start <= span.begin < span.end <= min(span.stop, length)
        assert span.stop <= whole
        assert (span.stop - span.start) % tiling.multiple == 0
        assert span.stop - span.start <= max(tile, smallest_tile(tiling))
        # The contract of the manifest: what may be assumed to be exact.
        assert span.start % tiling.grid == 0
        assert span.start <= max(0, span.begin - tiling.before)
        assert span.stop >= min(whole, span.end + tiling.after)
    for one, two in itertools.pairwise(spans):
        assert two.begin + two.feather == one.end
        assert two.feather == FEATHER
        assert two.end - two.begin > FEATHER


@settings(max_examples=200, deadline=None)
@given(height=st.integers(1, 5000), width=st.integers(1, 5000), pixels=st.floats(0, 3e7), tiling=rules())
def test_chosen_tiles_keep_to_the_budget(height: int, width: int, pixels: float, tiling: Tiling) -> None:
    sides = choose_sides(height, width, pixels, tiling)
    least = smallest_tile(tiling)
    longest = [
        max(span.stop - span.start for span in plan_axis(length, side, tiling))
        for length, side in zip((height, width), sides, strict=True)
    ]
    assert longest[0] * longest[1] <= max(pixels, least * least)


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(1, 700), width=st.integers(1, 700), side=st.integers(1, 600), scale=st.sampled_from([1, 2, 4])
)
def test_every_output_pixel_is_written_and_blended_smoothly(height: int, width: int, side: int, scale: int) -> None:
    tiling = Tiling(multiple=16, grid=64, before=6, after=69)
    written = np.zeros((height * scale, width * scale), np.float32)
    for tile in plan_tiles(height, width, (side, side), tiling):
        part = np.s_[tile.y.begin * scale : tile.y.end * scale, tile.x.begin * scale : tile.x.end * scale]
        weight = tile.y.ramp(scale)[:, None] * tile.x.ramp(scale)
        assert weight.shape == written[part].shape
        assert 0 < weight.min() <= weight.max() == 1
        # Blending a constant onto what is there must find a constant: nothing unwritten lies below a ramp.
        written[part] = (1 - weight) * written[part] + weight
    np.testing.assert_allclose(written, 1, atol=1e-6)


def test_a_frame_that_fits_is_one_tile() -> None:
    assert choose_sides(1001, 777, 1008 * 784, NANO) == (1008, 784)
    assert len(plan_tiles(1001, 777, (1008, 784), NANO)) == 1


def test_tiles_are_as_equal_as_their_number_allows() -> None:
    spans = plan_axis(2100, 2048, NANO)
    sides = [span.stop - span.start for span in spans]
    assert len(sides) == 2
    assert max(sides) - min(sides) <= 2 * NANO.grid


def test_a_long_thin_frame_takes_long_tiles() -> None:
    assert choose_sides(20000, 3, 1e6, NANO)[0] == 20000
    assert len(plan_tiles(20000, 3, choose_sides(20000, 3, 1e5, NANO), NANO)) < 6


def test_a_tile_below_the_margins_is_refused() -> None:
    least = smallest_tile(NANO)
    assert checked_tile(least, NANO) == least
    with pytest.raises(UsageError, match=f"at least {least} px"):
        checked_tile(least - 1, NANO)


@settings(max_examples=200, deadline=None)
@given(length=st.integers(1, 300), multiple=st.sampled_from([1, 16, 64]), data=st.data())
def test_reflection_is_numpys_and_the_same_from_any_start(length: int, multiple: int, data: st.DataObject) -> None:
    stop = padded(length, multiple)
    mode = "reflect" if stop <= 2 * length - 1 else "symmetric"
    expected = np.pad(np.arange(length), (0, stop - length), mode=mode)
    start = data.draw(st.integers(0, stop))
    np.testing.assert_array_equal(reflect(start, stop, length), expected[start:])
