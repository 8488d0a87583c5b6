"""Sets of classes that hold the true one as often as was asked for: split conformal prediction.

`calibrate` looks at rows that the classifier has not learnt from and gives `PredictionSets`: plain
data that turn probabilities into sets. If new rows are exchangeable with the n calibration rows,
the set holds the true class with probability at least ``coverage``, whatever the classifier, and,
if scores do not tie, at most coverage + 1/(n + 1).

Each method scores how odd class k would be for a row with probabilities p. A set holds the classes
that are no odder than the ⌈(n + 1) · coverage⌉-th of the n scores of true classes; if there is no
such score, because n is too small, it holds every class. With r(k) the rank of class k (1 is the
most probable; the earlier column first among equals), the scores are

- ``lac``: 1 − pₖ. The smallest sets on average; may be empty (Sadinle, Lei and Wasserman 2019,
  "Least ambiguous set-valued classifiers with bounded error levels").
- ``aps``: the sum of the probabilities ranked before k, plus (1 − u) pₖ. Sets grow with the row's
  difficulty (Romano, Sesia and Candès 2020, "Classification with valid and adaptive coverage").
- ``raps``: that plus lam · max(0, r(k) − k_reg), which keeps long tails out (Angelopoulos, Bates,
  Jordan and Malik 2021, "Uncertainty sets for image classifiers using conformal prediction").

u = 1 unless ``randomized``: then the same row always has the same set, and no set is empty, as the
most probable class scores 0. With ``randomized``, u is uniform for each row, which brings the
coverage down to what was asked for where the classifier is right more often than that, at the price
of sets that depend on chance and may be empty.

``per_class`` takes one threshold for each class from that class's own rows (Mondrian; Vovk 2012,
"Conditional validity of inductive conformal predictors"): each class, however rare, is covered with
the probability asked for. A class with fewer than coverage / (1 − coverage) rows, or with none, has
no threshold and is in every set: nothing is known that could rule it out.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from math import ceil, inf, isfinite
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, TypeAlias

import numpy as np
from msgspec import Meta

from luce.errors import ArgumentError, DataError
from luce.evaluation.inputs import check_classes, check_inputs, check_probabilities, encode_labels
from luce.evaluation.intervals import wilson_interval
from luce.evaluation.records import Count, Number, take

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import ArrayLike, NDArray

__all__ = ["MOST_SCORES", "PredictionSets", "calibrate", "set_figures"]

Method: TypeAlias = Literal["lac", "aps", "raps"]
METHODS = ("lac", "aps", "raps")

# As JSON holds them: null where it is infinite.
Thresholds = Annotated[list[Number | None], Meta(min_length=1)]

# The strengths that the RAPS paper tries, and the fraction of the rows to try them on (as MAPIE).
STRENGTHS = (0.001, 0.01, 0.1, 0.2, 0.5)
TUNING_FRACTION = 0.2

# A run keeps so many scores: sorted, the coverage is then right to a hundredth of a percent.
MOST_SCORES = 10_000


@dataclass(frozen=True)
class PredictionSets:
    """Thresholds that turn probabilities into sets of classes. Made by `calibrate`.

    Attributes
    ----------
    method : {"lac", "aps", "raps"}
        The score.
    coverage : float
        What was asked for.
    per_class : bool
        Whether each class has its own threshold.
    randomized : bool
        Whether u is drawn.
    k_reg, lam : int and float
        RAPS's penalty; 0 for the other methods.
    seed : int
        Where u comes from.
    rows : int
        How many rows the thresholds come from.
    thresholds : tuple of float
        One for each class, all equal unless ``per_class``; infinity where nothing is ruled out.
    """

    method: Method
    coverage: float
    per_class: bool
    randomized: bool
    k_reg: int
    lam: float
    seed: int
    rows: int
    thresholds: tuple[float, ...]

    def predict_sets(self, probabilities: ArrayLike) -> NDArray[np.bool_]:
        """Return which classes each row's set holds.

        Parameters
        ----------
        probabilities : array-like of shape (rows, classes)

        Returns
        -------
        ndarray of shape (rows, classes), bool
            If ``randomized``, the i-th row of every call has the same u.

        Raises
        ------
        DataError
            If the probabilities cannot be used, or have another number of columns.
        """
        matrix = check_probabilities("predict_sets", probabilities)
        if matrix.shape[1] != len(self.thresholds):
            raise DataError(
                f"predict_sets: probabilities have {matrix.shape[1]} columns, but the sets were "
                f"calibrated with {len(self.thresholds)}."
            )
        u = _draws([self.seed, 1], len(matrix), randomized=self.randomized)
        scores = _scores(matrix, self.method, u, self.k_reg, self.lam)
        return scores <= np.asarray(self.thresholds)

    def to_json(self) -> dict[str, Any]:
        """Return a plain dict that JSON can hold; an infinite threshold is None."""
        thresholds = [value if isfinite(value) else None for value in self.thresholds]
        return {"format": 1, **self.__dict__, "thresholds": thresholds}

    @classmethod
    def from_json(cls, record: Any) -> Self:
        """Build from what `to_json` returned.

        Raises
        ------
        RunError
            If anything in the record is missing, of the wrong kind, or out of range.
        """

        def field(name: str, kind: Any, wanted: str) -> Any:
            return take("conformal sets", record, name, kind, wanted)

        field("format", Literal[1], "1")
        wanted = "a list of finite numbers or null, one for each class"
        thresholds = field("thresholds", Thresholds, wanted)
        between = Annotated[float, Meta(gt=0, lt=1)]
        not_negative = Annotated[float, Meta(ge=0, le=sys.float_info.max)]
        return cls(
            method=field("method", Method, "'lac', 'aps' or 'raps'"),
            coverage=field("coverage", between, "between 0 and 1"),
            per_class=field("per_class", bool, "true or false"),
            randomized=field("randomized", bool, "true or false"),
            k_reg=field("k_reg", Count, "a whole number, 0 or more"),
            lam=field("lam", not_negative, "a number, 0 or more"),
            seed=field("seed", Count, "a whole number, 0 or more"),
            rows=field("rows", Count, "a whole number, 0 or more"),
            thresholds=tuple(inf if value is None else value for value in thresholds),
        )


def calibrate(
    probabilities: ArrayLike,
    labels: ArrayLike,
    classes: Iterable[Any] | None = None,
    *,
    method: Method = "lac",
    coverage: float = 0.9,
    per_class: bool = False,
    randomized: bool = False,
    k_reg: int | None = None,
    lam: float | None = None,
    seed: int = 0,
) -> PredictionSets:
    """Find the thresholds with which sets hold the true class with the probability asked for.

    Parameters
    ----------
    probabilities : array-like of shape (rows, classes)
        Of rows that neither the classifier nor its temperature was fitted on.
    labels : array-like of shape (rows,)
        Their true classes.
    classes : iterable, optional
        The class of each column; None means that labels are column numbers.
    method : {"lac", "aps", "raps"}
        The score; see the module.
    coverage : float, default 0.9
        The probability, between 0 and 1, with which a set shall hold the true class.
    per_class : bool, default False
        Whether each class shall be covered with that probability by itself.
    randomized : bool, default False
        For aps and raps: whether to draw u for each row.
    k_reg, lam : int and float, optional
        For raps: ranks up to k_reg are free, each further one costs lam. Where either is None, a
        fifth of the rows, drawn by the seed, is set apart to choose them as in the paper (k_reg:
        the rank that holds the true class with the coverage; lam: the smallest sets); the
        thresholds come from the other rows.
    seed : int, default 0

    Returns
    -------
    PredictionSets

    Raises
    ------
    ArgumentError
        If an option is out of range.
    DataError
        If probabilities or labels cannot be used.

    Examples
    --------
    Nine rows that say 0.9 for the true class, and one that says 0.2:

    >>> from luce.evaluation.conformal import calibrate
    >>> probabilities = [[0.9, 0.1]] * 9 + [[0.2, 0.8]]
    >>> sets = calibrate(probabilities, [0] * 10, coverage=0.8)
    >>> sets.predict_sets([[0.95, 0.05], [0.6, 0.4]]).tolist()
    [[True, False], [False, False]]

    With ten rows no set can promise 95%, short of holding every class:

    >>> calibrate(probabilities, [0] * 10, coverage=0.95).predict_sets([[0.9, 0.1]]).tolist()
    [[True, True]]
    """
    codes, matrix, _ = check_inputs("calibrate", labels, probabilities, classes)
    _check_options(method, coverage, randomized=randomized, k_reg=k_reg, lam=lam, seed=seed)
    if method != "raps":
        k_reg, lam = 0, 0.0
    elif k_reg is None or lam is None:
        order = np.random.default_rng([seed, 2]).permutation(len(codes))
        tuning, rest = np.split(order, [int(TUNING_FRACTION * len(codes))])
        k_reg, lam = _tune(matrix[tuning], codes[tuning], coverage, k_reg, lam)
        matrix, codes = matrix[rest], codes[rest]

    u = _draws([seed, 0], len(matrix), randomized=randomized)
    scores = _scores(matrix, method, u, k_reg, lam)[np.arange(len(codes)), codes]
    columns = matrix.shape[1]
    if per_class:
        thresholds = tuple(threshold(scores[codes == k], coverage) for k in range(columns))
    else:
        thresholds = (threshold(scores, coverage),) * columns
    return PredictionSets(
        method=method,
        coverage=float(coverage),
        per_class=per_class,
        randomized=randomized,
        k_reg=int(k_reg),
        lam=float(lam),
        seed=seed,
        rows=len(codes),
        thresholds=thresholds,
    )


def set_figures(
    labels: ArrayLike, sets: ArrayLike, classes: Iterable[Any] | None = None
) -> dict[str, Any]:
    """Compute how often sets held the true class, and how large they were, as one plain dict.

    Parameters
    ----------
    labels : array-like of shape (rows,)
        The true classes.
    sets : array-like of shape (rows, classes), bool
        As `PredictionSets.predict_sets` gives them.
    classes : iterable, optional
        The class of each column.

    Returns
    -------
    dict
        ``rows``; ``coverage`` and its 95% Wilson ``coverage_interval`` (low, high); ``mean_size``;
        ``empty`` and ``single``, the shares of sets with no class and with one; ``worst_class``:
        the class covered least, with its coverage and rows.

    Examples
    --------
    >>> from luce.evaluation.conformal import set_figures
    >>> figures = set_figures(["a", "b"], [[True, False], [True, False]], ["a", "b"])
    >>> figures["coverage"], figures["mean_size"], figures["worst_class"]
    (0.5, 1.0, {'class': 'b', 'coverage': 0.0, 'rows': 1})
    """
    matrix = np.asarray(sets)
    if matrix.ndim != 2 or matrix.dtype != np.bool_ or matrix.size == 0:
        raise DataError(
            "set_figures: sets must be a boolean array (rows, classes) with at least one row, "
            f"got {matrix.dtype} of shape {matrix.shape}."
        )
    columns = matrix.shape[1]
    names = check_classes("set_figures", classes, columns)
    codes = encode_labels("set_figures", labels, None if classes is None else names, columns)
    if len(codes) != len(matrix):
        raise DataError(f"set_figures: {len(codes):,} labels but {len(matrix):,} sets.")
    held, sizes = matrix[np.arange(len(codes)), codes], matrix.sum(axis=1)
    support = np.bincount(codes, minlength=columns)
    covered = np.bincount(codes, weights=held, minlength=columns) / np.maximum(support, 1)
    worst = int(np.where(support > 0, covered, inf).argmin())
    return {
        "rows": len(codes),
        "coverage": float(held.mean()),
        "coverage_interval": list(wilson_interval(int(held.sum()), len(codes))),
        "mean_size": float(sizes.mean()),
        "empty": float((sizes == 0).mean()),
        "single": float((sizes == 1).mean()),
        "worst_class": {
            "class": names[worst],
            "coverage": float(covered[worst]),
            "rows": int(support[worst]),
        },
    }


def _scores(
    matrix: NDArray[np.floating], method: Method, u: NDArray[np.float64], k_reg: int, lam: float
) -> NDArray[np.float64]:
    """Score every class of every row: (rows, classes), larger is odder."""
    p = matrix.astype(np.float64)
    if method == "lac":
        return 1 - p
    order = np.argsort(-p, axis=1, kind="stable")
    ordered = np.take_along_axis(p, order, axis=1)
    oddness = (1 - u[:, None]) * ordered
    oddness[:, 1:] += np.cumsum(ordered[:, :-1], axis=1)
    oddness += lam * np.maximum(0, np.arange(1, p.shape[1] + 1) - k_reg)
    scores = np.empty_like(p)
    np.put_along_axis(scores, order, oddness, axis=1)
    return scores


def _draws(seed: list[int], rows: int, *, randomized: bool) -> NDArray[np.float64]:
    return np.random.default_rng(seed).random(rows) if randomized else np.ones(rows)


def threshold(scores: NDArray[np.float64], coverage: float) -> float:
    """Return the ⌈(n + 1) · coverage⌉-th smallest score, or infinity if there are fewer."""
    # Rounded first: 0.9 · 10 must give 9 whatever its last bit.
    rank = ceil(round((len(scores) + 1) * coverage, 9))
    return inf if rank > len(scores) else float(np.partition(scores, rank - 1)[rank - 1])


def _tune(
    matrix: NDArray[np.floating],
    codes: NDArray[np.intp],
    coverage: float,
    k_reg: int | None,
    lam: float | None,
) -> tuple[int, float]:
    """Choose RAPS's penalty on rows of its own: the smallest sets at the coverage asked for."""
    rows, columns = np.arange(len(codes)), matrix.shape[1]
    order = np.argsort(-matrix, axis=1, kind="stable")
    ranks = np.empty(matrix.shape)
    np.put_along_axis(ranks, order, np.arange(1.0, columns + 1)[None, :], axis=1)
    if k_reg is None:
        k_reg = int(min(threshold(ranks[rows, codes], coverage), columns))
    if lam is not None:
        return k_reg, lam
    unpenalised = _scores(matrix, "aps", np.ones(len(codes)), 0, 0.0)
    sizes = {}
    for strength in STRENGTHS:
        scores = unpenalised + strength * np.maximum(0, ranks - k_reg)
        sizes[strength] = (scores <= threshold(scores[rows, codes], coverage)).sum()
    return k_reg, min(sizes, key=lambda strength: sizes[strength])


def _check_options(
    method: str,
    coverage: float,
    *,
    randomized: bool,
    k_reg: int | None,
    lam: float | None,
    seed: int,
) -> None:
    if method not in METHODS:
        raise ArgumentError(f"calibrate: method must be 'lac', 'aps' or 'raps', got {method!r}.")
    if not 0 < coverage < 1:
        raise ArgumentError(
            f"calibrate: coverage must lie between 0 and 1, both excluded, got {coverage}; "
            "for 90% give 0.9."
        )
    if randomized and method == "lac":
        raise ArgumentError("calibrate: randomized is for 'aps' and 'raps'; 'lac' draws nothing.")
    if method != "raps" and (k_reg is not None or lam is not None):
        raise ArgumentError(f"calibrate: k_reg and lam are for 'raps', not for {method!r}.")
    if k_reg is not None and k_reg < 0:
        raise ArgumentError(f"calibrate: k_reg must be 0 or more, got {k_reg}.")
    if lam is not None and not (lam >= 0 and isfinite(lam)):
        raise ArgumentError(f"calibrate: lam must be 0 or more, got {lam}.")
    if seed < 0:
        raise ArgumentError(f"calibrate: seed must be 0 or more, got {seed}.")
