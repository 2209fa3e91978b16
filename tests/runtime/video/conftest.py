"""Makes the clip generator beside these tests importable, which importlib mode does not do by itself."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
