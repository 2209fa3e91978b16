"""The library as installed: pkg-config, the CMake package, the export map and the program in examples/c."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from binding import Library
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
HEADER = ROOT / "runtime" / "native" / "include" / "uare_rt.h"


def run(*command: object, env: dict[str, str] | None = None) -> str:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, env={**os.environ, **(env or {})})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def prefix(native_build: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prefix")
    run("cmake", "--install", native_build, "--prefix", folder)
    return folder


def test_the_library_exports_what_the_header_declares_and_nothing_else(native_build: Path) -> None:
    lines = run("nm", "-D", "--defined-only", native_build / "runtime" / "native" / "libuare_rt.so").splitlines()
    exported = {line.split()[-1].split("@")[0] for line in lines if " A " not in line}
    declared = set(re.findall(r"^UARE_API .*?\b(uare_\w+)\(", HEADER.read_text(), re.MULTILINE))
    assert len(declared) == 12
    assert exported == declared


def test_a_c_program_is_built_with_pkg_config_and_restores(
    prefix: Path, native_build: Path, library: Library, tiny: Path, photo: Path, tmp_path: Path
) -> None:
    (pc,) = prefix.rglob("uare_rt.pc")
    # The package was configured for another prefix than this test's.
    flags = run(
        "pkg-config", "--define-variable", f"prefix={prefix}", "--cflags", "--libs", "uare_rt",
        env={"PKG_CONFIG_PATH": str(pc.parent)},
    ).split()  # fmt: skip
    program = tmp_path / "restore"
    source = ROOT / "examples" / "c" / "restore.c"
    run("cc", "-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Werror", source, "-o", program, *flags)
    libraries = {"LD_LIBRARY_PATH": str(pc.parent.parent)}
    with Image.open(photo) as opened:
        image = opened.convert("RGB").resize((90, 70))
    image.save(tmp_path / "in.ppm")
    assert "score" in run(program, tiny, tmp_path / "in.ppm", tmp_path / "out.ppm", env=libraries)
    with library.session(tiny) as native, Image.open(tmp_path / "out.ppm") as out:
        assert np.abs(native.restore(np.asarray(image)).astype(int) - np.asarray(out)).max() <= 1
    refused = subprocess.run(
        [program, tmp_path / "none.uare", tmp_path / "in.ppm", tmp_path / "x.ppm"],
        capture_output=True, text=True, env={**os.environ, **libraries},
    )  # fmt: skip
    assert refused.returncode == 1
    assert "no bundle at" in refused.stderr


def test_a_cmake_project_finds_the_package(prefix: Path, tmp_path: Path) -> None:
    shutil.copy(ROOT / "examples" / "c" / "restore.c", tmp_path)
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.22)\nproject(user LANGUAGES C)\nfind_package(uare_rt REQUIRED)\n"
        "add_executable(restore restore.c)\ntarget_link_libraries(restore PRIVATE uare::uare_rt)\n"
    )
    run("cmake", "-S", tmp_path, "-B", tmp_path / "build", f"-DCMAKE_PREFIX_PATH={prefix}")
    run("cmake", "--build", tmp_path / "build")
    assert (tmp_path / "build" / "restore").is_file()
