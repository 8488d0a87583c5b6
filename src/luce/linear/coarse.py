"""The fused pass with products in bfloat16: a Numba kernel for processors that multiply pairs.

As `luce.linear.fused`, in half the time: enough far from the optimum. Rows of X are rounded a block
at a time, while they are in the cache, so there is no copy of X.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from __future__ import annotations

import numpy as np

from luce.kernels.cpu.compile import kernel
from luce.kernels.cpu.pairs import add_pair_products, pack, pack_rows, write_pair_products
from luce.kernels.cpu.products import aligned, block_rows
from luce.linear.fused import (
    NO_SIGNS,
    SIDE_BY_SIDE,
    add_rows,
    over_rows,
    scratch_of,
    sigmoid_residuals,
    softmax_residuals,
)

__all__ = ["coarse_pass", "packed"]

# Pairs fill up lines of so many numbers.
_LINE = 32


@kernel
def _coarse_chunk(block, X, W, bias, K, y, on, weight, softmax, signs, scratch, G, g, logs):
    """Add the gradient of these rows to G (K, D) and g (K), both float64; return their loss.

    W has the pairs of K' rows, a multiple of the length of ``block``. X, float32, has as many
    columns as W's pairs have numbers, and rows of zeros after its own that fill up the last 64.
    """
    z, part, spare, work, w, t, near, over, zs = scratch
    n, D = len(y), G.shape[1]
    loss = 0.0
    for i in range(0, n, SIDE_BY_SIDE):
        m = min(SIDE_BY_SIDE, n - i)
        for r in range(SIDE_BY_SIDE):
            w[r] = weight[i + r] if r < m else 0.0  # what is left of the last block has no weight
            t[r] = y[i + r] if r < m else 0
        x = X[i : i + SIDE_BY_SIDE]
        pack(x, near)
        pack_rows(x, over)
        write_pair_products(block, W, near, z, x, x.size, 2 * x.size)
        if softmax:
            loss += softmax_residuals(z, bias, K, t, w, logs, work, spare)
        else:
            own = on[i : i + m]
            loss += sigmoid_residuals(z, bias, K, t, own, w, signs, logs, work, spare)
        add_rows(z, K, g)
        for k in range(K, z.shape[0]):
            for r in range(SIDE_BY_SIDE):
                z[k, r] = 0
        pack(z, zs)
        add_pair_products(block, zs, over, part)
    for k in range(K):
        for j in range(D):
            G[k, j] += part[k, j]
            part[k, j] = 0
    return loss


@kernel
def _pack(x, out):
    pack(x, out)


def packed(W: np.ndarray) -> tuple[tuple[int, ...], np.ndarray]:
    """Return a block for the products, and W (K, D), float32, as pairs that fill up the last."""
    block = block_rows(len(W))
    rows, columns = len(W) + -len(W) % len(block), W.shape[1] + -W.shape[1] % _LINE
    whole = aligned((rows, columns), np.float32)
    whole[: len(W), : W.shape[1]] = W
    pairs = aligned((rows, columns // 2), np.uint32)
    _pack(whole, pairs)
    return block, pairs


def coarse_pass(
    X: np.ndarray,
    W: tuple[tuple[int, ...], np.ndarray],
    bias: np.ndarray,
    y: np.ndarray,
    weight: np.ndarray,
    link: str,
    G: np.ndarray,
    g: np.ndarray,
    logs: np.ndarray,
    signs: np.ndarray = NO_SIGNS,
) -> float:
    """Add as `luce.linear.fused.dense_pass` does, W as ``packed`` returns it, bias float32."""
    block, pairs = W
    padded, columns = pairs.shape[0], 2 * pairs.shape[1]
    scratch = (
        *scratch_of(padded, columns, np.float32),
        aligned((SIDE_BY_SIDE, columns // 2), np.uint32),
        aligned((SIDE_BY_SIDE // 2, columns), np.uint32),
        aligned((padded, SIDE_BY_SIDE // 2), np.uint32),
    )

    def chunk(rows, at, y, on) -> float:
        given = bias, len(bias), y, on, weight[at], link == "softmax", signs
        loss: float = _coarse_chunk(block, rows, pairs, *given, scratch, G, g, logs)
        return loss

    return over_rows(X, y, len(bias), columns, np.float32, chunk)
