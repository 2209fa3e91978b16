"""Bytes to network input and back, and which tiles changed: equal to torch, and to the runtime's own conversions."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from harness import DEVICE, TARGET, Memory
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from uare_rt.errors import UsageError
from uare_rt.kernels import changes, emit, ingest
from uare_rt.kernels.colour import MATRICES, Yuv, yuv
from uare_rt.kernels.emit import Place
from uare_rt.kernels.tiles import Tile
from uare_rt.live.yuv import YuvColour, rgb_to_yuv, yuv_to_rgb

SMALL = Tile({"BLOCK": 64}, 4, 1)
BT709 = yuv(1, full_range=False)


def bytes_of(memory: Memory, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(math.prod(shape))
    return memory.put(torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8, device="cpu"))


@settings(max_examples=12, deadline=None)
@given(
    height=st.integers(1, 21),
    width=st.integers(1, 21),
    nv12=st.booleans(),
    unshuffle=st.sampled_from([1, 2]),
    dtype=st.sampled_from([torch.float16, torch.float32]),
)
def test_ingest_is_the_reference(height: int, width: int, nv12: bool, unshuffle: int, dtype: torch.dtype) -> None:
    memory = Memory()
    frame = bytes_of(memory, 3 * height, 2 * width) if nv12 else bytes_of(memory, height, width, 3)
    options = {
        "multiple": 16, "unshuffle": unshuffle, "gain": (2.0, 1.0, 0.5), "offset": (-1.0, 0.0, 0.25), "dtype": dtype,
        "colour": BT709 if nv12 else None,
    }  # fmt: skip
    got = ingest.run(frame, **options, target=TARGET, tile=SMALL)
    expected = ingest.reference(frame, **options)
    assert got.shape == expected.shape
    assert torch.allclose(got, expected, rtol=0, atol=2e-6 if dtype == torch.float32 else 1e-3)
    assert memory.intact()


def test_ingest_continues_a_picture_as_the_runtime_does() -> None:
    from uare_rt.tiling import reflect

    for size, padded in ((5, 16), (9, 16), (16, 16), (1, 16)):
        assert ingest.continued(size, padded, torch.device("cpu")).tolist() == reflect(0, padded, size).tolist()


@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize("full_range", [False, True])
def test_known_colours(matrix: int, full_range: bool) -> None:
    """Golden values: black, white and grey of both ranges; red, whose luma is the matrix's weight of red."""
    colour = yuv(matrix, full_range=full_range)
    low, high = (0, 255) if full_range else (16, 235)
    for pixel, expected in (((0.0,) * 3, low), ((1.0,) * 3, high), ((1.0, 0.0, 0.0), None)):
        values = torch.tensor(pixel, dtype=torch.float32)[:, None, None].expand(3, 2, 2).contiguous()
        frame = torch.zeros(3, 2, dtype=torch.uint8)
        emit.run(values, frame, Place(0, 0, 2, 2), colour=colour, target=TARGET, tile=SMALL)
        luma = round(colour.red * (high - low) + low) if expected is None else expected
        assert (frame[:2] == luma).all()
        assert frame[2].tolist() == [128, 128] if expected is not None else frame[2, 1] == (255 if full_range else 240)
        back = ingest.run(frame, multiple=2, colour=colour, dtype=torch.float32, target=TARGET, tile=SMALL)
        assert torch.allclose(back[0, :, 0, 0], torch.tensor(pixel), atol=0.01)


@pytest.mark.parametrize("full_range", [False, True])
def test_the_colour_bars_of_the_specification(data_dir: Path, full_range: bool) -> None:
    golden = json.loads((data_dir / "colour-bars.json").read_text())
    names = {"bt601": 6, "bt709": 1}
    for name, matrix in names.items():
        codes = golden["codes"].get(f"{name} {'full' if full_range else 'limited'} 8", {})
        for bar, expected in codes.items():
            values = torch.tensor(golden["bars"][bar], dtype=torch.float32)[:, None, None].expand(3, 2, 2).contiguous()
            frame = torch.zeros(3, 2, dtype=torch.uint8)
            colour = yuv(matrix, full_range=full_range)
            emit.run(values, frame, Place(0, 0, 2, 2), colour=colour, target=TARGET, tile=SMALL)
            assert [int(frame[0, 0]), *frame[2].tolist()] == expected, (name, bar)


def test_nv12_is_converted_as_the_runtime_does() -> None:
    generator = torch.Generator().manual_seed(4)
    picture = torch.randint(0, 256, (14, 18, 3), generator=generator, dtype=torch.uint8, device="cpu").to(DEVICE)
    frame = torch.zeros(21, 18, dtype=torch.uint8)
    values = (picture.float() / 255).permute(2, 0, 1).contiguous()
    emit.run(values, frame, Place(0, 0, 14, 18), colour=BT709, target=TARGET, tile=SMALL)
    luma, chroma = rgb_to_yuv(picture.cpu().numpy(), "NV12", YuvColour("bt709"))
    expected = np.concatenate((luma, chroma.reshape(7, 18)))
    assert np.abs(frame.cpu().numpy().astype(int) - expected.astype(int)).max() <= 1
    assert (frame.cpu().numpy() == expected).mean() > 0.99
    got = ingest.run(frame, multiple=2, colour=BT709, dtype=torch.float32, target=TARGET, tile=SMALL)
    back = yuv_to_rgb([frame[:14].cpu().numpy(), frame[14:].reshape(7, 9, 2).cpu().numpy()], "NV12", YuvColour("bt709"))
    assert np.array_equal(np.rint(np.clip(got[0].permute(1, 2, 0).cpu().numpy(), 0, 1) * 255), back)


def test_tiles_of_nv12_are_those_of_the_whole_frame() -> None:
    values, whole, tiled = torch.rand(3, 8, 24), *(torch.zeros(12, 24, dtype=torch.uint8) for _ in range(2))
    emit.run(values, whole, Place(0, 0, 8, 24), colour=BT709, target=TARGET, tile=SMALL)
    emit.run(values, tiled, Place(0, 0, 8, 10), colour=BT709, target=TARGET, tile=SMALL)
    emit.run(values[:, :, 8:].contiguous(), tiled, Place(0, 10, 8, 14, 0, 2), colour=BT709, target=TARGET, tile=SMALL)
    assert torch.equal(tiled, whole)


@settings(max_examples=14, deadline=None)
@given(
    height=st.integers(1, 12),
    width=st.integers(1, 12),
    margin=st.integers(0, 2),
    feather=st.integers(0, 3),
    nv12=st.booleans(),
    dither=st.booleans(),
    strength=st.sampled_from([None, 1.0, 0.7, 0.0]),
    shuffle=st.sampled_from([1, 2]),
)
def test_emit_is_the_reference(
    height: int, width: int, margin: int, feather: int, nv12: bool, dither: bool, strength: float | None, shuffle: int
) -> None:
    memory = Memory()
    height, width, margin, feather = 2 * height, 2 * width, 2 * margin, 2 * feather
    place = Place(2, 4, height, width, margin, margin, min(feather, height), min(feather, width))
    planes = (3 * shuffle**2, (height + margin) // shuffle + 1, (width + margin) // shuffle + 1)
    values = memory.put((torch.rand(planes) * 1.4 - 0.2).half())
    shape = ((height + 6) * 3 // 2, width + 8) if nv12 else (height + 6, width + 8, 3)
    if nv12 and (height + 6) % 2:
        shape = ((height + 7) * 3 // 2, width + 8)
    out, original = bytes_of(memory, *shape), bytes_of(memory, *shape).flip(0).contiguous()
    expected = out.clone()
    options = {"shuffle": shuffle, "dither": dither, "colour": BT709 if nv12 else None}
    if strength is not None:
        options |= {"strength": strength, "original": original}
    emit.run(values, out, place, **options, target=TARGET, tile=SMALL)
    emit.reference(values, expected, place, **options)
    difference = (out.int() - expected.int()).abs()
    assert difference.max() <= 1
    assert (difference > 0).float().mean() < 0.01  # a sum in another order may tip a tie
    assert memory.intact()


def test_strength_zero_keeps_every_byte_and_full_strength_rounds_as_the_runtime_does() -> None:
    from uare_rt.frames import from_unit

    memory = Memory()
    values, original = memory.put(torch.rand(3, 9, 7)), bytes_of(memory, 9, 7, 3)
    out = torch.zeros(9, 7, 3, dtype=torch.uint8)
    emit.run(values, out, Place(0, 0, 9, 7), original=original, strength=0.0, target=TARGET, tile=SMALL)
    assert torch.equal(out, original)
    emit.run(values, out, Place(0, 0, 9, 7), target=TARGET, tile=SMALL)
    assert np.array_equal(out.cpu().numpy(), from_unit(values.permute(1, 2, 0).cpu().numpy(), np.uint8))


def test_dithering_keeps_the_mean_of_a_level_between_two() -> None:
    out = torch.zeros(16, 16, 3, dtype=torch.uint8)
    values = torch.full((3, 16, 16), 100.25 / 255)
    emit.run(values, out, Place(0, 0, 16, 16), dither=True, target=TARGET, tile=SMALL)
    assert out.float().mean() == 100.25
    assert out.unique().tolist() == [100, 101]


def tile_table(height: int, width: int, side: int) -> Tensor:
    down, across = ([(at, min(at + side + 3, size)) for at in range(0, size, side)] for size in (height, width))
    return torch.tensor([(*y, *x) for y in down for x in across], dtype=torch.int32)


@settings(max_examples=10, deadline=None)
@given(height=st.integers(1, 60), width=st.integers(1, 60), spots=st.integers(0, 3), seed=st.integers(0, 9))
def test_changed_tiles_are_those_of_the_reference(height: int, width: int, spots: int, seed: int) -> None:
    memory = Memory()
    before = bytes_of(memory, height, width, 3)
    after = before.clone()
    generator = torch.Generator().manual_seed(seed)
    for _ in range(spots):
        y, x = (int(torch.randint(0, size, (), generator=generator, device="cpu")) for size in (height, width))
        after[y : y + 3, x : x + 3] += 97
    after, tiles = memory.put(after), memory.put(tile_table(height, width, 20))
    got = changes.run(before, after, tiles, 40, target=TARGET, tile=Tile({"BLOCKS": 4}, 1, 1))
    expected = changes.reference(before, after, tiles, 40)
    assert got[0].tolist() == expected[0].tolist()
    assert got[1].tolist() == expected[1].tolist()
    assert memory.intact()


@pytest.mark.parametrize("noise", [1.0, 4.0, 12.0])
def test_noise_alone_changes_nothing_and_an_edge_does(noise: float) -> None:
    generator = torch.Generator().manual_seed(3)

    def noisy(picture: Tensor) -> Tensor:
        return (
            (picture + noise * torch.randn(picture.shape, generator=generator, device="cpu").to(DEVICE))
            .round()
            .clamp(0, 255)
            .byte()
        )

    still = torch.full((48, 48, 3), 120.0)
    moved = still.clone()
    moved[20:26, 20:26] += 12 * noise
    tiles, threshold = tile_table(48, 48, 16), changes.threshold_for(noise)
    assert int(changes.run(noisy(still), noisy(still), tiles, threshold, target=TARGET)[1]) == 0
    listed, count = changes.run(noisy(still), noisy(moved), tiles, threshold, target=TARGET)
    assert 0 < int(count) < tiles.shape[0]
    assert 4 in listed[: int(count)]


def test_arguments_that_do_not_fit_are_refused_by_name() -> None:
    frame = torch.zeros(8, 8, 3, dtype=torch.uint8)
    with pytest.raises(UsageError, match="ingest: frame's dtype is float32, but must be uint8"):
        ingest.run(frame.float(), target=TARGET)
    with pytest.raises(
        UsageError, match=r"ingest: frame's shape is \[8, 8\], but must be \[3 H / 2, W\] of even H and W"
    ):
        ingest.run(frame[..., 0].contiguous(), colour=BT709, target=TARGET)
    with pytest.raises(UsageError, match="ingest: multiple is 5, but must be a multiple of 2"):
        ingest.run(frame, unshuffle=2, multiple=5, target=TARGET)
    values = torch.zeros(3, 8, 8)
    with pytest.raises(UsageError, match=r"emit: place is .* but must be inside a frame of 8x8"):
        emit.run(values, frame, Place(4, 0, 8, 8), target=TARGET)
    with pytest.raises(UsageError, match="emit: original is None, but must be given with a strength below 1"):
        emit.run(values, frame, Place(0, 0, 8, 8), strength=0.5, target=TARGET)
    with pytest.raises(UsageError, match="changes: tiles's dtype is int64, but must be int32"):
        changes.run(frame, frame, torch.zeros(1, 4, dtype=torch.int64), 1, target=TARGET)
    with pytest.raises(UsageError, match="colour matrix 8 is not one of 1, 5, 6, 9"):
        yuv(8, full_range=True)
    assert isinstance(BT709, Yuv)
