"""Run a command as a fresh process and tell what it took.

usage: processes.py COMMAND [ARGUMENT...]
Prints a line of JSON. Measuring goes through this small process of its own because Linux counts the memory of a
process before `exec` (a copy of its parent) towards its peak.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Run", "console_script", "run_measured"]


@dataclass(frozen=True)
class Run:
    """What a process took.

    Attributes:
        wall: seconds from start to end.
        cpu: seconds of processor time, all its threads and children.
        peak_rss: largest resident memory in bytes.
        exit_code: its exit code; negative where a signal ended it.
        stderr: what it wrote there.
    """

    wall: float
    cpu: float
    peak_rss: int
    exit_code: int
    stderr: str


def run_measured(command: Sequence[str]) -> Run:
    """Run a command to its end; its output is thrown away.

    Args:
        command: program and arguments.
    """
    done = subprocess.run(
        [sys.executable, "-S", __file__, *command], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True
    )
    return Run(**json.loads(done.stdout), stderr=done.stderr)


def console_script(name: str) -> list[str]:
    """The command that starts a console script of this Python environment."""
    script = Path(sysconfig.get_path("scripts"), name)
    return [str(script)] if script.is_file() else [sys.executable, "-m", f"{name.replace('-', '_')}.cli"]


def _measure(command: Sequence[str]) -> dict[str, float | int]:
    began = time.perf_counter()
    process = os.posix_spawnp(
        command[0], command, os.environ, file_actions=[(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    )
    _, status, usage = os.wait4(process, 0)
    return {
        "wall": time.perf_counter() - began,
        "cpu": usage.ru_utime + usage.ru_stime,
        "peak_rss": usage.ru_maxrss * 1024,
        "exit_code": os.waitstatus_to_exitcode(status),
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_measure(sys.argv[1:])) + "\n")
