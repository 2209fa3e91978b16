"""Draw the README's picture: degraded, restored, the best peer's and true crops side by side.

usage: before_after.py EVALSET --licences MANIFEST.csv -o PICTURE.jpg [--show TYPE=NAME ...] [--bundle NAME.uare]
One row for each of four types of the evaluation set. MANIFEST.csv tells the origin of the photographs (columns `file`,
`license`, `license_tier`, `package`, `path_in_package`); only those of tier A, a stated free licence, are shown. Beside
the picture a Markdown file of the same name says what is shown and under which licence.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from make_evalset import Pixels, psnr, resize
from PIL import Image, ImageDraw, ImageFont
from results import run_command

import uare_rt
from uare_rt.errors import InputError, UsageError
from uare_rt.training.evalset import EvaluationSet
from uare_rt.training.evaluation import peer_chains

__all__ = ["TYPES", "main"]

TYPES = ("noise25", "jpeg10", "lowlight", "mix_d")
_CROP = 256  # px of the truth
_STEP = 32  # px between the crops that are tried
_LABEL = 18
_GAP = 4
_MOST_BYTES = 200_000
_QUALITIES = (92, 88, 84, 80, 75, 70, 60, 50)


@dataclass(frozen=True)
class Row:
    """One row of the picture: its crops, uint8 [256, 256, 3] or smaller, and what stands above them."""

    crops: tuple[Pixels, ...]
    labels: tuple[str, ...]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("evalset", type=Path, help="folder written by make_evalset.py")
    parser.add_argument("--licences", type=Path, required=True, help="CSV file with the origin of the photographs")
    parser.add_argument(
        "--show", action="append", metavar="TYPE=NAME", help="type and photograph of a row; chosen if not given"
    )
    parser.add_argument("--bundle", type=Path, help="bundle that restores; the shipped uare-nano if not given")
    parser.add_argument("-o", "--output", type=Path, required=True, help="JPEG file to write")
    chosen = parser.parse_args(arguments)
    evalset = EvaluationSet.open(chosen.evalset)
    free = _free_photos(chosen.licences)
    shown = _choice(evalset, free, chosen.show)
    with uare_rt.load(chosen.bundle) as session:
        rows = [_row(session, evalset, kind, name) for kind, name in shown]
        model = session.manifest
    chosen.output.parent.mkdir(parents=True, exist_ok=True)
    chosen.output.write_bytes(_encoded(_drawn(rows)))
    origins = "\n".join(f"- {kind}: {name}.png, {free[name]}" for kind, name in shown)
    chosen.output.with_suffix(".md").write_text(
        f"# {chosen.output.name}\n\nRows from the top, each degraded, restored by {model.name} (weights "
        f"{model.source.weights_sha256[:12]}), by the best peer, which is told the strength in brackets, truth.\n"
        f"Crops of {_CROP}x{_CROP} px; the decibels are those of whole pictures of the evaluation set.\n\n{origins}\n",
        encoding="utf-8",
    )
    sys.stdout.write(f"{chosen.output}: {chosen.output.stat().st_size} bytes\n{origins}\n")
    return 0


def _free_photos(manifest: Path) -> dict[str, str]:
    """Photographs of tier A by name, with licence and origin."""
    try:
        with manifest.open(encoding="utf-8", newline="") as stream:
            return {
                Path(row["file"]).stem: f"{row['license']} (`{row['path_in_package']}` of {row['package']})"
                for row in csv.DictReader(stream)
                if row["license_tier"] == "A"
            }
    except (OSError, KeyError, UnicodeDecodeError) as error:
        raise InputError(f"{manifest} does not list photographs and licences ({error!r}); see --help") from error


def _choice(evalset: EvaluationSet, free: Mapping[str, str], asked: Sequence[str] | None) -> list[tuple[str, str]]:
    pairs = [tuple(text.partition("=")[::2]) for text in asked or ()]
    for kind, name in pairs:
        if name not in evalset.input_psnr.get(kind, ()):
            raise UsageError(f"--show {kind}={name}: the evaluation set has no such type or photograph")
        if name not in free:
            raise UsageError(f"--show {kind}={name}: the photograph has no stated free licence; choose another")
    if pairs:
        return [(kind, name) for kind, name in pairs]
    names = [name for name in evalset.input_psnr["clean"] if name in free]
    if not names:
        raise InputError(f"{evalset.folder} holds no photograph with a stated free licence")
    return [(kind, names[at % len(names)]) for at, kind in enumerate(TYPES)]


def _row(session: uare_rt.Session, evalset: EvaluationSet, kind: str, name: str) -> Row:
    degraded, truth = evalset.picture(kind, name), evalset.picture("truth", name)
    scale = truth.shape[0] // degraded.shape[0]
    restored = session.restore(degraded, scale=scale).image
    if scale > 1:
        degraded = resize(degraded, (truth.shape[1], truth.shape[0]))
    pictures = {kind: degraded, "restored": restored, **_best_peer(kind, evalset.picture(kind, name), truth)}
    top, left = _liveliest(truth)
    crops = tuple(picture[top : top + _CROP, left : left + _CROP] for picture in (*pictures.values(), truth))
    labels = (*(f"{label}: {psnr(picture, truth):.1f} dB" for label, picture in pictures.items()), "truth")
    return Row(crops, labels)


def _best_peer(kind: str, degraded: Pixels, truth: Pixels) -> dict[str, Pixels]:
    """The result of the peers' pipeline that comes closest to the truth, by its name; empty where none runs here."""
    results = {label: run(degraded) for label, run in peer_chains(kind).items()}
    results = {
        label: result if result.shape == truth.shape else resize(result, (truth.shape[1], truth.shape[0]))
        for label, result in results.items()
    }
    best = max(results, key=lambda label: psnr(results[label], truth), default=None)
    return {} if best is None else {best: results[best]}


def _liveliest(truth: Pixels) -> tuple[int, int]:
    """Top and left of the crop with the greatest contrast between neighbouring pixels."""
    grey = truth.mean(axis=2)
    steps = np.abs(np.diff(grey, axis=0))[:, :-1] + np.abs(np.diff(grey, axis=1))[:-1]
    corners = [
        (top, left)
        for top in range(0, max(1, truth.shape[0] - _CROP + 1), _STEP)
        for left in range(0, max(1, truth.shape[1] - _CROP + 1), _STEP)
    ]
    return max(corners, key=lambda at: float(steps[at[0] : at[0] + _CROP, at[1] : at[1] + _CROP].sum()))


def _drawn(rows: Sequence[Row]) -> Image.Image:
    across, down = _CROP + _GAP, _CROP + _LABEL + _GAP
    sheet = Image.new("RGB", (max(len(row.crops) for row in rows) * across - _GAP, len(rows) * down - _GAP), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default()
    for at, row in enumerate(rows):
        for column, (crop, label) in enumerate(zip(row.crops, row.labels, strict=True)):
            pen.text((column * across + 2, at * down + 3), label, fill="black", font=font)
            sheet.paste(Image.fromarray(np.ascontiguousarray(crop)), (column * across, at * down + _LABEL))
    return sheet


def _encoded(sheet: Image.Image) -> bytes:
    """JPEG of the best quality that stays below the limit."""
    for quality in _QUALITIES:
        buffer = io.BytesIO()
        sheet.save(buffer, "JPEG", quality=quality, optimize=True, progressive=True)
        if buffer.tell() <= _MOST_BYTES:
            break
    return buffer.getvalue()


if __name__ == "__main__":
    sys.exit(run_command(main))
