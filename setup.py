"""Maps the folders of this repository to one import package, `uare_rt`.

`runtime/` is the package itself; every other room is a subpackage of the same name (`model/` is `uare_rt.model`).
Packages are found on disk, room by room, so that a new subpackage is never left out of a wheel.
Everything else about the distribution is in `pyproject.toml`.
"""

from __future__ import annotations

from pathlib import Path

from setuptools import find_packages, setup

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

setup(
    packages=packages,
    package_dir=package_dir,
    package_data={
        "uare_rt": ["py.typed", "data/**/*"],
        **{name: ["*.yaml"] for name in packages if name != "uare_rt"},
        "uare_rt.training": ["*.csv", "*.yaml", "recipes/*.yaml"],
        "uare_rt.kernels": ["*.yaml", "tuning/*.yaml"],
    },
)
