"""`uare-rt eval`: how well a bundle restores and assesses an evaluation set, beside its peers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from uare_rt.cli.console import Meter, emit, emit_json, emit_table
from uare_rt.cli.extras import needs_extra
from uare_rt.cli.options import BackendOption, BundleOption, JsonOption, ThreadsOption
from uare_rt.cli.unified import is_unified
from uare_rt.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["evaluate"]

PARTS = ("restoration", "scores")


def evaluate(
    data: Annotated[
        Path, typer.Option("--data", metavar="EVALSET", help="Directory written by benchmarks/make_evalset.py.")
    ],
    only: Annotated[str | None, typer.Option("--only", metavar="PART", help="restoration or scores.")] = None,
    kinds: Annotated[
        list[str] | None, typer.Option("--type", metavar="TYPE", help="A type of the set, several times for several.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, metavar="N", help="Only the first N photographs.")
    ] = None,
    peers: Annotated[bool, typer.Option("--peers/--no-peers", help="Run the peers of uare-rt[bench] as well.")] = True,
    slow_peers: Annotated[
        list[str] | None, typer.Option("--slow-peer", metavar="NAME", help="Run a slow peer too, e.g. cbm3d.")
    ] = None,
    as_json: JsonOption = False,
    bundle: BundleOption = None,
    backend: BackendOption = "auto",
    threads: ThreadsOption = None,
) -> None:
    """Restore and assess an evaluation set and compare with its truth.

    Restoration: PSNR, SSIM and ST-LPIPS by type, before and after, with the best peer. Scores: rank correlation with
    the full-reference blend and with an opinion proxy, errors of severities, dominant degradations, comparisons.
    Peers that cannot run here are named with the reason.

    With --json, an object: bundle, data, restoration (by type), scores, peers_left_out.
    """
    if only is not None and only not in PARTS:
        raise UsageError(f"--only {only}: there are {' and '.join(PARTS)}")
    with needs_extra("bench"):
        from uare_rt.training.evalset import EvaluationSet
        from uare_rt.training.evaluation import evaluate_restoration, perceptual_distance, unavailable_peers
        from uare_rt.training.scoring import evaluate_scores
    evalset = EvaluationSet.open(data, limit)
    unknown = set(kinds or ()) - set(evalset.input_psnr)
    if unknown:
        raise UsageError(f"--type {', '.join(sorted(unknown))}: {data} has {', '.join(evalset.input_psnr)}")
    import uare_rt

    result: dict[str, Any] = {}
    chosen = list(kinds or evalset.input_psnr)
    steps = (len(chosen) if only != "scores" else 0) + (3 if only != "restoration" else 0)
    with uare_rt.load(bundle, backend=backend, threads=threads) as session, Meter(steps) as meter:
        if is_unified(session):
            raise UsageError(f"{session.manifest.name} takes minutes a picture; eval is for bundles of uare-nano")
        begun: list[str] = []

        def progress(name: str) -> None:
            if begun:
                meter.finish()
            begun.append(name)
            meter.start(name)

        result["bundle"] = {
            "name": session.manifest.name,
            "weights_sha256": session.manifest.source.weights_sha256,
            "backend": session.backend,
        }
        result["data"] = {"manifest_sha256": evalset.digest(), "pictures": len(evalset.names)}
        if only != "scores":
            result["restoration"] = evaluate_restoration(
                session,
                evalset,
                kinds=chosen,
                peers=peers,
                slow=slow_peers or (),
                perceptual=perceptual_distance(),
                progress=progress,
            )
        if only != "restoration":
            result["scores"] = evaluate_scores(session, evalset, peers=peers, progress=progress)
    result["peers_left_out"] = unavailable_peers() if peers else {}
    if as_json:
        emit_json(result)
        return
    if "restoration" in result:
        emit_table(*restoration_table(result["restoration"]))
    if "scores" in result:
        emit_table(("scores", ">value"), score_rows(result["scores"]))
    for name, reason in result["peers_left_out"].items():
        emit(f"left out: {name}: {reason}")


def restoration_table(measured: Mapping[str, Any]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Headers and rows of what `evaluate_restoration` found."""
    headers: tuple[str, ...] = (
        "type",
        ">input dB",
        ">ours dB",
        ">gain",
        ">SSIM",
        ">ST-LPIPS",
        ">best peer dB",
        "best peer",
    )
    rows: list[tuple[str, ...]] = []
    for kind, row in measured.items():
        best = row["best_peer"]
        rows.append(
            (
                kind,
                f"{row['input']['psnr']:.2f}",
                f"{row['output']['psnr']:.2f}",
                f"{row['gain']:+.2f}",
                f"{row['output']['ssim']:.3f}",
                f"{row['output']['st_lpips']:.3f}" if "st_lpips" in row["output"] else "-",
                f"{row['peers'][best]['psnr']:.2f}" if best else "-",
                str(best or "-"),
            )
        )
    return headers, rows


def score_rows(scores: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
    """Rows of what `evaluate_scores` found."""
    seeded, pairs = scores["seeded"], scores["comparisons"]
    values: list[tuple[str, float | None]] = [
        ("Spearman with the full-reference blend, types of the set", scores["blend"]["spearman"]),
        ("Spearman with the full-reference blend, seeded degradations", seeded["spearman"]),
        ("mean absolute error of severities", seeded["severity_error"]),
        ("dominant degradation named right", seeded["dominant_right"]),
        ("comparisons right", pairs["right"]),
        ("comparisons of one photograph right", pairs["same_photo_right"]),
        *(
            (f"Spearman with the opinion proxy, {name}", value)
            for name, value in scores["opinion_proxy"]["spearman"].items()
        ),
    ]
    return [(name, "-" if value is None else f"{value:.3f}") for name, value in values]
