"""Sessions on real photos: sizes, sample types, tiles, strength, context, threads and closing."""

from __future__ import annotations

import concurrent.futures
import hashlib
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

import uare_rt
from uare_rt.bundle import Bundle
from uare_rt.errors import BackendError, BundleError, InputError, UsageError
from uare_rt.quality import QualityContext
from uare_rt.slots import DEGRADATIONS, SLOTS
from uare_rt.tiling import smallest_tile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from uare_rt import Session
    from uare_rt.backends.base import Executable
    from uare_rt.bundle import GraphFile


@pytest.fixture
def null(tiny: Path) -> Iterator[Session]:
    with uare_rt.load(tiny, backend="null") as loaded:
        yield loaded


def test_assessment_is_complete(session: Session, photo: NDArray[np.uint8]) -> None:
    verdict = session.assess(photo)
    assert 1 <= verdict.score <= 5
    assert tuple(verdict.severities) == DEGRADATIONS
    assert all(0 <= value <= 1 for value in verdict.severities.values())
    assert tuple(verdict.probabilities) == SLOTS
    assert all(abs(sum(row) - 1) < 1e-6 for row in verdict.probabilities.values())
    assert verdict.description.startswith(verdict.level.capitalize())
    assert "context" not in verdict.to_dict()
    assert verdict.context.shapes() == session.manifest.context.shapes()


def test_a_frame_is_judged_the_same_in_every_sample_type(session: Session, photo: NDArray[np.uint8]) -> None:
    verdict = session.assess(photo)
    for same in (photo.astype(np.uint16) * 257, photo.astype(np.float32) / np.float32(255)):
        assert session.assess(same).to_dict() == verdict.to_dict()


def test_a_view_of_an_array_is_as_good_as_a_copy(session: Session, photo: NDArray[np.uint8]) -> None:
    view = photo[:200:2, 150::-1, ::-1]
    assert session.assess(view).to_dict() == session.assess(view.copy()).to_dict()
    first, second = session.restore(view), session.restore(view.copy())
    np.testing.assert_array_equal(first.image, second.image)


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (3, 700), (17, 16), (64, 65), (100, 131)])
def test_any_size_comes_back_at_its_size(session: Session, photo: NDArray[np.uint8], size: tuple[int, int]) -> None:
    image = np.asarray(Image.fromarray(photo).resize(size[::-1]))
    for scale in session.scales:
        result = session.restore(image, scale=scale)
        assert result.image.shape == (size[0] * scale, size[1] * scale, 3)
        assert result.image.dtype == np.uint8
        assert result.assessment is not None
        assert result.tiles == 1


def test_tiles_change_nothing(session: Session, photo: NDArray[np.uint8]) -> None:
    least = smallest_tile(session.manifest.tiling)
    image = np.asarray(Image.fromarray(photo).resize((least * 2 + 37, least + 105)))
    context = session.assess(image).context
    for scale in session.scales[:2]:
        whole = session.restore(image, context=context, scale=scale, tile=4096)
        tiled = session.restore(image, context=context, scale=scale, tile=least)
        assert whole.tiles == 1
        assert tiled.tiles >= 6
        gap = np.abs(whole.image.astype(np.int16) - tiled.image)
        assert gap.max() <= 1  # everywhere, even closer to the edge than the promised 32 px
        assert (gap > 0).mean() < 1e-3


def test_tiles_off_the_grid_would_show(tiny: Path, photo: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch) -> None:
    """The tiny model notices wrong tiles, so the test above can fail."""
    import msgspec

    bundle = Bundle.open(tiny)
    wrong = msgspec.structs.replace(bundle.manifest.tiling, grid=16, before=0, after=0)
    careless = Bundle(bundle.path, msgspec.structs.replace(bundle.manifest, tiling=wrong))
    monkeypatch.setattr(Bundle, "open", lambda path: careless)
    with uare_rt.load(tiny) as session:
        whole, tiled = session.restore(photo, tile=4096), session.restore(photo, tile=112)
    assert np.abs(whole.image.astype(np.int16) - tiled.image).max() > 8


def test_sixteen_bits_are_really_sixteen(session: Session, photo: NDArray[np.uint8]) -> None:
    image = np.asarray(Image.fromarray(photo).resize((160, 128)))
    context = session.assess(image).context
    exact = session.restore(image.astype(np.float32) / np.float32(255), context=context).image
    fine = session.restore(image.astype(np.uint16) * 257, context=context).image
    coarse = session.restore(image, context=context).image
    assert (exact.dtype, fine.dtype, coarse.dtype) == (np.float32, np.uint16, np.uint8)
    np.testing.assert_allclose(fine, exact * 65535, atol=1)
    np.testing.assert_allclose(coarse, exact * 255, atol=0.51)
    assert len(np.unique(fine % 257)) > 100


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_strength_zero_is_the_identity(tiny_session: Session, dtype: type) -> None:
    rng = np.random.default_rng(3)
    unit = rng.random((70, 50, 3), dtype=np.float32)
    image = unit if dtype is np.float32 else (unit * np.iinfo(dtype).max).astype(dtype)
    result = tiny_session.restore(image, strength=0)
    np.testing.assert_array_equal(result.image, image)
    assert not np.shares_memory(result.image, image)


def test_strength_lies_between_input_and_restoration(tiny_session: Session, photo: NDArray[np.uint8]) -> None:
    image = photo[:128, :128].astype(np.float32) / np.float32(255)
    context = tiny_session.assess(image).context
    full, half = (tiny_session.restore(image, strength=s, context=context).image for s in (1.0, 0.5))
    inside = (full > 0) & (full < 1)  # where nothing was clipped
    np.testing.assert_allclose(half[inside], ((image + full) / 2)[inside], atol=1e-6)
    assert np.abs(full - image).max() > 0.01


@pytest.mark.parametrize("scale", [2, 4])
def test_strength_zero_enlarges_bicubically_tiled_or_not(
    tiny_session: Session, photo: NDArray[np.uint8], scale: int
) -> None:
    image = photo[:260, :300]
    planes = [Image.fromarray(image[..., c].astype(np.float32)) for c in range(3)]
    enlarged = [np.asarray(p.resize((300 * scale, 260 * scale), Image.Resampling.BICUBIC)) for p in planes]
    expected = np.clip(np.stack(enlarged, axis=-1), 0, 255)
    for tile in (4096, smallest_tile(tiny_session.manifest.tiling)):
        result = tiny_session.restore(image, scale=scale, strength=0, tile=tile).image
        np.testing.assert_allclose(result, expected, atol=0.501)


def test_the_context_guides(session: Session, photo: NDArray[np.uint8]) -> None:
    image = photo[:128, :128]
    own, null = session.assess(image).context, session.null_context()
    guided, unguided = (session.restore(image, context=c) for c in (own, null))
    assert guided.assessment is None
    assert (guided.image != unguided.image).any()
    np.testing.assert_array_equal(session.restore(image).image, guided.image)


def test_contexts_blend(session: Session, photo: NDArray[np.uint8]) -> None:
    one, two = session.assess(photo).context, session.null_context()
    np.testing.assert_array_equal(one.blend(two, 0).k, one.k)
    np.testing.assert_allclose(one.blend(two, 1).vec, two.vec, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(one.blend(two, 0.25).v, 0.75 * one.v + 0.25 * two.v, rtol=1e-4, atol=1e-5)
    assert one.blend(two, 0.5).k.dtype == np.float32
    with pytest.raises(UsageError, match=r"weight is 1\.5"):
        one.blend(two, 1.5)


def test_progress_counts_tiles(tiny_session: Session, photo: NDArray[np.uint8]) -> None:
    seen: list[tuple[int, int]] = []
    result = tiny_session.restore(photo, tile=256, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(n, result.tiles) for n in range(1, result.tiles + 1)]


def test_an_interrupted_restoration_leaves_the_session_usable(tiny_session: Session, photo: NDArray[np.uint8]) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tiny_session.restore(photo, tile=256, progress=interrupt)
    assert tiny_session.restore(photo[:50, :50]).tiles == 1


def test_many_threads_share_a_session(session: Session, photo: NDArray[np.uint8]) -> None:
    images = [photo[n * 9 :, n * 5 :][:96, : 80 + 16 * (n % 3)] for n in range(9)]
    expected = [session.restore(image).image for image in images]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        results = [result.image for result in pool.map(session.restore, images)]
    for result, wanted in zip(results, expected, strict=True):
        np.testing.assert_array_equal(result, wanted)


@pytest.mark.parametrize(
    ("image", "named"),
    [
        (np.zeros((4, 4), np.uint8), r"shape \[4, 4\]"),
        (np.zeros((4, 4, 4), np.uint8), r"shape \[4, 4, 4\]"),
        (np.zeros((0, 4, 3), np.uint8), r"at least 1x1"),
        (np.zeros((4, 4, 3), np.float64), "float64"),
        (np.zeros((4, 4, 3), np.int32), "int32"),
        (np.full((4, 4, 3), 255, np.float32), "from 255 to 255"),
        (np.full((4, 4, 3), np.nan, np.float32), "nan"),
        ([[1, 2, 3]], "list"),
    ],
)
def test_what_is_no_frame_is_refused(tiny_session: Session, image: Any, named: str) -> None:
    for call in (tiny_session.assess, tiny_session.restore):
        with pytest.raises(InputError, match=named):
            call(image)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"scale": 3}, "scale is 3, but tiny offers 1, 2, 4"),
        ({"strength": 1.1}, "strength is 1.1"),
        ({"strength": float("nan")}, "strength is nan"),
        ({"tile": 8}, "tile is 8 px"),
        ({"context": QualityContext(*(np.zeros(1, np.float32),) * 3)}, "context has shapes"),
        ({"context": "null"}, "context is a str, but must be a QualityContext"),
    ],
)
def test_options_are_checked(tiny_session: Session, options: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        tiny_session.restore(np.zeros((20, 20, 3), np.uint8), **options)


def test_a_closed_session_says_so(tiny: Path) -> None:
    with uare_rt.load(tiny) as session:
        session.assess(np.zeros((20, 20, 3), np.uint8))
    session.close()
    with pytest.raises(UsageError, match="session is closed"):
        session.assess(np.zeros((20, 20, 3), np.uint8))


def test_the_null_backend_gives_frames_back(null: Session, photo: NDArray[np.uint8]) -> None:
    np.testing.assert_array_equal(null.restore(photo, tile=256).image, photo)
    assert null.assess(photo).score == pytest.approx(3)


class Broken:
    """A backend whose graphs give NaN, as graphs with damaged weights do."""

    name = "broken"
    worth_sizing = None
    runs_parts = False
    precisions = ()

    def load(self, graph: GraphFile, *, threads: int | None, beside: int = 1) -> Executable:
        from uare_rt.backends.null import NullBackend

        inner = NullBackend().load(graph, threads=threads, beside=beside)

        class Poisoned:
            def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
                return {name: value * np.float32("nan") for name, value in inner.run(inputs).items()}

            def close(self) -> None:
                inner.close()

        return Poisoned()


def test_nan_from_a_graph_is_an_error_that_names_it(tiny: Path) -> None:
    session = uare_rt.Session(Bundle.open(tiny), Broken())  # type: ignore[arg-type]
    image = np.zeros((20, 20, 3), np.uint8)
    with pytest.raises(BackendError, match=r"'assess'.*NaN or infinity.*uare-rt inspect"):
        session.restore(image)
    with pytest.raises(BackendError, match=r"'restore_x1'.*'restored'"):
        session.restore(image, context=session.null_context())


def test_nan_in_the_weights_is_noticed(altered: Callable[..., Path]) -> None:
    path = altered(lambda manifest: None)
    count = (path / "weights.bin").stat().st_size // 4
    (path / "weights.bin").write_bytes(np.full(count, np.nan, np.float32).tobytes())
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["files"]["weights.bin"]["sha256"] = hashlib.sha256((path / "weights.bin").read_bytes()).hexdigest()
    (path / "manifest.json").write_text(json.dumps(manifest))
    with uare_rt.load(path) as session, pytest.raises(BackendError, match="gave NaN or infinity in"):
        session.restore(np.zeros((20, 20, 3), np.uint8))


class Drifting:
    """A backend whose every run is brighter than the last: an extreme of tiles that do not agree."""

    name = "drifting"
    worth_sizing = None
    runs_parts = False
    precisions = ()

    def load(self, graph: GraphFile, *, threads: int | None, beside: int = 1) -> Executable:
        class Brighter:
            runs = 0

            def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
                self.runs += 1
                return {"restored": np.full_like(inputs["frame"], 0.02 * self.runs)}

            def close(self) -> None:
                pass

        return Brighter()


@pytest.mark.parametrize("shape", [(60, 700, 3), (700, 60, 3)])
def test_tiles_that_differ_meet_smoothly(tiny: Path, shape: tuple[int, int, int]) -> None:
    session = uare_rt.Session(Bundle.open(tiny), Drifting())  # type: ignore[arg-type]
    result = session.restore(np.zeros(shape, np.float32), context=session.null_context(), tile=192)
    along = result.image[..., 0].max(axis=0 if shape[0] < shape[1] else 1)
    assert result.tiles >= 4
    assert along[-1] == pytest.approx(0.02 * result.tiles)
    steps = np.diff(along)
    assert 0 <= steps.min() <= steps.max() < 0.02 / 4


def test_load_checks_its_arguments(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no bundle at"):
        uare_rt.load(tmp_path / "absent.uare")
    with pytest.raises(UsageError, match="'gpu' does not exist"):
        uare_rt.load(tiny, backend="gpu")
    with pytest.raises(UsageError, match="threads is 0"):
        uare_rt.load(tiny, threads=0)


def test_importing_costs_nothing() -> None:
    code = (
        "import sys, uare_rt; heavy = {'numpy', 'PIL', 'onnxruntime', 'openvino', 'av', 'msgspec', 'torch'};"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules);"
        "assert set(uare_rt.__all__) <= set(dir(uare_rt));"
        "uare_rt.load; assert not {'onnxruntime', 'openvino', 'av', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
