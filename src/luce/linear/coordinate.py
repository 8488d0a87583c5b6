"""Coordinate descent on a quadratic whose matrix is at hand: Numba kernels, without PyTorch."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

import numba
import numpy as np

__all__ = ["descend", "descend_groups"]


# Not by `luce.kernels.cpu.compile`: that package loads PyTorch, which small problems do without.
def _compiled(function):
    options = {"nogil": True, "error_model": "numpy", "fastmath": {"contract"}}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # no place to keep it
        return numba.njit(**options)(function)


@_compiled
def descend(H, scale, g, l1, l2, v, enough, sweeps):
    """Move v to the minimum of ⟨g, v - w⟩ + scale/2 (v - w)ᵀ H (v - w) + l2/2 v² + l1 |v|, w its start.

    H (m, m) is symmetric, g, l1 and l2 are (m,). It ends when a sweep over all coordinates moves
    none by more than the part ``enough`` of the farthest move of the first sweep, in the units of
    the objective's square root; between such sweeps only those that are not 0 are gone through.
    """
    m = len(g)
    slope = g.copy()  # of the quadratic at v
    first = 0.0
    whole = True
    for sweep in range(sweeps):
        far = 0.0
        for j in range(m):
            if not whole and v[j] == 0 and l1[j] > 0:
                continue
            bend = scale * H[j, j] + l2[j]
            before = v[j]
            if bend <= 0:  # a column that says nothing
                after = 0.0 if l1[j] > 0 else before
            else:
                u = bend * before - slope[j] - l2[j] * before
                after = max(abs(u) - l1[j], 0.0)
                after = (after if u > 0 else -after) / bend
            if after != before:
                move = after - before
                v[j] = after
                far = max(far, move * move * bend)
                move *= scale
                row = H[j]
                for i in range(m):
                    slope[i] += move * row[i]
        if sweep == 0:
            first = far
        if far <= enough * enough * first:
            if whole:
                break
            whole = True
        else:
            whole = False
    for j in range(m):
        if v[j] == 0:
            v[j] = 0.0  # no negative zeros


@_compiled
def descend_groups(H, scale, g, l1, l2, group, v, enough, sweeps):
    """Do the same for all classes at once, whose coefficients of a feature share a norm.

    H is (K, m, m), g and v are (K, m); l1, l2 and group are (m,). The K coefficients of a feature
    go together, with the largest of their curvatures.
    """
    K, m = g.shape
    slope = g.copy()
    u = np.empty(K)
    first = 0.0
    whole = True
    for sweep in range(sweeps):
        far = 0.0
        for j in range(m):
            bend, zero = 0.0, True
            for k in range(K):
                bend = max(bend, H[k, j, j])
                zero &= v[k, j] == 0
            if zero and not whole and l1[j] + group[j] > 0:
                continue
            bend = scale * bend + l2[j]
            norm = 0.0
            for k in range(K):
                if bend > 0:
                    w = bend * v[k, j] - slope[k, j] - l2[j] * v[k, j]
                else:
                    w = 0.0 if l1[j] + group[j] > 0 else v[k, j]
                left = max(abs(w) - l1[j], 0.0)
                u[k] = left if w > 0 else -left
                norm += u[k] * u[k]
            norm = np.sqrt(norm)
            part = 0.0 if norm <= group[j] else 1 - group[j] / norm if norm > 0 else 0.0
            if bend > 0:
                part /= bend
            for k in range(K):
                after = part * u[k]
                if after != v[k, j]:
                    move = after - v[k, j]
                    v[k, j] = after
                    far = max(far, move * move * bend)
                    move *= scale
                    row = H[k, j]
                    for i in range(m):
                        slope[k, i] += move * row[i]
        if sweep == 0:
            first = far
        if far <= enough * enough * first:
            if whole:
                break
            whole = True
        else:
            whole = False
    for k in range(K):
        for j in range(m):
            if v[k, j] == 0:
                v[k, j] = 0.0
