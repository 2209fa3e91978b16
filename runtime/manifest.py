"""The bundle manifest: what a model contains and everything a caller may assume about it.

``manifest.json`` is decoded strictly: a wrong type, an unknown key or a path that leaves the bundle
is refused with one line that names it. Bundles that were not built (`uare-rt export`) have null for engines, target,
profile and calibration.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

import msgspec

from uare_rt.errors import BundleError
from uare_rt.slots import SLOTS
from uare_rt.views import CROPS, VIEW_SIZE
from uare_rt.vlm.layout import INTERFACE, UnifiedLayout

__all__ = [
    "BASE_NAME",
    "FLOAT32",
    "HALF_WEIGHTS",
    "MANIFEST_NAME",
    "PENDING",
    "SCHEMA_VERSION",
    "AnyManifest",
    "BackendInfo",
    "CalibrationInfo",
    "ContextLayout",
    "EngineSpec",
    "FileEntry",
    "GraphSpec",
    "Manifest",
    "Parity",
    "Profile",
    "Source",
    "TensorSpec",
    "Tiling",
    "UnifiedManifest",
    "ViewLayout",
    "parse_manifest",
]

MANIFEST_NAME = "manifest.json"
PENDING: Literal["pending"] = "pending"
SCHEMA_VERSION = 1
BASE_NAME = "base"
"""The value inside a restore graph that is the frame behind the tone curve, float32 [N, 3, H, W]."""

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
    dtype: Literal["float32", "float16", "uint8", "int8", "int64", "bool"]
    shape: tuple[_Positive | str, ...]


class Parity(_Strict, frozen=True, kw_only=True):
    """Largest difference from PyTorch, measured at export on random and on real inputs."""

    random_max_abs: float
    real_max_abs: float
    tolerance: float


class Profile(_Strict, frozen=True, kw_only=True):
    """Shapes of one input that an engine takes: smallest (it may be empty), the one it is fastest at, and largest."""

    min: tuple[_Natural, ...]
    opt: tuple[_Positive, ...]
    max: tuple[_Positive, ...]


class EngineSpec(_Strict, frozen=True, kw_only=True):
    """A compiled graph.

    Only the software that built it loads it, on devices of these targets. ``version`` is that software's;
    ``onnx_sha256`` is of the graph it was built from; ``layers`` lists its layers where the file is given.
    """

    file: _Text
    targets: tuple[_Text, ...]
    version: _Text
    onnx_sha256: _Sha256
    seconds: float
    layers: str | None = None


class CalibrationInfo(_Strict, frozen=True, kw_only=True):
    """The pictures that ranges were learned from, and how."""

    sha256: _Sha256
    sources: tuple[str, ...]
    samples: _Positive
    observer: _Text
    seed: int


class GraphSpec(_Strict, frozen=True, kw_only=True):
    """One ONNX graph of the bundle.

    ``parity`` is for graphs whose values have a known range; ``relative_rms`` is the difference from PyTorch over the
    size of the values themselves, both as root mean squares, for those that have none. ``precision`` is the lowest
    that it computes in. ``engine`` is ``"pending"`` where a device has yet to compile it for shapes of ``profile``.
    ``int8_macs`` is the share of its convolutions' multiplications in INT8.
    """

    file: _Text
    opset: _Positive
    precision: _Text
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    flops_per_pixel: float | None = None
    parity: Parity | None = None
    relative_rms: float | None = None
    engine: EngineSpec | Literal["pending"] | None = None
    profile: dict[str, Profile] | None = None
    int8_macs: float | None = None


class FileEntry(_Strict, frozen=True, kw_only=True):
    """SHA-256 and size of a file of the bundle."""

    sha256: _Sha256
    bytes: _Natural


class BackendInfo(_Strict, frozen=True, kw_only=True):
    """What the graphs were made for; ``onnx`` runs on every backend.

    ``version`` is of the software that compiled engines, ``driver`` what they need on the device, ``note`` what was not
    proven.
    """

    name: _Text
    target: tuple[_Text, ...] | None = None
    version: str | None = None
    driver: str | None = None
    note: str | None = None


class Manifest(_Strict, frozen=True, kw_only=True):
    """Everything a caller may assume about a bundle of the ``uare-nano`` family."""

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
    calibration: CalibrationInfo | None = None
    quality: dict[str, Any]
    files: dict[str, FileEntry]


class UnifiedManifest(_Strict, frozen=True, kw_only=True):
    """Everything a caller may assume about a bundle of the ``uare-7b`` family."""

    schema_version: _Positive
    name: _Text
    preset: Literal["uare-7b"]
    created_by: str
    license: str
    source: Source
    slots: tuple[str, ...]
    scales: tuple[_Positive, ...]
    unified: UnifiedLayout
    graphs: dict[str, GraphSpec]
    backend: BackendInfo
    calibration: CalibrationInfo | None = None
    quality: dict[str, Any]
    files: dict[str, FileEntry]


AnyManifest = Manifest | UnifiedManifest
HALF_WEIGHTS = "fp32, 16-bit weights"
"""Precision of graphs that hold their weights in fewer bits than they compute in."""
FLOAT32 = "_fp32"
"""Ends the name of a graph that a bundle for processors holds beside the same in INT8; see `Bundle.in_float32`."""
_UNIFIED = "uare-7b"
_UNIFIED_GRAPHS = (
    *("vision", "prefill", "decode", "denoise", "velocity", "encode", "decode_image"),
    *("encode_outer", "encode_inner", "decode_inner", "decode_outer"),
)


def parse_manifest(data: bytes, where: str) -> AnyManifest:
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
        unified = isinstance(raw, dict) and raw.get("preset") == _UNIFIED
        manifest: AnyManifest = msgspec.convert(raw, UnifiedManifest) if unified else msgspec.convert(raw, Manifest)
    except msgspec.ValidationError as error:
        raise BundleError(f"{prefix} is invalid: {error}; export the bundle again") from error
    problem = _inconsistency(manifest)
    if problem:
        raise BundleError(f"{prefix} is invalid: {problem}; export the bundle again")
    return manifest


def _inconsistency(manifest: AnyManifest) -> str | None:
    if manifest.slots != SLOTS:
        return f"slots are {list(manifest.slots)}, this uare-rt knows {list(SLOTS)}"
    if not manifest.scales:
        return "scales is empty"
    if isinstance(manifest, UnifiedManifest):
        needed: list[str] = list(_UNIFIED_GRAPHS)
        used = [manifest.unified.embedding, *manifest.unified.tokenizer]
    else:
        needed = ["assess", *(f"restore_x{scale}" for scale in manifest.scales)]
        used = [manifest.null_context]
    absent = [name for name in needed if name not in manifest.graphs]
    if absent:
        return f"graphs lacks {', '.join(absent)}"
    problem = _unified_problem(manifest.unified) if isinstance(manifest, UnifiedManifest) else _nano_problem(manifest)
    if problem:
        return problem
    for name in manifest.files:
        if not _stays_inside(name):
            return f"path {name!r} does not stay inside the bundle"
    engines = [graph.engine for graph in manifest.graphs.values() if isinstance(graph.engine, EngineSpec)]
    used += [name for engine in engines for name in (engine.file, engine.layers) if name is not None]
    for name in (*(graph.file for graph in manifest.graphs.values()), *used):
        if name not in manifest.files:
            return f"file {name!r} is used but not listed in files"
    return None


def _nano_problem(manifest: Manifest) -> str | None:
    if (manifest.views.size, manifest.views.crops) != (VIEW_SIZE, CROPS):
        return (
            f"views are {manifest.views.crops} crops of {manifest.views.size} px, "
            f"this uare-rt makes {CROPS} of {VIEW_SIZE} px"
        )
    if manifest.tiling.grid % manifest.tiling.multiple:
        return f"tiling.grid {manifest.tiling.grid} is not a multiple of tiling.multiple {manifest.tiling.multiple}"
    return None


def _unified_problem(layout: UnifiedLayout) -> str | None:
    if layout.interface != INTERFACE:
        return f"its graphs have interface {layout.interface}, this uare-rt drives interface {INTERFACE}"
    if set(layout.prompts.answers) != set(SLOTS):
        return f"prompts.answers are for {', '.join(layout.prompts.answers)}, not for {', '.join(SLOTS)}"
    special = layout.special
    if max(special.bos, special.eos, special.soi, special.eoi) >= layout.vocabulary:
        return f"a special token is outside the vocabulary of {layout.vocabulary}"
    return None


def _stays_inside(name: str) -> bool:
    parts = name.split("/")
    return not any(part in ("", ".", "..") for part in parts) and not set(name) & set("\\:\0")
