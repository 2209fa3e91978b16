"""Peak memory of one subject, in a process of its own.

Run as a program it reads a subject as JSON on standard input, runs it twice and prints its peak resident set in bytes.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from uare_rt.errors import UareError

if TYPE_CHECKING:
    from pathlib import Path

    from uare_rt.bench.subjects import Subject

__all__ = ["own_peak", "peak_memory"]


def peak_memory(subject: Subject, bundle: Path) -> int:
    """Largest resident set of a process that loads and runs a subject, its libraries included, in bytes.

    Args:
        subject: what to run.
        bundle: the directory of its bundle.

    Raises:
        UareError: the process failed.
    """
    command = [sys.executable, "-m", __name__, str(bundle)]
    done = subprocess.run(command, input=json.dumps(asdict(subject)), capture_output=True, text=True, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"it ended with code {done.returncode}"]
        raise UareError(f"the memory of {subject.name} cannot be measured: {said[-1]}")
    return int(done.stdout)


def _run(bundle: str) -> int:
    from uare_rt.bench.subjects import Rig, Subject
    from uare_rt.bundle import Bundle

    subject = Subject(**json.loads(sys.stdin.read()))
    rig = Rig({subject.bundle: Bundle.open(bundle)})
    call = rig.call(subject)
    call()
    call()
    rig.close()
    return own_peak()


def own_peak() -> int:
    """Largest resident set of this process since it started its program, in bytes."""
    try:
        with open("/proc/self/status", encoding="ascii") as status:
            line = next(line for line in status if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    except (OSError, StopIteration):
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    sys.stdout.write(f"{_run(sys.argv[1])}\n")
