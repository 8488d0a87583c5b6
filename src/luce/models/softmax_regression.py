"""Softmax regression as a model: `SoftmaxRegression`, or `SoftmaxRegressionCV` where C is chosen.

PyTorch is not loaded where the fit does not need it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, final

from luce.errors import ArgumentError, DataError
from luce.models.base import Layer, Model, Weights
from luce.options import LINEAR

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from luce.data.blocks import Part
    from luce.evaluation.calibration import Elsewhere
    from luce.linear.model import SoftmaxModel
    from luce.linear.path import CoefficientPath
    from luce.models.steps import Step
    from luce.neural.teaching import Lessons
    from luce.neural.training import Progress

__all__ = ["Linear"]

# What only `SoftmaxRegressionCV` has beside Cs.
OF_CROSS_VALIDATION = ("cv", "scoring", "refit")

# Influence takes a second or two at the most: with more coefficients, or more products of them
# over all rows, it is not asked for.
MOST_COEFFICIENTS, MOST_PRODUCTS = 2_000, 2e10

# Of fewer rows in a block, calls would cost more than products.
FEWEST_IN_BLOCK = 1_000


@final
class Linear(Model["SoftmaxModel"]):
    """Softmax regression, solved to a proven gap."""

    options = LINEAR
    defaults: Mapping[str, Any] = MappingProxyType({"C": "auto"})
    takes_sparse = True
    takes_parts = True
    takes_labels = True
    taught = True
    # At another temperature the teacher is softened and the labels are not: no one set of
    # probabilities is learnt, and what is left is no softmax regression.
    taught_with: Mapping[str, Any] = MappingProxyType({"temperature": 1.0})
    space = {"C": {"low": 1e-4, "high": 1e4, "log": True}}  # noqa: RUF012

    def check_together(self, options: Mapping[str, Any]) -> None:
        """Refuse a penalty that there is not, and what only one of the two estimators has."""
        if "penalty" in options:
            from luce.linear.penalties import check_penalty

            check_penalty("penalty", options["penalty"])
        self._check_shares(options)
        if options.get("code") is not None and options.get("link") != "ecoc":
            raise ArgumentError(
                "linear: code belongs to link='ecoc', got it with "
                f"link={options.get('link', 'softmax')!r}. Give link='ecoc', or leave code out."
            )
        if "Cs" not in options:
            for name in OF_CROSS_VALIDATION:
                if name in options:
                    raise ArgumentError(
                        f"linear: {name} says how C is chosen by cross-validation, which takes "
                        f"Cs, such as Cs='auto'. Give Cs, or leave {name} out."
                    )
            return
        if "C" in options:
            raise ArgumentError("linear: give C, or Cs to choose it by cross-validation, not both.")
        if options.get("penalty", "l2") is None:
            raise ArgumentError(
                "linear: Cs chooses C of a penalty, got penalty=None. Leave it out, or give C "
                "instead of Cs."
            )

    def _check_shares(self, options: Mapping[str, Any]) -> None:
        """Refuse shares of L1 that contradict each other, the penalty or the solver."""
        if "l1_ratio" in options and options.get("l1_ratios") is not None:
            raise ArgumentError("linear: give l1_ratio, or l1_ratios to choose it, not both.")
        shares = options.get("l1_ratios") or [options.get("l1_ratio", 0.0)]
        if options.get("l1_ratios") is not None and "Cs" not in options:
            raise ArgumentError(
                "linear: l1_ratios are compared by cross-validation, which takes Cs, such as "
                "Cs='auto'. Give Cs, or l1_ratio."
            )
        penalty, solver = options.get("penalty", "l2"), options.get("solver", "auto")
        if max(shares) > 0 or penalty == "group":
            from luce.linear.inputs import check_ratio

            check_ratio("linear", penalty, max(shares), solver, options.get("C"))

    def check_taught(self, options: Mapping[str, Any], temperature: float) -> None:
        """Refuse a temperature, and scores that do not weigh the copies of a row."""
        if temperature != 1:
            raise ArgumentError(
                "distil: linear learns the teacher's probabilities as they are, with "
                f"temperature=1.0, got temperature={temperature}. Give 1, or choose mlp."
            )
        if options.get("cv") == "loo":
            raise ArgumentError(
                "distil: where a teacher teaches linear a row is several copies, and cv='loo' "
                "would leave out one of them. Give a number of folds, such as cv=5."
            )
        scoring = options.get("scoring", "neg_log_loss")
        if scoring != "neg_log_loss":
            raise ArgumentError(
                "distil: where a teacher teaches linear, Cs are compared by neg_log_loss alone, "
                f"got scoring={scoring!r}. Leave it out."
            )

    def make(self, options: Mapping[str, Any]) -> SoftmaxModel:
        """Return the estimator: with Cs the one that chooses C by cross-validation."""
        if "Cs" not in options:
            from luce.linear.regression import SoftmaxRegression

            return SoftmaxRegression(**{**self.defaults, **options})
        from luce.linear.path import SoftmaxRegressionCV

        given = dict(options)
        if given["Cs"] == "auto":
            del given["Cs"]
        if "l1_ratio" in given:  # one candidate
            given["l1_ratios"] = [given.pop("l1_ratio")]
        return SoftmaxRegressionCV(**given)

    def fit(
        self,
        estimator: SoftmaxModel,
        rows: NDArray[Any],
        labels: NDArray[Any],
        *,
        validation: tuple[NDArray[Any], NDArray[Any]] | None = None,  # noqa: ARG002
        resume: tuple[Mapping[str, Any], dict[str, Any]] | None = None,  # noqa: ARG002
        lessons: Lessons | None = None,
    ) -> Iterator[Progress]:
        """Solve the problem; of what a teacher said, as weighted copies of the rows."""
        if labels is None:
            estimator.fit(rows)
        elif lessons is None:
            estimator.fit(self._shaped(rows), labels)
        else:
            _learn(estimator, self._shaped(rows), lessons)
        return iter(())

    def log_probabilities(
        self, estimator: SoftmaxModel, rows: NDArray[Any]
    ) -> NDArray[np.floating[Any]]:
        """Return the log-probabilities of rows, block by block; see `Model.log_probabilities`."""
        return _in_blocks(estimator, self._shaped(rows), estimator.predict_log_proba)

    def losses(self, estimator: SoftmaxModel, part: Part) -> Elsewhere:
        """Return the log-loss at any temperature: summed up by the current engine, in lanes."""
        from luce.evaluation.calibration import Elsewhere

        def losses(inverse: float) -> tuple[float, float]:
            found = estimator.scores(part, temperatures=(1 / inverse,))
            return -found.log_likelihood[0], -found.slope[0]

        return Elsewhere(part.shape[0], losses)

    def label_logits(
        self, estimator: SoftmaxModel, rows: NDArray[Any]
    ) -> NDArray[np.floating[Any]]:
        """Return the logits of labels, block by block; see `Model.label_logits`."""
        return _in_blocks(estimator, self._shaped(rows), estimator.decision_function)

    def probabilities(
        self, estimator: SoftmaxModel, rows: NDArray[Any]
    ) -> NDArray[np.floating[Any]]:
        """Return the probabilities of rows, block by block; see `Model.probabilities`."""
        return _in_blocks(estimator, self._shaped(rows), estimator.predict_proba)

    def history(self, estimator: SoftmaxModel) -> list[dict[str, Any]]:
        """Return a record for the start and each iteration of the solver."""
        return [{"epoch": number, **record} for number, record in enumerate(estimator.history_)]

    def outcome(self, estimator: SoftmaxModel) -> dict[str, Any]:
        """Return the solver, its iterations, and what is proven of the coefficients."""
        gap = float(estimator.duality_gap_)
        ended = {
            "solver": estimator.solver_,
            "iterations": int(estimator.n_iter_.max()),
            "converged": bool(estimator.converged_),
            # Without a penalty there is no certificate, and JSON has no infinity.
            "duality_gap": gap if math.isfinite(gap) else None,
            "gradient_norm": float(estimator.gradient_norm_),
            "penalty": estimator.penalty,
            "link": "a sigmoid for each label" if estimator.multilabel_ else estimator.link,
        }
        if estimator.link in {"ovo", "ecoc"}:
            ended["binary_problems"] = len(estimator.coef_)
        share = float(getattr(estimator, "l1_ratio_", estimator.l1_ratio))
        if estimator.penalty == "group" or share > 0:
            coefficients = estimator.coef_
            ended |= {
                "l1_ratio": share,
                "nonzero_coefficients": int((coefficients != 0).sum()),
                "used_features": int(coefficients.any(axis=0).sum()),
            }
        if hasattr(estimator, "objective_"):  # the mean of folds' fits has none
            ended["objective"] = float(estimator.objective_)
        if hasattr(estimator, "scores_"):  # C was chosen
            ended["C"] = float(estimator.C_)
        if hasattr(estimator, "left_out_") and estimator.left_out_.hessian != "exact":
            ended["left_out_error"] = float(estimator.left_out_.error)
        if hasattr(estimator, "path_"):
            ended["path"] = _followed(estimator.path_)
        return ended

    def remark(self, estimator: SoftmaxModel) -> str:
        """Return iterations, seconds and the proven gap."""
        ended, seconds = self.outcome(estimator), estimator.history_[-1]["seconds"]
        count = ended["iterations"]
        line = f"{count:,} iteration{'s' * (count != 1)} of {ended['solver']} in {seconds:.1f} s"
        if ended["duality_gap"] is not None:
            line += f", proven to be within {ended['duality_gap']:.1e} of the optimum"
        if "binary_problems" in ended:
            problems = ended["binary_problems"]
            line += f"; {ended['link']} of {problems:,} binary problem{'s' * (problems != 1)}"
        if "used_features" in ended:
            line += f"; {ended['used_features']:,} features are left"
        if "C" in ended:
            how = (
                "by cross-validation" if hasattr(estimator, "Cs_") else "did best on held-out rows"
            )
            if getattr(estimator, "cv", None) == "loo":
                how = "by leave-one-out"
                if "left_out_error" in ended:
                    off = ended["left_out_error"]
                    how += f", whose log-probabilities are approximated, by about {off:.1g}"
            line += f"; C = {ended['C']:g} {how}"
        return line

    def tensors(self, estimator: SoftmaxModel) -> dict[str, NDArray[Any]]:
        """Return coefficients and intercepts, and the code of the classes if they have one."""
        found = {"coef": estimator.coef_, "intercept": estimator.intercept_}
        if hasattr(estimator, "code_"):
            found["code"] = estimator.code_
        return found

    def parameters(self, estimator: SoftmaxModel) -> int:
        """Return how many numbers are learnt: not the code, which is given."""
        return int(estimator.coef_.size + estimator.intercept_.size)

    def resolved(self, estimator: SoftmaxModel) -> dict[str, Any]:
        """Return the value of each option of the estimator; a code as lists."""
        import numpy as np

        options = super().resolved(estimator)
        if options.get("code") is not None:
            options["code"] = np.asarray(options["code"]).tolist()
        return options

    def restore(
        self,
        estimator: SoftmaxModel,
        classes: Sequence[Any],
        input_shape: Sequence[int],
        tensors: Mapping[str, NDArray[Any]],
    ) -> SoftmaxModel:
        """Return the estimator with these coefficients."""
        import numpy as np

        from luce.linear.codes import as_code

        tensors = dict(tensors)
        code = tensors.pop("code", None)
        if (code is not None) != (estimator.link in {"ovo", "ecoc"}):
            raise ArgumentError(f"link={estimator.link!r} goes with a code if it is ovo or ecoc.")
        if code is not None:
            estimator.code_ = as_code(type(estimator).__name__, code, classes)
        estimator.classes_ = np.array(classes)
        if isinstance(weights := estimator.class_weight, dict):  # JSON has text for keys
            by_text = {str(each): each for each in estimator.classes_.tolist()}
            estimator.class_weight = {by_text.get(str(k), k): w for k, w in weights.items()}
        features, rows = math.prod(input_shape), estimator.coupling.n_logits
        expected = {"coef": (rows, features), "intercept": (rows,)}
        received = {name: tensor.shape for name, tensor in tensors.items()}
        if received != expected or not all(t.dtype.kind == "f" for t in tensors.values()):
            raise ArgumentError(f"the tensors must be of shape {expected}, got {received}.")
        estimator.coef_ = tensors["coef"]
        estimator.intercept_ = tensors["intercept"]
        estimator.n_features_in_ = features
        return estimator

    def recall(self, estimator: SoftmaxModel, outcome: Mapping[str, Any]) -> None:
        """Set the C that it was fitted with and what was proven of the fit: what questions take."""
        given = estimator.get_params().get("C")
        if estimator.penalty is None:
            estimator.C_ = math.inf
        elif "C" in outcome:  # it was chosen
            estimator.C_ = float(outcome["C"])
        elif given is not None:  # "auto" chooses nothing where rows are dense
            estimator.C_ = 1.0 if given == "auto" else float(given)
        if given is None:
            estimator.l1_ratio_ = float(outcome.get("l1_ratio", 0.0))
        # Runs of earlier versions do not say all of this.
        for name in ("converged", "duality_gap", "objective"):
            if outcome.get(name) is not None:
                setattr(estimator, f"{name}_", outcome[name])

    def layers(self, estimator: SoftmaxModel, input_shape: Sequence[int]) -> list[Layer]:  # noqa: ARG002
        """Return the one layer that there is."""
        rows, features = estimator.coef_.shape
        return [
            Layer(
                name="linear",
                layer=f"{type(estimator).__name__}(features={features}, rows={rows})",
                output=[rows],
                parameters=rows * features + rows,
                flops=2 * rows * features,
            )
        ]

    def steps(self, estimator: SoftmaxModel) -> list[Step]:
        """Return the linear step; of two classes, the first has the logit 0.

        The likelihoods of a code without zeros are a softmax of sums over its columns, which are
        linear too; those of another code and the coupling of pairs are steps of their own.
        """
        import numpy as np

        from luce.models.steps import Step

        weight, bias = estimator.coef_, estimator.intercept_
        coupling = estimator.coupling
        if (sums := coupling.as_linear()) is not None:
            weight, bias = sums @ weight, sums @ bias
        if coupling.kind == "binary":
            weight = np.concatenate([np.zeros_like(weight), weight])
            bias = np.concatenate([np.zeros_like(bias), bias])
        steps = [
            Step(kind="flatten"),
            Step(kind="linear", arrays={"weight": weight, "bias": bias}),
        ]
        # With two classes one against the rest is softmax.
        if coupling.kind == "ovr":
            steps.append(Step(kind="sigmoids"))
        elif coupling.kind == "ovo":
            steps.append(_pairs(coupling.n_classes))
        elif coupling.kind == "ecoc" and sums is None:
            halves, none = coupling.likelihoods()
            arrays = {"halves": halves.astype(np.float32), "none": none.astype(np.float32)}
            steps.append(Step(kind="code", arrays=arrays))
        return steps

    def explain(self, estimator: SoftmaxModel) -> Weights:
        """Return the weights of each class."""
        import numpy as np

        coefficients = np.asarray(estimator.coef_, dtype=np.float64)
        coupling = getattr(estimator, "coupling", None)  # scikit-learn's have none
        if coupling is not None and coupling.kind == "labels":
            # Each has a sigmoid of its own: nothing is common to all.
            return Weights("classes", coefficients)
        if coupling is not None and coupling.signs is not None:
            # The sides of a class say what speaks for it.
            share = 2 if coupling.kind == "ecoc" else len(estimator.classes_)
            coefficients = coupling.signs @ coefficients / share
        elif len(coefficients) == 1:  # two classes: the weights of the second against the first
            coefficients = np.concatenate([-coefficients / 2, coefficients / 2])
        return Weights("classes", coefficients - coefficients.mean(axis=0))

    def influence(
        self,
        estimator: SoftmaxModel,
        rows: NDArray[Any],
        codes: NDArray[Any],
        asked: NDArray[Any],
        asked_codes: NDArray[Any],
        outcome: Mapping[str, Any],
    ) -> NDArray[np.floating[Any]] | None:
        """Return the influence of each row of the fit, where the Hessian is quickly formed."""
        if not outcome.get("converged", True):
            return None
        coefficients = estimator.coef_.size
        if coefficients > MOST_COEFFICIENTS or coefficients**2 * rows.shape[0] > MOST_PRODUCTS:
            return None
        try:
            return estimator.influence(
                self._shaped(rows),
                estimator.classes_[codes],
                self._shaped(asked),
                estimator.classes_[asked_codes],
            )
        except (ArgumentError, DataError):  # no L2, or not the rows that it was fitted to
            return None


def _pairs(n_classes: int) -> Step:
    """Return the step that couples the log-odds of all pairs."""
    import numpy as np

    from luce.linear.coupling import FARTHEST
    from luce.models.steps import Step

    places = np.zeros((n_classes, n_classes), np.int64)
    first, second = np.triu_indices(n_classes, 1)
    places[second, first] = np.arange(len(first))
    return Step(kind="pairs", arrays={"places": places}, numbers={"farthest": int(FARTHEST)})


def _followed(path: CoefficientPath) -> list[dict[str, Any]]:
    """Return what is left at each C, and what is proven, as plain numbers."""
    return [
        {
            "C": float(C),
            "nonzero_coefficients": int(count),
            "used_features": int(coefficients.any(axis=0).sum()),
            "duality_gap": float(gap),
        }
        for C, count, coefficients, gap in zip(
            path.Cs, path.nonzeros, path.coef, path.duality_gap, strict=True
        )
    ]


def _in_blocks(
    estimator: SoftmaxModel, X: Any, predict: Callable[[Any], Any]
) -> NDArray[np.floating[Any]]:
    """Predict rows in blocks that NumPy multiplies: it is done before PyTorch would be loaded."""
    import numpy as np

    from luce.linear.small import suits

    rows, n_logits = X.shape[0], len(estimator.coef_)
    size = rows
    while size > FEWEST_IN_BLOCK and not suits(X[:size], n_logits):
        size //= 2
    if size <= FEWEST_IN_BLOCK or size == rows:
        found: NDArray[np.floating[Any]] = predict(X)
        return found
    return np.concatenate([predict(X[start : start + size]) for start in range(0, rows, size)])


def _learn(estimator: SoftmaxModel, X: Any, lessons: Lessons) -> None:
    """Fit to q = α · teacher + (1 − α) · label, the mixture that networks learn."""
    import numpy as np
    from sklearn.model_selection import check_cv
    from sklearn.utils import compute_sample_weight

    from luce.linear.copies import copies
    from luce.linear.regression import SoftmaxRegression

    labels, classes, share = lessons.labels, lessons.classes, lessons.beside["alpha"]
    q = np.exp(lessons.beside["teacher"], dtype=np.float64) * share[:, None]
    q[np.arange(len(q)), np.searchsorted(classes, labels)] += 1.0 - share
    rows, codes, weight = copies(q)
    asked = estimator.get_params(deep=False)
    # As for networks, class_weight is of rows, by their labels: not of the copies' classes.
    if asked["class_weight"] == "balanced":
        weight *= compute_sample_weight("balanced", labels)[rows]
    elif asked["class_weight"] is not None:
        each = [asked["class_weight"].get(label, 1.0) for label in classes.tolist()]
        weight *= np.array(each)[np.searchsorted(classes, labels)][rows]
    own: dict[str, Any] = {"class_weight": None}
    try:
        # What is held out to choose C by is held out with all its copies.
        if isinstance(estimator, SoftmaxRegression):
            estimator.set_params(**own).fit(X[rows], codes, weight, groups=rows)
        else:
            splits = check_cv(asked["cv"], labels, classifier=True).split(X, labels)
            own["cv"] = [[np.flatnonzero(np.isin(rows, part)) for part in pair] for pair in splits]
            estimator.set_params(**own).fit(X[rows], codes, weight)
            first = np.flatnonzero(np.diff(rows, prepend=-1))
            estimator.oof_proba_ = estimator.oof_proba_[first]
    finally:
        estimator.set_params(**{name: asked[name] for name in own})
    estimator.classes_ = classes
