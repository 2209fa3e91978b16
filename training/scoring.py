"""Evaluation of what a bundle says about pictures: scores, severities, comparisons, beside no-reference peers.

Everything is done on photographs of an evaluation set, which training never saw, with seeds of its own:

- blend: scores of the set's pictures against the full-reference teacher (types made smaller have no truth of their size
  and are left out);
- seeded: mixtures drawn from the project's degradations, whose severities are known;
- comparisons: all pairs of those pictures whose references differ by half a level or more, of one or two photographs;
- opinion proxy: `uare_rt.training.rated`. The teacher's curves were fitted to the same table on other photographs.
"""

from __future__ import annotations

import warnings
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from uare_rt.degradation import Mixture, compose, from_uint8, to_uint8
from uare_rt.slots import DEGRADATIONS
from uare_rt.training.peers import SCORERS
from uare_rt.training.rated import rated_versions
from uare_rt.training.teacher import quality

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from uare_rt.training.evalset import EvaluationSet
    from uare_rt.training.evaluation import Model

    Pixels = NDArray[np.uint8]

__all__ = ["evaluate_scores", "spearman"]

_MIXTURES = (
    Mixture(min_count=1, max_count=1),
    Mixture(min_count=1, max_count=1),
    Mixture(min_count=2, max_count=3),
    Mixture(min_count=2, max_count=4, second_order=0.5),
)
_PER_PHOTO = 8
_WORTH_NAMING = 0.15  # a dominant degradation is at least this severe,
_AHEAD = 0.1  # and this much ahead of the next
_HALF_LEVEL = 0.5


def spearman(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Rank correlation, rounded; ties share the mean of their ranks. None where one of the two does not vary."""
    if len(set(one)) < 2 or len(set(other)) < 2:
        return None
    return round(float(np.corrcoef(_ranks(one), _ranks(other))[0, 1]), 4)


def _ranks(values: Sequence[float]) -> NDArray[np.float64]:
    _, inverse, counts = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]


def evaluate_scores(
    model: Model, evalset: EvaluationSet, *, peers: bool = True, progress: Callable[[str], None] = lambda part: None
) -> dict[str, Any]:
    """Assess pictures whose quality is known.

    Args:
        model: a session.
        evalset: photographs that training never saw.
        peers: whether BRISQUE and NIQE score the opinion proxy as well.
        progress: called with the name of each part when it begins.

    Returns:
        blend, seeded, comparisons and opinion_proxy, each with its counts and figures.
    """
    progress("scores against the full-reference blend")
    blend = _blend(model, evalset)
    progress("seeded degradations")
    seeded, pictures = _seeded(model, evalset)
    progress("opinion proxy")
    return {
        "blend": blend,
        "seeded": seeded,
        "comparisons": _comparisons(pictures),
        "opinion_proxy": _opinions(model, evalset, peers),
    }


def _blend(model: Model, evalset: EvaluationSet) -> dict[str, Any]:
    found, known, by_kind = [], [], {}
    for kind in evalset.input_psnr:
        rows = [
            (model.assess(degraded).score, quality(truth, degraded))
            for _, degraded, truth in evalset.pictures(kind)
            if degraded.shape == truth.shape
        ]
        if rows:
            by_kind[kind] = {
                "score": round(float(np.mean([row[0] for row in rows])), 3),
                "reference": round(float(np.mean([row[1] for row in rows])), 3),
            }
            found += [row[0] for row in rows]
            known += [row[1] for row in rows]
    return {
        "pictures": len(found),
        "spearman": spearman(found, known),
        "mean_absolute_error": round(float(np.abs(np.subtract(found, known)).mean()), 4) if found else None,
        "by_type": by_kind,
    }


def _seeded(model: Model, evalset: EvaluationSet) -> tuple[dict[str, Any], list[tuple[str, float, float]]]:
    pictures, errors, named = [], [], []
    for name in evalset.names:
        truth = evalset.picture("truth", name)
        rng = np.random.default_rng(zlib.crc32(f"scores/{name}".encode()))
        for number in range(_PER_PHOTO):
            steps = _MIXTURES[number % len(_MIXTURES)].sample(rng)
            made = compose(from_uint8(truth), steps, rng)
            pixels = to_uint8(made.image)
            said = model.assess(pixels)
            pictures.append((name, said.score, quality(truth, pixels)))
            errors.append([abs(said.severities[slot] - made.severities[slot]) for slot in DEGRADATIONS])
            ordered = sorted(made.severities.values())
            if ordered[-1] >= _WORTH_NAMING and ordered[-1] - ordered[-2] >= _AHEAD:
                named.append(_largest(said.severities) == _largest(made.severities))
    mean = np.mean(errors, axis=0)
    return {
        "pictures": len(pictures),
        "spearman": spearman([p[1] for p in pictures], [p[2] for p in pictures]),
        "severity_error": round(float(mean.mean()), 4),
        "severity_error_by_slot": {slot: round(float(e), 4) for slot, e in zip(DEGRADATIONS, mean, strict=True)},
        "dominant_right": round(float(np.mean(named)), 4) if named else None,
        "dominant_pictures": len(named),
    }, pictures


def _largest(severities: dict[str, float]) -> str:
    return max(severities, key=lambda slot: severities[slot])


def _comparisons(pictures: Sequence[tuple[str, float, float]]) -> dict[str, Any]:
    names = np.array([p[0] for p in pictures])
    found, known = (np.array([p[column] for p in pictures]) for column in (1, 2))
    first, second = np.triu_indices(len(pictures), 1)
    apart = np.abs(known[first] - known[second]) >= _HALF_LEVEL
    first, second = first[apart], second[apart]
    right = np.sign(found[first] - found[second]) == np.sign(known[first] - known[second])
    same = names[first] == names[second]
    return {
        "pairs": len(right),
        "right": round(float(right.mean()), 4) if len(right) else None,
        "same_photo_pairs": int(same.sum()),
        "same_photo_right": round(float(right[same].mean()), 4) if same.any() else None,
    }


def _opinions(model: Model, evalset: EvaluationSet, peers: bool) -> dict[str, Any]:
    scorers = {s.name: s.load() for s in SCORERS if peers and s.reason() is None}
    opinions: list[float] = []
    said: dict[str, list[float]] = {"uare": [], "full_reference_blend": [], **{name: [] for name in scorers}}
    for name in evalset.names:
        truth = evalset.picture("truth", name)
        for version in rated_versions(truth, np.random.default_rng(zlib.crc32(f"rated/{name}".encode()))):
            opinions.append(version.score)
            said["uare"].append(model.assess(version.pixels).score)
            said["full_reference_blend"].append(quality(truth, version.pixels))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of other people's packages
                for scorer, score in scorers.items():
                    said[scorer].append(-score(version.pixels))
    return {
        "pictures": len(opinions),
        "spearman": {name: spearman(values, opinions) for name, values in said.items()},
        "left_out": {s.name: reason for s in SCORERS if (reason := s.reason()) is not None},
    }
