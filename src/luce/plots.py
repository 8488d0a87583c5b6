"""The report's figures as matplotlib axes, for notebooks and papers.

As scikit-learn's displays: ``from_estimator`` or ``from_predictions`` computes and draws, the
result keeps what was computed, and ``plot`` draws it again. Wherever an estimator is asked for, a
:class:`luce.Run` will do, with raw features.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from luce import functional as F
from luce import models
from luce.errors import ArgumentError
from luce.evaluation import metrics
from luce.report import figures, paths
from luce.report.curves import curves
from luce.report.text import diverging

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = [
    "ActivationsDisplay",
    "ConfusionDisplay",
    "CurvesDisplay",
    "PathDisplay",
    "ReliabilityDisplay",
    "ThresholdDisplay",
    "WeightsDisplay",
]

# A matrix of more classes than this has no room for numbers.
NUMBERED_CLASSES = 30

# Of a class with a smaller fraction of the rows, most probabilities are near 0.
RARE_FRACTION = 0.1


class ReliabilityDisplay:
    """How often the prediction is right, over how probable it was said to be.

    Parameters
    ----------
    bins : dict
        As from :func:`luce.evaluation.metrics.reliability_bins`.
    ece : float
        The expected calibration error of those bins.
    name : str
        Of the curve.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure

    Examples
    --------
    >>> from luce.plots import ReliabilityDisplay
    >>> display = ReliabilityDisplay.from_predictions([0, 1], [[0.75, 0.25], [1.0, 0.0]], bins=2)
    >>> display.ece
    0.375
    """

    def __init__(self, bins: Mapping[str, Sequence[Any]], ece: float, name: str) -> None:
        self.bins, self.ece, self.name = bins, ece, name

    @classmethod
    def from_estimator(
        cls, estimator: Any, X: Any, y: ArrayLike, *, bins: int = 15, ax: Any = None
    ) -> Self:
        """Predict X and draw; the arguments are those of `from_predictions`."""
        name = type(estimator).__name__
        probabilities, classes = _predict(estimator, X)
        return cls.from_predictions(y, probabilities, classes=classes, bins=bins, name=name, ax=ax)

    @classmethod
    def from_predictions(
        cls,
        y: ArrayLike,
        probabilities: ArrayLike,
        *,
        classes: Iterable[Any] | None = None,
        bins: int = 15,
        name: str = "the model",
        ax: Any = None,
    ) -> Self:
        """Put rows in bins of equal width and draw.

        Parameters
        ----------
        y : array-like of shape (rows,)
            The true classes.
        probabilities : array-like of shape (rows, classes)
        classes : iterable, optional
            The class of each column; by default labels are column numbers.
        bins : int, default=15
        name : str
            Of the curve in the legend.
        ax : matplotlib Axes, optional
            Where to draw; by default a new figure.
        """
        found = metrics.reliability_bins(y, probabilities, classes, bins=bins)
        ece = metrics.expected_calibration_error(y, probabilities, classes, bins=bins)
        return cls(found, ece, name).plot(ax=ax)

    def plot(self, *, ax: Any = None) -> Self:
        """Draw, on a new figure unless `ax` is given."""
        self.ax_ = _axes(ax)
        self.figure_ = self.ax_.figure
        figures.draw_reliability(self.ax_, self.bins, label=f"{self.name} (ECE {self.ece:.2%})")
        return self


class ThresholdDisplay:
    """One class against the rest: ROC curve, precision-recall curve, and figures by threshold.

    Parameters
    ----------
    curve : dict
        As from :func:`luce.evaluation.metrics.threshold_curve`.
    positive : object
        The class.
    share : float
        Its share of the rows.
    name : str
        Of the curves.

    Attributes
    ----------
    axes_ : list of matplotlib Axes
        ROC, precision-recall, thresholds.
    figure_ : matplotlib Figure

    Examples
    --------
    >>> from luce.plots import ThresholdDisplay
    >>> probabilities = [[0.9, 0.1], [0.8, 0.2], [0.7, 0.3]]
    >>> display = ThresholdDisplay.from_predictions([0, 1, 0], probabilities)
    >>> display.positive, display.curve["recall"].tolist()
    (1, [0.0, 0.0, 1.0, 1.0])
    """

    def __init__(self, curve: Mapping[str, Any], positive: Any, share: float, name: str) -> None:
        self.curve, self.positive, self.share, self.name = curve, positive, share, name

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: Any,
        y: ArrayLike,
        *,
        positive: Any = None,
        miss_cost: float | None = None,
    ) -> Self:
        """Predict X and draw; the arguments are those of `from_predictions`."""
        name = type(estimator).__name__
        probabilities, classes = _predict(estimator, X)
        return cls.from_predictions(
            y, probabilities, classes=classes, positive=positive, miss_cost=miss_cost, name=name
        )

    @classmethod
    def from_predictions(
        cls,
        y: ArrayLike,
        probabilities: ArrayLike,
        *,
        classes: Iterable[Any] | None = None,
        positive: Any = None,
        miss_cost: float | None = None,
        name: str = "the model",
    ) -> Self:
        """Compute and draw.

        Parameters
        ----------
        y : array-like of shape (rows,)
            The true classes.
        probabilities : array-like of shape (rows, classes)
        classes : iterable, optional
            The class of each column; by default labels are column numbers.
        positive : optional
            The class; by default the rarer of two, or the rarest if it is rare.
        miss_cost : float, optional
            As for :func:`luce.evaluation.metrics.threshold_curve`.
        name : str
            Of the curves in the legend.

        Raises
        ------
        ArgumentError, DataError
            As for :func:`luce.evaluation.metrics.threshold_curve`.
        """
        names = None if classes is None else list(classes)
        curve = metrics.threshold_curve(
            y, probabilities, names, positive=positive, miss_cost=miss_cost
        )
        if positive is None:
            watched = metrics.watched_class(y, probabilities, names)
            positive = None if watched is None else watched["class"]
        # The last point flags all rows: its precision is the share of the class.
        return cls(curve, positive, float(curve["precision"][-1]), name).plot()

    def plot(self) -> Self:
        """Draw on a new figure."""
        from matplotlib import pyplot as plt

        self.figure_, axes = plt.subplots(1, 3, figsize=(13, 3.8), layout="constrained")
        self.axes_ = list(axes)
        figures.draw_roc(axes[0], self.curve, label=self.name)
        figures.draw_precision_recall(axes[1], self.curve, self.share, label=self.name)
        figures.draw_thresholds(axes[2], self.curve, log=self.share < RARE_FRACTION)
        return self


class ConfusionDisplay:
    """Which class is taken for which: counts, coloured by their share of the true class.

    Parameters
    ----------
    matrix : ndarray of shape (classes, classes)
        Rows of each true class (down) by predicted class (across).
    classes : sequence
        Their names.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure

    Examples
    --------
    >>> from luce.plots import ConfusionDisplay
    >>> display = ConfusionDisplay.from_predictions(["a", "b"], [[0.8, 0.2], [0.6, 0.4]],
    ...                                             classes=["a", "b"])
    >>> display.matrix.tolist()
    [[1, 0], [1, 0]]
    """

    def __init__(self, matrix: NDArray[np.int64], classes: Sequence[Any]) -> None:
        self.matrix, self.classes = matrix, list(classes)

    @classmethod
    def from_estimator(cls, estimator: Any, X: Any, y: ArrayLike, *, ax: Any = None) -> Self:
        """Predict X and draw; the arguments are those of `from_predictions`."""
        probabilities, classes = _predict(estimator, X)
        return cls.from_predictions(y, probabilities, classes=classes, ax=ax)

    @classmethod
    def from_predictions(
        cls,
        y: ArrayLike,
        probabilities: ArrayLike,
        *,
        classes: Iterable[Any] | None = None,
        ax: Any = None,
    ) -> Self:
        """Count and draw.

        Parameters
        ----------
        y : array-like of shape (rows,)
            The true classes.
        probabilities : array-like of shape (rows, classes)
        classes : iterable, optional
            The class of each column; by default labels are column numbers.
        ax : matplotlib Axes, optional
            Where to draw; by default a new figure.
        """
        names = None if classes is None else list(classes)
        matrix = metrics.confusion_matrix(y, probabilities, names)
        return cls(matrix, range(len(matrix)) if names is None else names).plot(ax=ax)

    def plot(self, *, ax: Any = None) -> Self:
        """Draw, on a new figure unless `ax` is given."""
        self.ax_ = _axes(ax)
        self.figure_ = self.ax_.figure
        figures.draw_confusion(
            self.ax_, self.matrix, self.classes, numbers=len(self.classes) <= NUMBERED_CLASSES
        )
        return self


class CurvesDisplay:
    """How training went: loss and accuracy by epoch, or objective and duality gap by iteration.

    Parameters
    ----------
    curves : dict
        ``step``, ``steps``, ``series`` and ``best``, as a report's summary has them.

    Attributes
    ----------
    axes_ : list of matplotlib Axes
        One for each picture.
    figure_ : matplotlib Figure

    Examples
    --------
    >>> from luce.plots import CurvesDisplay
    >>> display = CurvesDisplay.from_history([{"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": 1.0}])
    >>> display.curves["best"]["step"]
    2.0
    """

    def __init__(self, curves: Mapping[str, Any]) -> None:
        self.curves = curves

    @classmethod
    def from_estimator(cls, estimator: Any) -> Self:
        """Draw the history of a fitted estimator (``history_``) or of a run."""
        run = hasattr(estimator, "history")
        history = estimator.history if run else getattr(estimator, "history_", [])
        return cls.from_history(history, model=estimator.config["label"] if run else None)

    @classmethod
    def from_history(
        cls, history: Sequence[Mapping[str, Any]], *, model: str | None = None
    ) -> Self:
        """Draw a history: a record for each epoch or iteration.

        Parameters
        ----------
        history : sequence of dict
            Records of ``epoch``, ``loss``, ``validation_loss``, ``accuracy``, …; or of
            ``objective`` and ``gap``.
        model : str, optional
            Which model's records, where there are several.
        """
        found = curves(history, model)
        if "absent" in found:
            raise ArgumentError("CurvesDisplay: the history is empty; fit the estimator first.")
        return cls(found).plot()

    def plot(self) -> Self:
        """Draw on a new figure."""
        from matplotlib import pyplot as plt

        titles = figures.curve_titles(self.curves)
        size = (4.5 * max(1, len(titles)), 3)
        self.figure_, axes = plt.subplots(
            1, max(1, len(titles)), figsize=size, squeeze=False, layout="constrained"
        )
        self.axes_ = list(axes[0])
        for ax, title in zip(self.axes_, titles, strict=False):
            figures.draw_curve(ax, self.curves, title)
        return self


class PathDisplay:
    """What is left of the coefficients as the penalty grows: a line for each feature, and counts.

    Parameters
    ----------
    path : CoefficientPath
        As `luce.SoftmaxRegressionCV` keeps it.
    chosen : float
        C of the model.
    names : sequence
        Of the features.

    Attributes
    ----------
    axes_ : list of matplotlib Axes
        Coefficients (of two classes; of more, their norm over the classes), and how many are not
        zero.
    figure_ : matplotlib Figure

    Examples
    --------
    >>> from luce import SoftmaxRegressionCV
    >>> from luce.plots import PathDisplay
    >>> X, y = [[0.0, 1], [1, 3], [2, 0], [3, 2]] * 5, [0, 0, 1, 1] * 5
    >>> cv = SoftmaxRegressionCV(Cs=[0.1, 1.0], l1_ratios=[1.0]).fit(X, y)
    >>> display = PathDisplay.from_estimator(cv)
    >>> display.path.nonzeros.tolist()
    [0, 2]
    """

    def __init__(self, path: Any, chosen: float, names: Sequence[Any]) -> None:
        self.path, self.chosen, self.names = path, chosen, list(names)

    @classmethod
    def from_estimator(cls, estimator: Any) -> Self:
        """Draw the path of a fitted `luce.SoftmaxRegressionCV`.

        Raises
        ------
        ArgumentError
            If it has none: it was fitted without ``l1_ratios``, or with ``refit=False``.
        """
        if not hasattr(estimator, "path_"):
            raise ArgumentError(
                "PathDisplay: the estimator has no path_; fit a SoftmaxRegressionCV with "
                "l1_ratios=[1.0], or others, or with penalty='group', and with refit=True."
            )
        names = getattr(estimator, "feature_names_in_", None)
        if names is None:
            names = [f"x{j}" for j in range(estimator.n_features_in_)]
        return cls(estimator.path_, estimator.C_, names).plot()

    def plot(self) -> Self:
        """Draw on a new figure."""
        from matplotlib import pyplot as plt

        self.figure_, axes = plt.subplots(1, 2, figsize=(11, 3.8), layout="constrained")
        self.axes_ = list(axes)
        coefficients = self.path.coef
        two = coefficients.shape[1] == 1
        values = coefficients[:, 0] if two else np.linalg.norm(coefficients, axis=1)
        paths.draw_coefficients(axes[0], self.path.Cs, values, self.names, chosen=self.chosen)
        axes[0].set(ylabel="coefficient" if two else "norm of a feature's coefficients")
        paths.draw_left(axes[1], self.path.Cs, self.path.nonzeros, chosen=self.chosen)
        return self


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


class ActivationsDisplay:
    """Activation functions and their derivatives; softmax as its temperature falls.

    Parameters
    ----------
    x : ndarray
        Where the functions are drawn.
    values, derivatives : dict of str to ndarray
        Of each activation.
    softmax : dict of float to ndarray
        For each temperature T, the first probability of softmax((x, 0) / T); at 0 the hard
        maximum, which it tends to.

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes
        Functions, derivatives, softmax.
    figure_ : matplotlib Figure

    Examples
    --------
    >>> from luce.plots import ActivationsDisplay
    >>> display = ActivationsDisplay.from_names(["relu"])
    >>> float(display.values["relu"].min()), float(display.derivatives["relu"].max())
    (0.0, 1.0)
    """

    def __init__(
        self,
        x: NDArray[np.floating[Any]],
        values: Mapping[str, NDArray[np.floating[Any]]],
        derivatives: Mapping[str, NDArray[np.floating[Any]]],
        softmax: Mapping[float, NDArray[np.floating[Any]]],
    ) -> None:
        self.x, self.values, self.derivatives, self.softmax = x, values, derivatives, softmax

    @classmethod
    def from_names(
        cls,
        names: Iterable[str] | None = None,
        *,
        temperatures: Sequence[float] = (4.0, 1.0, 0.25, 0.0),
    ) -> Self:
        """Compute and draw.

        Parameters
        ----------
        names : iterable of str, optional
            Keys of ``luce.neural.networks.ACTIVATIONS``; by default all.
        temperatures : sequence of float
            Of the softmax, at least 0; 0 is the hard maximum.

        Raises
        ------
        ArgumentError
            If a name is unknown or a temperature negative.
        """
        import torch

        from luce.neural.networks import ACTIVATIONS

        chosen = list(ACTIVATIONS if names is None else names)
        for name in chosen:
            if name not in ACTIVATIONS:
                raise ArgumentError(
                    f"ActivationsDisplay: names must be of {', '.join(ACTIVATIONS)}, got {name!r}."
                )
        if min(temperatures, default=0) < 0:
            raise ArgumentError(
                f"ActivationsDisplay: temperatures must be at least 0, got {min(temperatures)}."
            )
        x = torch.arange(-250, 251, dtype=torch.float64) / 50
        values, derivatives = {}, {}
        for name in chosen:
            here = x.clone().requires_grad_()
            y = ACTIVATIONS[name]()(here)
            y.sum().backward()
            assert here.grad is not None  # noqa: S101 - for mypy: backward has filled it
            values[name], derivatives[name] = y.detach().numpy(), here.grad.numpy()
        both = torch.stack([x, torch.zeros_like(x)], dim=1)
        softmax = {
            t: (
                F.softmax(both, dim=1, temperature=t)[:, 0]
                if t
                else (x > 0).double() + (x == 0) / 2
            )
            for t in temperatures
        }
        return cls(
            x.numpy(), values, derivatives, {t: p.numpy() for t, p in softmax.items()}
        ).plot()

    def plot(self) -> Self:
        """Draw on a new figure."""
        from matplotlib import pyplot as plt

        self.figure_, axes = plt.subplots(1, 3, figsize=(13, 3.5), layout="constrained")
        self.axes_ = axes
        colours, lines = list(figures.COLOURS.values()), ("-", "--", ":", "-.")
        for ax, title, curves_ in (
            (axes[0], "activation", self.values),
            (axes[1], "derivative", self.derivatives),
            (axes[2], "softmax of (x, 0) / T", self.softmax),
        ):
            for i, (key, y) in enumerate(curves_.items()):
                label = key if isinstance(key, str) else (f"T = {key:g}" if key else "hard maximum")
                line = lines[(i // len(colours) + i) % len(lines)]
                ax.plot(self.x, y, color=colours[i % len(colours)], linestyle=line, label=label)
            ax.set(title=title, xlabel="x")
            ax.legend(fontsize="small")
        return self


def _predict(estimator: Any, X: Any) -> tuple[Any, Any]:
    classes = getattr(estimator, "classes_", None)
    return estimator.predict_proba(X), estimator.classes if classes is None else classes


def _axes(ax: Any) -> Any:
    if ax is not None:
        return ax
    from matplotlib import pyplot as plt

    return plt.subplots(layout="constrained")[1]
