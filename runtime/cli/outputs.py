"""Where results go: every output is named and checked before any work starts."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from uare_rt.cli.inputs import Source
from uare_rt.errors import OutputError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["Job", "plan_outputs", "prepared_directories"]


@dataclass(frozen=True)
class Job:
    """One file to make: read `source`, write `target`."""

    source: Source
    target: Path


def plan_outputs(sources: Sequence[Source], out: str, *, overwrite: bool) -> list[Job]:
    """Name the output of every input.

    One named file and an `out` with a suffix give that file. Anything else gives files of the same names in the
    directory `out`.

    Args:
        sources: the inputs, at least one.
        out: what the caller gave as output; a trailing slash makes it a directory.
        overwrite: whether existing outputs may be replaced.

    Returns:
        One job per input, in order.

    Raises:
        UsageError: `out` does not fit the inputs, two outputs would have one name, or an output is an input.
        OutputError: an output exists and `overwrite` is false.
    """
    target = Path(out)
    one_file = len(sources) == 1 and sources[0].named and not out.endswith(os.sep) and not target.is_dir()
    if one_file and target.suffix:
        _check_kind(sources[0], target)
        jobs = [Job(sources[0], target)]
    else:
        if target.suffix.lower() in {*_writable("image"), *_writable("video")} and not target.is_dir():
            raise UsageError(
                f"-o {out}: names one file; for several inputs, a directory or a glob give a directory, "
                f"whose name does not end in {target.suffix}"
            )
        if target.exists() and not target.is_dir():
            raise UsageError(f"-o {out}: is a file; give a directory, or a name with a suffix such as .png")
        jobs = [Job(source, target / source.path.name) for source in sources]
    _check_collisions(jobs)
    _check_inputs_survive(jobs)
    _check_existing(jobs, overwrite=overwrite)
    return jobs


def _check_kind(source: Source, target: Path) -> None:
    suffixes = _writable(source.kind)
    if target.suffix.lower() not in suffixes:
        known = ", ".join(sorted(suffixes))
        raise UsageError(f"-o {target}: cannot write the {source.kind} {source.path} to it; use a suffix of {known}")


def _writable(kind: str) -> frozenset[str]:
    from uare_rt.images import WRITE_FORMATS
    from uare_rt.video.copying import CONTAINERS

    return frozenset(CONTAINERS if kind == "video" else WRITE_FORMATS)


def _check_collisions(jobs: Sequence[Job]) -> None:
    first: dict[Path, Job] = {}
    for job in jobs:
        other = first.setdefault(job.target, job)
        if other is not job:
            raise UsageError(
                f"{other.source.path} and {job.source.path} would both be written to {job.target}; "
                "run them separately, with an output directory each"
            )


def _check_inputs_survive(jobs: Sequence[Job]) -> None:
    inputs = {_identity(job.source.path): job.source.path for job in jobs}
    for job in jobs:
        taken = inputs.get(_identity(job.target)) if job.target.exists() else None
        if taken is not None:
            raise UsageError(
                f"-o {job.target}: is the input {taken}; inputs are never overwritten, choose another name"
            )


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()  # follows symbolic links, and hard links share it
    return status.st_dev, status.st_ino


def _check_existing(jobs: Sequence[Job], *, overwrite: bool) -> None:
    folders = [job.target for job in jobs if job.target.is_dir()]
    if folders:
        raise OutputError(f"{folders[0]}: is a directory, so no file of that name can be written; choose another -o")
    existing = [job.target for job in jobs if os.path.lexists(job.target)]
    if existing and not overwrite:
        more = f" (and {len(existing) - 1} more)" if len(existing) > 1 else ""
        raise OutputError(f"{existing[0]}{more}: exists already; add --overwrite to replace it, or choose another -o")


@contextlib.contextmanager
def prepared_directories(jobs: Sequence[Job]) -> Iterator[None]:
    """Make the directories of the outputs and try to write there; take away again what stayed empty.

    Args:
        jobs: the planned outputs.

    Raises:
        OutputError: a directory cannot be made or written to.
    """
    made: list[Path] = []
    try:
        for directory in sorted({job.target.parent for job in jobs}):
            _prepare(directory, made)
        yield
    finally:
        for directory in reversed(made):
            with contextlib.suppress(OSError):  # not empty: it holds results
                directory.rmdir()


def _prepare(directory: Path, made: list[Path]) -> None:
    import tempfile

    try:
        for folder in (*reversed(directory.parents), directory):
            if not folder.exists():
                folder.mkdir()
                made.append(folder)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as exc:
        raise OutputError(f"{directory}: cannot write into it ({exc.strerror}); choose another -o") from exc
