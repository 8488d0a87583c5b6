"""How the columns of a fit make classes: their logits (N, B) → log-probabilities (N, K).

A softmax and one-against-the-rest have a column for each class. A code (`luce.linear.codes`) has
others: its classes are told by the likelihood of their rows, pairs by the coupling of Wu, Lin and
Weng. Several labels at once have a column each, and nothing couples them. NumPy alone where the
logits are an array; a tensor gives a tensor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from scipy.special import expit, log_softmax

from luce.errors import ArgumentError
from luce.linear.arrays import is_tensor
from luce.linear.codes import as_code, is_identity, output_code, pairs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from luce.linear.links import Link

__all__ = ["FARTHEST", "Coupling", "pairwise"]

# Log-odds of pairs are not taken beyond this: exp(-60) is nothing beside 1 even in float64, and its
# products of a few factors are still numbers.
FARTHEST: Final = 60.0
# So many numbers of a state stay in the cache.
_AT_ONCE: Final = 1 << 16
# From so many steps on a kernel is compiled for them: it takes a tenth of the time.
_WORTH_COMPILING: Final = 100_000_000


class Coupling(NamedTuple):
    """What an estimator's ``link`` and ``code`` come to for its classes.

    Attributes
    ----------
    kind : {"binary", "softmax", "ovr", "ovo", "ecoc", "labels"}
        "binary" is two classes, whatever the link: one sigmoid. "labels" are several at once, each
        a sigmoid of its own: they do not exclude each other.
    n_classes : int
        K, of labels how many there are.
    code : ndarray, shape (K, B), int8, or None
        Of "ovo" and "ecoc".
    """

    kind: str
    n_classes: int
    code: np.ndarray | None = None

    @classmethod
    def of(
        cls, name: str, link: str, code: Any, classes: Sequence[Any], *, several: bool = False
    ) -> Coupling:
        """Return the coupling of these classes; a code is made where none is given.

        With ``several`` they are labels, of which several are on at once.
        """
        K = len(classes)
        if code is not None and link != "ecoc":
            raise ArgumentError(
                f"{name}: code belongs to link='ecoc', got it with link={link!r}. Set "
                "link='ecoc', or leave code out."
            )
        if several and link in {"ovo", "ecoc"}:
            raise ArgumentError(
                f"{name}: link={link!r} takes classes apart that exclude each other, and y is of "
                "several labels at once, which are fitted one by one as they are. Leave link out."
            )
        if several:
            return cls("labels", K)
        signs = None
        if link == "ovo":
            signs = pairs(K)
        elif link == "ecoc":
            signs = output_code(K) if code is None else as_code(name, code, classes)
        if K == 2 and signs is not None:
            signs = pairs(2)  # there is no other but its complement
        if K == 2:
            return cls("binary", K, signs)
        # A column for each class against the rest is that link, whoever says it.
        return cls("ovr" if signs is not None and is_identity(signs) else link, K, signs)

    def of_target(self, target: Any) -> Coupling:
        """Return the coupling of a fit to this target: of labels, those that it has, (N, L)."""
        return self._replace(n_classes=target.shape[1]) if target.ndim == 2 else self

    @property
    def n_logits(self) -> int:
        """B, the columns of a fit."""
        if self.kind == "binary":
            return 1
        return self.n_classes if self.code is None else self.code.shape[1]

    @property
    def link(self) -> Link:
        """What the passes over rows make of logits."""
        return "softmax" if self.kind == "softmax" else "sigmoid"

    @property
    def signs(self) -> np.ndarray | None:
        """The side of each class in each column, (K, B); None where that is class against rest.

        And for two classes and for labels: the passes know those without a table.
        """
        return None if self.kind in {"binary", "ovr"} else self.code

    @property
    def is_partial(self) -> bool:
        """Whether some classes' rows are no part of some columns' problems."""
        return self.signs is not None and not self.signs.all()

    def seen(self, codes: np.ndarray) -> np.ndarray | None:
        """Return which rows are a part of which columns' problems, (N, B); None where all are."""
        if self.code is None or not self.is_partial:
            return None
        found: np.ndarray = self.code[codes] != 0
        return found

    def logits(self, Z: Any) -> Any:
        """Return what a softmax makes the probabilities of, (N, K), from logits (N, B).

        For codes the log-likelihood of each class but for what all have in common, Σ_b log σ(m z)
        over its row m, where a column that the class is no part of counts as a fair coin.
        """
        if self.kind == "binary" and Z.ndim == 1:
            Z = Z[:, None]
        if self.kind == "binary":
            return _stacked(Z)
        if self.kind == "softmax":
            return Z
        if self.kind == "ovr":
            return _log_sigmoid(Z)
        assert self.code is not None  # noqa: S101 - for mypy
        if self.kind == "ovo":
            return _in_numpy(Z, lambda array: pairwise(array, self.n_classes))
        halves, none = self.likelihoods()
        half = _like(halves.T, Z)
        scores = Z @ half
        if not self.code.all():
            both = _log_sigmoid(Z) + _log_sigmoid(-Z)
            scores = scores + both @ abs(half) - _like(none, Z)
        return scores

    def decisions(self, Z: Any) -> Any:
        """Return ``decision_function`` from logits: the likeliest class has the largest."""
        if Z.ndim == 1 or self.kind in {"softmax", "ovr", "labels"}:
            return Z
        return self.logits(Z)

    def log_probabilities(self, Z: Any) -> Any:
        """Return log-probabilities (N, K) from logits (N, B), or (N,) for two classes.

        Of labels, that each is on: their sigmoids.
        """
        if self.kind == "labels":
            return _log_sigmoid(Z)
        if is_tensor(Z):
            from luce.linear.large import log_probabilities

            return log_probabilities(Z, self)
        if self.kind == "binary":
            return -np.logaddexp(0, np.stack([Z, -Z], 1))
        return log_softmax(self.logits(Z), axis=1)

    def likelihoods(self) -> tuple[np.ndarray, np.ndarray]:
        """Return what a code's likelihoods are made of: half of it, and log 2 for each zero."""
        assert self.code is not None  # noqa: S101 - for mypy
        return self.code / 2, (self.code == 0).sum(axis=1) * np.log(2)

    def as_linear(self) -> np.ndarray | None:
        """Return M (K, B) of a code whose probabilities are softmax(M z); None of others.

        Log-likelihoods of a code without zeros are: log σ(m z) = m z / 2 + log(σ(z) σ(-z)) / 2.
        """
        if self.kind != "ecoc" or self.code is None or not self.code.all():
            return None
        return self.code / 2


def pairwise(Z: np.ndarray, n_classes: int) -> np.ndarray:
    """Return log p (N, K) from the log-odds of all pairs (N, K (K - 1) / 2).

    With r_ij = P(i | i or j), p minimises Σ_{i<j} (r_ji p_i - r_ij p_j)² under Σ p = 1 (Wu, Lin and
    Weng, JMLR 2004, their second method). Its system Q p = c 1 is nearly singular where the pairs
    agree, and solving it directly loses what is small. Here the sum of squares is what is
    eliminated from: without a class it is one of the same kind,

        min_x Σ_j (a_j x - b_j x_j)² + d x² = Σ_{j<l} (w_l b_j x_j - w_j b_l x_l)² + …,   w = a / s,
        s² = Σ a_j² + d,

    and the two squares of a pair are one square and a part that has x_l alone. Nothing but such
    parts is a difference, so each p, however small, is right to nearly all its digits.

    Parameters
    ----------
    Z : ndarray, shape (N, B)
        The log-odds of the second class of each pair, in the order of `luce.linear.codes.pairs`.
    n_classes : int
    """
    if len(Z) * n_classes**3 >= _WORTH_COMPILING:
        from luce.linear.many_pairs import couple

        return couple(Z, n_classes).astype(Z.dtype, copy=False)
    out = np.empty((len(Z), n_classes))
    step = max(16, _AT_ONCE // n_classes**2)
    for i in range(0, len(Z), step):
        out[i : i + step] = _coupled(Z[i : i + step], n_classes).T
    return out.astype(Z.dtype, copy=False)


def _coupled(Z: np.ndarray, K: int) -> np.ndarray:
    """Return log p of a few rows, (K, n)."""
    n = len(Z)
    z = Z.T.astype(np.float64).clip(-FARTHEST, FARTHEST)
    first, second = np.triu_indices(K, 1)
    # What stands before x_i in the square of i and j is U[i, j]: the probability of the other.
    U = np.zeros((K, K, n))
    U[first, second], U[second, first] = expit(z), expit(-z)
    alone = np.zeros((K, n))  # Σ alone x² in addition
    side = np.ones((K, n))  # of the equations
    rows: list[tuple[np.ndarray, np.ndarray]] = [(np.empty((0, n)), np.empty(n))]
    for t in range(K - 1, 0, -1):
        a, b = U[t, :t], U[:t, t]
        s = np.square(a).sum(axis=0) + alone[t]
        w = a / np.sqrt(s)
        tied = a * b / s
        rows.append((tied, side[t] / s))
        side[:t] += tied * side[t]
        alone[:t] += np.square(b) * (alone[t] / s)
        if t == 1:
            break
        k, j = np.tril_indices(t, -1)
        one, other = U[j, k], U[k, j]
        more, less = w[k] * b[j], w[j] * b[k]
        both = np.square(one) + np.square(more)
        apart = np.square(one * less - other * more) / both
        alone[1:t] += np.add.reduceat(apart, np.flatnonzero(j == 0), axis=0)
        root = np.sqrt(both)
        U[j, k], U[k, j] = root, (one * other + more * less) / root
    x = np.ones((K, n))
    c = alone[0] / side[0]
    for t in range(1, K):
        tied, right = rows[K - t]
        x[t] = (tied * x[:t]).sum(axis=0) + c * right
    log_p: np.ndarray = np.log(x)
    log_p -= np.log(x.sum(axis=0))
    return log_p


def _in_numpy(Z: Any, function: Any) -> Any:
    if not is_tensor(Z):
        return function(Z)
    import torch

    return torch.from_numpy(function(Z.detach().cpu().numpy())).to(Z)


def _like(array: np.ndarray, Z: Any) -> Any:
    """Return an array in the dtype of Z, and as a tensor where that is one."""
    if not is_tensor(Z):
        return array.astype(Z.dtype)
    import torch

    return torch.from_numpy(np.ascontiguousarray(array)).to(Z)


def _log_sigmoid(Z: Any) -> Any:
    if not is_tensor(Z):
        return -np.logaddexp(0, -Z)
    import torch

    return torch.nn.functional.logsigmoid(Z)


def _stacked(Z: Any) -> Any:
    """Return the logits of two classes, of which the first has 0."""
    if not is_tensor(Z):
        return np.concatenate([np.zeros_like(Z), Z], axis=1)
    import torch

    return torch.cat([torch.zeros_like(Z), Z], 1)
