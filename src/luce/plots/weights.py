"""The weights of a linear classifier, as pictures where rows are images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from luce import models
from luce.errors import ArgumentError
from luce.report.text import diverging

if TYPE_CHECKING:
    from numpy.typing import NDArray


class WeightsDisplay:
    """What a linear model or a network's first layer looks at: a picture for each class or unit.

    Parameters
    ----------
    images : ndarray of shape (pictures, height, width)
    names : sequence of str
        One for each picture.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes
    figure_ : matplotlib Figure
    """

    def __init__(self, images: NDArray[np.floating[Any]], names: Sequence[Any]) -> None:
        self.images, self.names = images, list(names)

    @classmethod
    def from_estimator(
        cls, estimator: Any, *, image_shape: Sequence[int] | None = None, limit: int = 64
    ) -> Self:
        """Draw the weights of a fitted estimator or run.

        Parameters
        ----------
        estimator : estimator or Run
            With ``coef_`` or ``network_``.
        image_shape : sequence of int, optional
            (channels, height, width) of an example; by default as the estimator was trained.
        limit : int, default=64
            The most pictures; the largest weights are kept.

        Raises
        ------
        ArgumentError
            If the weights are no pictures: the examples are rows of a table.
        """
        model = getattr(estimator, "estimator", estimator)
        shape: tuple[int, ...] = tuple(image_shape or getattr(model, "input_shape_", None) or ())
        found = models.explain(model)
        if found is None:
            raise ArgumentError(
                "WeightsDisplay: the estimator is not linear, and its first layer is not one "
                "of Luce's; give a fitted SoftmaxRegression or NeuralClassifier."
            )
        weights = found.array
        of_classes = found.of == "classes"
        names = list(model.classes_) if of_classes else [f"unit {i}" for i in range(len(weights))]
        if weights.ndim == 2:
            if len(shape) != 3:
                raise ArgumentError(
                    f"WeightsDisplay: examples of shape {shape} are no images; give image_shape="
                    "(channels, height, width), or see the report for the top features."
                )
            weights = weights.reshape(-1, *shape)
        largest = np.argsort(-np.linalg.norm(weights.reshape(len(weights), -1), axis=1))
        kept = np.sort(largest[:limit])
        return cls(weights[kept].mean(axis=1), [names[k] for k in kept]).plot()

    def plot(self) -> Self:
        """Draw on a new figure: violet speaks for, orange against."""
        from matplotlib import pyplot as plt

        columns = min(len(self.images), 8 if len(self.images) > 10 else 5)
        rows = -(-len(self.images) // columns)
        self.figure_, self.axes_ = plt.subplots(
            rows, columns, figsize=(1.2 * columns, 1.4 * rows), squeeze=False, layout="constrained"
        )
        limit = float(np.abs(self.images).max()) or 1.0
        for ax in self.axes_.flat:
            ax.set_axis_off()
        for ax, image, name in zip(self.axes_.flat, self.images, self.names, strict=False):
            ax.imshow(diverging(image, limit), interpolation="nearest")
            ax.set_title(str(name), fontsize="small", parse_math=False)
        return self
