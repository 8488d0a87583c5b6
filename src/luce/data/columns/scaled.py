"""Typed numbers → scaled float32, many columns at a time and straight to their places: Numba.

The bits are those of `Numeric.encode`, which goes over each column ten times. Here some rows of all
columns are read, scaled and written while they are in the processor's cache.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg, attr-defined"

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numba
import numpy as np
import polars as pl
from numba import extending, types

from luce.data.ngrams import kernel
from luce.data.plain import FARTHEST, FLOAT32_MAX

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from luce.data.columns.base import Scaling

__all__ = ["ScaledColumns"]

_ROWS: Final = 256
"""Rows that are written of one column after the other: where they go, a line of each row stays in
the first-level cache, and what is read of a column is long enough to be fetched ahead."""


@extending.intrinsic
def _pointer(_, address):
    """Return an address as a pointer: a list of arrays of any number is not what kernels take."""

    def make(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return types.voidptr(address), make


@kernel
def _write_scaled(addresses, like, first, ways, marked, places, where, out, counts):
    scaled = np.empty(_ROWS, np.float32)
    for start in range(0, len(where), _ROWS):
        count = min(_ROWS, len(where) - start)
        at = where[start : start + count]
        begin, end = first + start, first + start + count
        for c in range(len(addresses)):
            # A part of its own: an index that is a sum keeps LLVM from making vectors.
            values = numba.carray(_pointer(addresses[c]), end, like.dtype)[begin:end]
            fill, mean, scale = ways[0, c], ways[1, c], ways[2, c]
            odd = 0
            for i in range(count):
                x = np.float64(values[i])
                fine = abs(x) <= FLOAT32_MAX
                odd += not fine
                x = ((x if fine else fill) - mean) / scale
                x = max(-FARTHEST, x)
                scaled[i] = np.float32(min(FARTHEST, x))
            place = np.uint64(places[c])  # unsigned: no index is counted from the end
            for i in range(count):
                out[np.uint64(at[i]), place] = scaled[i]
            if marked[c]:
                for i in range(count):
                    out[at[i], places[c] + 1] = not abs(np.float64(values[i])) <= FLOAT32_MAX
            if odd:
                missing = 0
                for i in range(count):
                    missing += values[i] != values[i]
                counts[0, c] += missing
                counts[1, c] += odd - missing


class ScaledColumns:
    """Columns of typed numbers that are written to the same places of a matrix.

    Parameters
    ----------
    columns : sequence of Series
        Of numbers, all of one length: null or NaN where a value is missing.
    ways : sequence of Scaling
        One for each.
    places : sequence of int
        The encoded column of each; an indicator is the one after it.
    """

    def __init__(
        self, columns: Sequence[pl.Series], ways: Sequence[Scaling], places: Sequence[int]
    ) -> None:
        self._numbers = [_numbers(values) for values in columns]  # which keeps them where they are
        self._groups = []
        for dtype in (np.float32, np.float64):
            own = [i for i, values in enumerate(self._numbers) if values.dtype == dtype]
            addresses = [self._numbers[i].__array_interface__["data"][0] for i in own]
            group = (
                np.array(addresses, np.int64),
                np.empty(0, dtype),
                np.array([ways[i][:3] for i in own], np.float64).reshape(-1, 3).T.copy(),
                np.array([ways[i].indicator for i in own], np.bool_),
                np.array([places[i] for i in own], np.int64),
            )
            if own:
                self._groups.append((own, group))

    def write(
        self, first: int, where: NDArray[np.int64], out: NDArray[np.float32]
    ) -> NDArray[np.int64]:
        """Write ``(value - mean) / scale`` of some rows; return how many were handled.

        Parameters
        ----------
        first : int
            The first of the rows.
        where : ndarray of int64, shape (rows,)
            The row of `out` that each becomes.
        out : ndarray of float32, shape (any, encoded columns)
            C-contiguous.

        Returns
        -------
        ndarray of int64, shape (2, columns)
            How many values of each column were missing, and how many beyond float32.
        """
        counts = np.zeros((2, len(self._numbers)), np.int64)
        for own, (addresses, like, ways, marked, places) in self._groups:
            found = np.zeros((2, len(own)), np.int64)
            _write_scaled(addresses, like, first, ways, marked, places, where, out, found)
            counts[:, own] = found
        return counts


def _numbers(values: pl.Series) -> NDArray[np.floating]:
    """Return typed numbers as an array of float32 or float64 without gaps."""
    if values.dtype != pl.Float32:
        values = values.cast(pl.Float64)
    return np.ascontiguousarray(values.to_numpy(writable=False))
