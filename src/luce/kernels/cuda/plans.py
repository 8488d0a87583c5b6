"""How a linear head is computed within a number of bytes: what each way takes and how long.

Three schemes, of which the fastest that fits is taken. N rows, D features, K classes:

- "rows": some rows at a time, with all their classes. Three products: logits, features' gradient,
  head's gradient. Where half precision has more than one tile, the head's gradient adds up in
  float32, which takes 4 K D bytes.
- "classes": some classes at a time, with all rows. A row's log-sum-exp is merged over the tiles;
  then each tile but the last is computed again, last to first, for its gradient. 4 − 1/n products
  for n tiles. Here the features' gradient adds up: 4 N D bytes in half precision.
- "both": over rows for the features' gradient, then over classes for the head's. Four products,
  and nothing adds up in memory.

With one tile the first two are one scheme, which holds all logits.

The times are a model, of an H200 as others measured it. Only their order matters here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch

__all__ = ["Plan", "Problem", "cut", "plan"]

_BYTES = 4.3e12  # that memory moves in a second
_FLOPS = {
    torch.float64: 5e13,
    torch.float32: 5e13,
    torch.bfloat16: 7.8e14,
    torch.float16: 7.8e14,
}
_LAUNCH = 5e-6  # seconds to start a kernel
# Tiles are of multiples of so many rows or classes, if they hold as many: products are slow else.
_STEP = 64


class Problem(NamedTuple):
    """What a plan depends on.

    Attributes
    ----------
    rows, classes
        How many of each there are.
    widths
        How many features each head has. Gradients are those of the first.
    dtype
        Of features and heads.
    wants
        Whether the gradients of features, weight and bias are wanted.
    kept
        How many numbers are kept of each row, besides two for its loss and what goes with that.
    """

    rows: int
    classes: int
    widths: tuple[int, ...]
    dtype: torch.dtype
    wants: tuple[bool, bool, bool]
    kept: int


@dataclass(frozen=True)
class Plan:
    """How rows × classes are cut into tiles.

    Attributes
    ----------
    scheme
        "rows", "classes" or "both".
    tile_rows, tile_classes
        How many of each make a tile, where tiles are of some rows, or of some classes.
    place
        How many logits of a head are held at a time.
    bytes
        What is held besides inputs and results.
    seconds
        What the model says.
    """

    scheme: str
    tile_rows: int
    tile_classes: int
    place: int
    bytes: int
    seconds: float


def cut(length: int, step: int) -> list[slice]:
    """Return slices of at most so many; one, of nothing, for nothing."""
    return [slice(a, min(a + step, length)) for a in range(0, length, step)] or [slice(0, 0)]


def plan(problem: Problem, budget: int) -> Plan:
    """Return the fastest way that fits; if none does, the one that takes least."""
    N, K = problem.rows, problem.classes
    want_x, want_w, _ = problem.wants
    left = budget - _kept(problem)
    logit = len(problem.widths) * problem.dtype.itemsize
    sums_w, sums_x = _sums(problem)
    rows = min(N, left // max(1, K * logit))
    if rows < N:  # then the head's gradient adds up over tiles
        rows = (left - sums_w) // max(1, K * logit)
    classes = min(K, left // max(1, N * logit))
    if classes < K:
        classes = (left - sums_x) // max(1, N * logit)
    found = [_rows(problem, rows), _classes(problem, classes)]
    if want_x and want_w:
        found.append(_both(problem, left // max(1, K * logit), left // max(1, N * logit)))
    fit = [p for p in found if p.bytes <= budget]
    if fit:
        return min(fit, key=lambda p: p.seconds)
    return min(found, key=lambda p: p.bytes)


def _kept(problem: Problem) -> int:
    """Return the bytes that are held for each row and class, whatever the tiles."""
    wide = torch.promote_types(problem.dtype, torch.float32).itemsize
    of_row = (problem.kept + 2) * wide + 40  # target, weights and scale, in float64 on the way
    # The bias's gradient: sums of columns, in float64, over parts of the rows; see ``heads``.
    N, K = problem.rows, problem.classes
    sums = 16 * K + 8 * max(K, min(2**15, K * -(-N // 16)))
    return of_row * N + sums * problem.wants[2]


def _sums(problem: Problem) -> tuple[int, int]:
    """Return the bytes in which the gradients of head and features add up over tiles."""
    half = problem.dtype.itemsize < 4
    D = problem.widths[0]
    want_x, want_w, _ = problem.wants
    return 4 * problem.classes * D * (half and want_w), 4 * problem.rows * D * (half and want_x)


def _fit(length: int, most: int) -> int:
    """Return how many rows or classes a tile has if so many fit; all tiles have about as many."""
    if most >= length:
        return max(1, length)
    if most < _STEP:
        return max(1, most)
    most -= most % _STEP
    equal = -(-length // -(-length // most))
    return min(most, -(-equal // _STEP) * _STEP)


def _rows(problem: Problem, most: int) -> Plan:
    N, K = problem.rows, problem.classes
    R = _fit(N, most)
    n = -(-N // R)
    logit = len(problem.widths) * problem.dtype.itemsize
    held = _kept(problem) + R * K * logit + (_sums(problem)[0] if n > 1 else 0)
    seconds = n * (_logits(problem, R, K) + _gradients(problem, R, K, n > 1))
    return Plan("rows", R, K, R * K, held, seconds)


def _classes(problem: Problem, most: int) -> Plan:
    N, K = problem.rows, problem.classes
    C = _fit(K, most)
    n = -(-K // C)
    logit = len(problem.widths) * problem.dtype.itemsize
    held = _kept(problem) + N * C * logit + (_sums(problem)[1] if n > 1 else 0)
    seconds = n * _logits(problem, N, C)
    if any(problem.wants):
        seconds += (n - 1) * _logits(problem, N, C) + n * _gradients(problem, N, C, n > 1)
    return Plan("classes", N, C, N * C, held, seconds)


def _both(problem: Problem, most_rows: int, most_classes: int) -> Plan:
    N, K = problem.rows, problem.classes
    R, C = _fit(N, most_rows), _fit(K, most_classes)
    logit = len(problem.widths) * problem.dtype.itemsize
    place = max(R * K, N * C)
    over_rows = problem._replace(wants=(True, False, False))
    over_classes = problem._replace(wants=(False, True, problem.wants[2]))
    seconds = -(-N // R) * (_logits(problem, R, K) + _gradients(over_rows, R, K, several=False))
    seconds += -(-K // C) * (_logits(problem, N, C) + _gradients(over_classes, N, C, several=False))
    return Plan("both", R, C, place, _kept(problem) + place * logit, seconds)


def _logits(problem: Problem, rows: int, classes: int) -> float:
    """Return the seconds for a tile's logits, and for a look at them."""
    size = problem.dtype.itemsize
    products = sum(_product(problem.dtype, rows, classes, width) for width in problem.widths)
    return products + len(problem.widths) * rows * classes * size / _BYTES + _LAUNCH


def _gradients(problem: Problem, rows: int, classes: int, several: bool) -> float:
    """Return the seconds to make the gradient of a tile's logits, and all that follows from it."""
    want_x, want_w, want_b = problem.wants
    if not any(problem.wants):
        return 0.0
    size, D = problem.dtype.itemsize, problem.widths[0]
    elements = rows * classes * size
    seconds = (1 + len(problem.widths)) * elements / _BYTES + _LAUNCH
    added = max(4, size) if several else 0  # sums are read as well as written
    for want, length, inner in ((want_x, rows, classes), (want_w, classes, rows)):
        if want:
            seconds += _product(problem.dtype, length, D, inner) + length * D * added / _BYTES
    return seconds + (elements / _BYTES + 2 * _LAUNCH if want_b else 0.0)


def _product(dtype: torch.dtype, rows: int, columns: int, inner: int) -> float:
    moved = (rows * inner + inner * columns + rows * columns) * dtype.itemsize
    return max(2 * rows * columns * inner / _FLOPS[dtype], moved / _BYTES) + _LAUNCH
