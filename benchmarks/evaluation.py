"""Set sizes beside MAPIE's, temperatures beside scikit-learn's, label issues beside cleanlab's.

``python -m benchmarks evaluation``: quality first, on the same probabilities; then the ratio of
times. The classifier is scikit-learn's logistic regression on the bundled digits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from cleanlab.filter import find_label_issues
from mapie.classification import SplitConformalClassifier
from scipy.special import softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_digits
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict, train_test_split

from benchmarks.timing import alternate, ratio, record
from luce.evaluation.calibration import TemperatureScaling
from luce.evaluation.conformal import calibrate, set_figures
from luce.evaluation.metrics import expected_calibration_error, log_loss
from luce.evaluation.mistakes import label_issues

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

SPLITS = 20
SEEDS = 25


class Given(ClassifierMixin, BaseEstimator):
    """A fitted classifier whose input is its own probabilities."""

    def __init__(self, columns: int) -> None:
        self.columns = columns

    def __sklearn_is_fitted__(self) -> bool:
        return True

    @property
    def classes_(self) -> NDArray[Any]:
        """The column numbers."""
        return np.arange(self.columns)

    def fit(self, X: Any, y: Any) -> Given:  # noqa: ARG002
        """Do nothing; scikit-learn asks for the method."""
        return self

    def predict_proba(self, X: Any) -> Any:
        """Return the input."""
        return X

    def predict(self, X: Any) -> Any:
        """Return the first of the largest."""
        return X.argmax(axis=1)


def main(arguments: list[str]) -> None:
    """Run all three parts and write benchmarks/results/evaluation.json."""
    if arguments:
        raise SystemExit("usage: python -m benchmarks evaluation")
    rows = [*conformal_sets(), *temperatures(), *label_errors()]
    print(f"\nwritten: {record('evaluation', rows)}")


def over_confident() -> tuple[LogisticRegression, NDArray[Any], NDArray[Any]]:
    """Fit 400 digits with hardly any penalty; return the classifier and the other rows."""
    X, y = load_digits(return_X_y=True)
    X_fit, X, y_fit, y = train_test_split(X / 16, y, train_size=400, random_state=0)
    return LogisticRegression(C=100.0, max_iter=2000).fit(X_fit, y_fit), X, y


def noisy() -> tuple[NDArray[Any], NDArray[Any]]:
    """Draw 2,000 labels of 6 classes from probabilities, and sharpen what is handed out."""
    generator = np.random.default_rng(0)
    true = generator.dirichlet(np.full(6, 0.5), size=2000)
    labels = (true.cumsum(axis=1) > generator.random((2000, 1))).argmax(axis=1)
    return labels, softmax(2 * np.log(true + 1e-9), axis=1)


def conformal_sets() -> list[dict[str, Any]]:
    """Compare coverage and mean size of sets over random splits, with MAPIE's defaults and ours."""
    classifier, X, y = over_confident()
    pools = {"digits": (y, classifier.predict_proba(X)), "noisy": noisy()}
    print(f"Conformal sets: mean coverage and size over {SPLITS} random splits in halves")
    print(
        f"{'data':8}{'method':22}{'asked':>7}{'luce':>8}{'size':>7}{'MAPIE':>9}{'size':>7}{'time':>20}"
    )
    rows = []
    variants = [("lac", False), ("aps", False), ("aps", True), ("raps", False), ("raps", True)]
    for data, (labels, probabilities) in pools.items():
        for method, randomized in variants:
            for coverage in (0.9, 0.95):
                row = compare_sets(labels, probabilities, method, coverage, randomized=randomized)
                rows.append({"part": "conformal", "data": data, **row})
                name = method + (" randomized" if randomized else "")
                print(
                    f"{data:8}{name:22}{coverage:7.2f}{row['luce'][0]:8.4f}{row['luce'][1]:7.3f}"
                    f"{row['mapie'][0]:9.4f}{row['mapie'][1]:7.3f}{as_text(row['time']):>20}"
                )
    return rows


def compare_sets(
    labels: NDArray[Any],
    probabilities: NDArray[Any],
    method: Any,
    coverage: float,
    *,
    randomized: bool,
) -> dict[str, Any]:
    """Run both on the same splits."""
    half = len(labels) // 2
    options = {"include_last_label": "randomized" if randomized else True}

    def luce(first: Any, second: Any, seed: int = 0) -> Any:
        sets = calibrate(
            probabilities[first],
            labels[first],
            method=method,
            coverage=coverage,
            randomized=randomized,
            seed=seed,
        )
        return sets.predict_sets(probabilities[second])

    def mapie(first: Any, second: Any, seed: int = 0) -> Any:
        peer = SplitConformalClassifier(
            Given(probabilities.shape[1]),
            confidence_level=coverage,
            conformity_score=method,
            random_state=seed,
        ).conformalize(probabilities[first], labels[first])
        return peer.predict_set(probabilities[second], conformity_score_params=options)[1][:, :, 0]

    found: dict[str, list[tuple[float, float]]] = {"luce": [], "mapie": []}
    for seed in range(SPLITS):
        first, second = np.split(np.random.default_rng(seed).permutation(len(labels)), [half])
        for name, run in (("luce", luce), ("mapie", mapie)):
            figures = set_figures(labels[second], run(first, second, seed).astype(bool))
            found[name].append((figures["coverage"], figures["mean_size"]))
    first, second = np.arange(half), np.arange(half, len(labels))
    time = in_turn(lambda: luce(first, second), lambda: mapie(first, second))
    means = {name: np.mean(values, axis=0).tolist() for name, values in found.items()}
    return {"method": method, "randomized": randomized, "coverage": coverage, **means, "time": time}


def temperatures() -> list[dict[str, Any]]:
    """Compare temperatures with scikit-learn's: fitted on one half, measured on the other."""
    classifier, X, y = over_confident()
    fit, test = np.split(np.random.default_rng(0).permutation(len(y)), [len(y) // 2])

    def luce() -> Any:
        return TemperatureScaling(classifier).fit(X[fit], y[fit])

    def peer() -> Any:
        frozen = FrozenEstimator(classifier)
        return CalibratedClassifierCV(frozen, method="temperature").fit(X[fit], y[fit])

    print("\nTemperature on digits: log-loss and ECE (15 bins of equal width) of the other half")
    figures = {}
    for name, model in (("before", classifier), ("luce", luce()), ("scikit-learn", peer())):
        found = model.predict_proba(X[test])
        figures[name] = log_loss(y[test], found), expected_calibration_error(y[test], found)
        print(f"{name:14}{figures[name][0]:9.5f}{figures[name][1]:9.5f}")
    time = in_turn(luce, peer)
    print(f"time of a fit: {as_text(time)}")
    return [{"part": "temperature", **figures, "time": time}]


def label_errors() -> list[dict[str, Any]]:
    """Compare the rows listed with cleanlab's where 3% of the labels of digits were flipped."""
    X, true = load_digits(return_X_y=True)
    model = LogisticRegression(max_iter=1000)
    rows: list[dict[str, Any]] = []
    labels, probabilities = true, np.empty(0)
    for seed in range(SEEDS):
        generator = np.random.default_rng(seed)
        flipped = generator.choice(len(true), size=round(0.03 * len(true)), replace=False)
        labels = true.copy()
        labels[flipped] = (true[flipped] + generator.integers(1, 10, size=len(flipped))) % 10
        probabilities = cross_val_predict(model, X / 16, labels, cv=5, method="predict_proba")
        ours = {issue["row"] for issue in label_issues(labels, probabilities)}
        theirs = set(np.flatnonzero(find_label_issues(labels, probabilities, n_jobs=1)).tolist())
        wrong = set(flipped.tolist())
        rows.append(
            {
                "part": "label issues",
                "seed": seed,
                "luce": (len(ours & wrong) / len(ours), len(ours & wrong) / len(wrong)),
                "cleanlab": (len(theirs & wrong) / len(theirs), len(theirs & wrong) / len(wrong)),
                "only_luce": len(ours - theirs),
                "only_cleanlab": len(theirs - ours),
                "listed": len(ours),
            }
        )
    print(f"\nLabel issues: 3% of the labels of digits flipped, {SEEDS} seeds")
    for name in ("luce", "cleanlab"):
        precision, recall = np.array([row[name] for row in rows]).T
        print(
            f"{name:10}precision {precision.mean():.4f} ± {precision.std():.4f}   "
            f"recall {recall.mean():.4f} ± {recall.std():.4f}"
        )
    difference = np.array([np.subtract(row["luce"], row["cleanlab"]) for row in rows])
    error = difference.std(axis=0) / np.sqrt(SEEDS)
    for k, name in enumerate(("precision", "recall")):
        mean, below = difference[:, k].mean(), (difference[:, k] < 0).sum()
        print(f"{name}: luce − cleanlab {mean:+.4f} ± {error[k]:.4f}, below in {below} of {SEEDS}")
    time = in_turn(
        lambda: label_issues(labels, probabilities),
        lambda: find_label_issues(labels, probabilities, n_jobs=1),
    )
    print(f"time: {as_text(time)}")
    return [*rows, {"part": "label issues", "time": time}]


def in_turn(ours: Callable[[], object], peer: Callable[[], object]) -> dict[str, float]:
    """Time both in turn; above 1, ours is faster."""
    seconds = alternate({"peer": peer, "ours": ours})
    return ratio(seconds["peer"], seconds["ours"])


def as_text(time: dict[str, float]) -> str:
    """Write a ratio with its spread."""
    return f"{time['ratio']:.1f}× ({time['low']:.1f}–{time['high']:.1f})"
