"""Tests of what CMake builds; `make test-native` names the build folder in UARE_NATIVE_BUILD."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
BUILD = os.environ.get("UARE_NATIVE_BUILD")


def _module(name: str) -> object:
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


# Tests are imported by path, so what they share is made importable here.
_module("binding")


@pytest.fixture(scope="session")
def native_build() -> Path:
    """The folder that CMake built in."""
    if BUILD is None:
        pytest.skip("the C library is tested by make test-native")
    return Path(BUILD).resolve()


@pytest.fixture(scope="session")
def library(native_build: Path) -> object:
    """libuare_rt, as built."""
    from binding import Library

    return Library(native_build / "runtime" / "native" / "libuare_rt.so")


@pytest.fixture(scope="session")
def shipped() -> Path:
    from uare_rt.bundle import shipped_bundle

    return shipped_bundle()


@pytest.fixture(scope="session")
def tiny(data_dir: Path) -> Path:
    return data_dir / "tiny.uare"
