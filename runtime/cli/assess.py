"""`uare-rt assess`: how good images and videos are, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from uare_rt.cli.console import Meter, emit, emit_json, emit_table
from uare_rt.cli.failures import Failures
from uare_rt.cli.inputs import Source, find_sources
from uare_rt.cli.options import BackendOption, BundleOption, JsonOption, OverwriteOption, ThreadsOption
from uare_rt.cli.timelines import named_severities, plan_timelines, show_scenes, survey
from uare_rt.cli.unified import is_unified, refuse_video
from uare_rt.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from uare_rt.session import Session
    from uare_rt.vlm.session import UnifiedSession

__all__ = ["assess", "assess_source", "tell_damage"]


def assess(
    ctx: typer.Context,
    paths: Annotated[
        list[str], typer.Argument(metavar="PATH...", help="Images, videos, directories, quoted globs, @LIST.")
    ],
    in_words: Annotated[
        bool, typer.Option("--describe", help="uare-7b: let the model describe each image in its own words.")
    ] = False,
    timeline: Annotated[
        Path | None,
        typer.Option(
            "--timeline",
            metavar="DIR",
            help="Videos: assess at every cut and in between, and write JSON, CSV, a plot and the worst moments.",
        ),
    ] = None,
    every: Annotated[
        str, typer.Option("--every", metavar="TIME", help="With --timeline: time between two samples of a scene.")
    ] = "2s",
    overwrite: OverwriteOption = False,
    ask: Annotated[
        list[str] | None, typer.Option("--ask", metavar="QUESTION", help='For example "is it noisy?"; may be repeated.')
    ] = None,
    as_json: JsonOption = False,
    bundle: BundleOption = None,
    backend: BackendOption = "auto",
    threads: ThreadsOption = None,
) -> None:
    """Say how good images and videos are, and what is wrong with them.

    The score goes from 1 (bad) to 5 (excellent), a severity from 0 (none) to 1 (severe).

    With --json, a list with one object per file: path, kind (image or video), score, level, severities,
    probabilities, description; a video has samples (each of these and its seconds), its worst sample and damage
    (where the file is cut off), but no probabilities of its own; with --describe an image has words, with --ask
    answers (question, slots, text, probabilities). A file that failed has path and error only. With --timeline a
    video has score, seconds, frames, scenes, worst, samples, damage and files, the files written; several videos get
    a directory of their names each inside DIR.
    """
    sources = find_sources(paths)
    folders = plan_timelines(sources, timeline, every, overwrite=overwrite)
    failures = Failures(ctx)
    records: list[dict[str, Any]] = []
    import uare_rt

    with uare_rt.load(bundle, backend=backend, threads=threads) as session, Meter(len(sources)) as meter:
        for source in sources:
            meter.start(source.path.name)
            with failures.at(source.path):
                if folders:
                    records.append(survey(session, source.path, folders[source.path], meter))
                else:
                    record = assess_source(session, source)
                    records.append(record | _words(session, source, in_words) | _answers(record, ask or ()))
                tell_damage(records[-1], failures, source.path)
            meter.finish()
    if as_json:
        emit_json([*records, *failures.records()])
    elif folders:
        for record in records:
            show_scenes(record)
    elif records:
        emit_table(("path", ">score", "level", "severities", "description"), [_row(record) for record in records])
        for record in records:
            if "words" in record:
                emit(f"{record['path']}: {record['words']}")
            for said in record.get("answers", ()):
                emit(f"{record['path']}: {said['question']} {said['text']}")
    failures.report(len(sources))


def _words(session: Session | UnifiedSession, source: Source, asked: bool) -> dict[str, str]:
    if not asked:
        return {}
    if not is_unified(session):
        raise UsageError(f"--describe: {session.manifest.name} has no words of its own, only uare-7b has")
    from uare_rt.images import read_image

    return {"words": session.describe(read_image(source.path).pixels)}


def _answers(record: Mapping[str, Any], asked: Sequence[str]) -> dict[str, Any]:
    if not asked:
        return {}
    if "probabilities" not in record:
        raise UsageError("--ask: a video has no single answer; ask about images")
    from uare_rt.questions import answer

    return {"answers": [answer(question, record["probabilities"]).to_dict() for question in asked]}


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


def tell_damage(record: Mapping[str, Any], failures: Failures, path: Path) -> None:
    """Note a video of which not all could be assessed."""
    if record.get("damage"):
        first = record["damage"][0]
        failures.add_incomplete(
            path, f"damaged at {first['seconds']:.1f} s ({first['reason']}); assessed is what could be read"
        )


def _row(record: Mapping[str, Any]) -> tuple[str, ...]:
    severities = named_severities(record["severities"])
    return record["path"], f"{record['score']:.2f}", record["level"], severities, record["description"]
