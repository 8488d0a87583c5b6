"""Temperature and vector scaling: against scikit-learn, PyTorch and cases computed by hand."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import minimize_scalar
from scipy.sparse import csr_array
from scipy.special import log_softmax, softmax
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_breast_cancer
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB

import luce
from luce.errors import ArgumentError, DataError, DtypeError, RunError
from luce.evaluation.calibration import TemperatureScaling, VectorScaling, fit_temperature
from luce.evaluation.metrics import expected_calibration_error, log_loss

BOTH = pytest.mark.parametrize("Scaling", [TemperatureScaling, VectorScaling])


def log_loss_at(T, logits, labels):
    """Return the log-loss of softmax(logits / T), computed apart from the package."""
    return -log_softmax(logits / T, axis=1)[np.arange(len(labels)), labels].mean()


@st.composite
def cases(draw):
    """Draw logits, from flat to extreme, and labels."""
    rows, columns = draw(st.integers(1, 15)), draw(st.integers(2, 5))
    scale = draw(st.sampled_from([1e-3, 1.0, 30.0, 1e4]))
    logits = draw(arrays(np.float64, (rows, columns), elements=st.floats(-1, 1, width=32)))
    labels = draw(arrays(np.int64, rows, elements=st.integers(0, columns - 1)))
    return logits * scale, labels


class TestAgainstScikitLearn:
    """CalibratedClassifierCV(method="temperature") around a frozen estimator is the peer."""

    def check(self, classifier, X, y):
        peer = CalibratedClassifierCV(FrozenEstimator(classifier), method="temperature").fit(X, y)
        ours = TemperatureScaling(classifier).fit(X, y)
        expected = peer.predict_proba(X)
        np.testing.assert_allclose(ours.predict_proba(X), expected, rtol=1e-6, atol=1e-9)
        np.testing.assert_array_equal(ours.predict(X), peer.predict(X))
        np.testing.assert_array_equal(ours.classes_, peer.classes_)
        return ours, peer.calibrated_classifiers_[0].calibrators[0].beta_

    def test_many_classes(self, digits_model):
        """On digits the temperature and the probabilities are scikit-learn's."""
        classifier, X, y = digits_model
        ours, beta = self.check(classifier, X, y)
        assert ours.temperature_ == pytest.approx(1 / beta, rel=1e-6)
        assert ours.temperature_ > 1.1  # the classifier is over-confident

    def test_two_classes(self):
        """On two classes with string labels the probabilities are scikit-learn's."""
        X, y = load_breast_cancer(return_X_y=True)
        X, y = (X - X.mean(axis=0)) / X.std(axis=0), np.array(["malignant", "benign"])[y]
        classifier = LogisticRegression(C=1e3, max_iter=5000).fit(X[:150], y[:150])
        self.check(classifier, X[150:], y[150:])

    def test_probabilities_only(self, digits_model):
        """A classifier without decision_function is scaled through its probabilities."""
        _, X, y = digits_model
        classifier = GaussianNB(var_smoothing=1e-2).fit(X[:400], y[:400])
        ours, _ = self.check(classifier, X[400:], y[400:])
        assert ours.takes_ == "probabilities"


class TestFitTemperature:
    """`fit_temperature` finds the minimum, and stays sane where there is none."""

    def test_three_right_of_four(self):
        """Equal logits (3, 0) that are right 3 times in 4 give T = 3 / ln 3."""
        T = fit_temperature([[3.0, 0.0]] * 4, [0, 0, 0, 1])
        assert pytest.approx(3 / math.log(3), rel=1e-10) == T

    def test_it_is_the_minimum(self, digits):
        """No temperature on a fine grid around it has a lower log-loss."""
        T = fit_temperature(digits.logits, digits.labels)
        best = log_loss_at(T, digits.logits, digits.labels)
        for factor in (0.5, 0.99, 0.9999, 1.0001, 1.01, 2.0):
            assert best < log_loss_at(T * factor, digits.logits, digits.labels)

    @pytest.mark.parametrize("factor", [1e-2, 3.0, 50.0])
    def test_it_scales_with_the_logits(self, digits, factor):
        """Logits times c have c times the temperature."""
        T = fit_temperature(digits.logits, digits.labels)
        scaled = fit_temperature(digits.logits * factor, digits.labels)
        assert scaled == pytest.approx(T * factor, rel=1e-9)

    @given(cases())
    def test_never_worse(self, case):
        """Whatever logits and labels, T is finite and the log-loss is not above that of T = 1."""
        logits, labels = case
        T = fit_temperature(logits, labels)
        assert 4e-5 < T < 3e4
        before, after = log_loss_at(1, logits, labels), log_loss_at(T, logits, labels)
        assert after <= before * (1 + 1e-12) + 1e-15

    def test_every_row_right(self):
        """Where all n rows are right, the mean confidence becomes (n + 1) / (n + 2)."""
        logits = np.array([[0.5, 0.0, 0.1], [0.0, 0.7, 0.2], [0.1, 0.3, 0.9]])
        T = fit_temperature(logits, [0, 1, 2])
        assert softmax(logits / T, axis=1).max(axis=1).mean() == pytest.approx(4 / 5)

    def test_every_row_right_and_sure_already(self):
        """Where all rows are right and confidence is above (n + 1) / (n + 2), T is 1."""
        assert fit_temperature([[9.0, 0.0], [0.0, 9.0]], [0, 1]) == 1.0

    def test_one_row(self):
        """One row that is right gives a confidence of 2/3; one that is wrong, near-uniform."""
        T = fit_temperature([[0.1, 0.0]], [0])
        assert softmax(np.array([0.1, 0.0]) / T)[0] == pytest.approx(2 / 3)
        T = fit_temperature([[3.0, 0.0]], [1])
        assert softmax(np.array([3.0, 0.0]) / T)[0] == pytest.approx(0.5, abs=1e-3)

    def test_flat_logits(self):
        """Equal logits say nothing, so T is 1."""
        assert fit_temperature(np.zeros((5, 3)), [0, 1, 2, 0, 0]) == 1.0

    def test_absent_class(self, digits):
        """A class without rows is no obstacle."""
        rows = digits.labels != 4
        assert fit_temperature(digits.logits[rows], digits.labels[rows]) > 1

    def test_huge_float32(self):
        """Logits near the end of float32 do not overflow."""
        logits = np.array([[3e38, -3e38], [-3e38, 3e38], [3e38, -3e38]], dtype=np.float32)
        assert math.isfinite(fit_temperature(logits, [0, 1, 1]))


class TestShrinkage:
    """With `shrinkage` a temperature of few rows is held at 1."""

    @pytest.mark.parametrize("factor", [0.2, 1.0, 5.0])
    @pytest.mark.parametrize("shrinkage", [0.5, 2.0, 20.0])
    def test_it_is_the_minimum(self, digits, factor, shrinkage):
        """No temperature has a lower n · log-loss + shrinkage · |1/T − 1|, on either side of 1."""
        logits, labels = digits.logits[:150] * factor, digits.labels[:150]

        def objective(T):
            return 150 * log_loss_at(T, logits, labels) + shrinkage * abs(1 / T - 1)

        T = fit_temperature(logits, labels, shrinkage=shrinkage)
        best = minimize_scalar(lambda u: objective(np.exp(u)), bounds=(-3, 3), method="bounded")
        assert objective(T) <= best.fun + 1e-9
        assert T != 1.0 or factor == 1.0

    @given(cases())
    def test_rows_that_are_all_right_bound_it(self, case):
        """Where the margin of every row is known, so is how far T goes: n · E[margin] = 2.

        E[margin] is the mean over the rows of the margins that probabilities of that T expect.
        """
        logits, _ = case
        labels = logits.argmax(axis=1)
        margins = logits.max(axis=1, keepdims=True) - logits
        T = fit_temperature(logits, labels, shrinkage=2.0)
        expected = (softmax(logits / T, axis=1) * margins).sum()
        assert expected == pytest.approx(2.0, rel=1e-6) or (T == 1.0 and expected <= 2.0)

    def test_equal_rows_that_are_all_right(self):
        """100 rows of two classes with a margin of 1: a chance of 2% is left for the other class.

        Laplace's rule of succession has 1 in 102 there.
        """
        T = fit_temperature([[1.0, 0.0]] * 100, [0] * 100, shrinkage=2.0)
        assert softmax(np.array([1.0, 0.0]) / T)[1] == pytest.approx(0.02)

    @pytest.mark.parametrize("factor", [0.4, 2.5])
    def test_many_rows_say_what_they_say_without(self, factor):
        """Of 20,000 rows the temperature is that of maximum likelihood to 1%."""
        generator = np.random.default_rng(0)
        logits = generator.normal(size=(20_000, 4)) * 2
        labels = (logits + generator.gumbel(size=logits.shape)).argmax(axis=1)
        plain = fit_temperature(logits * factor, labels)
        shrunk = fit_temperature(logits * factor, labels, shrinkage=2.0)
        assert shrunk == pytest.approx(plain, rel=0.01)
        assert abs(math.log(shrunk)) < abs(math.log(plain))

    @given(cases(), st.floats(0, 1e6))
    def test_more_of_it_is_nearer_to_one(self, case, shrinkage):
        """T is never further from 1 than with less shrinkage, and on the same side."""
        logits, labels = case
        assume((logits.max(axis=1) > logits[np.arange(len(labels)), labels]).any())
        some = 1 / fit_temperature(logits, labels, shrinkage=shrinkage) - 1
        less = 1 / fit_temperature(logits, labels, shrinkage=shrinkage / 2) - 1
        assert abs(some) <= abs(less) * (1 + 1e-9) + 1e-12
        assert some * less >= 0

    def test_without_end_it_is_one(self, digits):
        """Infinite shrinkage leaves every row as it is."""
        scaling = TemperatureScaling(shrinkage=math.inf).fit(digits.logits * 7, digits.labels)
        assert scaling.temperature_ == 1.0
        assert scaling.log_loss_after_ == scaling.log_loss_before_

    @pytest.mark.parametrize("shrinkage", [-1.0, math.nan, "2", None])
    def test_what_it_cannot_be(self, shrinkage):
        """It is a number of at least 0."""
        with pytest.raises(ArgumentError, match="shrinkage must be a number of at least 0"):
            fit_temperature([[1.0, 0.0]], [0], shrinkage=shrinkage)


@BOTH
class TestBothScalings:
    """What temperature and vector scaling have in common."""

    def test_log_loss_falls(self, Scaling, digits):
        """On logits three times too large, log-loss falls, as the attributes say, and ECE too."""
        logits = 3 * digits.logits
        probabilities = softmax(logits, axis=1)
        scaling = Scaling().fit(logits, digits.labels)
        after = scaling.predict_proba(logits)
        before = log_loss_at(1, logits, digits.labels)
        assert scaling.log_loss_before_ == pytest.approx(before)
        assert scaling.log_loss_after_ == pytest.approx(log_loss(digits.labels, after))
        assert scaling.log_loss_after_ < scaling.log_loss_before_
        before = expected_calibration_error(digits.labels, probabilities)
        assert expected_calibration_error(digits.labels, after) < before

    @given(case=cases())
    def test_never_worse(self, Scaling, case):
        """Whatever logits and labels, the log-loss on the rows fitted on does not rise."""
        scaling = Scaling().fit(*case)
        before = scaling.log_loss_before_
        assert scaling.log_loss_after_ <= before * (1 + 1e-12) + 1e-15
        assert np.isfinite(scaling.predict_proba(case[0])).all()

    def test_probabilities_and_logits_agree(self, Scaling, digits):
        """Probabilities, their logits, and logits shifted by row all give the same."""
        # A third of the logits: probabilities then stay well above 1e-12, which is added to them.
        logits = digits.logits / 3
        shift = np.linspace(-5, 5, len(logits))[:, None]
        expected = Scaling().fit(logits, digits.labels).predict_proba(logits)
        for same in (logits + shift, softmax(logits, axis=1)):
            found = Scaling().fit(same, digits.labels).predict_proba(same)
            np.testing.assert_allclose(found, expected, atol=1e-6)

    def test_exact_zeros_and_ones(self, Scaling):
        """Probabilities of exactly 0 and 1, one of them wrong, are calibrated to finite ones."""
        probabilities = np.eye(2)[[0, 1, 0, 1, 0, 0]]
        scaling = Scaling().fit(probabilities, [0, 1, 0, 1, 0, 1])
        found = scaling.predict_proba(probabilities)
        assert np.isfinite(found).all()
        assert 0.6 < found.max() < 0.999
        np.testing.assert_allclose(found.sum(axis=1), 1)

    def test_string_classes(self, Scaling, digits):
        """Classes named in column order are what labels, predictions and classes_ hold."""
        names = np.array([f"digit {k}" for k in range(10)])
        scaling = Scaling(classes=names).fit(digits.logits, names[digits.labels])
        assert scaling.classes_.tolist() == names.tolist()
        assert set(scaling.predict(digits.logits)) <= set(names)
        expected = Scaling().fit(digits.logits, digits.labels).predict_proba(digits.logits)
        np.testing.assert_array_equal(scaling.predict_proba(digits.logits), expected)

    def test_strings_without_classes(self, Scaling, digits):
        """As many different strings as columns are the classes, sorted as scikit-learn sorts."""
        names = np.array([f"digit {k}" for k in range(10)])
        scaling = Scaling().fit(digits.logits, names[digits.labels])
        assert scaling.classes_.tolist() == names.tolist()
        few = digits.labels < 9
        with pytest.raises(DtypeError, match="pass classes="):
            Scaling().fit(digits.logits[few], names[digits.labels[few]])

    def test_features_are_counted(self, Scaling, digits_model):
        """`n_features_in_` is of the scores, of the estimator's input, or of a record."""
        classifier, X, y = digits_model
        logits = classifier.decision_function(X)
        scaling = Scaling().fit(logits, y)
        assert scaling.n_features_in_ == 10
        assert Scaling.from_json(scaling.to_json()).n_features_in_ == 10
        assert Scaling(classifier).fit(X, y).n_features_in_ == 64

    def test_float32_stays(self, Scaling, digits):
        """float32 logits give float32 probabilities near those of float64."""
        scaling = Scaling().fit(digits.logits, digits.labels)
        found = scaling.predict_proba(digits.logits.astype(np.float32))
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, scaling.predict_proba(digits.logits), atol=1e-5)

    def test_absent_class(self, Scaling, digits):
        """A class without rows keeps finite parameters and a probability above 0."""
        rows = digits.labels != 4
        scaling = Scaling().fit(digits.logits[rows], digits.labels[rows])
        assert (scaling.predict_proba(digits.logits)[digits.labels == 4, 4] > 0).all()

    def test_json_round_trip(self, Scaling, digits):
        """What was fitted survives JSON bit for bit."""
        names = [f"digit {k}" for k in range(10)]
        scaling = Scaling(classes=names).fit(digits.logits, np.array(names)[digits.labels])
        record = json.loads(json.dumps(scaling.to_json(), allow_nan=False))
        back = Scaling.from_json(record)
        np.testing.assert_array_equal(
            back.predict_proba(digits.logits), scaling.predict_proba(digits.logits)
        )
        np.testing.assert_array_equal(back.predict(digits.logits), scaling.predict(digits.logits))
        assert back.to_json() == scaling.to_json()

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("format", 2),
            ("method", "pickle"),
            ("takes", "features"),
            ("classes", []),
            ("classes", ["a", "a"]),
            ("classes", [["a"], ["b"]]),
            ("classes", "ab"),
            ("rows", -1),
            ("rows", 1.5),
            ("log_loss_before", "0.1"),
            ("log_loss_after", float("nan")),
            ("log_loss_after", None),
        ],
    )
    def test_records_that_cannot_be_trusted(self, Scaling, field, value):
        """A record with a field missing or wrong is refused, and the field named."""
        record = Scaling(classes=["a", "b"]).fit([[1.0, 0.0], [0.0, 1.0]], ["a", "a"]).to_json()
        with pytest.raises(RunError, match=f"calibration: {field} must be"):
            Scaling.from_json({**record, field: value})
        with pytest.raises(RunError, match=f"calibration: {field} must be"):
            Scaling.from_json({key: record[key] for key in record if key != field})
        with pytest.raises(RunError, match="must be an object, got list"):
            Scaling.from_json([record])

    def test_bad_input(self, Scaling):
        """NaN, infinite logits, wrong lengths, unknown labels and new widths are named."""
        good = [[1.0, 0.0], [0.0, 1.0]]
        with pytest.raises(DataError, match="NaN or Inf, first in row 1"):
            Scaling().fit([[1.0, 0.0], [np.nan, 1.0]], [0, 1])
        with pytest.raises(DataError, match="pass the probabilities themselves"):
            Scaling().fit([[0.0, -np.inf], [0.0, 1.0]], [0, 1])
        with pytest.raises(DataError, match="1 labels but 2 rows"):
            Scaling().fit(good, [0])
        with pytest.raises(DataError, match="not among the classes: 2"):
            Scaling().fit(good, [0, 2])
        with pytest.raises(DataError, match="2 columns, but classes lists 3"):
            Scaling(classes=["a", "b", "c"]).fit(good, ["a", "b"])
        with pytest.raises(DataError, match=r"0 sample\(s\) \(shape=\(0, 2\)\)"):
            Scaling().fit(np.empty((0, 2)), [])
        with pytest.raises(DataError, match="arrays of bytes/strings"):
            Scaling().fit([["a", "b"]], [0])
        with pytest.raises(DtypeError, match="Sparse data was passed"):
            Scaling().fit(csr_array(good), [0, 1])
        with pytest.raises(DataError, match=r"X has 1 feature\(s\)"):
            Scaling().fit([[1.0]], [0])
        with pytest.raises(DataError, match="Unknown label type: continuous"):
            Scaling().fit(good, [0.5, 1.0])
        with pytest.raises(DataError, match=r"X has 3 features, but .* is expecting 2 features"):
            Scaling().fit([[2.0, 0.0], [0.0, 1.0]], [0, 1]).predict_proba([[1.0, 2.0, 3.0]])

    def test_scikit_learn_habits(self, Scaling, digits_model):
        """It clones, shows its parameters, and says NotFitted for itself and for its estimator."""
        classifier, X, y = digits_model
        scaling = Scaling(FrozenEstimator(classifier))
        own = {"shrinkage"} if Scaling is TemperatureScaling else set()
        assert set(scaling.get_params(deep=False)) == {"estimator", "classes"} | own
        for method in (scaling.predict_proba, scaling.predict, Scaling().predict):
            with pytest.raises(NotFittedError):
                method(X)
        fitted = clone(scaling).fit(X, y)
        assert fitted.score(X, y) > 0.9
        with pytest.raises(NotFittedError):
            Scaling(LogisticRegression()).fit(X, y)


@given(cases(), st.floats(0, 1))
def test_temperature_is_never_worse_to_the_last_bit(case, noise):
    """The recorded log-loss does not rise by even a rounding, where T is already near 1 too."""
    logits, labels = case
    T = fit_temperature(logits, labels)
    for start in (logits, logits / T, logits / T * (1 + noise * 1e-15)):
        scaling = TemperatureScaling().fit(start, labels)
        assert scaling.log_loss_after_ <= scaling.log_loss_before_


def test_temperature_changes_no_prediction(digits):
    """Dividing by one number keeps every row's order."""
    scaling = TemperatureScaling().fit(digits.logits, digits.labels)
    np.testing.assert_array_equal(
        scaling.predict(digits.logits), digits.probabilities.argmax(axis=1)
    )


@pytest.mark.parametrize("temperature", [0, -1.0, "1", None, True, float("inf"), 10**400])
def test_temperatures_that_cannot_be(temperature):
    """A stored temperature that is not a number above 0 is refused."""
    record = TemperatureScaling().fit([[1.0, 0.0], [0.0, 1.0]], [0, 0]).to_json()
    with pytest.raises(RunError, match="temperature must be a number above 0"):
        TemperatureScaling.from_json({**record, "temperature": temperature})


@pytest.mark.parametrize("weights", [[1.0], [1.0, None], "ab", [1.0, float("nan")], None])
def test_weights_that_cannot_be(weights):
    """Stored weights that are not one finite number for each class are refused."""
    record = VectorScaling().fit([[1.0, 0.0], [0.0, 1.0]], [0, 0]).to_json()
    with pytest.raises(RunError, match="weights must be a list of 2 finite numbers"):
        VectorScaling.from_json({**record, "weights": weights})


class TestVectorScaling:
    """The optimum of the penalised log-loss, and what it is good for."""

    def test_gradient_is_zero(self, digits):
        """PyTorch's gradient of the stated objective vanishes at the fitted parameters."""
        scaling = VectorScaling().fit(digits.logits, digits.labels)
        z = torch.tensor(digits.logits - digits.logits.mean(axis=1, keepdims=True))
        w = torch.tensor(scaling.weights_, requires_grad=True)
        b = torch.tensor(scaling.biases_, requires_grad=True)
        penalty = (((w - 1) ** 2).sum() + (b**2).sum()) / (2 * len(z))
        loss = torch.nn.functional.cross_entropy(z * w + b, torch.tensor(digits.labels))
        (loss + penalty).backward()
        assert max(w.grad.abs().max(), b.grad.abs().max()) < 1e-6

    def test_it_undoes_a_distortion(self):
        """Labels drawn from softmax(w ⊙ z + b) give back nearly those probabilities."""
        generator = np.random.default_rng(0)
        z = generator.normal(size=(20_000, 4)) * 2
        z -= z.mean(axis=1, keepdims=True)
        true = softmax(np.array([0.5, 1.0, 1.5, 0.8]) * z + np.array([1.0, 0.0, -1.0, 0.5]), axis=1)
        labels = (true.cumsum(axis=1) > generator.random((len(z), 1))).argmax(axis=1)
        found = VectorScaling().fit(z, labels).predict_proba(z)
        assert np.abs(found - true).mean() < 0.01
        assert np.abs(softmax(z, axis=1) - true).mean() > 0.05


def test_public_name():
    """`luce.TemperatureScaling` is the one of the room."""
    assert luce.TemperatureScaling is TemperatureScaling
    assert luce.evaluation.calibration.TemperatureScaling is TemperatureScaling


@pytest.mark.parametrize("names", [np.arange(40), np.array([f"k{i:02d}" for i in range(40)])])
def test_many_classes_of_few_rows_are_no_regression(names):
    """Fewer than two rows a class: scikit-learn would warn that this looks like a regression."""
    labels = np.tile(names, 2)[:60]
    logits = np.random.default_rng(0).normal(size=(60, 40))
    scaling = TemperatureScaling().fit(logits, labels)
    assert scaling.classes_.tolist() == names.tolist()
