"""The autoencoder in tiles against itself untiled."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mot_reference import relative_rms
from PIL import Image
from torch import Tensor

from uare_rt.errors import UsageError
from uare_rt.model.checkpoint import load_unified
from uare_rt.model.presets.uare_7b import UARE_7B
from uare_rt.model.transforms import normalise, resize_to
from uare_rt.model.vae import Autoencoder
from uare_rt.model.vae_tiling import GroupNorm
from uare_rt.vlm.codec_tiles import RAMP, spans

TINY = Path(__file__).parents[1] / "data" / "mot-tiny"


@pytest.fixture(scope="module")
def codec() -> Autoencoder:
    return load_unified(TINY)[0].codec


@pytest.fixture
def image(photo: Path) -> Tensor:
    """A real photo, 192x128, which tiles of 96 px cut into six."""
    import numpy as np

    with Image.open(photo) as opened:
        return normalise(resize_to(np.asarray(opened.convert("RGB")), (192, 128)))


def tiled(codec: Autoencoder, tile: int, call: str, x: Tensor, sizes: list[tuple[int, ...]]) -> Tensor:
    """The result in tiles; the sizes of what the finest residual block saw are added to ``sizes``."""
    block = codec.encoder.down[0].block[0] if call == "encode" else codec.decoder.up[0].block[0]
    handle = block.register_forward_hook(lambda _, args, __: sizes.append(tuple(args[0].shape[2:])))
    codec.tile = tile
    try:
        with torch.no_grad():
            return getattr(codec, call)(x)
    finally:
        codec.tile = None
        handle.remove()


def test_tiles_give_what_the_whole_picture_gives(codec: Autoencoder, image: Tensor) -> None:
    with torch.no_grad():
        latent = codec.encode(image)
        picture = codec.decode(latent)
    sizes: list[tuple[int, ...]] = []
    assert relative_rms(tiled(codec, 96, "encode", image, sizes), latent) < 1e-3
    restored = tiled(codec, 96, "decode", latent, sizes)
    assert relative_rms(restored, picture) < 1e-3
    assert (restored - picture).abs().max() < 2 / 255
    assert max(max(size) for size in sizes) <= 96
    # Norms are left as they were.
    assert all(norm.shared is None for norm in codec.modules() if isinstance(norm, GroupNorm))


def test_tiles_normalised_by_themselves_would_not_do(
    codec: Autoencoder, image: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the repeated passes are for: after the first, the error is a hundred times what is allowed."""
    with torch.no_grad():
        latent = codec.encode(image)
        picture = codec.decode(latent)
    monkeypatch.setattr("uare_rt.vlm.codec_tiles.SETTLED", float("inf"))
    monkeypatch.setattr("uare_rt.vlm.codec_tiles.Gathered.settle", lambda _: 0.0)
    assert relative_rms(tiled(codec, 96, "decode", latent, []), picture) > 3e-2


def test_passes_until_every_norm_is_exact_leave_rounding_only(
    codec: Autoencoder, image: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("uare_rt.vlm.codec_tiles.SETTLED", 0.0)
    with torch.no_grad():
        latent = codec.encode(image)
    assert relative_rms(tiled(codec, 96, "encode", image, []), latent) < 2e-5


def test_a_picture_within_one_tile_is_not_cut(codec: Autoencoder, image: Tensor) -> None:
    sizes: list[tuple[int, ...]] = []
    with torch.no_grad():
        whole = codec.encode(image)
    assert torch.equal(tiled(codec, 192, "encode", image, sizes), whole)
    assert sizes == [(128, 192)]


@pytest.mark.parametrize(("call", "least"), [("encode", 44), ("decode", 44)])
def test_tiles_smaller_than_what_their_convolutions_read_are_refused(
    codec: Autoencoder, image: Tensor, call: str, least: int
) -> None:
    x = image if call == "encode" else torch.zeros(4, 16, 24)
    with pytest.raises(UsageError, match=f"tiles of 32 px are smaller .*; give at least {least}"):
        tiled(codec, 32, call, x, [])


@given(length=st.integers(1, 300), reach=st.integers(0, 8), more=st.integers(1, 64))
def test_spans_share_an_axis_without_gap_or_overlap(length: int, reach: int, more: int) -> None:
    tile = 2 * reach + RAMP + more
    parts = spans(length, tile, reach)
    covered = [cell for part in parts for cell in range(part.core.start, part.core.stop)]
    assert covered == list(range(length))
    for part in parts:
        assert part.read.stop - part.read.start <= tile
        assert part.read.start == 0 or part.given.start - part.read.start == reach
        assert part.read.stop == length or part.read.stop - part.given.stop == reach


def test_the_reach_covers_what_an_output_depends_on(codec: Autoencoder) -> None:
    """By gradients, with norms out of the way: they see everything."""
    for half, shape in ((codec.encoder, (1, 3, 96, 96)), (codec.decoder, (1, 32, 24, 24))):
        norms = [
            (parent, name)
            for parent in half.modules()
            for name, m in parent.named_children()
            if isinstance(m, GroupNorm)
        ]
        kept = [getattr(parent, name) for parent, name in norms]
        for parent, name in norms:
            setattr(parent, name, torch.nn.Identity())
        x = torch.randn(shape, requires_grad=True)
        out = half.outer(x)
        cell = 4 if half is codec.encoder else 1
        at = 12 if half is codec.encoder else 49
        out[..., at, at].sum().backward()
        rows = x.grad.abs().sum(dim=(0, 1, 3)).nonzero().flatten() // cell
        assert int(rows.max()) - 12 <= half.reach
        assert 12 - int(rows.min()) <= half.reach
        for (parent, name), norm in zip(norms, kept, strict=True):
            setattr(parent, name, norm)
    with torch.device("meta"):
        large = Autoencoder(UARE_7B.codec)
    assert (large.encoder.reach, large.decoder.reach) == (5, 6)
