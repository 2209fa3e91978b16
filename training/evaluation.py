"""Evaluation of a bundle's restoration on an evaluation set, beside its peers in the same run.

The model goes through its session: every picture is restored as 8-bit RGB, guided by its own assessment, at the scale
of its type. Nobody tells it what is wrong; peers are told what `PIPELINES` says. PSNR, SSIM (Gaussian window of 1.5 px,
mean of the channels) and, where its package is installed, ST-LPIPS of the centre are averaged over the pictures. Inputs
that were made smaller are measured after bicubic enlargement. What scores pictures is in `uare_rt.training.scoring`.
"""

from __future__ import annotations

import contextlib
import time
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from uare_rt.errors import UareError
from uare_rt.slots import DEGRADATIONS
from uare_rt.training.evalset import bicubic, psnr
from uare_rt.training.fidelity import structural_similarity
from uare_rt.training.peers import PEERS, peer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from uare_rt.training.evalset import EvaluationSet

    Pixels = NDArray[np.uint8]
    Chain = Callable[[Pixels], Pixels]

__all__ = [
    "PIPELINES",
    "Model",
    "evaluate_restoration",
    "peer_chains",
    "perceptual_distance",
    "pipeline_name",
    "unavailable_peers",
]

Pipeline = tuple[tuple[str, float], ...]
"""Peers one after the other, each with what it is told."""


def _denoisers(sigma: float) -> tuple[Pipeline, ...]:
    names = ("opencv-bilateral", "opencv-nlm", "skimage-wavelet", "skimage-tv", "skimage-nlm", "ffdnet", "cbm3d")
    return tuple(((name, sigma),) for name in names)


def _deblurrers(sigma: float) -> tuple[Pipeline, ...]:
    return (("opencv-unsharp", sigma),), (("skimage-richardson-lucy", sigma),)


_DEBLOCKERS: tuple[Pipeline, ...] = ((("opencv-bilateral", 8),), (("skimage-tv", 8),), (("ffdnet", 8),))
_BRIGHTENERS: tuple[Pipeline, ...] = ((("zero-dce++", 0),), (("opencv-clahe", 4),))

PIPELINES: Mapping[str, tuple[Pipeline, ...]] = {
    **{f"noise{sigma}": _denoisers(sigma) for sigma in (15, 25, 50)},
    **{f"jpeg{quality}": _DEBLOCKERS for quality in (10, 20, 40)},
    **{f"blur{sigma}": _deblurrers(sigma) for sigma in (1, 2)},
    **{f"x{scale}": (((f"real-esrgan-x{scale}", 0),),) for scale in (2, 4)},
    "lowlight": (*_BRIGHTENERS, (("zero-dce++", 0), ("skimage-nlm", 12)), (("zero-dce++", 0), ("ffdnet", 12))),
    "haze": ((("opencv-clahe", 2),), (("opencv-clahe", 8),)),
    "mix_a": (*_denoisers(12), (("ffdnet", 12), ("opencv-unsharp", 1.2))),
    "mix_b": (*_denoisers(8), (("ffdnet", 8), ("opencv-unsharp", 1.0))),
    "mix_c": (*_BRIGHTENERS, (("zero-dce++", 0), ("opencv-bilateral", 8)), (("zero-dce++", 0), ("ffdnet", 8))),
    "mix_d": (
        (("opencv-clahe", 4),),
        (("ffdnet", 10), ("opencv-clahe", 4)),
        (("skimage-nlm", 10), ("opencv-clahe", 8)),
    ),
}
"""Peers tried on each type, with the true strength where they take one."""


class Model(Protocol):
    """What evaluation needs of a session."""

    def assess(self, image: Pixels) -> Any:
        """An assessment."""

    def restore(self, image: Pixels, *, scale: int = 1) -> Any:
        """A restored picture, with its assessment and seconds."""


@dataclass(frozen=True)
class Measures:
    """What is measured of every picture.

    Attributes:
        perceptual: ST-LPIPS of two pictures, or None where it cannot be had.
    """

    perceptual: Callable[[Pixels, Pixels], float] | None

    def of(self, result: Pixels, truth: Pixels) -> dict[str, float]:
        """All measures of one picture."""
        row = {"psnr": psnr(result, truth), "ssim": structural_similarity(truth, result)}
        if self.perceptual is not None:
            row["st_lpips"] = self.perceptual(truth, result)
        return row


def pipeline_name(pipeline: Pipeline) -> str:
    """The peers' names in their order, each with what it is told."""
    return " > ".join(f"{name}({told:g})" if peer(name).told else name for name, told in pipeline)


def unavailable_peers() -> dict[str, str]:
    """Why peers cannot run here, by name."""
    return {found.name: reason for found in PEERS if (reason := found.reason()) is not None}


def evaluate_restoration(
    model: Model,
    evalset: EvaluationSet,
    *,
    kinds: Sequence[str] | None = None,
    peers: bool = True,
    slow: Sequence[str] = (),
    perceptual: Callable[[Pixels, Pixels], float] | None = None,
    progress: Callable[[str], None] = lambda kind: None,
) -> dict[str, Any]:
    """Restore every picture and compare with its truth.

    Args:
        model: a session.
        evalset: what to restore.
        kinds: types of the set; None takes all.
        peers: whether peers restore the same pictures.
        slow: names of slow peers to run as well.
        perceptual: ST-LPIPS, see `uare_rt.training.st_lpips`.
        progress: called with the name of each type when it begins.

    Returns:
        By type: pictures, input, output (psnr, ssim, st_lpips), gain in dB, score and severities of the input, seconds,
        peers (by pipeline the same measures, gain and seconds) and the pipeline of the best PSNR.

    Raises:
        InputError: a picture is missing or not the one that the manifest is about.
        UsageError: a slow peer's name is unknown.
    """
    for name in slow:
        peer(name)
    measures = Measures(perceptual)
    found: dict[str, Any] = {}
    for kind in kinds if kinds is not None else evalset.input_psnr:
        progress(kind)
        chains = peer_chains(kind, slow) if peers else {}
        found[kind] = _evaluate_kind(model, evalset, kind, chains, measures)
    return found


def peer_chains(kind: str, slow: Sequence[str] = ()) -> dict[str, Chain]:
    """What peers can do on this machine about a type: by pipeline a function of a picture.

    Args:
        kind: type of an evaluation set.
        slow: names of slow peers to take as well.
    """
    absent = unavailable_peers()
    return {
        pipeline_name(pipeline): _chain(pipeline)
        for pipeline in PIPELINES.get(kind, ())
        if all(name not in absent and (not peer(name).slow or name in slow) for name, _ in pipeline)
    }


def _evaluate_kind(
    model: Model, evalset: EvaluationSet, kind: str, chains: Mapping[str, Chain], measures: Measures
) -> dict[str, Any]:
    inputs, outputs, assessments, seconds = [], [], [], []
    rivals: dict[str, list[dict[str, float]]] = {name: [] for name in chains}
    for _, degraded, truth in evalset.pictures(kind):
        restored = model.restore(degraded, scale=truth.shape[0] // degraded.shape[0])
        inputs.append(measures.of(bicubic(degraded, truth), truth))
        outputs.append(measures.of(restored.image, truth))
        assessments.append(restored.assessment)
        seconds.append(restored.seconds)
        for name, run in chains.items():
            began = time.perf_counter()
            result = bicubic(run(degraded), truth)
            spent = time.perf_counter() - began
            rivals[name].append({**measures.of(result, truth), "seconds": spent})
    before, after = _mean(inputs), _mean(outputs)
    others = {name: _mean(rows) for name, rows in rivals.items()}
    for row in others.values():
        row["gain"] = round(row["psnr"] - before["psnr"], 4)
    return {
        "pictures": len(inputs),
        "input": before,
        "output": after,
        "gain": round(after["psnr"] - before["psnr"], 4),
        "score": round(float(np.mean([one.score for one in assessments])), 4),
        "severities": {
            slot: round(float(np.mean([one.severities[slot] for one in assessments])), 4) for slot in DEGRADATIONS
        },
        "seconds": round(float(np.median(seconds)), 4),
        "peers": others,
        "best_peer": max(others, key=lambda name: others[name]["psnr"]) if others else None,
    }


def _chain(pipeline: Pipeline) -> Chain:
    steps = [(peer(name).load(), told) for name, told in pipeline]

    def run(pixels: Pixels) -> Pixels:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of other people's packages
            for step, told in steps:
                pixels = step(pixels, told)
        return pixels

    return run


def _mean(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    mean = {key: round(float(np.mean([row[key] for row in rows])), 4) for key in rows[0]}
    if "seconds" in mean:
        mean["seconds"] = round(float(np.median([row["seconds"] for row in rows])), 4)
    return mean


def perceptual_distance() -> Callable[[Pixels, Pixels], float] | None:
    """ST-LPIPS where its package and PyTorch are installed, else None."""
    with contextlib.suppress(UareError):
        from uare_rt.training.st_lpips import load

        return load()
    return None
