"""Measuring speed on this machine: interleaved runs, next to the machine's own limits measured in the same run."""
