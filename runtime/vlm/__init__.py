"""``uare-7b`` without PyTorch: its texts, sizes, schedule and noise, and the session that drives its graphs.

What the model's definition in PyTorch needs too is defined here once and imported from there.
"""

from __future__ import annotations
