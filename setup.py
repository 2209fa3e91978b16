"""Maps the folders of this repository to one import package, `uare_rt`.

`runtime/` is the package itself; every other room is a subpackage of the same name (`model/` is `uare_rt.model`).
Packages are found on disk, room by room, so that a new subpackage is never left out of a wheel.
Where there is a C++ compiler, what `runtime/native/cpu` has for processors is compiled too: a library without
Python's own interface, so that a wheel fits every Python of its platform. Without one, or with `UARE_RT_COMPILE=0`,
the package is plain Python and runs the graphs as they are, only slower.
Everything else about the distribution is in `pyproject.toml`.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError

ROOT = Path(__file__).resolve().parent
ROOMS = ("model", "degradation", "training", "export", "calibration", "kernels")


def room_packages(folder: str, package: str) -> list[str]:
    """Names of `package` and of every package below it; empty where the room is not built yet."""
    if not (ROOT / folder / "__init__.py").is_file():
        return []
    return [package, *(f"{package}.{name}" for name in find_packages(str(ROOT / folder)))]


package_dir = {"uare_rt": "runtime"}
packages = room_packages("runtime", "uare_rt")
for room in ROOMS:
    found = room_packages(room, f"uare_rt.{room}")
    if found:
        package_dir[f"uare_rt.{room}"] = room
        packages += found

LIBRARY = "uare_rt.libuare_cpu"
FILE = f"libuare_cpu.{'dylib' if sys.platform == 'darwin' else 'so'}"
FLAGS = ("-std=c++17", "-O3", "-ffp-contract=fast", "-fPIC", "-fvisibility=hidden", "-pthread")


def compiler() -> list[str] | None:
    """The command of the C++ compiler: `CXX`, or the first that is there; None without one, or if none is wanted."""
    if os.environ.get("UARE_RT_COMPILE") == "0" or sys.platform not in ("linux", "darwin"):
        return None
    asked = shlex.split(os.environ.get("CXX", ""))
    found = next(([name] for name in ("c++", "g++", "clang++") if shutil.which(name)), None)
    # ARCHFLAGS is how a Python for two processors asks for both on macOS.
    return None if not (asked or found) else [*(asked or found), *shlex.split(os.environ.get("ARCHFLAGS", ""))]


class Compile(build_ext):
    """Compiles the library; where that fails, the package is installed without it, and without an older one."""

    def get_ext_filename(self, fullname: str) -> str:
        """Of a library that no Python module is made of."""
        return str(Path(*fullname.split(".")[:-1], FILE))

    def build_extension(self, ext: Extension) -> None:
        """Each source by itself, side by side, then the library."""
        command, target = compiler(), Path(self.get_ext_fullpath(ext.name))
        objects = [Path(self.build_temp, Path(source).name + ".o") for source in ext.sources]
        for folder in (target.parent, Path(self.build_temp)):
            folder.mkdir(parents=True, exist_ok=True)
        for old in (target, ROOT / "runtime" / FILE) if self.editable_mode else (target,):
            old.unlink(missing_ok=True)

        def run(*arguments: str | Path) -> None:
            try:
                subprocess.run([*command, *FLAGS, *arguments], capture_output=True, text=True, check=True)
            except OSError as error:
                raise CompileError(f"{command[0]} cannot be run ({error}); the package goes without {FILE}") from error
            except subprocess.CalledProcessError as error:
                raise CompileError(
                    f"{command[0]} failed; the package goes without {FILE}:\n{error.stderr[-4000:]}"
                ) from error

        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda source, made: run("-c", source, "-o", made), ext.sources, objects))
        run("-shared", *objects, "-o", target)

    def copy_extensions_to_source(self) -> None:
        """For an editable install: beside the sources, in one go, since a process may be loading what is there."""
        made = Path(self.build_lib, self.get_ext_filename(LIBRARY))
        if made.is_file():
            whole = ROOT / "runtime" / f"{FILE}.{os.getpid()}"
            shutil.copy2(made, whole)
            whole.replace(ROOT / "runtime" / FILE)


class PlatformWheel(bdist_wheel):
    """A wheel with the library fits a platform, and every Python on it; one without fits all."""

    def get_tag(self) -> tuple[str, str, str]:
        """Python, ABI, platform."""
        platform = super().get_tag()[2]
        inside = self.bdist_dir is not None and Path(self.bdist_dir, "uare_rt", FILE).is_file()
        return ("py3", "none", platform) if inside else ("py3", "none", "any")


if os.environ.get("UARE_RT_COMPILE") == "0":
    (ROOT / "runtime" / FILE).unlink(missing_ok=True)  # of an editable install before
native = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "runtime/native/cpu").glob("*.cpp"))

setup(
    cmdclass={"build_ext": Compile, "bdist_wheel": PlatformWheel},
    ext_modules=[Extension(LIBRARY, native, optional=True)] if compiler() else [],
    packages=packages,
    package_dir=package_dir,
    package_data={
        "uare_rt": ["py.typed", "data/**/*"],
        **{name: ["*.yaml"] for name in packages if name != "uare_rt"},
        "uare_rt.training": ["*.csv", "*.yaml", "recipes/*.yaml"],
        "uare_rt.kernels": ["*.yaml", "tuning/*.yaml"],
    },
)
