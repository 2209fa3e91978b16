"""How well a bundle restores a photo with noise on this machine's backends, so that speed is not seen alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from uare_rt import backends
from uare_rt.session import Session

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from uare_rt.bundle import Bundle

__all__ = ["SIGMA", "noisy", "psnr", "restored_psnr"]

SIGMA = 25.0
"""Standard deviation of the noise, in levels of 255."""


def noisy(photo: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The photo with seeded white noise of `SIGMA`: uint8 [H, W, 3] -> same."""
    noise = np.random.default_rng(0).normal(0, SIGMA, photo.shape)
    return np.clip(np.rint(photo + noise), 0, 255).astype(np.uint8)


def psnr(picture: NDArray[Any], truth: NDArray[Any]) -> float:
    """Of 8-bit pictures, in dB; 100 for equal ones."""
    error = float(np.mean((picture.astype(np.float32) - truth) ** 2))
    return 100.0 if error == 0 else float(10 * np.log10(255**2 / error))


def restored_psnr(bundle: Bundle, backend: str, photo: NDArray[np.uint8]) -> float:
    """PSNR of the photo restored from its noisy version, which the model assesses itself."""
    with Session(bundle, backends.get(backend)) as session:
        return psnr(session.restore(noisy(photo)).image, photo)
