"""Restore and assess an evaluation set, compare with its truth, and hold the result to what is promised.

usage: evaluate.py EVALSET [--bundle NAME.uare] [--no-peers] [--limit N] [--check] [-o RESULT.json]
EVALSET is a folder written by make_evalset.py. What is measured, and how, is in `uare_rt.training.evaluation` and
`uare_rt.training.scoring`; `uare-rt eval` shows the same without limits.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from results import Limit, Result, Table, add_options, bundle_facts, finish, run_command

import uare_rt
from uare_rt.cli.eval import restoration_table, score_rows
from uare_rt.slots import DEGRADATIONS
from uare_rt.training.evalset import EvaluationSet
from uare_rt.training.evaluation import evaluate_restoration, perceptual_distance, unavailable_peers
from uare_rt.training.scoring import evaluate_scores

__all__ = ["GAINS", "LEAST_CLEAN", "EvaluationSet", "main", "tables"]

GAINS: Mapping[str, float] = {
    "noise25": 7.5,
    "jpeg10": 1.2,
    "jpeg20": 1.0,
    "blur2": 2.0,
    "x2": 1.5,
    "x4": 0.8,
    "lowlight": 8.0,
    "haze": 8.0,
    "mix_a": 1.5,
    "mix_b": 1.5,
    "mix_c": 8.0,
    "mix_d": 8.0,
}
"""Least gain of PSNR over the input by type, in dB."""

LEAST_CLEAN = 42.0
"""Least PSNR of an undamaged picture after restoration, in dB."""

OVER_PEERS: tuple[tuple[str, str, float], ...] = (
    ("noise25", "skimage-nlm(25)", 1.5),
    ("noise25", "ffdnet(25)", -0.6),
    ("lowlight", "zero-dce++", 0.0),
)
"""Type, peer, and the least PSNR of ours above that of the peer, in dB."""

MIXTURES = ("mix_a", "mix_b", "mix_c", "mix_d")
FASTER_THAN_FFDNET = 8.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("evalset", type=Path, help="folder written by make_evalset.py")
    parser.add_argument("--limit", type=int, help="only the first so many pictures of each type")
    parser.add_argument("--no-peers", dest="peers", action="store_false", help="leave the peers out")
    add_options(parser)
    chosen = parser.parse_args(arguments)
    if chosen.limit is not None and chosen.limit < 1:
        parser.error(f"--limit {chosen.limit}: give at least 1")
    evalset = EvaluationSet.open(chosen.evalset, chosen.limit)
    with uare_rt.load(chosen.bundle, backend=chosen.backend) as session:
        measured = {
            "restoration": evaluate_restoration(
                session, evalset, peers=chosen.peers, perceptual=perceptual_distance(), progress=_tell
            ),
            "scores": evaluate_scores(session, evalset, peers=chosen.peers, progress=_tell),
            "peers_left_out": unavailable_peers() if chosen.peers else {},
        }
        backend = session.backend
    result = Result(
        benchmark="evaluate",
        data={"manifest_sha256": evalset.digest(), "pictures": len(evalset.names)},
        bundle=bundle_facts(chosen.bundle),
        settings={"backend": backend, "limit": chosen.limit, "peers": chosen.peers},
        measured=measured,
        limits=[*_restoration_limits(measured["restoration"], chosen.peers), *_score_limits(measured["scores"])],
    )
    return finish(result, tables(measured), chosen)


def _tell(part: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"{part}\n")


def tables(measured: Mapping[str, Any]) -> list[Table]:
    """What was measured, for people."""
    rows = measured["restoration"]
    count = max((row["pictures"] for row in rows.values()), default=0)
    headers, lines = restoration_table(rows)
    shown = [Table(f"Mean over {count} pictures of each type", [h.lstrip(">") for h in headers], lines)]
    said = [
        (kind, f"{row['score']:.2f}", *(f"{row['severities'][slot]:.2f}" for slot in DEGRADATIONS))
        for kind, row in rows.items()
    ]
    shown.append(Table("Mean score and severities of the inputs", ("type", "score", *DEGRADATIONS), said))
    rivals = [
        (f"{kind}: {name}", f"{one['psnr']:.2f}", f"{one['gain']:+.2f}", f"{one['ssim']:.3f}", f"{one['seconds']:.3f}")
        for kind, row in rows.items()
        if row["peers"]
        for name, one in (
            *row["peers"].items(),
            ("ours, told nothing", {**row["output"], "gain": row["gain"], "seconds": row["seconds"]}),
        )
    ]
    if rivals:
        title = "Peers on the same pictures, with what they are told in brackets; seconds are medians a picture"
        shown.append(Table(title, ("type: pipeline", "dB", "gain", "SSIM", "s"), rivals))
    shown.append(Table("Scores", ("what", "value"), score_rows(measured["scores"])))
    if measured["peers_left_out"]:
        absent = list(measured["peers_left_out"].items())
        shown.append(Table("Peers left out", ("peer", "reason"), absent))
    return shown


def _restoration_limits(rows: Mapping[str, Any], peers: bool) -> Iterator[Limit]:
    for kind, least in GAINS.items():
        yield Limit(f"{kind} gain", rows.get(kind, {}).get("gain"), least, at_least=True, unit="dB")
    clean = rows["clean"]["output"]["psnr"] if "clean" in rows else None
    yield Limit("clean output", clean, LEAST_CLEAN, at_least=True, unit="dB")
    if not peers:
        return
    for kind, name, least in OVER_PEERS:
        yield Limit(f"{kind} over {name}", _over(rows, kind, name), least, at_least=True, unit="dB")
    for kind in MIXTURES:
        best = rows.get(kind, {}).get("best_peer")
        yield Limit(f"{kind} over the best peer", _over(rows, kind, best), 0, at_least=True, unit="dB")
    rival = rows.get("noise25", {}).get("peers", {}).get("ffdnet(25)")
    times = rival["seconds"] / rows["noise25"]["seconds"] if rival else None
    yield Limit("faster than FFDNet", times, FASTER_THAN_FFDNET, at_least=True, unit="times")


def _over(rows: Mapping[str, Any], kind: str, name: str | None) -> float | None:
    rival = rows.get(kind, {}).get("peers", {}).get(name)
    return rows[kind]["output"]["psnr"] - rival["psnr"] if rival else None


def _score_limits(scores: Mapping[str, Any]) -> Iterator[Limit]:
    proxy = dict(scores["opinion_proxy"]["spearman"])
    ours = proxy["uare"]
    yield Limit("Spearman with the reference, set", scores["blend"]["spearman"], 0.92, at_least=True)
    yield Limit("Spearman with the reference, seeded", scores["seeded"]["spearman"], 0.92, at_least=True)
    yield Limit("Spearman with the opinion proxy", ours, 0.85, at_least=True)
    for name in ("brisque", "niqe"):
        if name in proxy:
            ahead = ours - proxy[name] if None not in (ours, proxy[name]) else None
            yield Limit(f"Spearman with the opinion proxy over {name}", ahead, 0, at_least=True)
    yield Limit("mean error of severities", scores["seeded"]["severity_error"], 0.12, at_least=False)
    yield Limit("dominant degradation right", scores["seeded"]["dominant_right"], 0.85, at_least=True)
    yield Limit("comparisons right", scores["comparisons"]["right"], 0.92, at_least=True)


if __name__ == "__main__":
    sys.exit(run_command(main))
