"""Options of `uare-rt restore` that concern videos only."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Annotated

import typer

from uare_rt.errors import UsageError

if TYPE_CHECKING:
    from uare_rt.video import RawFormat

__all__ = [
    "BitRateOption",
    "CodecOption",
    "CompareOption",
    "CrfOption",
    "DeinterlaceOption",
    "EndOption",
    "FpsOption",
    "PixFmtOption",
    "PresetOption",
    "PreviewOption",
    "RawOption",
    "RayOption",
    "ResumeOption",
    "ReuseOption",
    "SampleOption",
    "SkipAboveOption",
    "StartOption",
    "VerifyOption",
    "WorkersOption",
    "parse_rate",
    "parse_raw",
    "parse_seconds",
]

CodecOption = Annotated[
    str | None,
    typer.Option("--codec", metavar="NAME", help="Video encoder, for example libx265; near the source's if not given."),
]
CrfOption = Annotated[
    int | None,
    typer.Option("--crf", min=0, max=63, metavar="N", help="Constant quality of the encoder; less is better."),
]
BitRateOption = Annotated[
    int | None, typer.Option("--bitrate", min=1, metavar="BPS", help="Bits per second instead of a constant quality.")
]
PresetOption = Annotated[str | None, typer.Option("--preset", metavar="NAME", help="Speed preset of the encoder.")]
PixFmtOption = Annotated[str | None, typer.Option("--pix-fmt", metavar="NAME", help="Pixel format of the video.")]
ReuseOption = Annotated[
    bool, typer.Option("--reuse/--no-reuse", help="Take over parts of a video that did not change.")
]
SkipAboveOption = Annotated[
    float | None,
    typer.Option("--skip-above", metavar="SCORE", help="Leave frames of a video alone while their score is above."),
]
VerifyOption = Annotated[bool, typer.Option("--verify", help="Keep original frames where restoration did not help.")]
CompareOption = Annotated[bool, typer.Option("--compare", help="Video: left half as it was, right half restored.")]
DeinterlaceOption = Annotated[bool, typer.Option("--deinterlace", help="Make interlaced frames whole first.")]
ResumeOption = Annotated[
    bool, typer.Option("--resume", help="Write a video in pieces, and go on where an interrupted run stopped.")
]
StartOption = Annotated[str | None, typer.Option("--start", metavar="TIME", help="Begin here: 90, 90s or 1:30.")]
EndOption = Annotated[str | None, typer.Option("--end", metavar="TIME", help="Stop here.")]
SampleOption = Annotated[
    str | None, typer.Option("--sample", metavar="TIME", help="Restore so much from the middle, for a look.")
]
PreviewOption = Annotated[
    str | None, typer.Option("--preview", metavar="TIME", help="Write one frame, before and after, as an image.")
]
FpsOption = Annotated[str, typer.Option("--fps", metavar="RATE", help="Frames per second of numbered images.")]
RawOption = Annotated[
    str | None,
    typer.Option("--raw", metavar="FORM", help="Headerless frames on pipes: WIDTHxHEIGHT@RATE:PIXELFORMAT."),
]

RayOption = Annotated[
    str | None,
    typer.Option("--ray", metavar="ADDRESS", help="Restore videos on a Ray cluster: auto, HOST:6379, or local."),
]
WorkersOption = Annotated[
    int | None,
    typer.Option(
        "--workers", min=1, metavar="N", help="Processes that share each video; one for each GPU if not given."
    ),
]


def parse_seconds(text: str | None, option: str) -> float | None:
    """Seconds of a time as people write it: `90`, `5s`, `1:30`, `0:01:30.5`.

    Raises:
        UsageError: the text is no time.
    """
    if text is None:
        return None
    parts = text.removesuffix("s").split(":")
    try:
        if not 1 <= len(parts) <= 3:
            raise ValueError
        numbers = [float(part) for part in parts]
        if any(number < 0 for number in numbers) or not all(part and part[0] != "+" for part in parts):
            raise ValueError
    except ValueError:
        raise UsageError(f"{option} {text}: is no time; write seconds (90, 5s) or 1:30") from None
    return sum(number * 60.0**place for place, number in enumerate(reversed(numbers)))


def parse_rate(text: str) -> Fraction:
    """Frames per second: `25`, `29.97`, `30000/1001`.

    Raises:
        UsageError: the text is no rate above 0.
    """
    try:
        rate = Fraction(text)
        if rate <= 0:
            raise ValueError
    except (ValueError, ZeroDivisionError):
        raise UsageError(f"--fps {text}: is no rate; write 25 or 30000/1001") from None
    return rate


def parse_raw(text: str | None) -> RawFormat | None:
    """The form of headerless frames.

    Raises:
        UsageError: the text is no such form.
    """
    from uare_rt.video import RawFormat

    return None if text is None else RawFormat.parse(text)
