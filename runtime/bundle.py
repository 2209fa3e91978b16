"""Bundles: a directory ``NAME.uare/`` with ``manifest.json`` and the files it names.

Everything is checked once, when a bundle is opened: JSON and types, unknown keys, schema version,
paths, presence, size and SHA-256 of every file (a few milliseconds for the 7 to 14 MB of uare-nano).
After that the rest of the runtime trusts it. Files that the manifest does not name are never read,
so they are tolerated.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np

from uare_rt.errors import BundleError, OutputError
from uare_rt.manifest import (
    FLOAT32,
    MANIFEST_NAME,
    AnyManifest,
    EngineSpec,
    FileEntry,
    GraphSpec,
    Manifest,
    UnifiedManifest,
    parse_manifest,
)
from uare_rt.onnx_weights import nonfinite_weights
from uare_rt.quality import QualityContext

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Bundle", "GraphFile", "Part", "is_bundle", "shipped_bundle", "write_bundle"]

_CHUNK = 1 << 20


class Part(NamedTuple):
    """A part of a graph: up to a value inside it, or from there on.

    Attributes:
        value: its name; it has the type and shape of the graph's first input.
        behind: the value is given in place of the first input; otherwise it is asked for in place of the outputs.
    """

    value: str
    behind: bool


class GraphFile(NamedTuple):
    """One graph of a bundle.

    Attributes:
        name: for example ``restore_x1``.
        path: its ONNX file.
        spec: what the manifest says about it.
        engine: its engine if it has one.
        content: hash of all files of the bundle; None where it is not from one.
        size: of these files, in bytes.
        shape: of the first input, where the graph shall run on that alone; None leaves sizes open.
        part: the part of the graph that is meant; None is all of it.
    """

    name: str
    path: Path
    spec: GraphSpec
    engine: Path | None = None
    content: str | None = None
    size: int = 0
    shape: tuple[int, ...] | None = None
    part: Part | None = None


def is_bundle(path: str | Path) -> bool:
    """Whether a path is the directory of a bundle, complete or not."""
    return (Path(path) / MANIFEST_NAME).exists()


@dataclass(frozen=True)
class Bundle:
    """An opened and validated bundle.

    Attributes:
        path: the bundle directory.
        manifest: what it contains.
    """

    path: Path
    manifest: AnyManifest

    @property
    def nano(self) -> Manifest:
        """The manifest of a bundle of the ``uare-nano`` family.

        Raises:
            BundleError: it is of another family.
        """
        if isinstance(self.manifest, Manifest):
            return self.manifest
        raise BundleError(f"bundle {self.path} holds {self.manifest.preset}, but this needs uare-nano")

    @property
    def unified(self) -> UnifiedManifest:
        """The manifest of a bundle of the ``uare-7b`` family.

        Raises:
            BundleError: it is of another family.
        """
        if isinstance(self.manifest, UnifiedManifest):
            return self.manifest
        raise BundleError(f"bundle {self.path} holds {self.manifest.preset}, but this needs uare-7b")

    def in_float32(self) -> Bundle | None:
        """The same model with the float32 graphs that it holds beside those of a lower precision.

        Returns:
            None where it has none: there is nothing to choose then.
        """
        graphs = self.manifest.graphs
        beside = {name: graphs[name + FLOAT32] for name in graphs if name + FLOAT32 in graphs}
        if not beside:
            return None
        return Bundle(self.path, msgspec.structs.replace(self.manifest, graphs=graphs | beside))

    def computed_in(self, precision: str) -> Bundle:
        """The same model, with restore graphs that a backend is to compute in a precision, for example ``bf16``."""
        graphs = {
            name: msgspec.structs.replace(graph, precision=precision) if name.startswith("restore") else graph
            for name, graph in self.manifest.graphs.items()
        }
        return Bundle(self.path, msgspec.structs.replace(self.manifest, graphs=graphs))

    @classmethod
    def open(cls, path: str | Path) -> Bundle:
        """Open a bundle directory and check all of it.

        Raises:
            BundleError: it is missing, malformed, altered, incomplete or made for a newer uare-rt.
        """
        root = Path(path)
        try:
            data = (root / MANIFEST_NAME).read_bytes()
        except OSError as error:
            raise BundleError(_why_unreadable(root, error)) from error
        bundle = cls(root, parse_manifest(data, str(root)))
        for name, entry in bundle.manifest.files.items():
            bundle._check_file(name, entry)
        return bundle

    def file(self, name: str) -> Path:
        """The path of a file that the manifest lists.

        Raises:
            BundleError: the manifest does not list it.
        """
        if name not in self.manifest.files:
            raise BundleError(f"bundle {self.path} has no file {name!r} in its manifest")
        return self.path / name

    def graph(self, name: str) -> GraphFile:
        """A graph of the bundle by its name, for example ``restore_x1``.

        Raises:
            BundleError: the bundle has no such graph.
        """
        spec = self.manifest.graphs.get(name)
        if spec is None:
            known = ", ".join(sorted(self.manifest.graphs))
            raise BundleError(f"bundle {self.path} has no graph {name!r}; it has: {known}")
        engine = self.file(spec.engine.file) if isinstance(spec.engine, EngineSpec) else None
        entries = sorted(self.manifest.files.items())
        content = hashlib.sha256("".join(f"{path} {entry.sha256}" for path, entry in entries).encode()).hexdigest()
        size = sum(entry.bytes for _, entry in entries)
        return GraphFile(name, self.file(spec.file), spec, engine, content, size)

    def null_context(self) -> QualityContext:
        """The trained constant that stands for "nothing known about the quality".

        Raises:
            BundleError: the file does not hold the tensors that the manifest describes.
        """
        name, layout = self.nano.null_context, self.nano.context
        try:
            with np.load(self.file(name), allow_pickle=False) as arrays:
                context = QualityContext(arrays["ctx_k"], arrays["ctx_v"], arrays["ctx_vec"])
        except (OSError, KeyError, ValueError) as error:
            raise BundleError(
                f"bundle {self.path}: {name} is not a quality context ({error}); export it again"
            ) from error
        if context.shapes() != layout.shapes():
            raise BundleError(
                f"bundle {self.path}: {name} holds shapes {context.shapes()}, "
                f"but the manifest says {layout.shapes()}; export it again"
            )
        if not context.finite():
            raise BundleError(f"bundle {self.path}: {name} holds NaN or infinity; export it again")
        return context

    def verify(self) -> None:
        """Check the values too: every weight and, where there is one, the null context must be finite.

        Opening does not do this: it reads every tensor. ``uare-rt inspect`` does.

        Raises:
            BundleError: naming the first graph and tensor with NaN or infinity.
        """
        if isinstance(self.manifest, Manifest):
            self.null_context()
        for name, spec in self.manifest.graphs.items():
            bad = nonfinite_weights(self.file(spec.file), partial(self._beside, spec.file))
            if bad is not None:
                raise BundleError(
                    f"bundle {self.path}: weight {bad!r} of graph {name!r} holds NaN or infinity; "
                    "the training or the export went wrong, export it again from good weights"
                )

    def _beside(self, graph: str, name: str) -> Path:
        """A file by its name in a graph, which is seen from there."""
        return self.file(str(PurePosixPath(graph).parent / name))

    def _check_file(self, name: str, entry: FileEntry) -> None:
        path = self.path / name
        root = self.path.resolve()
        try:
            real = path.resolve(strict=True)
            if root not in real.parents:
                raise BundleError(f"bundle {self.path}: {name!r} leads out of the bundle to {real}; refused")
            size = real.stat().st_size
            if not real.is_file():
                raise BundleError(f"bundle {self.path}: {name!r} is not a regular file")
            if size != entry.bytes:
                raise BundleError(
                    f"bundle {self.path}: {name} has {size} bytes, not the {entry.bytes} of the manifest; "
                    "it is incomplete or was changed, copy or export the bundle again"
                )
            digest = _sha256(real)
        except FileNotFoundError as error:
            raise BundleError(
                f"bundle {self.path}: file {name!r} is missing; copy or export the bundle again"
            ) from error
        except (OSError, RuntimeError) as error:  # RuntimeError: a loop of symbolic links, on Python < 3.13
            raise BundleError(f"bundle {self.path}: {name!r} cannot be read ({error})") from error
        if digest != entry.sha256:
            raise BundleError(
                f"bundle {self.path}: SHA-256 of {name} is {digest[:12]}..., the manifest says "
                f"{entry.sha256[:12]}...; the file is damaged or was changed, copy or export the bundle again"
            )


def shipped_bundle() -> Path:
    """Where the bundle that comes with the package lies (or would lie)."""
    return Path(__file__).parent / "data" / "uare-nano.uare"


def write_bundle(
    target: Path,
    manifest: AnyManifest,
    files: Mapping[str, Path | bytes],
    *,
    overwrite: bool = False,
    move: bool = False,
) -> Bundle:
    """Write a bundle directory, complete or not at all.

    Args:
        target: the directory to make, by custom ``NAME.uare``.
        manifest: its ``files`` table is replaced by the sizes and hashes of ``files``.
        files: for each path relative to the bundle a file to copy or the content itself.
        overwrite: replace an existing bundle.
        move: take the files away from where they are, instead of copying what may be large.

    Raises:
        OutputError: the target exists (and is no bundle, with ``overwrite``), or cannot be written.
        BundleError: manifest and files do not belong together.
    """
    if target.exists() and not overwrite:
        raise OutputError(f"{target} already exists; choose another name or allow overwriting")
    if target.exists() and not (target / MANIFEST_NAME).is_file():
        raise OutputError(f"{target} exists and is not a bundle, so it is not replaced; choose another name")
    staging = target.parent / f".{target.name}.{uuid.uuid4().hex}"
    try:
        staging.mkdir()
        entries = {name: _place(staging, name, content, move) for name, content in files.items()}
        complete = msgspec.structs.replace(manifest, files=entries)
        encoded = msgspec.json.format(msgspec.json.encode(complete), indent=2)
        (staging / MANIFEST_NAME).write_bytes(encoded + b"\n")
        Bundle.open(staging)
        _swap(staging, target)
    except OSError as error:
        raise OutputError(f"bundle {target} cannot be written: {error}") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return Bundle(target, complete)


def _place(staging: Path, name: str, content: Path | bytes, move: bool) -> FileEntry:
    path = staging / PurePosixPath(name)
    if staging.resolve() not in path.resolve().parents:
        raise BundleError(f"a bundle cannot hold a file outside itself: {name!r}")
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif move:
        shutil.move(content, path)
    else:
        shutil.copyfile(content, path)
    return FileEntry(sha256=_sha256(path), bytes=path.stat().st_size)


def _swap(staging: Path, target: Path) -> None:
    if not target.exists():
        staging.rename(target)
        return
    old = target.parent / f".{target.name}.{uuid.uuid4().hex}"
    target.rename(old)
    try:
        staging.rename(target)
    except OSError:
        old.rename(target)
        raise
    shutil.rmtree(old)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _why_unreadable(root: Path, error: OSError) -> str:
    if not root.exists():
        return f"no bundle at {root}; name a directory NAME.uare"
    if not root.is_dir():
        return f"{root} is a file, but a bundle is a directory NAME.uare with a {MANIFEST_NAME}"
    if isinstance(error, FileNotFoundError):
        return f"{root} is not a bundle: it has no {MANIFEST_NAME}; name a directory NAME.uare"
    return f"bundle {root}: {MANIFEST_NAME} cannot be read ({os.strerror(error.errno or 0)})"
