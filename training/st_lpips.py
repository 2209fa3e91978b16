"""ST-LPIPS (Ghildyal, Liu 2022, arXiv 2207.13686): a learned perceptual distance that tolerates small shifts.

The weights come with the package stlpips-pytorch, whose code needs torchvision; its network, an AlexNet with blurred
strides, is written out here. A pair of 256x256 takes about a third of a second on one core, too much for every
training sample, so it is measured in evaluation only.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from uare_rt.errors import MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]

__all__ = ["SIDE", "load"]

SIDE = 256
"""Side in pixels of the centre that is compared."""

# Name of the convolution, its padding, and whether a blur with stride 2 follows; a pool stands before the marked ones.
_LAYERS = (
    ("net.slice1.0", 2, "net.slice1.1", None),
    ("net.slice2.5", 2, None, "net.slice2.4"),
    ("net.slice3.9", 1, None, "net.slice3.8"),
    ("net.slice4.11", 1, None, None),
    ("net.slice5.13", 1, None, None),
)


def load() -> Callable[[Pixels, Pixels], float]:
    """Read the weights.

    Returns:
        ``distance(truth, result)``: uint8 [H, W, 3] both; 0 means equal; at most the centre of 256x256 is compared.

    Raises:
        MissingExtraError: PyTorch or stlpips-pytorch is not installed.
    """
    for module, package in (("torch", "torch"), ("stlpips_pytorch", "stlpips-pytorch")):
        if importlib.util.find_spec(module) is None:
            raise MissingExtraError(package, "bench")
    import torch

    spec = importlib.util.find_spec("stlpips_pytorch")
    assert spec is not None
    assert spec.origin is not None
    file = Path(spec.origin).parent / "weights" / "vST0.0" / "alex_shift_tolerant.pth"
    state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    shift, spread = (state[f"scaling_layer.{name}"] for name in ("shift", "scale"))
    kept: dict[bytes, list[Any]] = {}

    def features(pixels: Pixels) -> list[Any]:
        height, width = (min(side, SIDE) for side in pixels.shape[:2])
        y, x = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
        crop = np.ascontiguousarray(pixels[y : y + height, x : x + width])
        image = torch.from_numpy(crop).permute(2, 0, 1)[None].float() / 127.5 - 1
        return _features((image - shift) / spread, state)

    def distance(truth: Pixels, result: Pixels) -> float:
        with torch.inference_mode():
            key = truth.tobytes()
            if key not in kept:  # the truth of one picture is asked for many times in a row
                kept.clear()
                kept[key] = features(truth)
            pairs = zip(kept[key], features(result), strict=True)
            parts = [
                ((one - other).square() * state[f"lin{number}.model.1.weight"]).sum(1).mean()
                for number, (one, other) in enumerate(pairs)
            ]
            return float(sum(parts))

    return distance


def _features(image: Any, state: dict[str, Any]) -> list[Any]:
    from torch.nn import functional as F

    def blurred(x: Any, name: str) -> Any:
        weights = state[f"{name}.filt"]
        return F.conv2d(F.pad(x, (2, 2, 2, 2), mode="reflect"), weights, stride=2, groups=len(weights))

    found = []
    for name, padding, blur_after, blur_before in _LAYERS:
        if blur_before is not None:
            image = blurred(F.max_pool2d(image, 3, 1), blur_before)
        image = F.conv2d(image, state[f"{name}.weight"], state[f"{name}.bias"], padding=padding)
        if blur_after is not None:
            image = blurred(image, blur_after)
        image = image.relu()
        found.append(image / (image.square().sum(1, keepdim=True).sqrt() + 1e-10))
    return found
