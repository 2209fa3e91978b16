"""uare-rt: assess and restore images and video with UARE models, on any machine.

::

    import uare_rt

    with uare_rt.load() as session:
        verdict = session.assess(frame)            # uint8 [H, W, 3] RGB
        result = session.restore(frame, scale=2)

Names are imported on first use, so that ``import uare_rt`` itself costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from uare_rt.late import late_names

if TYPE_CHECKING:
    from uare_rt import errors
    from uare_rt._version import __version__
    from uare_rt.errors import UareError
    from uare_rt.live import stream
    from uare_rt.quality import Assessment, QualityContext
    from uare_rt.session import Restored, Session, load

__all__ = [
    "Assessment",
    "QualityContext",
    "Restored",
    "Session",
    "UareError",
    "__version__",
    "errors",
    "load",
    "stream",
]

_HOME = {
    "Assessment": "quality",
    "QualityContext": "quality",
    "Restored": "session",
    "Session": "session",
    "UareError": "errors",
    "__version__": "_version",
    "errors": "errors",
    "load": "session",
    "stream": "live",
}

__getattr__, __dir__ = late_names(__name__, _HOME)
