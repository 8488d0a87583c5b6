"""The coupling of many pairs: a Numba kernel of `luce.linear.coupling.pairwise`, step for step."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

import math

import numpy as np

from luce.kernels.cpu.compile import kernel
from luce.kernels.cpu.threads import gather

__all__ = ["couple"]

# So many rows go side by side, in vectors; and so many are one thread's at a time.
_SIDE_BY_SIDE = 16
_ROWS_AT_ONCE = 256


@kernel
def _eliminate(U, alone, side, t, w):
    """Take class t out of the sums of squares of the classes before it; set row t to what it ties.

    Afterwards U[t, j] is what x_j counts for x_t, and side[t] what c does.
    """
    R = w.shape[1]
    for r in range(R):
        total = alone[t, r]
        for j in range(t):
            total += U[t, j, r] * U[t, j, r]
        root = math.sqrt(total)
        for j in range(t):
            w[j, r] = U[t, j, r] / root
        alone[t, r] /= total
        side[t, r] /= total
        for j in range(t):
            side[j, r] += U[t, j, r] * U[j, t, r] * side[t, r]
            alone[j, r] += U[j, t, r] * U[j, t, r] * alone[t, r]
    for k in range(1, t):
        for j in range(k):
            for r in range(R):
                one, other = U[j, k, r], U[k, j, r]
                more, less = w[k, r] * U[j, t, r], w[j, r] * U[k, t, r]
                both = one * one + more * more
                off = one * less - other * more
                alone[k, r] += off * off / both
                root = math.sqrt(both)
                U[j, k, r] = root
                U[k, j, r] = (one * other + more * less) / root
    for j in range(t):  # w² is a² / s², and tied a b / s²
        for r in range(R):
            U[t, j, r] = w[j, r] * w[j, r] * U[j, t, r] / U[t, j, r]


@kernel
def _couple(z, U, alone, side, w, out):
    """Set out (n, K) to log p of the log-odds z (n, B), some rows at a time."""
    n, K, R = out.shape[0], out.shape[1], w.shape[1]
    for i in range(0, n, R):
        for r in range(R):
            row = z[min(i + r, n - 1)]
            b = 0
            for j in range(K):
                alone[j, r], side[j, r] = 0, 1
                for k in range(j + 1, K):
                    away = min(max(row[b], -60.0), 60.0)
                    U[j, k, r] = 1 / (1 + math.exp(-away))
                    U[k, j, r] = 1 / (1 + math.exp(away))
                    b += 1
        for t in range(K - 1, 0, -1):
            _eliminate(U, alone, side, t, w)
        for r in range(min(R, n - i)):
            x, c, total = out[i + r], alone[0, r] / side[0, r], 1.0
            x[0] = 1
            for t in range(1, K):
                value = c * side[t, r]
                for j in range(t):
                    value += U[t, j, r] * x[j]
                x[t] = value
                total += value
            for t in range(K):
                x[t] = math.log(x[t]) - math.log(total)


def couple(Z: np.ndarray, n_classes: int) -> np.ndarray:
    """Return log p (N, K), float64, from the log-odds of all pairs; see `pairwise`."""
    out = np.empty((len(Z), n_classes))

    def chunk(part: int) -> None:
        at = slice(part * _ROWS_AT_ONCE, (part + 1) * _ROWS_AT_ONCE)
        U = np.ones((n_classes, n_classes, _SIDE_BY_SIDE))
        alone, side, w = (np.ones((n_classes, _SIDE_BY_SIDE)) for _ in range(3))
        _couple(Z[at].astype(np.float64), U, alone, side, w, out[at])

    gather(chunk, -(-len(Z) // _ROWS_AT_ONCE))
    return out
