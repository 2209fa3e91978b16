"""`uare-rt assess`: how good images and videos are, and what is wrong with them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from uare_rt.cli.console import Meter, emit_json, emit_table
from uare_rt.cli.failures import Failures
from uare_rt.cli.inputs import Source, find_sources
from uare_rt.cli.options import BackendOption, BundleOption, JsonOption, ThreadsOption

if TYPE_CHECKING:
    from collections.abc import Mapping

    from uare_rt.session import Session

__all__ = ["assess", "assess_source"]

_WORTH_NAMING = 1 / 8  # severities below round to the level "none"


def assess(
    ctx: typer.Context,
    paths: Annotated[list[str], typer.Argument(metavar="PATH", help="Images, videos, directories, quoted globs.")],
    as_json: JsonOption = False,
    bundle: BundleOption = None,
    backend: BackendOption = "auto",
    threads: ThreadsOption = None,
) -> None:
    """Say how good images and videos are, and what is wrong with them.

    The score goes from 1 (bad) to 5 (excellent), a severity from 0 (none) to 1 (severe).

    With --json, a list with one object per file: path, kind (image or video), score, level, severities,
    probabilities, description; a video has samples (each of these and its seconds) and its worst
    sample, but no probabilities of its own. A file that failed has path and error only.
    """
    sources = find_sources(paths)
    failures = Failures(ctx)
    records: list[dict[str, Any]] = []
    import uare_rt

    with uare_rt.load(bundle, backend=backend, threads=threads) as session, Meter(len(sources)) as meter:
        for source in sources:
            meter.start(source.path.name)
            with failures.at(source.path):
                records.append(assess_source(session, source))
            meter.finish()
    if as_json:
        emit_json([*records, *failures.records()])
    elif records:
        emit_table(("path", ">score", "level", "severities", "description"), [_row(record) for record in records])
    failures.report(len(sources))


def assess_source(session: Session, source: Source) -> dict[str, Any]:
    """Assess one image or video.

    Returns:
        The JSON object documented for `assess --json`.

    Raises:
        InputError: the file cannot be read.
        BackendError: the model failed on it.
    """
    if source.is_video:
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
