"""Bundles are refused with one line that says what, where and what to do; good ones open and are written whole."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import struct
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uare_rt.bundle import Bundle, write_bundle
from uare_rt.errors import BundleError, OutputError
from uare_rt.manifest import parse_manifest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def accept_changes(bundle: Path, name: str) -> None:
    """Put the present size and hash of a file into the manifest."""
    manifest = json.loads((bundle / "manifest.json").read_text())
    content = (bundle / name).read_bytes()
    manifest["files"][name] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    (bundle / "manifest.json").write_text(json.dumps(manifest))


def refused(path: Path) -> str:
    with pytest.raises(BundleError) as caught:
        Bundle.open(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def test_every_good_bundle_opens_and_verifies(bundle_path: Path) -> None:
    bundle = Bundle.open(bundle_path)
    bundle.verify()
    for scale in bundle.manifest.scales:
        assert bundle.graph(f"restore_x{scale}").path.is_file()
    context = bundle.null_context()
    assert context.shapes() == bundle.manifest.context.shapes()


def test_missing_directory(tmp_path: Path) -> None:
    assert "no bundle at" in refused(tmp_path / "absent.uare")


def test_directory_without_manifest(tmp_path: Path) -> None:
    assert "has no manifest.json" in refused(tmp_path)


def test_file_instead_of_directory(tmp_path: Path) -> None:
    path = tmp_path / "nano.uare"
    path.write_bytes(b"not a bundle")
    assert "is a file" in refused(path)


@pytest.mark.parametrize("kept", [0, 1, 100, -3])
def test_truncated_manifest(altered: Callable[..., Path], kept: int) -> None:
    path = altered(lambda manifest: None)
    data = (path / "manifest.json").read_bytes()
    (path / "manifest.json").write_bytes(data[:kept])
    assert "not valid JSON" in refused(path)


@pytest.mark.parametrize("content", [b"null", b"[]", b"3", b'"text"', b"\xff\xfe", b"{}"])
def test_manifest_that_is_no_manifest(altered: Callable[..., Path], content: bytes) -> None:
    path = altered(lambda manifest: None)
    (path / "manifest.json").write_bytes(content)
    refused(path)


def test_newer_schema_asks_for_an_upgrade(altered: Callable[..., Path]) -> None:
    path = altered(lambda manifest: manifest.update(schema_version=2, something_new=True))
    message = refused(path)
    assert "schema version 2" in message
    assert "newer uare-rt, upgrade" in message


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda m: m.update(extra=1), "unknown field `extra`"),
        (lambda m: m["tiling"].update(overlap=3), "unknown field `overlap`"),
        (lambda m: m["graphs"]["assess"].update(optset=20), "$.graphs[...]"),
        (lambda m: m.pop("slots"), "missing required field `slots`"),
        (lambda m: m.update(schema_version=0), "$.schema_version"),
        (lambda m: m.update(schema_version="1"), "$.schema_version"),
        (lambda m: m.update(schema_version=True), "$.schema_version"),
        (lambda m: m["tiling"].update(grid="64"), "$.tiling.grid"),
        (lambda m: m["tiling"].update(grid=24), "tiling.grid 24 is not a multiple"),
        (lambda m: m["tiling"].update(multiple=0), "$.tiling.multiple"),
        (lambda m: m["context"].update(layers=1.5), "$.context.layers"),
        (lambda m: m["files"]["weights.bin"].update(sha256="abc"), "$.files[...].sha256"),
        (lambda m: m["files"]["weights.bin"].update(bytes=-1), "$.files[...].bytes"),
        (lambda m: m["graphs"]["assess"].update(engine={"sm": 87}), "engine"),
        (lambda m: m["backend"].update(target="sm87"), "$.backend.target"),
        (lambda m: m.update(calibration={}), "$.calibration"),
        (lambda m: m.update(scales=[]), "scales is empty"),
        (lambda m: m.update(scales=[1, 3]), "graphs lacks restore_x3"),
        (lambda m: m["graphs"].pop("assess"), "graphs lacks assess"),
        (lambda m: m["views"].update(crops=4), "4 crops of 96 px"),
        (lambda m: m["slots"].append("rain"), "'rain'"),
        (lambda m: m["files"].pop("assess.onnx"), "'assess.onnx' is used but not listed"),
        (lambda m: m.update(null_context="other.npz"), "'other.npz' is used but not listed"),
    ],
)
def test_invalid_manifest_names_the_place(altered: Callable[..., Path], change: Any, named: str) -> None:
    assert named in refused(altered(change))


@pytest.mark.parametrize(
    "name",
    ["../outside.bin", "a/../../outside.bin", "/etc/passwd", "./weights.bin", "a//b", "..", "", "C:\\x", "a\\..\\b"],
)
def test_paths_stay_inside(altered: Callable[..., Path], name: str) -> None:
    path = altered(lambda m: m["files"].update({name: m["files"]["weights.bin"]}))
    shutil.copy(path / "weights.bin", path.parent / "outside.bin")
    assert f"{name!r} does not stay inside" in refused(path)


def test_symbolic_link_out_of_the_bundle(altered: Callable[..., Path]) -> None:
    path = altered(lambda manifest: None)
    outside = path.parent / "outside.bin"
    (path / "weights.bin").rename(outside)
    (path / "weights.bin").symlink_to(outside)
    assert "leads out of the bundle" in refused(path)


def test_link_to_the_whole_bundle_is_fine(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "link.uare").symlink_to(tiny)
    assert Bundle.open(tmp_path / "link.uare").manifest.name == "tiny"


def test_loop_of_links(altered: Callable[..., Path]) -> None:
    path = altered(lambda manifest: None)
    (path / "weights.bin").unlink()
    (path / "weights.bin").symlink_to("weights.bin")
    assert "'weights.bin'" in refused(path)


def test_missing_file(altered: Callable[..., Path]) -> None:
    path = altered(lambda manifest: None)
    (path / "weights.bin").unlink()
    assert "'weights.bin' is missing" in refused(path)


def test_directory_in_place_of_a_file(altered: Callable[..., Path]) -> None:
    path = altered(lambda manifest: None)
    (path / "weights.bin").unlink()
    (path / "weights.bin").mkdir()
    assert "not a regular file" in refused(path)


def test_truncated_file(altered: Callable[..., Path]) -> None:
    path = altered(lambda manifest: None)
    data = (path / "weights.bin").read_bytes()
    (path / "weights.bin").write_bytes(data[:-1])
    assert f"{len(data) - 1} bytes, not the {len(data)}" in refused(path)


def test_changed_byte(altered: Callable[..., Path]) -> None:
    path = altered(lambda manifest: None)
    data = bytearray((path / "weights.bin").read_bytes())
    data[1000] ^= 1
    (path / "weights.bin").write_bytes(data)
    assert "SHA-256 of weights.bin" in refused(path)


def test_files_that_nobody_named_are_tolerated(altered: Callable[..., Path]) -> None:
    path = altered(lambda manifest: None)
    (path / ".DS_Store").write_bytes(b"x")
    assert Bundle.open(path).manifest.name == "tiny"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_no_numbers(altered: Callable[..., Path], value: float) -> None:
    path = altered(lambda manifest: None)
    with (path / "weights.bin").open("r+b") as stream:
        stream.seek(-4, io.SEEK_END)  # the last graph that was written is restore_x4
        stream.write(struct.pack("<f", value))
    accept_changes(path, "weights.bin")
    bundle = Bundle.open(path)
    with pytest.raises(BundleError, match=r"of graph 'restore_x4' holds NaN or infinity"):
        bundle.verify()


def test_null_context_of_another_shape(altered: Callable[..., Path], tmp_path: Path) -> None:
    path = altered(lambda manifest: None)
    np.savez(tmp_path / "other.npz", ctx_k=np.zeros(3), ctx_v=np.zeros(3), ctx_vec=np.zeros(3))
    shutil.copy(tmp_path / "other.npz", path / "null_context.npz")
    accept_changes(path, "null_context.npz")
    with pytest.raises(BundleError, match="export it again"):
        Bundle.open(path).null_context()


def test_onnx_file_that_is_none(altered: Callable[..., Path]) -> None:
    path = altered(lambda manifest: None)
    (path / "assess.onnx").write_bytes(b"\x3a\xff\xff\x03 not protobuf")
    accept_changes(path, "assess.onnx")
    with pytest.raises(BundleError, match="cannot be read as ONNX"):
        Bundle.open(path).verify()


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=200))
def test_no_bytes_break_the_reader(data: bytes) -> None:
    with pytest.raises(BundleError):
        parse_manifest(data, "x.uare")


class TestWriting:
    def files(self, tiny: Path) -> dict[str, Path | bytes]:
        return {name: tiny / name for name in Bundle.open(tiny).manifest.files}

    def test_round_trip(self, tiny: Path, tmp_path: Path) -> None:
        target = tmp_path / "copy.uare"
        written = write_bundle(target, Bundle.open(tiny).manifest, self.files(tiny))
        assert written.manifest == Bundle.open(target).manifest == Bundle.open(tiny).manifest
        assert [path.name for path in tmp_path.iterdir()] == ["copy.uare"]

    def test_an_existing_bundle_stays(self, altered: Callable[..., Path], tiny: Path) -> None:
        target = altered(lambda manifest: manifest.update(name="mine"))
        with pytest.raises(OutputError, match="already exists"):
            write_bundle(target, Bundle.open(tiny).manifest, self.files(tiny))
        assert Bundle.open(target).manifest.name == "mine"

    def test_overwriting(self, altered: Callable[..., Path], tiny: Path) -> None:
        target = altered(lambda manifest: manifest.update(name="mine"))
        write_bundle(target, Bundle.open(tiny).manifest, self.files(tiny), overwrite=True)
        assert Bundle.open(target).manifest.name == "tiny"
        assert [path.name for path in target.parent.iterdir()] == [target.name]

    def test_only_bundles_are_overwritten(self, tiny: Path, tmp_path: Path) -> None:
        (tmp_path / "photos").mkdir()
        (tmp_path / "photos" / "precious.jpg").write_bytes(b"x")
        with pytest.raises(OutputError, match="is not a bundle"):
            write_bundle(tmp_path / "photos", Bundle.open(tiny).manifest, self.files(tiny), overwrite=True)
        assert (tmp_path / "photos" / "precious.jpg").exists()

    def test_nothing_remains_of_a_failure(self, tiny: Path, tmp_path: Path) -> None:
        files = self.files(tiny)
        del files["weights.bin"], files["assess.onnx"]
        with pytest.raises(BundleError):
            write_bundle(tmp_path / "half.uare", Bundle.open(tiny).manifest, files)
        assert not list(tmp_path.iterdir())

    def test_files_outside_are_refused(self, tiny: Path, tmp_path: Path) -> None:
        (tmp_path / "room").mkdir()
        with pytest.raises(BundleError, match="outside itself"):
            write_bundle(tmp_path / "room" / "x.uare", Bundle.open(tiny).manifest, {"../escape": b"x"})
        assert [path.name for path in tmp_path.iterdir()] == ["room"]
        assert not list((tmp_path / "room").iterdir())

    def test_unwritable_place(self, tiny: Path, tmp_path: Path) -> None:
        with pytest.raises(OutputError, match="cannot be written"):
            write_bundle(tmp_path / "absent" / "x.uare", Bundle.open(tiny).manifest, self.files(tiny))
