"""Checkpoints given where a bundle is expected: exported once, into the user's cache.

The export needs PyTorch and much memory, so it runs in a process of its own, which is gone before the model runs.
"""

from __future__ import annotations

import hashlib
import logging
import os
import subprocess
import sys
from pathlib import Path

from uare_rt._version import __version__
from uare_rt.bundle import is_bundle
from uare_rt.errors import InputError
from uare_rt.manifest import MANIFEST_NAME, SCHEMA_VERSION
from uare_rt.vlm.layout import INTERFACE, UnifiedLayout

__all__ = ["CHECKPOINT_FILES", "exported", "is_checkpoint"]

CHECKPOINT_FILES = (
    "ema.safetensors",
    "ae.safetensors",
    "ema.safetensors.index.json",
    "model.safetensors.index.json",
    "llm_config.json",
)
"""A directory with one of these and no manifest is a checkpoint."""

_LOG = logging.getLogger("uare_rt")


def is_checkpoint(path: str | Path) -> bool:
    """Whether a path is a checkpoint directory, complete or not, rather than a bundle."""
    root = Path(path)
    return not is_bundle(root) and any((root / name).exists() for name in CHECKPOINT_FILES)


def exported(checkpoint: str | Path) -> Path:
    """The bundle of a checkpoint in the user's cache, made now if it is not there.

    A checkpoint whose files changed is exported again.

    Args:
        checkpoint: the directory.

    Returns:
        The bundle's directory.

    Raises:
        InputError: the checkpoint cannot be exported; the message says why.
    """
    root = Path(checkpoint).resolve()
    bundle = _cache() / f"{root.name}-{_key(root)}.uare"
    if (bundle / MANIFEST_NAME).is_file():
        return bundle
    _LOG.warning("%s is a checkpoint: exporting it once to %s", checkpoint, bundle)
    bundle.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "uare_rt.cli", "export", str(root), "-o", str(bundle)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0 or (bundle / MANIFEST_NAME).is_file():  # another process may have been faster
        return bundle
    said = [line for line in done.stderr.splitlines() if line.strip()]
    reason = said[-1].removeprefix("error: ") if said else f"it ended with code {done.returncode}"
    raise InputError(f"{checkpoint}: cannot be exported: {reason}")


def _cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or (os.environ.get("LOCALAPPDATA") if sys.platform == "win32" else None)
    return (Path(home) if home else Path.home() / ".cache") / "uare-rt" / "bundles"


def _key(root: Path) -> str:
    """Changes with the path, the files' sizes and times, and with what exports them."""
    facts = [f"{root} {__version__} {SCHEMA_VERSION} {INTERFACE} {' '.join(UnifiedLayout.__struct_fields__)}"]
    for path in sorted(root.iterdir()):
        if path.is_file():
            stat = path.stat()
            facts.append(f"{path.name} {stat.st_size} {stat.st_mtime_ns}")
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]
