"""Bundles and pictures for the tests of the runtime."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

import uare_rt
from uare_rt import backends
from uare_rt.bundle import shipped_bundle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

TINY = Path(__file__).parents[1] / "data" / "tiny.uare"
BUNDLES = [TINY, *([shipped_bundle()] if shipped_bundle().exists() else [])]
ENGINES = [name for name in ("onnxruntime", "openvino") if backends.get(name).probe().available]


@pytest.fixture
def tiny() -> Path:
    """The committed tiny bundle, for reading."""
    return TINY


@pytest.fixture
def altered(tmp_path: Path) -> Callable[..., Path]:
    """Makes a copy of the tiny bundle whose manifest a function has changed in place."""

    def alter(change: Callable[[dict[str, Any]], object]) -> Path:
        copy = tmp_path / "altered.uare"
        shutil.copytree(TINY, copy)
        manifest = json.loads((copy / "manifest.json").read_text())
        change(manifest)
        (copy / "manifest.json").write_text(json.dumps(manifest))
        return copy

    return alter


@pytest.fixture(scope="session", params=[path.stem for path in BUNDLES])
def bundle_path(request: pytest.FixtureRequest) -> Path:
    """Every bundle there is: the tiny one, and the shipped one where it was built."""
    return next(path for path in BUNDLES if path.stem == request.param)


@pytest.fixture(scope="session", params=ENGINES)
def session(request: pytest.FixtureRequest, bundle_path: Path) -> Iterator[uare_rt.Session]:
    """Every bundle on every backend that computes."""
    with uare_rt.load(bundle_path, backend=request.param) as loaded:
        yield loaded


@pytest.fixture(scope="session")
def photo() -> NDArray[np.uint8]:
    """A real photo, uint8 [H, W, 3]."""
    path = Path(__file__).parents[1] / "data" / "photos" / "tiger.jpg"
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


@pytest.fixture(scope="session")
def tiny_session() -> Iterator[uare_rt.Session]:
    """The tiny bundle on the default backend."""
    with uare_rt.load(TINY) as loaded:
        yield loaded
