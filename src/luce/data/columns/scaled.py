"""Numbers → scaled float32, in one pass: a Numba kernel with the bits of `Numeric.encode`."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from luce.data.ngrams import kernel
from luce.data.plain import FARTHEST, FLOAT32_MAX

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["write_scaled"]

_CHUNK = 1024


@kernel
def _write_scaled(values, fill, mean, scale, out):
    scaled = np.empty(_CHUNK, np.float32)
    missing = infinite = 0
    for start in range(0, len(values), _CHUNK):
        count, odd = min(_CHUNK, len(values) - start), 0
        # Without branches, nor steps wider than a number: so that LLVM makes vectors of it.
        for i in range(count):
            x = np.float64(values[start + i])
            fine = abs(x) <= FLOAT32_MAX
            odd += not fine
            x = ((x if fine else fill) - mean) / scale
            x = max(-FARTHEST, x)
            scaled[i] = np.float32(min(FARTHEST, x))
        for i in range(count):
            out[start + i] = scaled[i]
        if odd:
            for i in range(start, start + count):
                missing += values[i] != values[i]
            infinite += odd
    return missing, infinite - missing


def write_scaled(
    values: NDArray[np.floating], fill: float, mean: float, scale: float, out: NDArray[np.float32]
) -> tuple[int, int]:
    """Write ``(values - mean) / scale``; return how many were missing, and how many infinite.

    Parameters
    ----------
    values : ndarray of float32 or float64
        NaN where a value is missing.
    fill : float
        What such a value counts as, and one beyond float32.
    mean, scale : float
    out : ndarray of float32
        As long.
    """
    missing, infinite = _write_scaled(values, fill, mean, scale, out)
    return int(missing), int(infinite)
