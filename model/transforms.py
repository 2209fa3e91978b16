"""From a picture to an encoder's input and back, as `uare_rt.vlm.transforms` defines it, in tensors.

PyTorch is imported only where tensors are made, so that sizes can be planned without it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from uare_rt.vlm import transforms
from uare_rt.vlm.transforms import fitted_size, resize, resize_to

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

__all__ = ["fitted_size", "normalise", "resize", "resize_to", "to_pixels"]


def normalise(pixels: NDArray[np.uint8]) -> Tensor:
    """uint8 [H, W, 3] -> float32 [3, H, W] in [-1, 1]."""
    import torch

    return torch.from_numpy(transforms.normalise(pixels))


def to_pixels(picture: Tensor) -> NDArray[np.uint8]:
    """Float [3, H, W] in [-1, 1] -> uint8 [H, W, 3], clamped and truncated as the reference does."""
    return transforms.to_pixels(picture.float().cpu().numpy())
