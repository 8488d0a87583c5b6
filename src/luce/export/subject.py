"""What an export is of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from luce.errors import ArgumentError

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from numpy.typing import NDArray

    from luce.models.classifier import Classifier
    from luce.models.steps import Step

__all__ = ["Subject"]

MOST_PAIRED = 50
"""Of more classes, the coupling of pairs is too many nodes: some 35 for each class."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A run, as far as an export needs it.

    Attributes
    ----------
    name : str
        Its folder's.
    sha256 : str
        Of all of it.
    kind : str
        What its model is called.
    classifier : Classifier
        What was learnt.
    features : ndarray or DataFrame, or None
        Raw rows that training held out; None where they are not there.
    words : str
        What these rows are.
    """

    name: str
    sha256: str
    kind: str
    classifier: Classifier
    features: np.ndarray[Any, Any] | pl.DataFrame | None
    words: str

    @property
    def temperature(self) -> float:
        """What the logits are divided by."""
        calibration = self.classifier.calibration
        return 1.0 if calibration is None else calibration.temperature

    @property
    def thresholds(self) -> NDArray[np.float64] | None:
        """Of several labels at once, from which probability on each is; None of classes."""
        return self.classifier.thresholds if self.classifier.several else None

    @cached_property
    def steps(self) -> Sequence[Step]:
        """What the model computes.

        Raises
        ------
        ArgumentError
            If it does not say.
        """
        steps = self.classifier.model.steps(self.classifier.estimator)
        if steps is None:
            raise ArgumentError(
                f"export: a model of kind {self.kind} does not say what it computes, so it cannot "
                "be exported. Train another with --model."
            )
        return steps

    @property
    def unrolled(self) -> Sequence[Step]:
        """The steps, for a format that has no loops.

        Raises
        ------
        ArgumentError
            If there are too many pairs of classes.
        """
        paired = [len(step.arrays["places"]) for step in self.steps if step.kind == "pairs"]
        if paired and max(paired) > MOST_PAIRED:
            raise ArgumentError(
                f"export: the pairs of {max(paired)} classes are coupled in {max(paired)} steps of "
                f"many nodes each, and a program without loops may have {MOST_PAIRED}. Export "
                "with to='html', or train with link='softmax' or 'ovr'."
            )
        return self.steps
