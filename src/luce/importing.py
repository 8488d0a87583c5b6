"""Heavy libraries, imported without looking for garbage meanwhile."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["for_command", "quickly"]


@contextmanager
def quickly() -> Iterator[None]:
    """Pause the garbage collector while libraries are imported within.

    They make objects by the hundred thousand, and keep them. Looking through them over and over
    takes up to a fifth of the time that PyTorch and scikit-learn take to load.

    Examples
    --------
    >>> from luce.importing import quickly
    >>> with quickly():
    ...     import numpy
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@contextmanager
def for_command() -> Iterator[None]:
    """Import `quickly`, in a process where nobody hands over a frame of pandas.

    scikit-learn loads pandas to see whether it is there: a third of a second and 60 MB that no
    command has a use for. It can still be loaded afterwards.
    """
    with quickly():
        if not {"pandas", "sklearn"} & sys.modules.keys():
            sys.modules["pandas"] = None  # type: ignore[assignment] # how Python says: not there
            try:
                import sklearn.base  # noqa: F401
            finally:
                del sys.modules["pandas"]
        yield
