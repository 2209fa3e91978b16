"""What is built and installed: all of the package, nothing beside it, and no torch."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = {"runtime": "uare_rt"} | {
    name: f"uare_rt.{name}" for name in ("model", "degradation", "training", "export", "calibration", "kernels")
}
HEAVY = ("torch", "torchvision", "onnx", "onnxscript", "openvino", "cv2", "tensorrt", "triton", "scipy")
UNTRACKED = (".git", ".venv*", "build", "dist", "runs", "*.egg-info", "__pycache__", ".*_cache", ".hypothesis", "*.so")


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Runs a command with nothing of this test run's own environment on its import path."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
    return subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


def run_ok(*command: str | Path, cwd: Path) -> str:
    result = run(*command, cwd=cwd)
    assert result.returncode == 0, f"{command} returned {result.returncode}\n{result.stdout}\n{result.stderr}"
    return result.stdout


def packages_on_disk() -> dict[str, Path]:
    """Every folder with an `__init__.py` in a room, by the name it is imported by."""
    found = {}
    for room, package in ROOMS.items():
        for init in (ROOT / room).rglob("__init__.py"):
            below = init.parent.relative_to(ROOT / room).parts
            found[".".join((package, *below))] = init.parent
    return found


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the source tree: building leaves files behind."""
    copy = tmp_path_factory.mktemp("source") / "checkout"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*UNTRACKED), symlinks=True)
    return copy


@pytest.fixture(scope="module")
def built(tree: Path) -> Path:
    """A folder with the source archive and the wheel that was built from it."""
    out = tree.parent / "dist"
    run_ok(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, tree, cwd=tree.parent)
    return out


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (found,) = built.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def wheel_names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` folder of an environment that holds the wheel and its base requirements, and nothing else."""
    environment = tmp_path_factory.mktemp("torch-free")
    run_ok(sys.executable, "-m", "venv", environment, cwd=environment)
    python = environment / "bin" / "python"
    run_ok(python, "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", wheel, cwd=environment)
    return environment / "bin"


def test_every_package_on_disk_is_in_the_wheel(wheel_names: set[str]) -> None:
    missing = {name for name in packages_on_disk() if f"{name.replace('.', '/')}/__init__.py" not in wheel_names}
    assert not missing
    assert "uare_rt.cli" in packages_on_disk()


def test_every_module_and_data_file_is_in_the_wheel(wheel_names: set[str]) -> None:
    expected = {
        f"{name.replace('.', '/')}/{file.name}"
        for name, folder in packages_on_disk().items()
        for file in folder.iterdir()
        if file.suffix in (".py", ".yaml")
    }
    for room, folder in (("runtime", "data"), ("training", "recipes"), ("kernels", "tuning")):
        prefix = ROOMS[room].replace(".", "/")
        expected |= {
            f"{prefix}/{file.relative_to(ROOT / room).as_posix()}"
            for file in (ROOT / room / folder).rglob("*")
            if file.is_file() and "__pycache__" not in file.parts
        }
    expected.add("uare_rt/py.typed")
    assert expected <= wheel_names, sorted(expected - wheel_names)


def test_the_wheel_holds_one_top_level_package(wheel_names: set[str]) -> None:
    top = {name.split("/")[0] for name in wheel_names}
    assert {name for name in top if not name.endswith(".dist-info")} == {"uare_rt"}


def test_native_sources_and_tests_stay_out_of_the_wheel(wheel_names: set[str]) -> None:
    assert not [name for name in wheel_names if name.endswith((".cpp", ".hpp", ".h", ".pyc")) or "/tests/" in name]


LIBRARY = "uare_rt/libuare_cpu.so"


@pytest.mark.skipif(not shutil.which("c++"), reason="no C++ compiler")
def test_the_wheel_holds_what_was_compiled_for_its_platform_and_every_python(
    wheel: Path, wheel_names: set[str], installed: Path, tmp_path: Path
) -> None:
    assert LIBRARY in wheel_names
    assert re.search(r"-py3-none-(?!any)\w+\.whl$", wheel.name)
    code = "from uare_rt.compiled import compiled_variant as v; print(v())"
    assert run_ok(installed / "python", "-c", code, cwd=tmp_path).strip() in ("avx512", "avx2", "portable")


@pytest.mark.parametrize("setting", ["UARE_RT_COMPILE=0", "CXX=false"])
def test_without_a_compiler_that_works_the_wheel_goes_without(tree: Path, tmp_path: Path, setting: str) -> None:
    build = (sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", tmp_path, tree)
    run_ok("env", setting, *build, cwd=tree.parent)
    (plain,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(plain) as archive:
        assert LIBRARY not in archive.namelist()
        assert "uare_rt/compiled.py" in archive.namelist()
    assert plain.name.endswith("-py3-none-any.whl")


def test_the_wheel_is_small(wheel: Path) -> None:
    assert wheel.stat().st_size <= 15 * 2**20


def test_a_wheel_from_the_checkout_equals_the_one_from_the_source_archive(tree: Path, wheel: Path) -> None:
    out = tree.parent / "direct"
    run_ok(sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", out, tree, cwd=tree.parent)
    with zipfile.ZipFile(out / wheel.name) as direct, zipfile.ZipFile(wheel) as from_archive:
        checksums = [
            {entry.filename: entry.CRC for entry in archive.infolist() if not entry.filename.endswith("/RECORD")}
            for archive in (direct, from_archive)
        ]
    assert checksums[0] == checksums[1]


def test_the_source_archive_builds_the_native_library_too(built: Path) -> None:
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        names = {name.partition("/")[2] for name in opened.getnames()}
    assert {"CMakeLists.txt", "LICENSE", "runtime/native/CMakeLists.txt", "runtime/native/include/uare_rt.h"} <= names


def test_no_requirement_pulls_a_second_onnxruntime(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        requirements = re.findall(r"^Requires-Dist: ([\w.-]+)", archive.read(metadata).decode(), re.MULTILINE)
    assert {name for name in requirements if name.startswith("onnxruntime")} == {"onnxruntime"}


def test_the_base_install_has_nothing_heavy(installed: Path, tmp_path: Path) -> None:
    code = f"import importlib.util as u; print([name for name in {HEAVY!r} if u.find_spec(name)])"
    assert run_ok(installed / "python", "-c", code, cwd=tmp_path).strip() == "[]"


def test_rooms_are_not_importable_at_top_level(installed: Path, tmp_path: Path) -> None:
    code = f"import importlib.util as u; print([name for name in {tuple(ROOMS)!r} if u.find_spec(name)])"
    assert run_ok(installed / "python", "-c", code, cwd=tmp_path).strip() == "[]"


def test_the_package_imports_without_torch(installed: Path, tmp_path: Path) -> None:
    code = "import uare_rt, uare_rt.slots; print(uare_rt.__version__, len(uare_rt.slots.SLOTS))"
    version, slots = run_ok(installed / "python", "-c", code, cwd=tmp_path).split()
    assert version == run_ok(installed / "uare-rt", "--version", cwd=tmp_path).split()[-1]
    assert slots == "7"


def test_every_runtime_module_imports_without_torch(installed: Path, tmp_path: Path) -> None:
    code = (
        "import importlib, pathlib, sys, uare_rt\n"
        "root = pathlib.Path(uare_rt.__file__).parent\n"
        f"rooms = {tuple(name for name in ROOMS if name != 'runtime')!r}\n"
        "for path in sorted(root.rglob('*.py')):\n"
        "    parts = path.relative_to(root).with_suffix('').parts\n"
        "    if parts[0] in rooms or parts[-1] == '__main__':\n"
        "        continue\n"
        "    importlib.import_module('.'.join(['uare_rt', *parts]).removesuffix('.__init__'))\n"
        f"print(sorted(set({HEAVY!r}) & set(sys.modules)))\n"
    )
    assert run_ok(installed / "python", "-c", code, cwd=tmp_path).strip() == "[]"


def test_help_and_doctor_run_without_torch(installed: Path, tmp_path: Path) -> None:
    assert "restore" in run_ok(installed / "uare-rt", "--help", cwd=tmp_path)
    report = json.loads(run_ok(installed / "uare-rt", "doctor", "--json", cwd=tmp_path))
    assert "onnxruntime" in json.dumps(report)


def test_a_photo_is_assessed_and_restored_without_torch(installed: Path, photo: Path, tmp_path: Path) -> None:
    assert json.loads(run_ok(installed / "uare-rt", "assess", photo, "--json", cwd=tmp_path))
    restored = tmp_path / "restored.png"
    run_ok(installed / "uare-rt", "restore", photo, "-o", restored, cwd=tmp_path)
    assert restored.stat().st_size > 1000


@pytest.mark.parametrize(
    "command",
    [
        ("export", "weights.safetensors", "-o", "out.uare"),
        ("train", "--recipe", "nano", "--data", ".", "-o", "checkpoints"),
    ],
    ids=lambda command: command[0],
)
def test_a_command_that_needs_an_extra_names_it(installed: Path, tmp_path: Path, command: tuple[str, ...]) -> None:
    (tmp_path / "weights.safetensors").touch()
    result = run(installed / "uare-rt", *command, cwd=tmp_path)
    assert result.returncode == 1
    assert f"uare-rt[{command[0]}]" in result.stderr
    assert "Traceback" not in result.stderr


def test_an_editable_install_works_from_the_repository_root(tree: Path, tmp_path: Path) -> None:
    environment = tmp_path / "editable"
    run_ok(sys.executable, "-m", "venv", environment, cwd=tmp_path)
    python = environment / "bin" / "python"
    run_ok(python, "-m", "pip", "install", "-q", "--no-deps", "-e", tree, cwd=tree)
    rooms = [ROOMS[room] for room in ROOMS if (tree / room / "__init__.py").is_file()]
    code = f"import importlib.util as u; print('\\n'.join(u.find_spec(name).origin for name in {rooms!r}))"
    origins = run_ok(python, "-c", code, cwd=tree).splitlines()
    assert [Path(origin) for origin in origins] == [
        tree / room / "__init__.py" for room in ROOMS if (tree / room / "__init__.py").is_file()
    ]
