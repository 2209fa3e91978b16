"""How much quality each layer costs in INT8, and which layers a budget allows.

Layers are tried one at a time. The mixed precision is found greedily: all layers that pay go to INT8, then those that
cost most quality per multiplication come back, until the drop that is measured for all of them together fits the
budget; last, large layers that came back are tried once more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from numpy.typing import NDArray

    from uare_rt.calibration.layers import Layer

__all__ = [
    "LEAST_FLAWLESS",
    "Choice",
    "Quality",
    "Sensitivity",
    "choose",
    "choose_stored",
    "drops",
    "keeps_flawless",
    "mean_drop",
    "measure_layers",
    "worthwhile",
]

LEAST_FLAWLESS = 42.0
"""PSNR in dB that a picture without faults must keep; see `mean_drop`."""

_LEAST_SHARE = 1e-3  # of a graph's multiplications: below it INT8 gains nothing
_RETRY_SHARE = 0.01  # of a graph's multiplications: above it a layer that came back is tried once more
_RETRIES = 8
_ONE_LEVEL = float(20 * np.log10(255))  # PSNR of an error of one 8-bit level; what lies above is not seen


@dataclass(frozen=True)
class Quality:
    """Quality of one configuration over the same samples.

    Attributes:
        psnr: in dB, one per sample.
        ssim: one per sample.
        scores: of the assessment, one per sample; empty where the graph assesses nothing.
        flawless: for every sample whether it needed no restoration; empty where all did.
        before: PSNR of every sample as it came in; empty where that is not known.
    """

    psnr: tuple[float, ...]
    ssim: tuple[float, ...]
    scores: tuple[float, ...] = ()
    flawless: tuple[bool, ...] = ()
    before: tuple[float, ...] = ()

    @property
    def needless(self) -> NDArray[np.bool_]:
        """Samples that needed no restoration, bool [samples]."""
        return np.array(self.flawless or (False,) * len(self.psnr))

    @property
    def unharmed(self) -> NDArray[np.bool_]:
        """Those of them that kept `LEAST_FLAWLESS`, bool [samples]."""
        return self.needless & (np.array(self.psnr) >= LEAST_FLAWLESS)

    @property
    def counted(self) -> NDArray[np.bool_]:
        """Samples that count in a mean loss, bool [samples]: those that came out better than they came in.

        Where restoration itself fails, any change may help or harm, so a precision is not judged there. Where it fails
        for all, all count that had something to restore, or all.
        """
        improved = np.array(self.psnr) > np.array(self.before or (-np.inf,) * len(self.psnr))
        choices = (improved & ~self.needless, ~self.needless, self.needless)
        return next(counted for counted in choices if counted.any())


@dataclass(frozen=True)
class Sensitivity:
    """What one layer costs when only it is in INT8.

    Attributes:
        layer: the layer.
        macs: its multiplications in one run.
        share: of the graph's multiplications, 0..1.
        drop_db: loss of PSNR against half precision, mean over the samples; negative by chance.
        drop_ssim: loss of SSIM, likewise.
        score_error: what it moves scores by, see `score_error`; 0 where the graph assesses nothing.
    """

    layer: Layer
    macs: int
    share: float
    drop_db: float
    drop_ssim: float
    score_error: float = 0.0


@dataclass(frozen=True)
class Choice:
    """A mixed precision.

    Attributes:
        int8: names of the layers in INT8.
        drop_db: measured with all of them in INT8, against the reference, mean over the samples.
        kept: for every other layer why it stays in half precision.
        stored: names of those of them whose weights are kept in INT8 all the same.
    """

    int8: frozenset[str]
    drop_db: float
    kept: Mapping[str, str]
    stored: frozenset[str] = frozenset()


def drops(reference: Quality, other: Quality) -> NDArray[np.float64]:
    """Loss of PSNR of every sample in dB, float64 [samples]; errors below one 8-bit level count as one."""
    return np.subtract(np.minimum(reference.psnr, _ONE_LEVEL), np.minimum(other.psnr, _ONE_LEVEL))


def mean_drop(reference: Quality, other: Quality) -> float:
    """Mean loss of PSNR in dB over the samples that count, see `Quality.counted`.

    A flawless picture that comes back at 74 dB instead of 78 has lost nothing that anybody sees, and would drown all
    others in a mean of decibels; what it must keep is `LEAST_FLAWLESS`.
    """
    return float(np.mean(drops(reference, other)[reference.counted]))


def score_error(reference: Quality, other: Quality) -> float:
    """Difference of scores, root mean square in levels of 1..5; 0 where there are none."""
    return float(np.sqrt(np.mean(np.subtract(reference.scores, other.scores) ** 2))) if reference.scores else 0.0


def keeps_flawless(reference: Quality, other: Quality) -> bool:
    """Whether every picture that needed no restoration keeps `LEAST_FLAWLESS` dB, if the reference does."""
    return bool((np.array(other.psnr)[reference.unharmed] >= LEAST_FLAWLESS).all())


def measure_layers(
    layers: Sequence[Layer],
    macs: Mapping[str, int],
    measure: Callable[[Collection[str]], Quality],
    known: Mapping[str, tuple[float, float, float]],
    progress: Callable[[int, int], None],
) -> list[Sensitivity]:
    """Measure every layer alone.

    Args:
        layers: to measure.
        macs: of every layer by name.
        measure: quality of a configuration.
        known: drops by `Layer.key` that another graph with the same weights has shown already.
        progress: called with the number done and the total.
    """
    total = sum(macs.values())
    reference = measure(())
    found = []
    for done, layer in enumerate(layers, start=1):
        if layer.key in known:
            drop_db, drop_ssim, error = known[layer.key]
        else:
            quality = measure((layer.name,))
            drop_db = mean_drop(reference, quality)
            drop_ssim = float(np.mean(np.subtract(reference.ssim, quality.ssim)[reference.counted]))
            error = score_error(reference, quality)
        found.append(Sensitivity(layer, macs[layer.name], macs[layer.name] / total, drop_db, drop_ssim, error))
        progress(done, len(layers))
    return found


def worthwhile(sensitivity: Sensitivity) -> str:
    """Why a layer stays in half precision whatever its drop; empty where it may go to INT8."""
    if sensitivity.layer.kind == "attention":
        return "attention"  # TensorRT has fused kernels for attention in half precision
    return "" if sensitivity.share >= _LEAST_SHARE else "too small"


def choose(
    sensitivities: Sequence[Sensitivity],
    measure: Callable[[Collection[str]], Quality],
    reference: Quality,
    budget: float,
    *,
    largest_score_error: float = np.inf,
    unusable: Collection[str] = (),
    accept: Callable[[Quality], bool] = lambda _: True,
) -> Choice:
    """Find a mixed precision with as many multiplications in INT8 as a budget allows.

    Args:
        sensitivities: of all layers.
        measure: quality of a configuration.
        reference: quality in float32.
        budget: largest mean loss of PSNR against the reference, in dB.
        largest_score_error: that `accept` allows, for the order in which layers are given up.
        unusable: names of layers that cannot be quantised.
        accept: a further condition on the quality.
    """
    kept = {s.layer.name: reason for s in sensitivities if (reason := worthwhile(s))}
    kept |= dict.fromkeys(unusable, "no range")
    free = [s for s in sensitivities if s.layer.name not in kept]

    def cost(s: Sensitivity) -> float:
        """Of what may be lost, per multiplication; errors of scores add up as their squares do."""
        return (max(s.drop_db, 0.0) / max(budget, 1e-6) + (s.score_error / largest_score_error) ** 2) / max(s.macs, 1)

    order = sorted(free, key=cost, reverse=True)
    measured: dict[frozenset[str], tuple[float, bool]] = {}

    def fits(int8: frozenset[str]) -> bool:
        if int8 not in measured:
            quality = measure(int8)
            measured[int8] = mean_drop(reference, quality), accept(quality)
        drop, accepted = measured[int8]
        return drop <= budget and accepted

    names = [s.layer.name for s in order]
    back = _fewest(len(names), lambda count: fits(frozenset(names[count:])))
    int8 = frozenset(names[back:])
    returned = sorted((s for s in order[:back] if s.share >= _RETRY_SHARE), key=lambda s: -s.macs)
    for candidate in returned[:_RETRIES]:
        more = int8 | {candidate.layer.name}
        if fits(more):
            int8 = more
    fits(int8)
    kept |= dict.fromkeys(set(names) - int8, "sensitive")
    return Choice(int8, measured[int8][0], kept)


def _fewest(count: int, fits: Callable[[int], bool]) -> int:
    """How many of the most sensitive layers must stay: the smallest number that fits, `count` if no other does."""
    if fits(0):  # as a rule; asked first, it spares the halving
        return 0
    low, high = 1, count
    while low < high:
        middle = (low + high) // 2
        if fits(middle):
            high = middle
        else:
            low = middle + 1
    return high


def choose_stored(
    sensitivities: Sequence[Sensitivity],
    kept: Collection[str],
    measure: Callable[[Collection[str]], Quality],
    reference: Quality,
    budget: float,
    *,
    accept: Callable[[Quality], bool] = lambda _: True,
) -> frozenset[str]:
    """Find layers that compute in half precision and can keep their weights in INT8, as many as the budget allows.

    Only products with weights are considered: TensorRT has kernels for them with weights alone in INT8.

    Args:
        sensitivities: of all layers.
        kept: names of the layers in half precision.
        measure: quality with the weights of the named layers in INT8, besides what is in INT8 already.
        reference: quality in float32.
        budget: largest mean loss of PSNR against the reference, in dB.
        accept: a further condition on the quality.
    """
    linear = [s for s in sensitivities if s.layer.name in kept and s.layer.kind == "linear"]
    names = [s.layer.name for s in sorted(linear, key=lambda s: -s.drop_db)]

    def fits(count: int) -> bool:
        quality = measure(frozenset(names[count:]))
        return mean_drop(reference, quality) <= budget and accept(quality)

    return frozenset(names[_fewest(len(names), fits) :]) if names else frozenset()
