"""Whether labels are classes: the one check of scikit-learn's that every estimator makes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sklearn.utils.multiclass import check_classification_targets

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["check_target"]


def check_target(y: NDArray[Any]) -> None:
    """Raise ValueError unless labels are classes; texts and whole numbers are, however many.

    Of those, scikit-learn's check would sort all twice, and warn where there are many classes.
    """
    texts = y.dtype.kind == "O" and all(isinstance(label, str) for label in y.tolist())
    if not texts and y.dtype.kind not in "biuU":
        check_classification_targets(y)
