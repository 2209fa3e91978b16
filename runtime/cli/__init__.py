"""The command line: `uare-rt assess`, `compare`, `restore`, `live`, `export`, `train`, `inspect`, `doctor`.

Exit codes: 0 everything worked, 1 something failed, 2 wrong usage, 130 interrupted with Ctrl-C.
Nothing heavy is imported before a command needs it, so that `--help` answers at once.
"""

from __future__ import annotations

import gc
import os
import sys

__all__ = ["main"]

_COLLECT_AFTER = 50_000  # new objects; while modules are loaded the usual 700 find nothing, a hundred times


def main() -> None:
    """Run `uare-rt` with the arguments of this process; never returns."""
    gc.set_threshold(_COLLECT_AFTER)
    try:
        from uare_rt.cli.app import app

        if hasattr(sys.stdout, "reconfigure"):  # file names need not be valid UTF-8
            sys.stdout.reconfigure(errors="surrogateescape")
        app(prog_name="uare-rt")
    except KeyboardInterrupt:  # before or after the command itself; inside it the app answers
        os.write(2, b"error: interrupted\n")
        sys.exit(130)
