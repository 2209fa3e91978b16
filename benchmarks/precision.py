"""What the precision of built bundles costs on an evaluation set, against float32.

usage: precision.py EVALSET BUILT.uare [BUILT.uare ...] [--bundle FLOAT32.uare] [--limit N] [--check] [-o RESULT.json]
EVALSET is a folder written by make_evalset.py, BUILT bundles of `uare-rt build` for TensorRT or TensorRT-RTX. Their
graphs run as the build's proof runs them: every tensor of 16 bits rounded, sums in float32, INT8 through Q/DQ. Every
picture is restored with the context of its own assessment in the same precision. The mean loss is over all pictures of
all types with something to restore; `clean` is held to what it keeps. Sides are cut to what the graphs take unpadded.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from evaluate import EvaluationSet
from results import Limit, Result, Table, add_options, bundle_facts, finish, run_command, sha256_of

from uare_rt.bundle import Bundle, shipped_bundle
from uare_rt.calibration.data import Sample
from uare_rt.calibration.evaluation import assess_all, measure_restoration
from uare_rt.calibration.execution import Executor
from uare_rt.calibration.graph import Graph
from uare_rt.calibration.metrics import spearman
from uare_rt.calibration.rounding import rounded

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from uare_rt.manifest import Manifest

__all__ = ["main", "tables"]

BUDGETS = {"fp16": 0.02, "int8": 0.1}
LEAST_CLEAN = 42.0
LEAST_SPEARMAN = 0.995
LEAST_INT8 = 0.6
MOST_WEIGHTS = 0.35
_CLEAN = "clean"


class _Graphs:
    """The graphs of a bundle, each loaded when it is first needed."""

    def __init__(self, path: Path) -> None:
        self._bundle = Bundle.open(path)
        self._loaded: dict[str, Executor] = {}
        self.manifest = self._bundle.nano

    @property
    def precision(self) -> str:
        return min((spec.precision for spec in self.manifest.graphs.values()), key=_RANKS.index)

    def run(self, name: str) -> Any:
        if name not in self._loaded:
            self._loaded[name] = Executor(rounded(Graph.open(self._bundle.graph(name).path)))
        return self._loaded[name].run


_RANKS = ("int8", "bf16", "fp16", "fp32")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("evalset", type=Path, help="folder written by make_evalset.py")
    parser.add_argument("built", type=Path, nargs="+", help="bundles of uare-rt build")
    parser.add_argument("--limit", type=int, help="only the first so many pictures of each type")
    add_options(parser, backend=False)
    chosen = parser.parse_args(arguments)
    evalset = EvaluationSet.open(chosen.evalset, chosen.limit)
    exact = _Graphs(chosen.bundle or shipped_bundle())
    others = [_Graphs(path) for path in chosen.built]
    psnr: dict[tuple[str, str], list[float]] = defaultdict(list)
    scores: dict[str, list[float]] = defaultdict(list)
    for kind in evalset.input_psnr:
        samples = [_sample(name, kind, frame, truth, exact.manifest) for name, frame, truth in evalset.pictures(kind)]
        scale = samples[0].truth.shape[0] // samples[0].frame.shape[0]
        for key, graphs in (("fp32", exact), *((graphs.precision, graphs) for graphs in others)):
            verdicts = assess_all(graphs.run("assess"), samples)
            quality = measure_restoration(graphs.run(f"restore_x{scale}"), samples, verdicts)
            psnr[key, kind] += quality.psnr
            scores[key] += quality.scores
    measured = {g.precision: _measured(g, psnr, scores, list(evalset.input_psnr)) for g in others}
    measured["fp32"] = {"psnr_db": {kind: round(float(np.mean(psnr["fp32", kind])), 3) for kind in evalset.input_psnr}}
    result = Result(
        benchmark="precision",
        data={"manifest_sha256": sha256_of([chosen.evalset / "manifest.json"]), "pictures": len(psnr["fp32", _CLEAN])},
        bundle=bundle_facts(chosen.bundle),
        settings={"limit": chosen.limit},
        measured=measured,
        limits=[limit for g in others for limit in _limits(g.precision, measured[g.precision])],
    )
    return finish(result, tables(measured), chosen)


def _sample(name: str, kind: str, frame: NDArray[np.uint8], truth: NDArray[np.uint8], manifest: Manifest) -> Sample:
    """A picture without what exceeds sides that the graphs take as they are."""
    height, width = (side - side % manifest.tiling.multiple for side in frame.shape[:2])
    scale = truth.shape[0] // frame.shape[0]
    return Sample(name, kind, frame[:height, :width], truth[: height * scale, : width * scale])


def _measured(
    graphs: _Graphs, psnr: dict[tuple[str, str], list[float]], scores: dict[str, list[float]], kinds: list[str]
) -> dict[str, Any]:
    key = graphs.precision
    lost = {kind: float(np.mean(np.subtract(psnr["fp32", kind], psnr[key, kind]))) for kind in kinds}
    restored = [kind for kind in kinds if kind != _CLEAN]
    weights = graphs.manifest.quality[key]
    shares = {n: s.int8_macs for n, s in graphs.manifest.graphs.items() if s.int8_macs is not None}
    return {
        "loss_db": round(float(np.mean([lost[kind] for kind in restored])), 4),
        "loss_with_clean_db": round(float(np.mean(list(lost.values()))), 4),
        "clean_db": round(float(np.mean(psnr[key, _CLEAN])), 3),
        "least_clean_db": round(float(np.min(psnr[key, _CLEAN])), 3),
        "by_type": {kind: round(value, 4) for kind, value in lost.items()},
        "spearman": round(float(spearman(tuple(scores["fp32"]), tuple(scores[key]))), 5),
        "weights": round(weights["weight_bytes"] / weights["weight_bytes_fp32"], 4),
        "conv_macs_in_int8": shares or None,
    }


def _limits(precision: str, row: dict[str, Any]) -> list[Limit]:
    found = [
        Limit(f"{precision} clean", row["clean_db"], LEAST_CLEAN, at_least=True, unit="dB"),
        Limit(f"{precision} score rank", row["spearman"], LEAST_SPEARMAN, at_least=True),
    ]
    if precision in BUDGETS:
        found.append(Limit(f"{precision} loss", row["loss_db"], BUDGETS[precision], at_least=False, unit="dB"))
    if precision == "int8":
        least = min(row["conv_macs_in_int8"].values())
        found.append(Limit("int8 share of convolutions", least, LEAST_INT8, at_least=True))
        found.append(Limit("int8 weights of fp32", row["weights"], MOST_WEIGHTS, at_least=False))
    return found


def tables(measured: Mapping[str, Any]) -> list[Table]:
    """What was measured, for people."""
    built = [key for key in measured if key != "fp32"]
    kinds = list(measured["fp32"]["psnr_db"])
    rows = [(key, *_summary(measured[key])) for key in built]
    headers = ("precision", "loss dB", "clean dB", "score rank", "convolutions in INT8", "weights of fp32")
    return [Table("Built bundles", headers, rows), _by_type(measured, built, kinds)]


def _summary(row: Mapping[str, Any]) -> tuple[str, ...]:
    shares = row["conv_macs_in_int8"]
    share = f"{100 * min(shares.values()):.0f} %" if shares else "-"
    figures = (f"{row['loss_db']:+.3f}", f"{row['clean_db']:.1f}", f"{row['spearman']:.4f}")
    return (*figures, share, f"{100 * row['weights']:.0f} %")


def _by_type(measured: Mapping[str, Any], built: Sequence[str], kinds: Sequence[str]) -> Table:
    headers = ("type", "fp32 dB", *(f"{key} loss dB" for key in built))
    rows = [
        (kind, f"{measured['fp32']['psnr_db'][kind]:.2f}", *(f"{measured[k]['by_type'][kind]:+.3f}" for k in built))
        for kind in kinds
    ]
    rows.append(("mean without clean", "", *(f"{measured[k]['loss_db']:+.3f}" for k in built)))
    rows.append(("mean of all", "", *(f"{measured[k]['loss_with_clean_db']:+.3f}" for k in built)))
    return Table("Loss of PSNR against float32", headers, rows)


if __name__ == "__main__":
    sys.exit(run_command(main))
