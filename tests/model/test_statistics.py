"""Statistics of views: each kind of fault moves the numbers that are meant to show it."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from uare_rt.model.statistics import STATISTICS, view_statistics


@pytest.fixture(scope="module")
def views(photos: list[Path]) -> torch.Tensor:
    """Crops of real photos, [N, 3, 96, 96]."""
    crops = []
    for path in photos:
        with Image.open(path) as image:
            photo = np.asarray(image.convert("RGB"))
        crops.append(photo[96:192, 96:192])
    return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() / 255


def test_the_shape_is_what_it_says(views: torch.Tensor) -> None:
    assert view_statistics(views, 48).shape == (len(views), 4, STATISTICS)
    assert view_statistics(views, 96).shape == (len(views), 1, STATISTICS)
    assert view_statistics(torch.zeros(1, 3, 96, 96), 48).isfinite().all()
    assert view_statistics(torch.ones(1, 3, 96, 96), 48).isfinite().all()


def test_patches_are_in_rows_and_do_not_see_each_other(views: torch.Tensor) -> None:
    plain = view_statistics(views, 48)
    for index, (y, x) in enumerate([(0, 0), (0, 48), (48, 0), (48, 48)]):
        changed = views.clone()
        changed[..., y : y + 48, x : x + 48] = changed[..., y : y + 48, x : x + 48].flip(1)
        moved = (view_statistics(changed, 48) - plain).abs().amax(dim=(0, 2)) > 1e-6
        assert moved.tolist() == [place == index for place in range(4)]


def test_memory_layout_does_not_matter(views: torch.Tensor) -> None:
    last = view_statistics(views.contiguous(memory_format=torch.channels_last), 48)
    torch.testing.assert_close(last, view_statistics(views, 48), atol=1e-6, rtol=0)


def test_white_noise_on_a_flat_patch_gives_its_size() -> None:
    torch.manual_seed(4)
    sigma = 0.1
    flat = torch.full((1, 3, 96, 96), 0.5) + sigma * torch.randn(1, 1, 96, 96)
    found = view_statistics(flat, 96)[0, 0]
    assert float(found[0].exp()) == pytest.approx(sigma * 2**0.5, rel=0.05)  # luma, one row apart
    assert float(found[3]) == pytest.approx(float(np.log((2 / np.pi) ** 0.5)), abs=0.03)  # a Gaussian's ratio


def test_jpeg_shows_at_the_borders_of_its_blocks(views: torch.Tensor) -> None:
    coded = []
    for view in views:
        buffer = io.BytesIO()
        Image.fromarray((view.permute(1, 2, 0) * 255).byte().numpy()).save(buffer, "JPEG", quality=8, subsampling=0)
        coded.append(np.array(Image.open(buffer)))
    jpeg = torch.from_numpy(np.stack(coded)).permute(0, 3, 1, 2).float() / 255
    start = 2 * (3 + 3) * 2 + 2 * 2 * 2 + 3 + 2  # after the differences
    before, after = (view_statistics(x, 96)[:, 0, start : start + 16] for x in (views, jpeg))
    gain = (after - before).mean(dim=0)
    assert gain[:8].argmax() == gain[8:].argmax() == 7  # the step from one block to the next
    assert float(gain[7]) > 0.3
