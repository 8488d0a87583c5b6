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


@kernel
def _write_scaled(values, fill, mean, scale, out):
    missing = infinite = 0
    for i in range(len(values)):
        x = np.float64(values[i])
        if not abs(x) <= FLOAT32_MAX:
            if x != x:  # noqa: PLR0124 - NaN
                missing += 1
            else:
                infinite += 1
            x = fill
        x = (x - mean) / scale
        out[i] = np.float32(min(max(x, -FARTHEST), FARTHEST))
    return missing, infinite


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
