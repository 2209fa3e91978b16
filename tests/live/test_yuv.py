"""YUV conversion: the published colour bars, every siting, and what a round trip keeps."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from uare_rt.errors import InputError
from uare_rt.live.yuv import YUV_FORMATS, YuvColour, rgb_to_yuv, yuv_to_rgb

VECTORS = json.loads((Path(__file__).parents[1] / "data" / "colour-bars.json").read_text())


@pytest.mark.parametrize("name", list(VECTORS["codes"]))
def test_colour_bars_have_their_published_codes(name: str) -> None:
    matrix, span, bits = name.split()
    colour = YuvColour(matrix, span == "full")
    kind, peak, dtype, shift = ("P010", 65535, np.uint16, 6) if bits == "10" else ("NV12", 255, np.uint8, 0)
    for bar, codes in VECTORS["codes"][name].items():
        image = np.zeros((4, 6, 3), dtype) + (np.array(VECTORS["bars"][bar]) * peak).astype(dtype)
        luma, chroma = rgb_to_yuv(image, kind, colour)
        assert np.all(luma >> shift == codes[0]), bar
        assert np.all(chroma >> shift == codes[1:]), bar
        back = yuv_to_rgb([luma, chroma], kind, colour).astype(np.int64)
        # 1.5 codes of rounding at most, through the largest gain of the matrix.
        assert np.abs(back - image).max() <= 3 * peak / (4**4 if bits == "8" else 4**5), bar


@pytest.mark.parametrize("siting", ["left", "centre", "top-left"])
@pytest.mark.parametrize("size", [(1, 1), (1, 6), (5, 7), (8, 8)])
def test_a_flat_colour_survives_every_siting_and_odd_sizes(siting: str, size: tuple[int, int]) -> None:
    colour = YuvColour("bt709", siting=siting)
    image = np.zeros((*size, 3), np.uint8) + np.array([90, 140, 200], np.uint8)
    for kind in ("NV12", "I420"):
        assert np.abs(yuv_to_rgb(rgb_to_yuv(image, kind, colour), kind, colour).astype(int) - image).max() <= 2


def test_chroma_lies_where_the_siting_says() -> None:
    """A ramp of chroma along an axis comes back as that ramp only if it is put where it was taken."""
    ramp = np.arange(16, 240, 4, dtype=np.uint8)
    luma = np.full((4, 2 * ramp.size), 128, np.uint8)
    chroma = np.stack([np.tile(ramp, (2, 1)), np.full((2, ramp.size), 128, np.uint8)], axis=-1)
    for siting, first in (("left", 0.0), ("centre", 0.5)):
        colour = YuvColour("bt601", full_range=True, siting=siting)
        blue = yuv_to_rgb([luma, chroma], "NV12", colour)[1, :, 2].astype(float)
        columns = np.arange(luma.shape[1])
        expected = 128 + 1.772 * (np.interp((columns - first) / 2, np.arange(ramp.size), ramp) - 128)
        inside = (expected > 1) & (expected < 254)
        assert np.abs(blue - expected)[inside].max() <= 0.51


def test_planes_of_another_kind_are_refused() -> None:
    luma = np.zeros((4, 4), np.uint8)
    for planes, kind in (
        ([], "NV12"),
        ([luma], "NV12"),
        ([luma, np.zeros((2, 2), np.uint8)], "NV12"),
        ([luma, np.zeros((2, 2, 2), np.uint8)], "P010"),
        ([luma, np.zeros((2, 2, 2), np.uint8)], "YUY2"),
        ([luma[..., None], np.zeros((2, 2, 2), np.uint8)], "NV12"),
    ):
        with pytest.raises(InputError, match="are not a frame of"):
            yuv_to_rgb(planes, kind, YuvColour())
    for kind in YUV_FORMATS:
        with pytest.raises(InputError, match="cannot become"):
            rgb_to_yuv(np.zeros((4, 4, 3), np.float32), kind, YuvColour())
