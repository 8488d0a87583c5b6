"""To which part a row belongs: it follows from its file, its number there and the seed alone.

So any reader agrees, in whatever blocks it reads, and a file that is added later moves no row of
the others. With 64-bit numbers that wrap around, `mix` from splitmix64 (Steele, Lea and Flood,
2014) and a file's name as `StreamFile.name` has it::

    start  = the first 8 bytes, little-endian, of BLAKE2b-64("<seed>:<use>:<name>")
    number = mix(start + row · 0x9E3779B97F4A7C15) / 2^64

where rows count from 0 and the use is ``part``. A number below `test_size` is a test row; one below
`test_size` + `validation_size` a validation row; any other a training row.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["TEST", "TRAIN", "VALIDATION", "Dealer"]

TRAIN, VALIDATION, TEST = range(3)

_STEP: Final = np.uint64(0x9E3779B97F4A7C15)
_FACTORS: Final = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_AT_ONCE: Final = 2**13


class Dealer:
    """Deals the rows of files to parts.

    Parameters
    ----------
    validation_size, test_size : float
        Shares of all rows.
    seed : int

    Examples
    --------
    >>> dealer = Dealer(validation_size=0.1, test_size=0.2, seed=0)
    >>> dealer.parts("a.parquet", 0, 8).tolist()
    [1, 2, 2, 0, 0, 0, 0, 0]
    >>> dealer.parts("a.parquet", 2, 3).tolist()
    [2, 0, 0]
    """

    def __init__(self, *, validation_size: float, test_size: float, seed: int) -> None:
        self.validation_size, self.test_size = float(validation_size), float(test_size)
        self.seed = seed

    def parts(self, name: str, start: int, rows: int) -> NDArray[np.uint8]:
        """Return the part of each of so many rows of a file, from row `start` on."""
        numbers = self._numbers("part", name, np.arange(start, start + rows))
        test, held_out = numbers < self.test_size, numbers < self.test_size + self.validation_size
        # False is 0, training; what is below both is 2, a test row.
        return held_out.view(np.uint8) + test.view(np.uint8)

    def draws(self, name: str, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return for each row a number from 0 to below 1: those below a share are a sample."""
        return self._numbers("draw", name, rows)

    def _numbers(self, use: str, name: str, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        text = f"{self.seed}:{use}:{name}".encode(errors="surrogateescape")
        first = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")
        found = np.empty(len(rows))
        for i in range(0, len(rows), _AT_ONCE):  # which stay in the processor's caches
            code = rows[i : i + _AT_ONCE].astype(np.uint64)
            code *= _STEP
            code += np.uint64(first)
            code ^= code >> np.uint64(30)
            code *= _FACTORS[0]
            code ^= code >> np.uint64(27)
            code *= _FACTORS[1]
            code ^= code >> np.uint64(31)
            code >>= np.uint64(11)
            # 53 bits: what a float64 holds exactly, so that no number rounds up to 1.
            np.multiply(code, 2.0**-53, out=found[i : i + _AT_ONCE])
        return found
