"""Write the model card of a bundle: what it is, what it was trained on and how, how good it is, where it ends.

usage: python -m uare_rt.training.model_card --recipe NAME [--recipe NAME ...] [--bundle NAME.uare]
       [--results FILE.json] -o MODEL_CARD.md
Recipes are given in the order in which they were trained. Every fact is read: the bundle's manifest, the list of
photographs, the recipes, and the result of benchmarks/evaluate.py, which must be of the same weights.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections import Counter
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from uare_rt.bundle import Bundle, shipped_bundle
from uare_rt.errors import InputError, UareError
from uare_rt.training.photos import photo_list
from uare_rt.training.teacher import shipped_teacher

if TYPE_CHECKING:
    from collections.abc import Sequence

    from uare_rt.manifest import Manifest

__all__ = ["model_card"]

_USE = """\
It says how good a photograph or video frame is (score 1 to 5), how noisy, blurred, compressed, low in resolution,
dark and hazy it is (0 to 1 each), and restores it at one, two or four times its size, guided by that verdict.
"""

_LIMITS = """\
- Scores are MOS-like: learned from synthetic damage, by its labels or by full-reference measures whose curves are
  anchored to mean opinions of TID2013 per kind and level of distortion. No person rated a picture for this model.
- All damage in training is synthetic. Real cameras, codecs and edits damage in ways that were not seen.
- 140 photographs are few: faces, text, line art, screens, medical and satellite pictures are rare or absent among them.
- It restores what is local and tone; it does not invent detail, remove objects or repair scratches.
- A picture that is meant to be dark, soft, grainy or misty is taken for damaged.
- It is no forensic tool: neither a score nor a restored picture proves anything about how a picture came to be.
"""


def model_card(bundle: Bundle, recipes: Sequence[str], results: Path | None = None) -> str:
    """The card as Markdown.

    Args:
        bundle: an opened bundle of `uare-nano`.
        recipes: names of shipped recipes or YAML files, in the order in which they were trained.
        results: JSON that benchmarks/evaluate.py wrote; None leaves the figures out.

    Raises:
        InputError: a recipe or result is missing, or the result is of other weights.
    """
    manifest = bundle.nano
    parts = [
        f"# Model card: {manifest.name}",
        "Written by `python -m uare_rt.training.model_card`; every figure is read from a file of the project.",
        "## What it is",
        _USE + f"\n{manifest.source.parameters:,} parameters, ONNX opset 20, licence {manifest.license}.",
        "## Data",
        _data(),
        "## Training",
        _training(manifest, recipes),
        "## Figures",
        _figures(manifest, results),
        "## Limits",
        _LIMITS.rstrip(),
        "## Hashes",
        _hashes(bundle, recipes),
    ]
    return "\n\n".join(parts) + "\n"


def _table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)


def _data() -> str:
    photos = photo_list()
    kept = [photo for photo in photos if photo.split == "train"]
    counts = Counter((photo.registry, photo.package, photo.version, photo.licence) for photo in kept)
    rows = [
        (f"{registry}: {package} {version}", licence, number)
        for (registry, package, version, licence), number in sorted(counts.items())
    ]
    text = (
        f"{len(kept)} photographs from public packages, rebuilt by `python -m uare_rt.training.photos`, and nothing "
        f"else; {len(photos) - len(kept)} others of the same list are for evaluation only. A few of the former are "
        "held out of training for validation."
    )
    return f"{text}\n\n{_table(('package', 'licence', 'photographs'), rows)}"


def _recipe_file(name: str) -> Path:
    path = Path(name)
    if not path.is_file():
        path = Path(str(resources.files("uare_rt.training") / "recipes" / f"{name}.yaml"))
    if not path.is_file():
        raise InputError(f"{name}: no such recipe; give a name of training/recipes or a YAML file")
    return path


def _training(manifest: Manifest, recipes: Sequence[str]) -> str:
    teacher = ", ".join(f"{name} {weight:g}" for name, weight in shipped_teacher().weights.items())
    named = ", then ".join(f"`{_recipe_file(name).stem}`" for name in recipes)
    return (
        f"Recipes {named} of `training/recipes`, on a CPU; the last ran {manifest.source.steps:,} steps. Degradations "
        "are drawn by `uare_rt.degradation` with the recipe's seed; their severities are the labels. Quality is taught "
        f"by the full-reference blend of `uare_rt.training.teacher` ({teacher}) where a recipe says so."
    )


def _figures(manifest: Manifest, results: Path | None) -> str:
    if results is None:
        return "Not measured for these weights yet: `python benchmarks/evaluate.py EVALSET -o FILE.json`."
    try:
        found: dict[str, Any] = json.loads(results.read_bytes())
        rows, scores, weights = (
            found["measured"]["restoration"],
            found["measured"]["scores"],
            found["bundle"]["weights_sha256"],
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{results} is no result of benchmarks/evaluate.py ({error})") from None
    if weights != manifest.source.weights_sha256:
        raise InputError(
            f"{results} was measured with weights {weights[:12]}, the bundle has "
            f"{manifest.source.weights_sha256[:12]}; measure again"
        )
    lines = [
        (kind, f"{row['input']['psnr']:.2f}", f"{row['output']['psnr']:.2f}", f"{row['gain']:+.2f}")
        for kind, row in rows.items()
    ]
    seeded, pairs = scores["seeded"], scores["comparisons"]
    said = [
        (
            "Spearman with the full-reference blend, set / seeded",
            f"{scores['blend']['spearman']} / {seeded['spearman']}",
        ),
        ("Spearman with the opinion proxy", scores["opinion_proxy"]["spearman"]["uare"]),
        ("mean absolute error of severities", seeded["severity_error"]),
        ("dominant degradation named right", seeded["dominant_right"]),
        ("comparisons right, half a level apart", pairs["right"]),
    ]
    pictures = max(row["pictures"] for row in rows.values())
    return "\n\n".join(
        (
            f"`{found['command']}`, {found['date']}, {pictures} photographs that training never saw.",
            _table(("type", "input dB", "output dB", "gain"), lines),
            _table(("scores", "value"), said),
        )
    )


def _hashes(bundle: Bundle, recipes: Sequence[str]) -> str:
    rows = [("weights before export", bundle.nano.source.weights_sha256)]
    rows += [(f"bundle: {name}", entry.sha256) for name, entry in sorted(bundle.nano.files.items())]
    rows += [(f"recipe: {_recipe_file(name).name}", _sha256(_recipe_file(name))) for name in recipes]
    room = resources.files("uare_rt.training")
    rows += [(f"training/{name}", _sha256(Path(str(room / name)))) for name in ("photos.csv", "teacher.yaml")]
    return _table(("what", "SHA-256"), [(name, f"`{digest}`") for name, digest in rows])


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m uare_rt.training.model_card", description="Write the model card.")
    parser.add_argument("--recipe", action="append", required=True, help="recipe, in the order of training")
    parser.add_argument("--bundle", type=Path, help="bundle to describe; the shipped uare-nano if not given")
    parser.add_argument("--results", type=Path, help="JSON of benchmarks/evaluate.py for the same weights")
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args(arguments)
    try:
        bundle = Bundle.open(shipped_bundle() if options.bundle is None else options.bundle)
        options.output.write_text(model_card(bundle, options.recipe, options.results), encoding="utf-8")
    except UareError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
