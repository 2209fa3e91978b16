"""Bundles through the C library: what it refuses, what it says, and a bundle that disappears while it is open."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from binding import ARGUMENT, BUNDLE, Library, NativeError

GRAPHS = ("assess", "restore_x1", "restore_x2", "restore_x4")


@pytest.fixture
def copy(tiny: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny, tmp_path / "copy.uare"))


def refusal(library: Library, bundle: Path | None, **options: object) -> NativeError:
    with pytest.raises(NativeError) as caught, library.session(bundle, **options):
        pass
    return caught.value


def edit(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = bundle / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def cut(bundle: Path) -> None:
    (bundle / "weights.bin").write_bytes((bundle / "weights.bin").read_bytes()[:-1])


def flip(bundle: Path) -> None:
    data = bytearray((bundle / "assess.onnx").read_bytes())
    data[40] ^= 1
    (bundle / "assess.onnx").write_bytes(data)


def escape(bundle: Path) -> None:
    outside = bundle.parent / "outside.bin"
    (bundle / "weights.bin").rename(outside)
    (bundle / "weights.bin").symlink_to(outside)


DAMAGE = {
    "bytes, not the": cut,
    "SHA-256 of assess.onnx": flip,
    "leads out of the bundle": escape,
    "is missing": lambda bundle: (bundle / "restore_x2.onnx").unlink(),
    "not valid JSON": lambda bundle: (bundle / "manifest.json").write_text('{"schema_version": 1,'),
    "has no manifest.json": lambda bundle: (bundle / "manifest.json").unlink(),
    "schema version 9": lambda bundle: edit(bundle, lambda m: m.update(schema_version=9)),
    "does not stay inside": lambda bundle: edit(
        bundle, lambda m: m["files"].update({"../x": m["files"]["weights.bin"]})
    ),
    "lacks restore_x4": lambda bundle: edit(bundle, lambda m: m["graphs"].pop("restore_x4")),
    "slots are": lambda bundle: edit(bundle, lambda m: m.update(slots=["quality"])),
    "grid must be a multiple": lambda bundle: edit(bundle, lambda m: m["tiling"].update(grid=17)),
    "layers is 0": lambda bundle: edit(bundle, lambda m: m["context"].update(layers=0)),
    "'context' not found": lambda bundle: edit(bundle, lambda m: m.pop("context")),
    "type must be": lambda bundle: edit(bundle, lambda m: m.update(name=3)),
    'file "no.engine" is used': lambda bundle: edit(
        bundle, lambda m: m["graphs"]["assess"].update(engine={"file": "no.engine"})
    ),
    "not listed in files": lambda bundle: edit(bundle, lambda m: m["graphs"]["assess"].update(file="no.onnx")),
}


@pytest.mark.parametrize("message", list(DAMAGE))
def test_a_damaged_bundle_is_refused_in_one_line_that_names_it(library: Library, copy: Path, message: str) -> None:
    DAMAGE[message](copy)
    error = refusal(library, copy)
    assert error.status == BUNDLE
    assert message in str(error)
    assert copy.name in str(error)
    assert "\n" not in str(error)


def test_what_is_no_bundle_is_refused(library: Library, tmp_path: Path, tiny: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert "no bundle at" in str(refusal(library, tmp_path / "none.uare"))
    assert "it is a file" in str(refusal(library, tmp_path / "file"))
    assert refusal(library, None).status == ARGUMENT
    assert "needs at least" in str(refusal(library, tiny, tile=16))


def test_float32_graphs_are_taken_where_there_are_two(library: Library, tiny: Path, copy: Path) -> None:
    """As `uare-rt build --precision int8` for processors leaves them; here those in INT8 could not even be read."""
    files = {path.name: path for path in copy.iterdir() if path.name in ("weights.bin", *map("{}.onnx".format, GRAPHS))}
    (copy / "fp32").mkdir()
    for name, path in files.items():
        path.rename(copy / "fp32" / name)
        path.write_bytes(b"no graph")
    entry = {"bytes": 8, "sha256": hashlib.sha256(b"no graph").hexdigest()}

    def beside(manifest: dict[str, Any]) -> None:
        listed = manifest["files"]
        listed.update({f"fp32/{name}": listed[name] for name in files}, **dict.fromkeys(files, entry))
        graphs = manifest["graphs"]
        graphs.update({f"{name}_fp32": graphs[name] | {"file": f"fp32/{graphs[name]['file']}"} for name in GRAPHS})

    edit(copy, beside)
    image = np.arange(64 * 64 * 3, dtype=np.uint8).reshape(64, 64, 3)
    for scale in (1, 2, 4):
        with library.session(tiny, threads=1, scale=scale) as one, library.session(copy, threads=1, scale=scale) as two:
            assert np.array_equal(two.restore(image, scale), one.restore(image, scale))
            assert two.assess(image).score == one.assess(image).score


def test_a_bundle_may_disappear_while_it_is_open(library: Library, copy: Path) -> None:
    image = np.arange(64 * 64 * 3, dtype=np.uint8).reshape(64, 64, 3)
    with library.session(copy, threads=1) as native:
        before = native.restore(image)
        (copy / "weights.bin").write_bytes(b"")
        shutil.rmtree(copy)
        assert np.array_equal(native.restore(image), before)
        assert native.assess(image).score >= 1
