"""`python -m uare_rt.cli` is `uare-rt`."""

from __future__ import annotations

from uare_rt.cli import main

main()
