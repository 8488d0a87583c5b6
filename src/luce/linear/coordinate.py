"""Coordinate descent on a quadratic whose matrix is at hand: Numba kernels, without PyTorch."""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"

from __future__ import annotations

from typing import Any

import numba
import numpy as np

__all__ = ["descend", "descend_groups"]


# Not by `luce.kernels.cpu.compile`: that package loads PyTorch, which small problems do without.
def _compiled(function):
    options: Any = {"nogil": True, "error_model": "numpy", "fastmath": {"contract"}}
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # no place to keep it
        return numba.njit(**options)(function)


@_compiled
def _sweep(H, slope, l1, l2, v, whole):
    """Minimise over one coordinate after another; return the farthest move, squared in bend."""
    far = 0.0
    for j in range(len(v)):
        before = v[j]
        if before == 0 and l1[j] > 0 and not whole:
            continue
        bend = H[j, j] + l2[j]
        if bend > 0:
            u = (bend - l2[j]) * before - slope[j]
            left = max(abs(u) - l1[j], 0.0) / bend
            after = left if u > 0 else 0.0 - left
        else:  # a column that says nothing
            after = 0.0 if l1[j] > 0 else before
        if after != before:
            v[j] = after
            far = max(far, (after - before) ** 2 * bend)
            move = after - before
            row = H[j]
            for i in range(len(v)):
                slope[i] += move * row[i]
    return far


@_compiled
def _shrunk(u, slope, v, j, bend, l1, l2, group):
    """Set u (K,) to where the coefficients of feature j go together."""
    norm = 0.0
    for k in range(len(u)):
        w = (bend - l2) * v[k, j] - slope[k, j]
        if bend <= 0:  # a column that says nothing
            w = 0.0 if l1 + group > 0 else v[k, j]
        left = max(abs(w) - l1, 0.0)
        u[k] = left if w > 0 else 0.0 - left
        norm += u[k] * u[k]
    norm = np.sqrt(norm)
    part = 0.0 if norm <= group else 1 - group / norm
    if bend > 0:
        part /= bend
    for k in range(len(u)):
        u[k] *= part


@_compiled
def _sweep_groups(H, slope, l1, l2, group, v, u, whole):
    """Do the same for features, with the largest of the classes' curvatures."""
    far = 0.0
    K, m = v.shape
    for j in range(m):
        bend, zero = 0.0, True
        for k in range(K):
            bend = max(bend, H[k, j, j])
            zero &= v[k, j] == 0
        if zero and not whole and l1[j] + group[j] > 0:
            continue
        bend += l2[j]
        _shrunk(u, slope, v, j, bend, l1[j], l2[j], group[j])
        for k in range(K):
            move = u[k] - v[k, j]
            if move != 0:
                v[k, j] = u[k]
                far = max(far, move * move * bend)
                row = H[k, j]
                for i in range(m):
                    slope[k, i] += move * row[i]
    return far


@_compiled
def descend(H, slope, l1, l2, v, enough, sweeps):
    """Move v from w, its start, to the minimum of a quadratic and thresholds, and its slope along.

    ⟨g, v - w⟩ + 1/2 (v - w)ᵀ H (v - w) + Σ l2/2 v² + l1 |v|, where H (m, m) is symmetric, and
    l1 and l2 are (m,). ``slope`` (m,) is g at first, and then g + H (v - w). It ends when a sweep
    over all coordinates moves none by more than the part ``enough`` of the farthest move of the
    first, each in units of its curvature. Between such sweeps, only those that are not 0 are gone
    through. Return whether it ended so, before there were as many sweeps as there may be.
    """
    first, whole = 0.0, True
    for sweep in range(sweeps):
        far = _sweep(H, slope, l1, l2, v, whole)
        if sweep == 0:
            first = far
        done = far <= enough * enough * first
        if done and whole:
            return True
        whole = done
    return False


@_compiled
def descend_groups(H, g, l1, l2, group, v, enough, sweeps):
    """Do the same for all classes at once, whose coefficients of a feature share a norm.

    Σ_j group ‖v_j‖ is added. H is (K, m, m), g and v are (K, m); l1, l2 and group are (m,).
    """
    slope, u = g.copy(), np.empty(len(g))
    first, whole = 0.0, True
    for sweep in range(sweeps):
        far = _sweep_groups(H, slope, l1, l2, group, v, u, whole)
        if sweep == 0:
            first = far
        done = far <= enough * enough * first
        if done and whole:
            break
        whole = done
