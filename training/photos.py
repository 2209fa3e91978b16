"""Rebuild the training and evaluation photographs from public packages, by name.

``photos.csv`` beside this file lists every photograph: package, version, path inside it, licence, size and
the start of the SHA-256 of the result. Nothing else is trained on.

usage: python -m uare_rt.training.photos OUT_DIR [--split train|eval] [--only REGISTRY:PACKAGE ...]

Needs ``apt-get`` with fresh lists (Debian packages), ``npm`` and ``pip`` for the packages of each kind.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, ImageOps

from uare_rt.errors import InputError, UareError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Photo", "photo_list", "rebuild"]

_TOOLS = {"deb": ("apt-get", "dpkg-deb"), "npm": ("npm",), "pypi": ()}


@dataclass(frozen=True)
class Photo:
    """One photograph of the list.

    Attributes:
        file: path of the result, ``train/NAME.jpg`` or ``eval/NAME.png``.
        registry: ``deb``, ``npm`` or ``pypi``.
        package: package name.
        version: package version.
        inside: path inside the package.
        licence: as stated by the package or its origin.
        size: width and height of the result in px.
        sha256: first 16 hexadecimal digits of the result's SHA-256.
    """

    file: str
    registry: str
    package: str
    version: str
    inside: str
    licence: str
    size: tuple[int, int]
    sha256: str

    @property
    def split(self) -> str:
        """``train`` or ``eval``; the two share no photograph."""
        return self.file.split("/")[0]


def photo_list() -> list[Photo]:
    """All photographs of ``photos.csv``."""
    text = (resources.files("uare_rt.training") / "photos.csv").read_text("utf-8")
    return [
        Photo(
            row["file"],
            row["registry"],
            row["package"],
            row["version"],
            row["path_in_package"],
            row["license"],
            (int(row["w"]), int(row["h"])),
            row["sha256_16"],
        )
        for row in csv.DictReader(text.splitlines())
    ]


def rebuild(photos: Sequence[Photo], out: Path) -> dict[str, list[str]]:
    """Download the packages and write the photographs.

    Args:
        photos: what to write.
        out: directory for ``train/`` and ``eval/``.

    Returns:
        ``same`` and ``different``: files whose hash is the listed one, and those that another build of Pillow
        or libjpeg encoded otherwise.

    Raises:
        InputError: a tool is missing.
        UareError: a package cannot be had, or lacks a photograph.
    """
    wanted: dict[tuple[str, str, str], list[Photo]] = {}
    for photo in photos:
        wanted.setdefault((photo.registry, photo.package, photo.version), []).append(photo)
    for tool in {tool for registry, _, _ in wanted for tool in _TOOLS[registry]}:
        if shutil.which(tool) is None:
            raise InputError(f"{tool} is not installed; it fetches some of the packages. Use --only for the others")
    result: dict[str, list[str]] = {"same": [], "different": []}
    for (registry, package, version), members in wanted.items():
        with tempfile.TemporaryDirectory() as folder:
            root = _fetch(registry, package, version, Path(folder))
            for photo in members:
                same = _write(root / photo.inside, photo, out / photo.file)
                result["same" if same else "different"].append(photo.file)
    return result


def _fetch(registry: str, package: str, version: str, folder: Path) -> Path:
    commands = {
        "deb": ["apt-get", "download", "-qq", package],
        "npm": ["npm", "pack", "--silent", f"{package}@{version}"],
        "pypi": [sys.executable, "-m", "pip", "download", "-q", "--no-deps", f"{package}=={version}"],
    }
    done = subprocess.run(commands[registry], cwd=folder, capture_output=True, text=True, check=False)
    archives = [path for path in folder.iterdir() if path.suffix in {".deb", ".tgz", ".whl"}]
    if done.returncode or not archives:
        raise UareError(f"{registry} package {package} {version} cannot be fetched: {done.stderr.strip()[-200:]}")
    root = folder / "unpacked"
    if registry == "deb":
        subprocess.run(["dpkg-deb", "-x", archives[0], root], check=True)
    elif registry == "npm":
        with tarfile.open(archives[0]) as archive:
            archive.extractall(root, filter="data")
    else:
        with zipfile.ZipFile(archives[0]) as archive:
            archive.extractall(root)
    return root


def _write(source: Path, photo: Photo, target: Path) -> bool:
    try:
        with Image.open(source) as opened:
            image = ImageOps.exif_transpose(opened).convert("RGB")
    except OSError as error:
        raise UareError(f"{photo.package} {photo.version} has no readable {photo.inside} ({error})") from None
    if image.size != photo.size:
        image = image.resize(photo.size, Image.Resampling.LANCZOS, reducing_gap=3.0)
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.suffix == ".png":
        image.save(target, optimize=True)
    else:
        image.save(target, quality=97, subsampling=0)
    return hashlib.sha256(target.read_bytes()).hexdigest().startswith(photo.sha256)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m uare_rt.training.photos", description="Rebuild the photographs.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--split", choices=("train", "eval"))
    parser.add_argument("--only", nargs="+", metavar="REGISTRY:PACKAGE")
    options = parser.parse_args(arguments)
    photos = [
        photo
        for photo in photo_list()
        if options.split in (None, photo.split)
        and (options.only is None or f"{photo.registry}:{photo.package}" in options.only)
    ]
    try:
        result = rebuild(photos, options.out)
    except UareError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    sys.stdout.write(f"{len(result['same'])} photographs as listed, {len(result['different'])} encoded otherwise\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
