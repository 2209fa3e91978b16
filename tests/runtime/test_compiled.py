"""What is done to every sample of a frame: compiled code against the same in NumPy."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from uare_rt import compiled as code
from uare_rt.errors import BackendError
from uare_rt.frames import place
from uare_rt.video import blending

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

VARIANTS = ("avx512", "avx2", "portable")
KINDS = (np.uint8, np.uint16)
# Shares of samples that may be rounded the other way, where the last bit of a float decides.
_UNDECIDED = {np.dtype(np.uint8): 1e-5, np.dtype(np.uint16): 1e-3}

pytestmark = pytest.mark.skipif(
    code.compiled_variant() is None, reason="no C++ compiler was there when the package was installed"
)


@pytest.fixture(params=VARIANTS)
def variant(request: pytest.FixtureRequest) -> Iterator[str]:
    best = code.compiled_variant()
    assert best is not None
    try:
        code.use_variant(request.param)
    except BackendError:
        pytest.skip(f"this processor has no {request.param}")
    yield request.param
    code.use_variant(best)


@pytest.fixture
def both(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Any]], tuple[Any, Any]]:
    """Calls something with compiled code, which it has to use, and without."""

    def run(call: Callable[[], Any]) -> tuple[Any, Any]:
        library, used = code.library(), []

        class Noting:
            def __getattr__(self, name: str) -> Any:
                used.append(name)
                return getattr(library, name)

        with monkeypatch.context() as patch:
            patch.setattr(code, "library", Noting)
            ours = call()
            assert used  # a function of it, which it was not kept from by something about the arrays
            patch.setattr(code, "library", lambda: None)
            return ours, call()

    return run


def alike(one: NDArray[Any], other: NDArray[Any]) -> None:
    assert one.dtype == other.dtype
    apart = np.abs(one.astype(np.int64) - other.astype(np.int64))
    assert apart.max() <= 1
    assert np.count_nonzero(apart) <= _UNDECIDED[one.dtype] * apart.size + 1


def frame(rng: np.random.Generator, kind: type[Any], height: int, width: int) -> NDArray[Any]:
    return rng.integers(0, np.iinfo(kind).max, (height, width, 3), dtype=kind, endpoint=True)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", [1, 2])
@pytest.mark.parametrize("drifted", [False, True])
def test_blending(
    rng: np.random.Generator, both: Callable[..., Any], variant: str, kind: type[Any], scale: int, drifted: bool
) -> None:
    height, width = 37, 50
    part, large = (slice(2, 35), slice(3, 44)), (slice(2 * scale, 35 * scale), slice(3 * scale, 44 * scale))
    frames = {name: frame(rng, kind, height, width) for name in ("given", "there")}
    frames |= {name: frame(rng, kind, height * scale, width * scale) for name in ("made", "shown", "out")}
    size = (33, 41)
    drift = rng.normal(0, 3, (height, width, 3)).astype(np.float32)[part] if drifted else None
    still, weights = rng.random(size) < 0.7, rng.random(size, dtype=np.float32)

    def call() -> tuple[Any, ...]:
        now = {name: values.copy() for name, values in frames.items()}
        parts = {name: values[part if name in ("given", "there") else large] for name, values in now.items()}
        if drifted:  # what it is blended to stays a sample
            parts["there"][:] = np.clip(parts["there"], 100, np.iinfo(kind).max - 100)
        sums = blending.blend(**parts, drift=drift, still=still, weights=weights)
        return *sums, now["there"], now["out"], now["given"]

    (moved, answered, *ours), (moved_too, answered_too, *theirs) = both(call)
    assert moved == pytest.approx(moved_too, rel=1e-4)
    assert answered == pytest.approx(answered_too, rel=1e-3, abs=1e-3 * moved)
    for one, other in zip(ours, theirs, strict=True):
        alike(one, other)


@pytest.mark.parametrize("kind", KINDS)
def test_drift_and_what_is_added(
    rng: np.random.Generator, both: Callable[..., Any], variant: str, kind: type[Any]
) -> None:
    now, before, base = (frame(rng, kind, 31, 45) for _ in range(3))
    start = rng.normal(0, 100, now.shape).astype(np.float32)

    def call() -> tuple[Any, ...]:
        drift = start.copy()
        blending.advance_drift(now, before, 0.35, drift)
        return drift, blending.greatest(drift), blending.add_changes(base, drift, 0.8)

    (drift, most, added), (drift_too, most_too, added_too) = both(call)
    np.testing.assert_allclose(drift, drift_too, rtol=1e-5, atol=1e-2)
    assert most == pytest.approx(most_too, rel=1e-6)
    alike(added, added_too)


@pytest.mark.parametrize("kind", KINDS)
def test_planes_become_samples(
    rng: np.random.Generator, both: Callable[..., Any], variant: str, kind: type[Any]
) -> None:
    planes = rng.normal(0.5, 0.5, (3, 40, 61)).astype(np.float32)
    most = np.iinfo(kind).max
    planes[0, 3, 5:9] = -np.inf, np.inf, 0.5, np.float32(1) / 3  # a half goes to the even one: most is odd

    def call() -> NDArray[Any]:
        out = np.zeros((50, 70, 3), kind)
        place(planes.copy().transpose(1, 2, 0)[3:, 5:60], out[4:41, 7:62])
        return out

    ours, theirs = both(call)
    np.testing.assert_array_equal(ours, theirs)
    assert ours[4, 7:11, 0].tolist() == [0, most, most // 2 + 1, most // 3]


@pytest.mark.parametrize("kind", KINDS)
def test_a_table_is_looked_up_as_it_is(rng: np.random.Generator, variant: str, kind: type[Any]) -> None:
    samples = frame(rng, kind, 30, 41)[2:, 4:]
    table = rng.random((3, np.iinfo(kind).max + 1), dtype=np.float32)
    planes = np.empty((1, 3, *samples.shape[:2]), np.float32)
    assert code.look_up(samples, table, planes)
    for channel in range(3):
        np.testing.assert_array_equal(planes[0, channel], table[channel][samples[..., channel]])


def test_what_they_are_not_made_for_is_left_to_numpy(rng: np.random.Generator) -> None:
    samples = frame(rng, np.uint8, 16, 16)
    planes = rng.random((16, 16, 3), dtype=np.float32)  # not in memory of planes
    assert not code.place(planes, samples)
    assert not code.place(planes.transpose(2, 0, 1).copy().transpose(1, 2, 0), np.empty((16, 16, 3), np.float32))
    odd = np.ndarray((16, 16, 3), np.uint16, bytearray(16 * 97), strides=(97, 6, 2))  # lines of no whole samples
    assert not code.look_up(odd, rng.random((3, 65536), dtype=np.float32), planes)
    assert not code.look_up(samples[:, ::2], rng.random((3, 256), dtype=np.float32), planes)
    assert not code.add_changes(samples[:, 1:], planes[:, 1:], 1.0, samples[:, 1:].copy())
    assert not code.advance_drift(samples.transpose(1, 0, 2), samples, 0.5, planes)


def test_what_cannot_be_used_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "broken.so"
    broken.write_bytes(b"no library")
    for path, words in ((tmp_path / "none.so", "no C\\+\\+ compiler"), (broken, "install the package again")):
        monkeypatch.setattr(code, "LIBRARY", path)
        found, problem = code._loaded.__wrapped__()
        assert found is None
        assert problem is not None
        assert re.search(words, problem)
