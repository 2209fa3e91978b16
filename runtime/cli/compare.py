"""`uare-rt compare`: which of two files is better, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from uare_rt.cli.assess import assess_source, tell_damage
from uare_rt.cli.console import emit, emit_json, emit_table
from uare_rt.cli.failures import Failures
from uare_rt.cli.inputs import find_sources
from uare_rt.cli.options import BackendOption, BundleOption, JsonOption, ThreadsOption
from uare_rt.cli.unified import is_unified, preference
from uare_rt.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["TIE", "compare", "verdict"]

TIE = 0.1  # scores (1..5) closer than this are called equal
_DIFFERS = 1 / 8  # half a level of severity (0..1)


def compare(
    ctx: typer.Context,
    first: Annotated[str, typer.Argument(metavar="A", help="An image or video.")],
    second: Annotated[str, typer.Argument(metavar="B", help="The image or video to compare it with.")],
    as_json: JsonOption = False,
    bundle: BundleOption = None,
    backend: BackendOption = "auto",
    threads: ThreadsOption = None,
) -> None:
    """Say which of two images or videos is better, and why.

    Scores (1 bad to 5 excellent) less than 0.1 apart are a tie.

    With --json, an object: better (A, B or tie), difference (score of B minus score of A), severities (B minus A
    for every degradation), description, and a and b as `assess --json` gives them. With uare-7b, which sees both in
    one context, better is what it says of the two, and preference its probability that B is better.
    """
    sources = [find_sources([argument])[0] for argument in (first, second)]
    for argument, source in zip((first, second), sources, strict=True):
        if not source.named:
            raise UsageError(f"{argument}: compare takes two files; give one image or video")
    import uare_rt

    with uare_rt.load(bundle, backend=backend, threads=threads) as session:
        a, b = (assess_source(session, source) for source in sources)
        failures = Failures(ctx)
        for record, source in zip((a, b), sources, strict=True):
            tell_damage(record, failures, source.path)
        result = verdict(a, b)
        if is_unified(session):
            from uare_rt.images import read_image

            result |= preference(session.compare(*(read_image(source.path).pixels for source in sources)))
    if as_json:
        emit_json({**result, "a": a, "b": b})
    else:
        _show(a, b, result)
    failures.report(len(sources))


def _show(a: Mapping[str, Any], b: Mapping[str, Any], result: Mapping[str, Any]) -> None:
    rows = [("score", f"{a['score']:.2f}", f"{b['score']:.2f}", f"{result['difference']:+.2f}")]
    rows += [
        (name, f"{a['severities'][name]:.2f}", f"{b['severities'][name]:.2f}", f"{change:+.2f}")
        for name, change in result["severities"].items()
    ]
    emit_table(("", ">A", ">B", ">B - A"), rows)
    emit(f"A is {a['path']}: {a['description']}")
    emit(f"B is {b['path']}: {b['description']}")
    emit(result["description"])


def verdict(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
    """Which of two assessments is better, and why.

    Args:
        a: object of `assess --json` for the first file.
        b: the same for the second.

    Returns:
        better ("A", "B" or "tie"), difference (score of b minus score of a, -4..4), severities
        (b minus a, -1..1 for every degradation) and a description in one sentence.
    """
    difference = b["score"] - a["score"]
    severities = {name: b["severities"][name] - a["severities"][name] for name in a["severities"]}
    better = "tie" if abs(difference) < TIE else "B" if difference > 0 else "A"
    loser_has_more = severities if better == "A" else {name: -change for name, change in severities.items()}
    less = _named({name: change for name, change in loser_has_more.items() if change >= _DIFFERS})
    more = _named({name: -change for name, change in loser_has_more.items() if change <= -_DIFFERS})
    if better == "tie":
        reasons = "; ".join(f"{side} has less {faults}" for side, faults in (("B", less), ("A", more)) if faults)
        sentence = f"A and B are equally good ({abs(difference):.2f} apart)" + (f"; {reasons}." if reasons else ".")
    else:
        head = f"{better} is better by {abs(difference):.2f}"
        reasons = "; ".join(
            f"{word} {faults}" for word, faults in (("it has less", less), ("but more", more)) if faults
        )
        sentence = f"{head}: {reasons}." if reasons else f"{head}; no single degradation stands out."
    return {"better": better, "difference": difference, "severities": severities, "description": sentence}


def _named(changes: Mapping[str, float]) -> str:
    ranked = sorted(changes, key=lambda name: -changes[name])
    return ", ".join(f"{name.replace('_', ' ')} ({changes[name]:.2f})" for name in ranked)
