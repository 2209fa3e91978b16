"""Full-reference measures of a picture against its truth, in NumPy and OpenCV: no PyTorch, no weights.

None of them scales a picture by a factor that depends on its size: a crop measures like the picture it is cut from.

- `signal_to_noise`: PSNR over the three channels.
- `multi_scale_ssim`: Wang, Simoncelli, Bovik 2003; five scales, fewer where the picture is small.
- `visual_information`: pixel-domain VIF of Sheikh and Bovik 2006; four scales, fewer where the picture is small.
- `gradient_deviation`: GMSD, Xue et al. 2014 (arXiv 1308.3052).
- `mean_deviation`: MDSI, Nafchi et al. 2016 (arXiv 1608.07433); pictures are averaged over 2x2 pixels first, as its
  authors do near 512 px.

`piq` holds the same measures; it cannot be imported without torchvision, and takes ten times as long. The tests hold
these functions to values that piq 0.8.0 gave.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from uare_rt.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "LEAST_SIDE",
    "checked_pair",
    "gradient_deviation",
    "luma",
    "mean_deviation",
    "multi_scale_ssim",
    "signal_to_noise",
    "structural_similarity",
    "visual_information",
]

LEAST_SIDE = 32
"""Least side in pixels of pictures that can be compared."""

_SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_SSIM_WINDOW = 11
_SSIM_C1, _SSIM_C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
_VISUAL_NOISE = 2.0  # variance of the visual channel in VIF's model
_TINY = 1e-8

# Rows of MDSI's colour space: luminance, and two chromaticities.
_LHM = np.array([[0.2989, 0.5870, 0.1140], [0.30, 0.04, -0.35], [0.34, -0.6, 0.17]], np.float32)


def checked_pair(clean: NDArray[np.uint8], degraded: NDArray[np.uint8]) -> None:
    """Refuse pictures that cannot be compared.

    Raises:
        InputError: not uint8 [H, W, 3] both, of different sizes, or a side below ``LEAST_SIDE``.
    """
    for picture in (clean, degraded):
        if not isinstance(picture, np.ndarray) or picture.dtype != np.uint8 or picture.ndim != 3:
            raise InputError("a full-reference measure needs two uint8 [H, W, 3] pictures")
    if clean.shape != degraded.shape or clean.shape[2] != 3:
        raise InputError(
            f"pictures of shape {list(clean.shape)} and {list(degraded.shape)} cannot be compared; "
            "both must be [H, W, 3] of one size"
        )
    if min(clean.shape[:2]) < LEAST_SIDE:
        raise InputError(f"{clean.shape[1]}x{clean.shape[0]} is too small to compare; {LEAST_SIDE} px is the least")


def luma(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    """BT.601 luma 0..255: uint8 [H, W, 3], RGB -> float32 [H, W]."""
    return np.asarray(cv2.transform(picture.astype(np.float32), np.array([[0.299, 0.587, 0.114]], np.float32)))


def _window(size: int, sigma: float) -> NDArray[np.float32]:
    offsets = np.arange(size) - (size - 1) / 2
    weights = np.exp(-(offsets**2) / (2 * sigma**2))
    return np.asarray(weights / weights.sum(), np.float32)


def _inside(image: NDArray[np.float32], window: NDArray[np.float32]) -> NDArray[np.float32]:
    """Separable filter, without the places where the window leaves the picture."""
    half = len(window) // 2
    return np.asarray(cv2.sepFilter2D(image, cv2.CV_32F, window, window)[half:-half, half:-half])


def _halved(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean of 2x2 pixels; an odd last row or column is left out."""
    height, width = (side // 2 for side in image.shape[:2])
    return np.asarray(cv2.resize(image[: 2 * height, : 2 * width], (width, height), interpolation=cv2.INTER_AREA))


def signal_to_noise(clean: NDArray[np.uint8], degraded: NDArray[np.uint8]) -> float:
    """PSNR in dB of two pictures, uint8 [H, W, 3]; at most 60, which stands for equal."""
    error = cv2.norm(clean, degraded, cv2.NORM_L2SQR) / clean.size
    return float(10 * np.log10(255**2 / max(error, 255**2 / 1e6)))


def multi_scale_ssim(clean: NDArray[np.float32], degraded: NDArray[np.float32]) -> float:
    """MS-SSIM of two lumas, float32 [H, W] 0..255: 0 to 1, where 1 means equal."""
    scales = min(5, 1 + int(np.log2(min(clean.shape) / _SSIM_WINDOW)))
    weights = np.array(_SCALE_WEIGHTS[:scales])
    window = _window(_SSIM_WINDOW, 1.5)
    x, y, result = clean, degraded, 1.0
    for scale, weight in enumerate(weights / weights.sum()):
        if scale:
            x, y = _halved(x), _halved(y)
        mean_x, mean_y = _inside(x, window), _inside(y, window)
        squares = _inside(x * x + y * y, window) - mean_x**2 - mean_y**2
        product = _inside(x * y, window) - mean_x * mean_y
        structure = (2 * product + _SSIM_C2) / (squares + _SSIM_C2)
        if scale == scales - 1:
            structure = structure * (2 * mean_x * mean_y + _SSIM_C1) / (mean_x**2 + mean_y**2 + _SSIM_C1)
        result *= max(float(structure.mean()), 0.0) ** weight
    return float(result)


def structural_similarity(clean: NDArray[np.uint8], degraded: NDArray[np.uint8]) -> float:
    """SSIM (Wang et al. 2004) of two pictures, uint8 [H, W, 3]: window of 1.5 px, mean of the channels."""
    window = _window(_SSIM_WINDOW, 1.5)
    x, y = clean.astype(np.float32), degraded.astype(np.float32)
    mean_x, mean_y = _inside(x, window), _inside(y, window)
    squares = _inside(x * x + y * y, window) - mean_x**2 - mean_y**2
    product = _inside(x * y, window) - mean_x * mean_y
    structure = (2 * product + _SSIM_C2) / (squares + _SSIM_C2)
    return float((structure * (2 * mean_x * mean_y + _SSIM_C1) / (mean_x**2 + mean_y**2 + _SSIM_C1)).mean())


def visual_information(clean: NDArray[np.float32], degraded: NDArray[np.float32]) -> float:
    """VIF of two lumas, float32 [H, W] 0..255: 0 to about 1, more where contrast was added."""
    x, y = clean, degraded
    kept, whole = 0.0, 0.0
    for scale in range(4):
        size = 2 ** (4 - scale) + 1
        window = _window(size, size / 5)
        if scale:
            x, y = _inside(x, window)[::2, ::2], _inside(y, window)[::2, ::2]
        if min(x.shape) < size:
            break
        mean_x, mean_y = _inside(x, window), _inside(y, window)
        var_x = np.maximum(_inside(x * x, window) - mean_x**2, 0)
        var_y = np.maximum(_inside(y * y, window) - mean_y**2, 0)
        product = _inside(x * y, window) - mean_x * mean_y
        alive = (var_x >= _TINY) & (var_y >= _TINY) & (product > 0)
        gain = np.where(alive, product / (var_x + _TINY), 0)
        noise = np.maximum(np.where(alive, var_y - gain * product, var_y), _TINY)
        kept += float(np.log1p(gain**2 * var_x / (noise + _VISUAL_NOISE), dtype=np.float32).sum(dtype=np.float64))
        whole += float(np.log1p(var_x / _VISUAL_NOISE, dtype=np.float32).sum(dtype=np.float64))
    return (kept + _TINY) / (whole + _TINY)


def _gradient(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Magnitude of Prewitt's gradient, zero outside the picture."""
    ones, step = np.full(3, 1 / 3, np.float32), np.array([1, 0, -1], np.float32)
    border = {"borderType": cv2.BORDER_CONSTANT}
    across = cv2.sepFilter2D(image, cv2.CV_32F, step, ones, **border)
    down = cv2.sepFilter2D(image, cv2.CV_32F, ones, step, **border)
    return np.asarray(cv2.magnitude(across, down))


def _similarity(x: NDArray[np.float32], y: NDArray[np.float32], constant: float) -> NDArray[np.float32]:
    return np.asarray((2 * x * y + constant) / (x * x + y * y + constant))


def gradient_deviation(clean: NDArray[np.float32], degraded: NDArray[np.float32]) -> float:
    """GMSD of two lumas, float32 [H, W] 0..255: 0 means equal, about 0.35 is ruined."""
    maps = _similarity(*(_gradient(_halved(image)) for image in (clean, degraded)), 170.0)
    return float(maps.std())


def mean_deviation(clean: NDArray[np.uint8], degraded: NDArray[np.uint8]) -> float:
    """MDSI of two pictures, uint8 [H, W, 3]: 0 means equal, about 0.6 is ruined."""
    x, y = (cv2.transform(_halved(image.astype(np.float32)), _LHM) for image in (clean, degraded))
    grad_x, grad_y, grad_both = (_gradient(image[..., 0]) for image in (x, y, (x + y) / 2))
    gradients = (
        _similarity(grad_x, grad_y, 140.0) + _similarity(grad_y, grad_both, 55.0) - _similarity(grad_x, grad_both, 55.0)
    )
    squares = (x[..., 1:] ** 2 + y[..., 1:] ** 2).sum(-1)
    colours = (2 * (x[..., 1:] * y[..., 1:]).sum(-1) + 550.0) / (squares + 550.0)
    total = 0.6 * gradients + 0.4 * colours
    # The fourth root of a negative sum is complex, at an angle of 45 degrees.
    root = np.sqrt(np.sqrt(np.abs(total)))
    turned = np.where(total < 0, np.float32(np.sqrt(0.5)), np.float32(1))
    real, imaginary = root * turned, root * np.where(total < 0, turned, 0)
    deviation = cv2.magnitude(real - real.mean(), imaginary - imaginary.mean())
    return float(deviation.mean()) ** 0.25
