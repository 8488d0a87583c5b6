"""Heavy libraries, imported without looking for garbage meanwhile."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["quickly"]


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
