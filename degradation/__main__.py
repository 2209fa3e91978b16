"""``python -m uare_rt.degradation PHOTO -o SHEET``: draw the contact sheet of all degradations."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from uare_rt.degradation.contact_sheet import write_contact_sheet
from uare_rt.errors import UareError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code (0 ok, 1 failed, 2 usage, 130 interrupted)."""
    parser = argparse.ArgumentParser(
        prog="python -m uare_rt.degradation", description="Show every degradation at five severities."
    )
    parser.add_argument("photo", type=Path, help="photo to degrade; the middle 192x192 pixels are shown")
    parser.add_argument("-o", "--output", type=Path, required=True, help="picture to write, for example sheet.png")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing output")
    chosen = parser.parse_args(arguments)
    try:
        write_contact_sheet(chosen.photo, chosen.output, overwrite=chosen.overwrite)
    except UareError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
