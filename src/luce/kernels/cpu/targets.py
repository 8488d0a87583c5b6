"""What a kernel trusts: targets checked and counted in one pass.

An operator's backward pass looks again: arrays that tensors were made from, and ``tensor.data``,
are changed behind autograd's back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from luce.errors import missing_class
from luce.kernels.cpu.compile import kernel
from luce.kernels.cpu.layout import array

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["survey"]


@kernel
def _survey(target: Any, weight: Any, sample_weight: Any, K: int, ignore_index: int) -> Any:
    """Return the position of the first bad target or −1, and the sum of the others' weights."""
    if not (weight.size or sample_weight.size):
        # Without branches, in vector lanes; where one is bad, the loop below finds which.
        counted = bad = 0
        for i in range(target.size):
            y = target[i]
            seen = y != ignore_index
            counted += seen
            bad += seen & ((y < 0) | (y >= K))
        if not bad:
            return -1, float(counted)
    total = 0.0
    for i in range(target.size):
        y = target[i]
        if y == ignore_index:
            continue
        if y < 0 or y >= K:
            return i, total
        w = np.float64(weight[y]) if weight.size else 1.0
        if sample_weight.size:
            w *= sample_weight[i]
        total += w
    return -1, total


def survey(
    target: Tensor, classes: int, ignore_index: int, weight: Any, sample_weight: Any
) -> float:
    """Return what a mean divides by; raise TargetError for a class that does not exist."""
    bad, total = _survey(array(target), weight, sample_weight, classes, ignore_index)
    if bad >= 0:
        position = [int(i) for i in np.unravel_index(bad, tuple(target.shape))]
        raise missing_class(int(target[tuple(position)]), position, classes)
    return float(total)
