"""The Hessian of f at a fit, over all of its rows, and its inverse: what most questions take.

`hessian` forms it, `Exact` inverts it once and answers with it, for up to `MOST` coefficients.
Where there are fewer rows than features, `reduced` asks the same of as many directions as there are
rows: W lies in their span, and so does everything that a row can do to it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final, final

import numpy as np
import scipy.sparse
from scipy.linalg import lapack

from luce.errors import DataError
from luce.linear.outer import Outer, suits
from luce.linear.questions import Question

__all__ = [
    "MOST",
    "Exact",
    "Reduced",
    "check_size",
    "generalised_inverse",
    "hessian",
    "reduced",
    "size_of",
    "spread",
]

# Of so many coefficients that depend on each other the Hessian itself is formed: 128 MB, and a few
# seconds to invert.
MOST: Final = 4000
# Directions of rows whose variance is below this part of the largest are rounding.
_NO_DIRECTION: Final = 1e-12
# Products of so many values stay in the cache.
_LEVERAGE_VALUES: Final = 1 << 18


def size_of(question: Question) -> int:
    """Return the side of a square matrix that costs what the Hessian does.

    All coefficients of the free logits depend on each other. Of sigmoids only those of one do:
    there is a block for each, which are inverted one by one, so they may have four times the
    numbers.
    """
    if question.link == "softmax":
        return question.width * question.free
    return max(question.width, math.ceil(question.width * math.sqrt(question.free) / 2))


def check_size(question: Question, what: str, most: int = MOST) -> None:
    """Refuse a Hessian that would be too large to form."""
    size = size_of(question)
    if size > most:
        raise DataError(
            f"{question.name}: {what} of {question.K} × {question.width} coefficients would need a "
            f"matrix of {8 * size * size / 1e9:.1f} GB; it is given for at most {most:,}: fit "
            "fewer features, such as the leading directions of sklearn.decomposition.PCA."
        )


def hessian(question: Question) -> np.ndarray:
    """Return ∇²f, float64: the sum over all rows, and the penalty.

    Of a softmax in the free logits, relative to the last: with δ_k = Θ_k - Θ_K, and W of mean zero,
    ‖W‖² = Σ ‖δ_k‖² - ‖Σ δ_k‖² / K. Nothing is left then that the softmax does not see.

    Returns
    -------
    ndarray, shape (free · width, free · width)
        Or (K, width, width) for sigmoids, which do not depend on each other.
    """
    K, width, D = question.free, question.width, len(question.mean)
    softmax = question.link == "softmax"
    if softmax and suits(width):
        return _by_pairs(question)
    own = np.zeros((K, width, width))
    H = np.zeros((K * width, K * width)) if softmax else own
    for at, X in question.blocks(K * width if softmax else 1):
        P, s = question.P[at, :K], question.weight[at, None]
        curvature = s * (P if softmax else P * (1 - P))
        for k in range(K):
            weighed = X * np.sqrt(curvature[:, k, None])
            own[k] += weighed.T @ weighed
        if softmax:
            A = ((np.sqrt(s) * P)[:, :, None] * X[:, None, :]).reshape(len(X), -1)
            H -= A.T @ A
    every = np.arange(D)
    own[:, every, every] += question.curvature
    if softmax:
        blocks = H.reshape(K, width, K, width)
        blocks[:, every, :, every] -= question.curvature / (K + 1)
        for k in range(K):
            blocks[k, :, k] += own[k]
    return H


def _by_pairs(question: Question) -> np.ndarray:
    """Return the same of a softmax over few features."""
    K, width, D = question.free, question.width, len(question.mean)
    outer, every = Outer(width, K), np.arange(D)
    sums = outer.empty()
    k, j = outer.first, outer.second
    for at, X in question.blocks(max(width, len(k))):
        P, s = question.P[at, :K], question.weight[at, None]
        S = -s * P[:, k] * P[:, j]
        S[:, k == j] += s * P
        outer.add(X, S, sums)
    blocks = outer.whole(sums)
    blocks[:, every, :, every] += question.curvature * (np.eye(K) - 1 / (K + 1))
    return blocks.reshape(K * width, K * width)


@final
class Exact:
    """The inverse of the Hessian itself, in the free logits.

    Parameters
    ----------
    question : Question
        Of at most `MOST` coefficients that depend on each other.

    Attributes
    ----------
    hessian, inverse : ndarray
        In the shape of `hessian`. Without a penalty the inverse is a generalised one.
    """

    def __init__(self, question: Question) -> None:
        self.link, self.free, self.width = question.link, question.free, question.width
        inverse = _inverse if question.curvature > 0 else generalised_inverse
        H = self.hessian = hessian(question)
        self.inverse = np.stack([inverse(each) for each in H]) if H.ndim == 3 else inverse(H)

    def solve(self, G: np.ndarray) -> np.ndarray:
        """Return H⁻¹G for G (…, free, width)."""
        return self._times(self.inverse, G)

    def product(self, V: np.ndarray) -> np.ndarray:
        """Return HV for V (…, free, width)."""
        return self._times(self.hessian, V)

    def _times(self, matrix: np.ndarray, V: np.ndarray) -> np.ndarray:
        if self.link == "sigmoid":
            found: np.ndarray = np.matmul(V[..., None, :], matrix)[..., 0, :]
            return found
        found = V.reshape(*V.shape[:-2], -1) @ matrix
        return found.reshape(V.shape)

    def pulled(self, X: np.ndarray) -> np.ndarray:
        """Return H⁻¹ X_iᵀ of each row, (n, free, free, width), or of sigmoids (n, K, width)."""
        n, K, width = len(X), self.free, self.width
        if self.link == "sigmoid":
            own: np.ndarray = np.matmul(X, self.inverse).transpose(1, 0, 2)
            return own
        found: np.ndarray = np.matmul(X, self.inverse.reshape(K, width, K * width))
        return found.transpose(1, 0, 2).reshape(n, K, K, width)

    def leverage(self, X: np.ndarray) -> np.ndarray:
        """Return M = X H⁻¹ Xᵀ for each row: how its logits move with gradients over them.

        Shape (n, free, free), or for sigmoids its diagonal, (n, K).
        """
        n, K, width = len(X), self.free, self.width
        if self.link == "sigmoid":
            return np.stack([((X @ each) * X).sum(1) for each in self.inverse], 1)
        inverse = self.inverse.reshape(K, width, K, width)
        if suits(width):
            return Outer(width, K).forms(X, inverse)
        M = np.empty((n, K, K))
        step = max(64, _LEVERAGE_VALUES // (K * width))
        for k in range(K):
            right = np.ascontiguousarray(inverse[k, :, k:]).reshape(width, -1)
            for i in range(0, n, step):
                rows = X[i : i + step]
                T = (rows @ right).reshape(len(rows), K - k, width)
                M[i : i + step, k, k:] = np.einsum("nlw,nw->nl", T, rows)
            M[:, k:, k] = M[:, k, k:]
        return M


@final
@dataclass(frozen=True)
class Reduced(Question):
    """A question in the directions that its rows span.

    Attributes
    ----------
    whole : Question
    into : ndarray, shape (N, r)
        Products with the rows, times this, are coordinates.
    """

    whole: Question
    into: np.ndarray

    def centred(self, X: Any) -> np.ndarray:
        """Return the coordinates of other rows, and 1."""
        rows = self.whole.centred(X)
        D = len(self.whole.mean)
        found = np.ones((len(rows), self.width))
        products = np.concatenate(
            [rows[:, :D] @ block[:, :D].T for _, block in self.whole.blocks()], axis=1
        )
        found[:, : len(self.mean)] = products @ self.into
        return found


def reduced(question: Question) -> Question:
    """Return the same question over as few directions as its rows have.

    It is itself where there are no more features than rows. Otherwise the rows are X = Q Λ^½ Vᵀ,
    and of all coefficients only W V matters: at the optimum W = -C Σ r_i x_iᵀ, whoever is left
    out.
    """
    N, D = len(question.codes), len(question.mean)
    if D <= N or N > MOST:
        return question
    values, Q = np.linalg.eigh(_products(question))
    kept = values > _NO_DIRECTION * max(float(values[-1]), 1e-300)
    if kept.any():
        into = Q[:, kept] / np.sqrt(values[kept])
        coordinates = Q[:, kept] * np.sqrt(values[kept])
    else:  # rows that span nothing have one direction, in which they are all 0
        into, coordinates = np.zeros((N, 1)), np.zeros((N, 1))
    intercept = question.theta[:, D:]
    shift = intercept[:, 0] if intercept.size else 0.0
    theta = np.column_stack([(question.logits - shift).T @ into, intercept])
    fields = {name: getattr(question, name) for name in ("model", "name", "codes", "weight")}
    return Reduced(
        **fields,
        X=coordinates,
        link=question.link,
        curvature=question.curvature,
        by=None,
        mean=np.zeros(coordinates.shape[1]),
        theta=theta,
        seen=None,
        whole=question,
        into=into,
    )


def _products(question: Question) -> np.ndarray:
    """Return the products of all centred rows with each other, (N, N)."""
    D = len(question.mean)
    if scipy.sparse.issparse(question.X):
        X = question.X.tocsr().astype(np.float64)
        if question.by is not None:
            X = X @ scipy.sparse.diags_array(1 / question.by)
        G = (X @ X.T).toarray()
        cross = X @ question.mean
        found: np.ndarray = G - cross - cross[:, None] + float(question.mean @ question.mean)
        return found
    A = np.concatenate([block[:, :D] for _, block in question.blocks()])
    products: np.ndarray = A @ A.T
    return products


def spread(P: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return s (diag p - p pᵀ) of each row, (n, K, K), for all classes or the first ones."""
    S: np.ndarray = -(weight[:, None] * P)[:, :, None] * P[:, None, :]
    every = np.arange(P.shape[1])
    S[:, every, every] += weight[:, None] * P
    return S


def generalised_inverse(H: np.ndarray) -> np.ndarray:
    """Return G with HGH = H; scaled to a unit diagonal, so a feature's units do not matter."""
    scale = _scale(H)
    values, vectors = np.linalg.eigh(H * scale * scale[:, None])
    keep = values > 1e-11 * values[-1]
    part = vectors[:, keep] * scale[:, None]
    inverse: np.ndarray = (part / values[keep]) @ part.T
    return inverse


def _inverse(H: np.ndarray) -> np.ndarray:
    """Return H⁻¹ by Cholesky's factor, of H scaled to a unit diagonal."""
    scale = _scale(H)
    scale = scale * scale[:, None]
    # LAPACK's upper half of the transpose is the lower of what NumPy has: nothing is copied.
    factor, failed = lapack.dpotrf((H * scale).T, lower=0, overwrite_a=1)
    if not failed:
        half, failed = lapack.dpotri(factor, lower=0, overwrite_c=1)
    if failed:
        return generalised_inverse(H)
    inverse: np.ndarray = np.tril(half.T)
    inverse += np.tril(inverse, -1).T
    inverse *= scale
    return inverse


def _scale(H: np.ndarray) -> np.ndarray:
    diagonal = H.diagonal().clip(min=0)
    found: np.ndarray = np.divide(
        1.0, np.sqrt(diagonal), out=np.zeros_like(diagonal), where=diagonal > 0
    )
    return found
