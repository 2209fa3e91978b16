"""Exported bundles: equal to PyTorch at every size, complete or not there at all."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from PIL import Image

import uare_rt
from uare_rt.bundle import Bundle, shipped_bundle
from uare_rt.errors import InputError, OutputError, UareError
from uare_rt.export import bundling
from uare_rt.export.packing import round_to_storage
from uare_rt.model.nano import QualityContext, UareNano
from uare_rt.model.receptive import tiling_rule
from uare_rt.model.weights import load_nano, save_nano, sha256_of
from uare_rt.views import extract_views


@pytest.fixture
def traced_before(
    small_bundle: Path, small_traces: dict[str, onnx.ModelProto], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The small model's graphs as they were traced for its bundle, which takes seconds each."""
    monkeypatch.setattr(bundling, "trace", lambda graph: copy.deepcopy(small_traces[graph.name]))


@pytest.fixture(scope="module")
def model(preset_weights: Path) -> UareNano:
    """What the preset's bundle must equal: the weights as they are stored."""
    loaded, _ = load_nano(preset_weights)
    round_to_storage(loaded.requires_grad_(False))
    return loaded


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def test_the_manifest_says_what_the_model_is(preset_bundle: Path, preset_weights: Path, model: UareNano) -> None:
    manifest = Bundle.open(preset_bundle).manifest
    rule = tiling_rule(model.config)
    assert manifest.source.weights_sha256 == sha256_of(preset_weights)
    assert (manifest.source.recipe, manifest.source.steps) == ("0" * 64, 3)
    assert manifest.source.parameters == sum(p.numel() for p in model.parameters())
    assert (manifest.tiling.multiple, manifest.tiling.grid) == (rule.multiple, rule.grid)
    assert (manifest.tiling.before, manifest.tiling.after) == (rule.before, rule.after)
    assert manifest.graphs.keys() == {"assess", "restore_x1"}
    for spec in manifest.graphs.values():
        assert 0 <= max(spec.parity.random_max_abs, spec.parity.real_max_abs) <= spec.parity.tolerance == 2e-4
    assert manifest.graphs["restore_x1"].flops_per_pixel <= 50_000
    assert manifest.graphs["restore_x1"].inputs[0].shape == ("N", 3, "H", "W")


def test_assess_is_what_pytorch_computes(preset_bundle: Path, model: UareNano, photos: list[Path]) -> None:
    session = ort.InferenceSession(str(preset_bundle / "assess.onnx"), providers=["CPUExecutionProvider"])
    seen = []
    for path in photos[:2]:
        views = extract_views(pixels(path))
        logits, keys, values, vector = session.run(["slot_logits", "ctx_k", "ctx_v", "ctx_vec"], {"views": views})
        with torch.inference_mode():
            expected, context = model.assess(torch.from_numpy(views)[None])
        np.testing.assert_allclose(logits, expected[0], atol=2e-4)
        np.testing.assert_allclose(keys, context.k[:, 0], atol=2e-4)
        np.testing.assert_allclose(values, context.v[:, 0], atol=2e-4)
        np.testing.assert_allclose(vector, context.vec[0], atol=2e-4)
        seen.append(logits)
    assert np.abs(seen[0] - seen[1]).max() > 1e-3


@pytest.mark.parametrize(
    ("batch", "height", "width"),
    [(1, 16, 16), (1, 48, 208), (1, 272, 176), (2, 64, 80), (1, 16, 304), (3, 128, 16)],
)
def test_restore_is_what_pytorch_computes(
    preset_bundle: Path, model: UareNano, batch: int, height: int, width: int
) -> None:
    session = ort.InferenceSession(str(preset_bundle / "restore_x1.onnx"), providers=["CPUExecutionProvider"])
    frame = torch.rand(batch, 3, height, width)
    null = model.null_context()
    parts = {"k": torch.randn_like(null.k), "v": torch.randn_like(null.v), "vec": torch.randn_like(null.vec)}

    def both(parts: dict[str, torch.Tensor]) -> tuple[np.ndarray, np.ndarray]:
        feed = {"frame": frame, "ctx_k": parts["k"][:, 0], "ctx_v": parts["v"][:, 0], "ctx_vec": parts["vec"][0]}
        (got,) = session.run(["restored"], {name: tensor.numpy() for name, tensor in feed.items()})
        with torch.inference_mode():
            return got, model.restore(frame, QualityContext(**parts)).numpy()

    got, expected = both(parts)
    assert got.shape == (batch, 3, height, width)
    np.testing.assert_allclose(got, expected, atol=2e-4)
    for name in parts:
        other, expected = both({**parts, name: torch.zeros_like(parts[name])})
        np.testing.assert_allclose(other, expected, atol=2e-4)
        assert np.abs(other - got).max() > 1e-3, f"{name} does not matter"


def test_graphs_share_one_weight_file(preset_bundle: Path, model: UareNano) -> None:
    places: dict[tuple[str, str], set[str]] = {}
    for name in ("assess", "restore_x1"):
        graph = onnx.load(preset_bundle / f"{name}.onnx", load_external_data=False).graph
        for tensor in graph.initializer:
            if tensor.external_data:
                entry = {e.key: e.value for e in tensor.external_data}
                assert tensor.data_type == onnx.TensorProto.FLOAT16
                assert entry["location"] == "weights.bin"
                places.setdefault((entry["offset"], entry["length"]), set()).add(name)
    stored = sum(int(length) for _, length in places)
    large = sum(p.numel() for p in model.parameters() if p.numel() >= 1024)
    assert 2 * large * 0.8 < stored < 2 * large
    assert (preset_bundle / "weights.bin").stat().st_size < stored + 64 * len(places)


def test_a_bundle_restores_tile_by_tile_what_it_restores_whole(preset_bundle: Path, photos: list[Path]) -> None:
    photo = np.tile(pixels(photos[0]), (2, 2, 1))[:720, :700]
    with uare_rt.load(preset_bundle) as session:
        whole = session.restore(photo, tile=1024)
        tiled = session.restore(photo, tile=384)  # the smallest that the reach allows
        assert (whole.tiles, tiled.tiles >= 4) == (1, True)
        difference = np.abs(whole.image.astype(int) - tiled.image.astype(int))
        assert difference.max() <= 1
        null = session.restore(photo, context=session.null_context())
    assert np.abs(whole.image.astype(int) - photo).mean() > 1  # untrained weights change the picture
    assert np.abs(whole.image.astype(int) - null.image.astype(int)).max() > 1


def test_the_same_weights_give_the_same_bytes(small_bundle: Path, small_weights: Path, tmp_path: Path) -> None:
    again = bundling.export_bundle(small_weights, tmp_path / "again.uare")
    assert {p.name: sha256_of(p) for p in again.iterdir()} == {p.name: sha256_of(p) for p in small_bundle.iterdir()}


def test_an_existing_bundle_needs_overwrite(
    small_bundle: Path, small_weights: Path, tmp_path: Path, traced_before: None
) -> None:
    existing = Path(shutil.copytree(small_bundle, tmp_path / "existing.uare"))
    (existing / "weights.bin").write_bytes(b"older")
    with pytest.raises(OutputError, match=r"already exists.*--overwrite"):
        bundling.export_bundle(small_weights, existing)
    assert (existing / "weights.bin").read_bytes() == b"older"
    bundling.export_bundle(small_weights, existing, overwrite=True)
    assert sha256_of(existing / "weights.bin") == sha256_of(small_bundle / "weights.bin")


@pytest.mark.parametrize("planted", ["a wrong weight", "NaN"])
def test_a_graph_that_differs_from_pytorch_is_not_written(
    small_weights: Path, traced_before: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, planted: str
) -> None:
    pack = bundling.pack_weights

    def spoiled(models: list[onnx.ModelProto]) -> bytes:
        blob = np.frombuffer(pack(models), np.float16).copy()
        blob[:2000] = np.nan if planted == "NaN" else blob[:2000] + np.float16(0.01)
        return blob.tobytes()

    monkeypatch.setattr(bundling, "pack_weights", spoiled)
    with pytest.raises(UareError, match=r"differs from PyTorch by .* nothing was written"):
        bundling.export_bundle(small_weights, tmp_path / "new.uare")
    assert list(tmp_path.iterdir()) == []


def test_one_output_of_nan_is_enough_to_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    """NaN in the second output only: a plain maximum would lose it."""

    class Session:
        def run(self, *_: object) -> list[np.ndarray]:
            return [np.zeros(2, np.float32), np.array([np.nan, 0], np.float32)]

    class Graph:
        inputs, outputs = ("x",), ("a", "b")

        @staticmethod
        def module(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return torch.zeros(2), torch.zeros(2)

    assert np.isnan(bundling._difference(Session(), Graph(), [torch.zeros(1)]))  # type: ignore[arg-type]


def test_weights_that_are_not_finite_are_refused(small_weights: Path, tmp_path: Path) -> None:
    model, facts = load_nano(small_weights)
    with torch.no_grad():
        model.codec.stem.weight[0, 0, 0, 0] = torch.nan
    save_nano(model, tmp_path / "bad.safetensors", facts)
    with pytest.raises(InputError, match=r"codec\.stem\.weight holds NaN"):
        bundling.export_bundle(tmp_path / "bad.safetensors", tmp_path / "new.uare")
    assert not (tmp_path / "new.uare").exists()


def test_images_for_the_comparison_are_checked(small_weights: Path, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    for content, message in ((None, "no images"), (b"text", "cannot be read")):
        folder.mkdir(exist_ok=True)
        if content:
            (folder / "a.png").write_bytes(content)
        with pytest.raises(InputError, match=message):
            bundling.export_bundle(small_weights, tmp_path / "new.uare", real_images=folder)
    Image.new("RGB", (15, 40)).save(folder / "a.png")
    with pytest.raises(InputError, match="15x40 is below 16 px"):
        bundling.export_bundle(small_weights, tmp_path / "new.uare", real_images=folder)


@pytest.mark.slow
def test_the_shipped_bundle_is_what_is_exported_from_its_own_weights(tmp_path: Path) -> None:
    """Byte for byte: what is shipped is what this version exports, and no weight was lost on the way back."""
    made = bundling.export_bundle(shipped_bundle(), tmp_path / "again.uare")
    files = {path.name: path.read_bytes() for path in shipped_bundle().iterdir()}
    again = {path.name: path.read_bytes() for path in made.iterdir()}
    assert again.keys() == files.keys()
    for name, content in files.items():
        assert again[name] == content, name
