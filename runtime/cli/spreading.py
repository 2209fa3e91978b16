"""`uare-rt restore --workers` and `--ray`: who restores the parts of videos."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from uare_rt.cli.outputs import Job
    from uare_rt.video.engines import Engine
    from uare_rt.video.parts import SessionChoice

__all__ = ["Spreading", "spreads", "workers_for"]


@dataclass(frozen=True)
class Spreading:
    """Workers, and what they load."""

    engine: Engine
    model: SessionChoice


@contextlib.contextmanager
def workers_for(
    jobs: Sequence[Job], ray: str | None, workers: int | None, model: tuple[Path | None, str, int | None]
) -> Iterator[Spreading | None]:
    """Workers for the videos of a run; None where this process does all by itself.

    Args:
        jobs: of the run.
        ray: address of a cluster.
        workers: processes on this machine; None takes one for each GPU where there are several.
        model: bundle, backend and threads, as for the run itself.

    Raises:
        MissingExtraError: Ray is not installed.
        BackendError: the cluster cannot be reached.
    """
    from uare_rt.machine import available_cores
    from uare_rt.video.engines import LocalEngine, RayEngine, gpu_count
    from uare_rt.video.parts import SessionChoice

    bundle, backend, threads = model
    if not any(map(spreads, jobs)):
        yield None
        return
    gpus = gpu_count()
    count = workers or gpus
    if ray is None and count < 2:
        yield None
        return
    engine: Engine
    if ray is not None:
        per_task = threads or 1
        engine = RayEngine(ray, cpus=per_task, gpus=1 if gpus else 0)
    else:
        engine, per_task = LocalEngine(count), threads or max(1, available_cores() // count)
    choice = SessionChoice(None if bundle is None else str(bundle.resolve()), backend, per_task)
    with contextlib.closing(engine):
        yield Spreading(engine, choice)


def spreads(job: Job) -> bool:
    """Whether a job is a video file that becomes a video file."""
    from uare_rt.video.copying import CONTAINERS

    return job.source.is_video and job.source.path.is_file() and job.target.suffix.lower() in CONTAINERS
