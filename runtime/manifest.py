"""The bundle manifest: what a model contains and everything a caller may assume about it.

``manifest.json`` is decoded strictly: a wrong type, an unknown key or a path that leaves the bundle
is refused with one line that names it. Fields for later (engines, targets, calibration) exist as null,
so that a manifest that uses them is refused by a version that would ignore them.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

import msgspec

from uare_rt.errors import BundleError
from uare_rt.slots import SLOTS
from uare_rt.views import CROPS, VIEW_SIZE

__all__ = [
    "MANIFEST_NAME",
    "SCHEMA_VERSION",
    "BackendInfo",
    "ContextLayout",
    "FileEntry",
    "GraphSpec",
    "Manifest",
    "Parity",
    "Source",
    "TensorSpec",
    "Tiling",
    "ViewLayout",
    "parse_manifest",
]

MANIFEST_NAME = "manifest.json"
SCHEMA_VERSION = 1

_Positive = Annotated[int, msgspec.Meta(ge=1)]
_Natural = Annotated[int, msgspec.Meta(ge=0)]
_Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
_Text = Annotated[str, msgspec.Meta(min_length=1)]


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


class Source(_Strict, frozen=True, kw_only=True):
    """Where the weights come from."""

    weights_sha256: _Sha256
    recipe: str | None
    steps: _Natural | None
    parameters: _Natural


class ViewLayout(_Strict, frozen=True, kw_only=True):
    """The views that the ``assess`` graph reads: their side in px and the number of crops."""

    size: _Positive
    crops: _Positive


class ContextLayout(_Strict, frozen=True, kw_only=True):
    """Sizes of the quality context."""

    layers: _Positive
    kv_heads: _Positive
    tokens: _Positive
    head_dim: _Positive
    vector: _Positive

    def shapes(self) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
        """Shapes of ``ctx_k``, ``ctx_v`` and ``ctx_vec``."""
        keys = (self.layers, self.kv_heads, self.tokens, self.head_dim)
        return keys, keys, (self.vector,)


class Tiling(_Strict, frozen=True, kw_only=True):
    """How a frame may be cut without changing the result, in input px.

    To get the pixels [c, e) exactly, the input must start at or before ``c - before``, on the grid of
    ``grid`` px, and reach ``e + after`` (or the ends of the frame). Sides are multiples of ``multiple``.
    ``bytes_per_pixel`` is the peak activation memory of ``restore_x1`` per input pixel.
    """

    multiple: _Positive
    grid: _Positive
    before: _Natural
    after: _Natural
    bytes_per_pixel: Annotated[float, msgspec.Meta(gt=0)] = 256.0


class TensorSpec(_Strict, frozen=True, kw_only=True):
    """Name, dtype and shape of a graph input or output; a string is a dynamic dimension."""

    name: _Text
    dtype: Literal["float32", "float16", "uint8", "int64"]
    shape: tuple[_Positive | str, ...]


class Parity(_Strict, frozen=True, kw_only=True):
    """Largest difference from PyTorch, measured at export on random and on real inputs."""

    random_max_abs: float
    real_max_abs: float
    tolerance: float


class GraphSpec(_Strict, frozen=True, kw_only=True):
    """One ONNX graph of the bundle."""

    file: _Text
    opset: _Positive
    precision: _Text
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    flops_per_pixel: float | None = None
    parity: Parity | None = None
    engine: None = None


class FileEntry(_Strict, frozen=True, kw_only=True):
    """SHA-256 and size of a file of the bundle."""

    sha256: _Sha256
    bytes: _Natural


class BackendInfo(_Strict, frozen=True, kw_only=True):
    """What the graphs were made for; ``onnx`` runs on every backend."""

    name: _Text
    target: None = None


class Manifest(_Strict, frozen=True, kw_only=True):
    """Everything a caller may assume about a bundle."""

    schema_version: _Positive
    name: _Text
    preset: _Text
    created_by: str
    license: str
    source: Source
    slots: tuple[str, ...]
    scales: tuple[_Positive, ...]
    views: ViewLayout
    context: ContextLayout
    tiling: Tiling
    graphs: dict[str, GraphSpec]
    null_context: _Text
    backend: BackendInfo
    calibration: None = None
    quality: dict[str, Any]
    files: dict[str, FileEntry]


def parse_manifest(data: bytes, where: str) -> Manifest:
    """Decode and check a manifest.

    Args:
        data: content of ``manifest.json``.
        where: the bundle, for messages.

    Raises:
        BundleError: malformed, inconsistent or made for a newer uare-rt.
    """
    prefix = f"bundle {where}: {MANIFEST_NAME}"
    try:
        raw = json.loads(data)
    except ValueError as error:  # UnicodeDecodeError and JSONDecodeError
        raise BundleError(
            f"{prefix} is not valid JSON ({error}); it is cut short or damaged, copy or export it again"
        ) from error
    version = raw.get("schema_version") if isinstance(raw, dict) else None
    if type(version) is int and version > SCHEMA_VERSION:
        raise BundleError(
            f"{prefix} has schema version {version}, this uare-rt reads up to {SCHEMA_VERSION}: "
            'the bundle was made for a newer uare-rt, upgrade with: pip install -U "uare-rt"'
        )
    try:
        manifest = msgspec.convert(raw, Manifest)
    except msgspec.ValidationError as error:
        raise BundleError(f"{prefix} is invalid: {error}; export the bundle again") from error
    problem = _inconsistency(manifest)
    if problem:
        raise BundleError(f"{prefix} is invalid: {problem}; export the bundle again")
    return manifest


def _inconsistency(manifest: Manifest) -> str | None:
    if manifest.slots != SLOTS:
        return f"slots are {list(manifest.slots)}, this uare-rt knows {list(SLOTS)}"
    if (manifest.views.size, manifest.views.crops) != (VIEW_SIZE, CROPS):
        return (
            f"views are {manifest.views.crops} crops of {manifest.views.size} px, "
            f"this uare-rt makes {CROPS} of {VIEW_SIZE} px"
        )
    if not manifest.scales:
        return "scales is empty"
    needed = ["assess", *(f"restore_x{scale}" for scale in manifest.scales)]
    absent = [name for name in needed if name not in manifest.graphs]
    if absent:
        return f"graphs lacks {', '.join(absent)}"
    if manifest.tiling.grid % manifest.tiling.multiple:
        return f"tiling.grid {manifest.tiling.grid} is not a multiple of tiling.multiple {manifest.tiling.multiple}"
    for name in manifest.files:
        if not _stays_inside(name):
            return f"path {name!r} does not stay inside the bundle"
    for name in (*(graph.file for graph in manifest.graphs.values()), manifest.null_context):
        if name not in manifest.files:
            return f"file {name!r} is used but not listed in files"
    return None


def _stays_inside(name: str) -> bool:
    parts = name.split("/")
    return not any(part in ("", ".", "..") for part in parts) and not set(name) & set("\\:\0")
