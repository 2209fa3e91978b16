"""What every test starts from: seeded generators, the small data in git, and skips for hardware that is not there."""

from __future__ import annotations

import ctypes
import importlib.util
import random
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

DATA = Path(__file__).parent / "data"


def _has_gpu() -> bool:
    try:
        return ctypes.CDLL("libcuda.so.1").cuInit(0) == 0
    except OSError:
        return False


HARDWARE = {
    "gpu": (_has_gpu, "no CUDA device"),
    "tensorrt": (lambda: importlib.util.find_spec("tensorrt") is not None, "TensorRT's Python bindings are missing"),
    "jetson": (lambda: Path("/etc/nv_tegra_release").exists(), "not a Jetson board"),
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for marker, (present, reason) in HARDWARE.items():
        marked = [item for item in items if item.get_closest_marker(marker)]
        if marked and not present():
            for item in marked:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    random.seed(0)
    np.random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def _cache_of_their_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What the runtime keeps for later does not outlive the tests, nor come from before them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def rng() -> np.random.Generator:
    """A seeded generator of one's own."""
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of test data in git; tests read it and write elsewhere."""
    return DATA


@pytest.fixture(scope="session")
def photos(data_dir: Path) -> list[Path]:
    """Every real photo among the test data, in the order of their names."""
    found = sorted((data_dir / "photos").glob("*.jpg"))
    assert found, f"no photos in {data_dir / 'photos'}"
    return found


@pytest.fixture(scope="session")
def photo(photos: list[Path]) -> Path:
    """One real photo."""
    return photos[0]
