"""One version everywhere."""

from __future__ import annotations

import importlib.metadata
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import uare_rt
from uare_rt import _version

ROOT = Path(__file__).resolve().parents[2]


def test_the_package_tells_its_version() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+([ab]|rc|\.dev)?\d*", _version.__version__)
    assert uare_rt.__version__ == _version.__version__
    assert importlib.metadata.version("uare-rt") == _version.__version__


def test_the_version_is_written_once() -> None:
    for name in ("pyproject.toml", "setup.py", "CMakeLists.txt", "runtime/native/session.cpp"):
        assert _version.__version__ not in (ROOT / name).read_text(), name


def test_the_changelog_has_an_entry_for_it() -> None:
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "Unreleased"
    assert _version.__version__ in headings


@pytest.mark.skipif(not (shutil.which("cmake") and shutil.which("c++")), reason="no CMake or no C++ compiler")
def test_cmake_reads_the_same_version(tmp_path: Path) -> None:
    subprocess.run(["cmake", "-S", ROOT, "-B", tmp_path], check=True, capture_output=True)
    cache = (tmp_path / "CMakeCache.txt").read_text()
    assert f"CMAKE_PROJECT_VERSION:STATIC={re.match(r'[0-9.]*[0-9]', _version.__version__)[0]}\n" in cache


@pytest.mark.skipif(not (shutil.which("cmake") and shutil.which("c++")), reason="no CMake or no C++ compiler")
def test_cmake_refuses_what_cannot_be_built(tmp_path: Path) -> None:
    result = subprocess.run(
        ["cmake", "-S", ROOT, "-B", tmp_path, "-DUARE_TENSORRT=ON"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert result.returncode != 0
    assert "Could not find TensorRT_INCLUDE_DIR" in result.stderr
