"""Estimators over the part of a block store: what they check, and how their fits are set up."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from sklearn.utils import compute_class_weight

from luce.errors import ArgumentError, DataError
from luce.label_matrix import warn_of_constant
from luce.linear import large
from luce.linear.arrays import not_finite
from luce.linear.indicators import (
    check_class_weight,
    fits_by_label,
    fits_of_some,
    label_factors,
    learnable,
)
from luce.linear.parts import sums
from luce.linear.parts.lanes import deal_part
from luce.linear.parts.objective import PartObjective, added
from luce.linear.parts.rows import Weighing

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from luce.linear.display import GapDisplay
    from luce.linear.fitted import Fitted, Start
    from luce.linear.model import SoftmaxModel
    from luce.linear.parts.lanes import Part

__all__ = ["Material", "Scores", "fits", "held_out", "material", "score"]


class Material(NamedTuple):
    """The rows of a fit, and who sums them up."""

    part: Part
    compute: Any  # an engine's ``map``
    weigh: Weighing

    def fold(self, fold: int, folds: int, *, held_out: bool) -> Material:
        """Return the rows of a fold, or all others."""
        return self._replace(weigh=self.weigh._replace(folds=folds, fold=fold, held_out=held_out))


class Scores(NamedTuple):
    """What a model scores on some rows.

    Attributes
    ----------
    log_likelihood : tuple of float
        The weighted mean of log p, for each temperature that was asked for.
    accuracy : float
        The weighted share of rows whose class is the likeliest.
    weight : float
        Of all rows together.
    slope : tuple of float
        The derivative of each log-likelihood by 1/T, the inverse of its temperature.
    """

    log_likelihood: tuple[float, ...]
    accuracy: float
    weight: float
    slope: tuple[float, ...]


def material(model: SoftmaxModel, part: Part, compute: Any) -> Material:
    """Check a part, set the estimator's classes and number of features, and weigh the classes.

    Raises
    ------
    luce.errors.DataError
        If weights are negative, if a class has no weight, or if there are fewer than two.
    """
    name = type(model).__name__
    N, D = part.shape
    K = len(part.classes)
    shares = [getattr(model, "l1_ratio", 0.0), *(getattr(model, "l1_ratios", None) or [])]
    if model.penalty not in {"l2", None} or max(shares) > 0:
        raise ArgumentError(
            f"{name}: over the part of a block store penalty is 'l2' without a share of L1, or "
            f"None; got {model.penalty!r} and {max(shares):g}. Change it, or fit to rows in memory."
        )
    if N == 0 or D == 0:
        raise DataError(f"{name}: the part {part.name!r} has {N:,} rows of {D:,} features.")
    if K < 2:
        raise DataError(
            f"{name}: needs rows of at least two classes, but the data contains only one class: "
            f"{list(part.classes)!r}."
        )
    model.classes_, model.n_features_in_ = np.array(list(part.classes)), D
    model.multilabel_ = part.several
    model._couple()  # noqa: SLF001 - this file is the estimator's, moved out of it
    if part.several:
        return _of_labels(model, part, compute)
    mass = np.zeros(K)
    for own, (row, least) in compute(sums.counts, deal_part(part, K), {"n_classes": K}):
        if not least >= 0:
            raise DataError(f"{name}: weights must not be negative, got {least:g} at row {row:g}.")
        mass += own
    if not np.all(mass > 0):
        empty = part.classes[int(np.argmin(mass))]
        raise DataError(
            f"{name}: no row of class {empty!r} is in the part {part.name!r}, or none has weight. "
            "Drop the class, or give it more rows."
        )
    factors = None
    if model.class_weight is not None:
        each = compute_class_weight(
            model.class_weight, classes=model.classes_, y=model.classes_, sample_weight=mass
        )
        factors = tuple(each.tolist())
        mass = mass * each
    total = float(mass.sum())
    if not (math.isfinite(total) and math.isfinite(1 / total)):
        raise DataError(
            f"{name}: the weights of the rows add up to {total:g}, which the objective cannot be "
            "divided by: scale weights and class_weight to numbers near 1."
        )
    if not np.all(mass > 0):
        empty = part.classes[int(np.argmin(mass))]
        raise DataError(f"{name}: class_weight leaves class {empty!r} without weight.")
    return Material(part, compute, Weighing(factors))


def _of_labels(model: SoftmaxModel, part: Part, compute: Any) -> Material:
    """Return the rows of several labels at once, after a look at what can be learnt."""
    name, labels = type(model).__name__, list(part.classes)
    check_class_weight(name, model.class_weight, labels)
    rows = Material(part, compute, Weighing())
    mass, counts = _label_counts(model, rows)
    if not (math.isfinite(mass[-1]) and mass[-1] > 0 and math.isfinite(1 / mass[-1])):
        raise DataError(
            f"{name}: the weights of the rows add up to {mass[-1]:g}, which the objective cannot "
            "be divided by: scale weights to numbers near 1."
        )
    known = learnable(counts[:-1], counts[-1], fit_intercept=model.fit_intercept)
    warn_of_constant(name, labels, counts[:-1], known)
    return rows


def _label_counts(model: SoftmaxModel, rows: Material) -> tuple[np.ndarray, np.ndarray]:
    """Return weight and number of the rows with each label on, and of all rows, (L + 1,)."""
    L = len(rows.part.classes)
    shared = {"n_labels": L, "weigh": rows.weigh}
    mass, counts = np.zeros(L + 1), np.zeros(L + 1)
    for own, on, (row, least) in rows.compute(sums.labels, deal_part(rows.part, L), shared):
        if not least >= 0:
            raise DataError(
                f"{type(model).__name__}: weights must not be negative, got {least:g} at row "
                f"{row:g}."
            )
        mass += own
        counts += on
    return mass, counts


def fits(
    model: SoftmaxModel,
    rows: Material,
    Cs: Sequence[float] | np.ndarray,
    start: Start | None,
    display: GapDisplay,
    *,
    count: int = 1,
) -> Iterator[Fitted]:
    """Yield the fit for each C, each from where the last ended."""
    if not model.multilabel_:
        yield from _fits(model, rows, Cs, start, display, count=count)
        return
    mass, counts = _label_counts(model, rows)
    known = learnable(counts[:-1], counts[-1], fit_intercept=model.fit_intercept)
    columns = np.flatnonzero(known).tolist()

    def own(some: list[int], of_label: tuple[float, ...] | None = None) -> Iterator[Fitted]:
        weigh = rows.weigh._replace(columns=tuple(some), classes=of_label)
        begin = None if start is None else (start[0][some], start[1][some])
        return _fits(model, rows._replace(weigh=weigh), Cs, begin, display, count=count)

    if model.class_weight is None:
        found = own(columns)
    else:  # rows weigh otherwise for each label, which is then fitted by itself
        labels = list(rows.part.classes)
        found = fits_by_label(
            [
                own([k], label_factors(model.class_weight, labels[k], mass[k], mass[-1]))
                for k in columns
            ]
        )
    yield from found if known.all() else fits_of_some(found, known, counts[:-1], counts[-1])


def _fits(
    model: SoftmaxModel,
    rows: Material,
    Cs: Sequence[float] | np.ndarray,
    start: Start | None,
    display: GapDisplay,
    *,
    count: int,
) -> Iterator[Fitted]:
    coupling = model.coupling
    if rows.weigh.columns is not None:
        coupling = coupling._replace(n_classes=len(rows.weigh.columns))
    Cs = [float(C) for C in Cs]
    objective = PartObjective(
        rows.part,
        rows.compute,
        rows.weigh,
        n_logits=coupling.n_logits,
        link=coupling.link,
        C=Cs[0],
        fit_intercept=model.fit_intercept,
        dtype=torch.float64 if model.precision == "float64" else torch.float32,
        signs=None if coupling.signs is None else torch.tensor(coupling.signs),
    )
    if not bool(torch.isfinite(objective.variance.sum())):
        raise not_finite(type(model).__name__, objective.find_bad())
    if model.precision == "auto" and not large.suits_float32(objective, model.tol):
        wide: Any = objective.with_precision(torch.float64)
        objective = wide
    yield from large.path(model, objective, Cs, start, display, count=count)


def held_out(model: SoftmaxModel, rows: Material, fitted: Fitted, fold: int, folds: int) -> float:
    """Return the mean log-likelihood of the rows of a fold."""
    held = rows.fold(fold, folds, held_out=True)
    return score(model, held, fitted.coef, fitted.intercept).log_likelihood[0]


def score(
    model: SoftmaxModel,
    rows: Material,
    coef: np.ndarray,
    intercept: np.ndarray,
    temperatures: Sequence[float] = (1.0,),
) -> Scores:
    """Return what coefficients score on all rows, in one pass."""
    dtype = coef.dtype
    shared = {
        "W": np.ascontiguousarray(coef),
        "bias": np.ascontiguousarray(intercept, dtype),
        "coupling": model.coupling,
        "weigh": rows.weigh,
        "inverse_temperatures": tuple(1 / float(t) for t in temperatures),
    }
    lanes = deal_part(rows.part, len(temperatures))
    whole, log_p, slopes = added(rows.compute(sums.scores, lanes, shared))
    weight, hits = whole.tolist()
    if weight == 0:
        raise DataError(f"no row of the part {rows.part.name!r} has weight.")
    found, slope = ((each / weight).tolist() for each in (log_p, slopes))
    return Scores(tuple(found), hits / weight, weight, tuple(slope))
