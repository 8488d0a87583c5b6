"""The most probable classes of a linear head, without its logits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton.language as tl

from luce.kernels.cuda.arithmetic import fading, finite, number, wide
from luce.kernels.cuda.blocks import along, blocks_of, examples, strides
from luce.kernels.cuda.compile import kernel
from luce.kernels.cuda.plans import cut
from luce.kernels.cuda.products import fitting, multiply
from luce.kernels.cuda.terms import logits

if TYPE_CHECKING:
    from torch import Tensor

    from luce.kernels.arguments import LinearTopK

__all__ = ["linear_top_k"]

# Tiles are of multiples of so many classes, so that their rows start at 16 bytes.
_STEP = 64
_ROWS_AT_LEAST = 256  # fewer make slow products
# Bytes for each of k classes of a row: values and indices found so far, of a tile, and of both.
_FOUND = 64


@kernel
def lse_kernel(
    x,
    bias,
    kept,
    x_across,
    inverse: tl.float64,
    K,
    span,
    BIAS: tl.constexpr,
    EXAMPLES: tl.constexpr,
    BLOCK: tl.constexpr,
    WIDE: tl.constexpr,
):
    """Merge a tile of logits into each row's maximum and sum; write the logits with their bias."""
    inverse = number(inverse, WIDE)
    _outer, row, there = examples(span, EXAMPLES)
    of_top = kept + row
    of_exps = of_top + span
    top = tl.load(of_top, mask=there, other=float("-inf"))
    exps = tl.load(of_exps, mask=there, other=0.0)
    for start in range(0, K, BLOCK):
        classes = start + tl.arange(0, BLOCK).to(tl.int64)
        mask = there[:, None] & (classes < K)[None, :]
        at = row[:, None] * x_across + classes[None, :]
        z, _slope = logits(x, at, mask, bias, classes, K, 1.0, BIAS, False, WIDE)
        if BIAS:
            tl.store(x + at, z, mask=mask)
        now = tl.maximum(top, tl.max(z, 1))
        e = tl.exp((z - finite(now)[:, None]) * inverse)
        exps = exps * fading(top, now, inverse) + tl.sum(e, 1)
        top = now
    tl.store(of_top, top, mask=there)
    tl.store(of_exps, exps, mask=there)


def linear_top_k(given: LinearTopK) -> tuple[Tensor, Tensor, Tensor]:
    """Return probabilities (N, k), log-sum-exps (N,) and class indices (N, k), best first.

    Logits are float32 for half precision, whose own would have many ties.
    """
    x, head, k, budget = (
        fitting(given.input),
        fitting(given.linear_weight),
        given.k,
        given.memory_budget,
    )
    bias = None if given.linear_bias is None else given.linear_bias.contiguous()
    inverse, dtype = 1 / given.temperature, wide(x.dtype)
    N, K = len(x), len(head)
    lse = x.new_empty(N, dtype=dtype)
    probabilities, indices = x.new_empty((N, k)), x.new_empty((N, k), dtype=torch.int64)
    R, C = tiles(N, K, k, dtype.itemsize, budget)
    place = x.new_empty(R * C, dtype=dtype)
    for rows in cut(N, R):
        part = x[rows]
        kept = lse.new_zeros((2, len(part)))
        kept[0].fill_(-torch.inf)
        best = places = None
        for classes in cut(K, C) if len(part) else ():
            # In one piece, the last too: of anything else ``topk`` makes a copy.
            width = classes.stop - classes.start
            z = place[: len(part) * width].view(len(part), width)
            multiply(part, head[classes].t(), z)
            flat = along(z, 1)
            own = flat if bias is None else bias[classes]
            blocks_of(flat, heavy=True).start(
                lse_kernel, z, flat, own, kept, strides(flat)[1], inverse, BIAS=bias is not None
            )
            values, found = z.topk(min(k, z.shape[1]), dim=1)
            found += classes.start
            if best is not None and places is not None:
                values, found = torch.cat((best, values), 1), torch.cat((places, found), 1)
                values, chosen = values.topk(min(k, values.shape[1]), dim=1)
                found = found.gather(1, chosen)
            best, places = values, found
        if best is None or places is None:
            continue
        top, exps = kept
        # Relative to the largest, so that nothing large is rounded.
        origin = top.where(top.isfinite(), 0)
        lse[rows] = origin * inverse + exps.log()
        logs = (best - origin.unsqueeze(1)) * inverse - exps.log().unsqueeze(1)
        probabilities[rows] = logs.exp()
        indices[rows] = places
    return probabilities, lse, indices


def tiles(rows: int, classes: int, k: int, size: int, budget: int) -> tuple[int, int]:
    """Return how many rows and classes a tile has: all classes while enough rows have room."""
    of_row = k * _FOUND + 8 * size
    fit = budget // (classes * size + of_row)
    if fit >= min(rows, _ROWS_AT_LEAST):
        return max(1, min(rows, fit)), classes
    R = max(1, min(rows, _ROWS_AT_LEAST, budget // (2 * of_row)))
    C = max(1, min(classes, (budget - R * of_row) // (R * size)))
    return R, C - C % _STEP if _STEP < C < classes else C
