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

    from luce.models.classifier import Classifier
    from luce.models.steps import Step

__all__ = ["Subject"]


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
