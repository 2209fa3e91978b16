"""The one exception tree of uare-rt.

::

    UareError                      exit code 1
    ├── UsageError                 exit code 2   a value the caller chose cannot be used
    ├── InputError                               a file or frame given to us cannot be used
    ├── OutputError                              a result cannot be written
    ├── BundleError                              a bundle is invalid, damaged or too new
    ├── BackendError                             a backend failed while loading or running
    │   └── BackendUnavailableError              this machine cannot run that backend
    └── MissingExtraError                        an optional dependency is not installed

Every message says what was wrong, names the value and tells the way out.
"""

from __future__ import annotations

__all__ = [
    "BackendError",
    "BackendUnavailableError",
    "BundleError",
    "InputError",
    "MissingExtraError",
    "OutputError",
    "UareError",
    "UsageError",
]


class UareError(Exception):
    """Base of every error uare-rt raises on purpose.

    Attributes:
        exit_code: what the command line returns for it.
    """

    exit_code = 1


class UsageError(UareError):
    """A value the caller chose (an option, a scale, a size) cannot be used."""

    exit_code = 2


class InputError(UareError):
    """A file or frame given by the caller is missing, damaged or of the wrong kind."""


class OutputError(UareError):
    """A result cannot be written: permission, no space, or it would overwrite something."""


class BundleError(UareError):
    """A bundle is incomplete, altered, malformed or made for a newer uare-rt."""


class BackendError(UareError):
    """An inference backend failed while loading or running a graph."""


class BackendUnavailableError(BackendError):
    """This machine cannot run the requested backend; the message says why."""


class MissingExtraError(UareError):
    """An optional dependency is missing.

    Args:
        package: the module that could not be imported.
        extra: the extra of uare-rt that installs it.
    """

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f'{package} is not installed; install it with: pip install "uare-rt[{extra}]"')
        self.package = package
        self.extra = extra
