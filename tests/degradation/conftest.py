from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from uare_rt.degradation import from_uint8

PHOTOS = Path(__file__).parents[1] / "data" / "photos"


@pytest.fixture(scope="session")
def photo_path() -> Path:
    return PHOTOS / "tiger.jpg"


@pytest.fixture(scope="session")
def pixels(photo_path: Path) -> NDArray[np.uint8]:
    """uint8 [192, 192, 3] of a sharp, well exposed photograph."""
    with Image.open(photo_path) as picture:
        return np.asarray(picture)[64:256, 64:256].copy()


@pytest.fixture(scope="session")
def image(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    frozen = from_uint8(pixels)
    frozen.flags.writeable = False  # a degradation that writes into its input fails
    return frozen
