"""`uare-rt assess`: how good images and videos are, and what is wrong with them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from uare_rt.cli.console import Meter, emit, emit_json, emit_table
from uare_rt.cli.failures import Failures
from uare_rt.cli.inputs import Source, find_sources
from uare_rt.cli.options import BackendOption, BundleOption, JsonOption, ThreadsOption
from uare_rt.cli.unified import is_unified, refuse_video
from uare_rt.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from uare_rt.session import Session
    from uare_rt.vlm.session import UnifiedSession

__all__ = ["assess", "assess_source"]

_WORTH_NAMING = 1 / 8  # severities below round to the level "none"


def assess(
    ctx: typer.Context,
    paths: Annotated[list[str], typer.Argument(metavar="PATH", help="Images, videos, directories, quoted globs.")],
    in_words: Annotated[
        bool, typer.Option("--describe", help="uare-7b: let the model describe each image in its own words.")
    ] = False,
    as_json: JsonOption = False,
    bundle: BundleOption = None,
    backend: BackendOption = "auto",
    threads: ThreadsOption = None,
) -> None:
    """Say how good images and videos are, and what is wrong with them.

    The score goes from 1 (bad) to 5 (excellent), a severity from 0 (none) to 1 (severe).

    With --json, a list with one object per file: path, kind (image or video), score, level, severities,
    probabilities, description; a video has samples (each of these and its seconds) and its worst
    sample, but no probabilities of its own; with --describe an image has words. A file that failed has path and
    error only.
    """
    sources = find_sources(paths)
    failures = Failures(ctx)
    records: list[dict[str, Any]] = []
    import uare_rt

    with uare_rt.load(bundle, backend=backend, threads=threads) as session, Meter(len(sources)) as meter:
        for source in sources:
            meter.start(source.path.name)
            with failures.at(source.path):
                records.append(assess_source(session, source) | _words(session, source, in_words))
            meter.finish()
    if as_json:
        emit_json([*records, *failures.records()])
    elif records:
        emit_table(("path", ">score", "level", "severities", "description"), [_row(record) for record in records])
        for record in records:
            if "words" in record:
                emit(f"{record['path']}: {record['words']}")
    failures.report(len(sources))


def _words(session: Session | UnifiedSession, source: Source, asked: bool) -> dict[str, str]:
    if not asked:
        return {}
    if not is_unified(session):
        raise UsageError(f"--describe: {session.manifest.name} has no words of its own, only uare-7b has")
    from uare_rt.images import read_image

    return {"words": session.describe(read_image(source.path).pixels)}


def assess_source(session: Session | UnifiedSession, source: Source) -> dict[str, Any]:
    """Assess one image or video.

    Returns:
        The JSON object documented for `assess --json`.

    Raises:
        InputError: the file cannot be read.
        BackendError: the model failed on it.
    """
    if source.is_video:
        if is_unified(session):
            raise refuse_video(session.manifest.name)
        from uare_rt.video import assess_video

        result = assess_video(session, source.path).to_dict()
    else:
        from uare_rt.images import read_image

        result = session.assess(read_image(source.path).pixels).to_dict()
    return {"path": str(source.path), "kind": source.kind, **result}


def _row(record: Mapping[str, Any]) -> tuple[str, ...]:
    named = sorted(record["severities"].items(), key=lambda item: -item[1])
    severities = ", ".join(f"{name} {value:.2f}" for name, value in named if value >= _WORTH_NAMING)
    return record["path"], f"{record['score']:.2f}", record["level"], severities or "-", record["description"]
