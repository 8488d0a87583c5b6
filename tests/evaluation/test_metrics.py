"""The figures, against hand-computed cases, scikit-learn and SciPy; and bad input."""

import json

import numpy as np
import pandas as pd
import polars as pl
import pytest
import sklearn.metrics
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import softmax
from sklearn.calibration import calibration_curve

from luce.errors import ArgumentError, DataError, DtypeError
from luce.evaluation import metrics

FIGURES = [
    metrics.accuracy,
    metrics.averaged_scores,
    metrics.brier_decomposition,
    metrics.brier_score,
    metrics.brier_scores,
    metrics.classwise_calibration_error,
    metrics.confusion_matrix,
    metrics.expected_calibration_error,
    metrics.log_loss,
    metrics.log_losses,
    metrics.per_class_scores,
    metrics.reliability_bins,
    metrics.summary,
    metrics.top_k_accuracy,
]


@st.composite
def cases(draw):
    """Draw labels and probabilities of 1 to 12 rows and 2 to 7 classes."""
    rows, columns = draw(st.integers(1, 12)), draw(st.integers(2, 7))
    logits = draw(arrays(np.float64, (rows, columns), elements=st.floats(-8, 8, width=32)))
    labels = draw(arrays(np.int64, rows, elements=st.integers(0, columns - 1)))
    return labels, softmax(logits, axis=1)


class TestAgainstPeers:
    """Where another library computes the same figure, ours is the same number."""

    @given(cases())
    def test_log_loss_and_brier_are_scikit_learns(self, case):
        """Log-loss and Brier score equal scikit-learn's on any rows."""
        labels, probabilities = case
        columns = np.arange(probabilities.shape[1])
        expected = sklearn.metrics.log_loss(labels, probabilities, labels=columns)
        assert metrics.log_loss(labels, probabilities) == pytest.approx(expected, abs=1e-12)
        if len(columns) == 2:
            expected = 2 * np.mean((probabilities[:, 1] - labels) ** 2)
        else:
            expected = sklearn.metrics.brier_score_loss(
                labels, probabilities, labels=columns, scale_by_half=False
            )
        assert metrics.brier_score(labels, probabilities) == pytest.approx(expected, abs=1e-12)

    def test_log_loss_of_exact_zero_is_scikit_learns(self):
        """A probability of exactly 0 counts as the dtype's epsilon, as in scikit-learn."""
        for dtype in (np.float32, np.float64):
            probabilities = np.array([[1, 0, 0], [0, 1, 0]], dtype)
            expected = sklearn.metrics.log_loss([1, 1], probabilities, labels=[0, 1, 2])
            assert metrics.log_loss([1, 1], probabilities) == pytest.approx(expected, rel=1e-6)

    @pytest.mark.parametrize("k", [1, 2, 5, 9, 10])
    def test_top_k_is_scikit_learns(self, digits, k):
        """Top-k accuracy equals scikit-learn's on digits."""
        expected = (
            sklearn.metrics.top_k_accuracy_score(digits.labels, digits.probabilities, k=k)
            if k < 10
            else 1.0
        )
        assert metrics.top_k_accuracy(digits.labels, digits.probabilities, k=k) == expected

    def test_confusion_matrix_is_scikit_learns(self, digits):
        """The confusion matrix equals scikit-learn's."""
        expected = sklearn.metrics.confusion_matrix(
            digits.labels, digits.probabilities.argmax(axis=1)
        )
        np.testing.assert_array_equal(
            metrics.confusion_matrix(digits.labels, digits.probabilities), expected
        )

    @pytest.mark.parametrize("average", ["macro", "micro", "weighted"])
    def test_averages_are_scikit_learns(self, digits, average):
        """Averaged F1 equals scikit-learn's f1_score."""
        predicted = digits.probabilities.argmax(axis=1)
        expected = sklearn.metrics.f1_score(digits.labels, predicted, average=average)
        found = metrics.averaged_scores(digits.labels, digits.probabilities, average=average)
        assert found["f1"] == pytest.approx(expected)

    @pytest.mark.parametrize(
        ("binning", "strategy"), [("equal_width", "uniform"), ("equal_mass", "quantile")]
    )
    def test_reliability_bins_are_calibration_curve(self, digits, binning, strategy):
        """The filled bins are those of scikit-learn's calibration_curve, for both binnings."""
        bins = metrics.reliability_bins(digits.labels, digits.probabilities, binning=binning)
        expected_accuracy, expected_confidence = calibration_curve(
            digits.probabilities.argmax(axis=1) == digits.labels,
            digits.probabilities.max(axis=1),
            n_bins=15,
            strategy=strategy,
        )
        accuracy = [value for value in bins["accuracy"] if value is not None]
        confidence = [value for value in bins["confidence"] if value is not None]
        np.testing.assert_allclose(accuracy, expected_accuracy)
        np.testing.assert_allclose(confidence, expected_confidence)
        assert sum(bins["counts"]) == len(digits.labels)

    @pytest.mark.parametrize(
        ("successes", "trials", "low", "high"),
        [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0, 0.1611),
         (1, 29, 0.0061, 0.1718)],
    )  # fmt: skip
    def test_wilson_is_as_published(self, successes, trials, low, high):
        """Wilson's interval is that of Newcombe's table (1998, method 3)."""
        found = metrics.wilson_interval(successes, trials)
        assert [round(end, 4) for end in found] == [low, high]


class TestByHand:
    """Cases small enough to compute on paper."""

    # Confidences 0.6, 0.6, 0.9, 1.0; right, wrong, right, right.
    labels = (0, 1, 1, 0)
    probabilities = ((0.6, 0.4), (0.6, 0.4), (0.1, 0.9), (1.0, 0.0))

    def test_log_loss(self):
        """Log-loss of (0.6, 0.4, 0.9, 1) is −(ln 0.6 + ln 0.4 + ln 0.9) / 4."""
        expected = -(np.log(0.6) + np.log(0.4) + np.log(0.9)) / 4
        assert metrics.log_loss(self.labels, self.probabilities) == pytest.approx(expected)

    def test_brier_score(self):
        """Brier score is (2·0.4² + 2·0.6² + 2·0.1² + 0) / 4 = 0.265."""
        assert metrics.brier_score(self.labels, self.probabilities) == pytest.approx(0.265)

    def test_equal_width_ece(self):
        """In five bins: (0.4, 0.6] has |0.5 − 0.6| · 2/4, (0.8, 1] has |1 − 0.95| · 2/4: 0.075."""
        error = metrics.expected_calibration_error(self.labels, self.probabilities, bins=5)
        assert error == pytest.approx(0.075)

    def test_right_edges_belong_to_the_bin(self):
        """A confidence of exactly 0.5 lies in (0, 0.5], not in (0.5, 1]."""
        bins = metrics.reliability_bins([0, 0], [[0.5, 0.5], [0.75, 0.25]], bins=2)
        assert bins["counts"] == [1, 1]

    def test_equal_mass_ece(self):
        """Two equal-mass bins split 0.6, 0.6 | 0.9, 1.0 at the median, 0.75: 0.075 again."""
        bins = metrics.reliability_bins(
            self.labels, self.probabilities, bins=2, binning="equal_mass"
        )
        assert bins["edges"] == pytest.approx([0.6, 0.75, 1.0])
        assert bins["counts"] == [2, 2]
        error = metrics.expected_calibration_error(
            self.labels, self.probabilities, bins=2, binning="equal_mass"
        )
        assert error == pytest.approx(0.075)

    def test_equal_probabilities_stay_in_one_bin(self):
        """Ten equal confidences make one equal-mass bin, whatever was asked for."""
        bins = metrics.reliability_bins([0] * 10, [[0.7, 0.3]] * 10, binning="equal_mass")
        assert bins["counts"] == [10]
        assert bins["edges"] == [0.7, 0.7]

    def test_classwise_error(self):
        """In one bin per class: |mean p₀ − 1/2| = |0.575 − 0.5|, the same for class 1: 0.075."""
        error = metrics.classwise_calibration_error(self.labels, self.probabilities, bins=1)
        assert error == pytest.approx(0.075)

    def test_brier_decomposition(self):
        """With equal probabilities in each bin Murphy's three terms are the whole score."""
        # Class 0 has p = 0.8 (3 of 4 true) and p = 0.2 (1 of 4 true); class 1 mirrors it.
        labels = [0, 0, 0, 1, 1, 1, 1, 0]
        probabilities = [[0.8, 0.2]] * 4 + [[0.2, 0.8]] * 4
        parts = metrics.brier_decomposition(labels, probabilities, bins=10)
        assert parts["reliability"] == pytest.approx(2 * 0.05**2)
        assert parts["resolution"] == pytest.approx(2 * 0.25**2)
        assert parts["uncertainty"] == pytest.approx(2 * 0.25)
        assert parts["within_bin"] == pytest.approx(0, abs=1e-15)
        assert parts["brier_score"] == pytest.approx(0.005 - 0.125 + 0.5)

    def test_top_k_ties_go_to_the_earlier_column(self):
        """Of equal probabilities the earlier column ranks first, as in the prediction."""
        tied = [[0.25, 0.25, 0.25, 0.25]]
        found = [metrics.top_k_accuracy([2], tied, k=k) for k in (1, 2, 3, 4)]
        assert found == [0, 0, 1, 1]

    def test_wilson_never_leaves_zero_to_one(self):
        """No success gives a low end of exactly 0, success throughout a high end of exactly 1."""
        assert metrics.wilson_interval(0, 7)[0] == 0
        assert metrics.wilson_interval(7, 7)[1] == 1

    def test_bootstrap_of_two_values(self):
        """Means of two draws from {0, 1} are 0, ½, 1; each end has chance ¼, so 95% is all."""
        assert metrics.bootstrap_interval([0.0, 1.0]) == (0.0, 1.0)

    def test_bootstrap_of_many_values_is_normal(self):
        """For 5,000 exponential values the bootstrap nears mean ± 1.96 s/√n."""
        values = np.random.default_rng(3).exponential(size=5_000)
        half = 1.96 * values.std(ddof=1) / np.sqrt(len(values))
        low, high = metrics.bootstrap_interval(values)
        assert low == pytest.approx(values.mean() - half, abs=half / 8)
        assert high == pytest.approx(values.mean() + half, abs=half / 8)
        assert (low, high) == metrics.bootstrap_interval(values)


def test_decomposition_remainder_is_the_within_bin_spread(digits):
    """What binning hides is the variance of p within bins less twice its covariance with y."""
    parts = metrics.brier_decomposition(digits.labels, digits.probabilities, bins=10)
    hidden = 0.0
    for column in range(10):
        p, y = digits.probabilities[:, column], digits.labels == column
        index = np.clip(np.ceil(p * 10).astype(int) - 1, 0, 9)
        for b in np.unique(index):
            p_b, y_b = p[index == b], y[index == b].astype(float)
            covariance = np.mean((p_b - p_b.mean()) * (y_b - y_b.mean()))
            hidden += len(p_b) / len(p) * (p_b.var() - 2 * covariance)
    assert parts["within_bin"] == pytest.approx(hidden, abs=1e-12)
    assert parts["brier_score"] == pytest.approx(
        metrics.brier_score(digits.labels, digits.probabilities), abs=1e-14
    )


class TestSummary:
    """`summary` is every figure, with the class names put back."""

    def test_it_agrees_with_the_functions_and_is_plain_json(self, digits):
        """Each entry is what its function gives, and the whole survives a trip through JSON."""
        names = [f"digit {k}" for k in range(10)]
        labels = np.array(names)[digits.labels]
        figures = metrics.summary(labels, digits.probabilities, names)
        assert json.loads(json.dumps(figures, allow_nan=False)) == figures
        assert figures["rows"] == len(labels)
        assert figures["micro_f1"] == pytest.approx(figures["accuracy"])
        for name, function in [
            ("accuracy", metrics.accuracy),
            ("log_loss", metrics.log_loss),
            ("brier_score", metrics.brier_score),
            ("ece", metrics.expected_calibration_error),
            ("classwise_ece", metrics.classwise_calibration_error),
            ("top_5_accuracy", metrics.top_k_accuracy),
            ("per_class", metrics.per_class_scores),
            ("balanced_accuracy", metrics.balanced_accuracy),
            ("roc_auc", metrics.roc_auc),
            ("rare_classes", metrics.rare_classes),
            ("watched", metrics.watched_class),
        ]:
            assert figures[name] == function(labels, digits.probabilities, names), name
        for name, values in (
            ("log_loss", metrics.log_losses),
            ("brier_score", metrics.brier_scores),
        ):
            low, high = metrics.bootstrap_interval(values(labels, digits.probabilities, names))
            interval = figures[f"{name}_interval"]
            assert (interval["low"], interval["high"]) == (low, high), name
        commonest = pd.Series(labels).value_counts()
        assert figures["baseline"] == {
            "class": commonest.index[0],
            "accuracy": commonest.iloc[0] / len(labels),
        }
        for name in ("accuracy", "log_loss", "brier_score"):
            interval = figures[f"{name}_interval"]
            assert interval["low"] < figures[name] < interval["high"]
        first = figures["most_confused"][0]
        pair = (labels == first["true"]) & (
            np.array(names)[digits.probabilities.argmax(axis=1)] == first["predicted"]
        )
        assert first["count"] == pair.sum()

    def test_many_rows_name_the_normal_approximation(self):
        """Above 20,000 rows the intervals of means are normal, and say so."""
        generator = np.random.default_rng(0)
        probabilities = generator.dirichlet([1, 1, 1], size=20_001)
        labels = generator.integers(3, size=20_001)
        interval = metrics.summary(labels, probabilities)["log_loss_interval"]
        assert interval["method"] == "normal approximation"
        losses = metrics.log_losses(labels, probabilities)
        half = 1.959963984540054 * losses.std(ddof=1) / np.sqrt(len(losses))
        assert interval["high"] == pytest.approx(losses.mean() + half)

    @pytest.mark.parametrize(
        ("labels", "classes"),
        [
            (np.array(["a", "b"]), ["a", "b"]),
            (np.array(["a", "b"], dtype=object), np.array(["a", "b"])),
            (np.array([7, 5]), [7, 5]),
            (np.array([False, True]), [False, True]),
            (pd.Series(["a", "b"]), ["a", "b"]),
            (pd.Series(["a", "b"], dtype="category"), ["a", "b"]),
            (pl.Series(["a", "b"]), ["a", "b"]),
            ([1, "one"], [1, "one"]),
        ],
    )
    def test_labels_of_every_kind(self, labels, classes):
        """Strings, integers, booleans, mixtures, and pandas' and polars' columns all encode."""
        if isinstance(labels, list):
            labels = np.array(labels, dtype=object)
        figures = metrics.summary(labels, [[0.9, 0.1], [0.2, 0.8]], classes)
        assert figures["accuracy"] == 1
        assert [row["class"] for row in figures["per_class"]] == list(classes)
        json.dumps(figures)

    def test_one_row(self):
        """A single example gives every figure, without a warning."""
        figures = metrics.summary(["b"], [[0.25, 0.75]], ["a", "b"])
        assert figures["accuracy"] == 1
        assert figures["log_loss_interval"]["low"] == pytest.approx(-np.log(0.75))

    def test_classes_never_predicted_and_absent(self):
        """A class never predicted, and one with no rows, score 0 and leave the averages alone."""
        figures = metrics.summary(["a", "b"], [[0.6, 0.4, 0.0]] * 2, ["a", "b", "c"])
        assert [row["f1"] for row in figures["per_class"]] == pytest.approx([2 / 3, 0, 0])
        assert figures["macro_f1"] == pytest.approx(1 / 3)  # over a and b: c occurs nowhere
        assert figures["most_confused"] == [
            {"true": "b", "predicted": "a", "count": 1, "share": 1.0}
        ]

    def test_exact_zeros_are_counted(self):
        """Rows whose true class was given exactly 0 are counted beside the log-loss."""
        figures = metrics.summary([0, 1, 1], [[1, 0], [1, 0], [0, 1]])
        assert figures["log_loss_clipped_rows"] == 1
        assert figures["log_loss"] == pytest.approx(36.0437 / 3, rel=1e-4)

    def test_float16_is_taken_as_it_is(self):
        """A float16 probability of 0.0001 costs 9.2 nats: float16's epsilon is not its floor."""
        probabilities = np.array([[0.0001, 0.9999]], dtype=np.float16)
        assert metrics.log_loss([0], probabilities) == pytest.approx(-np.log(1e-4), rel=1e-3)

    def test_float32_loses_nothing(self, digits):
        """float32 probabilities give the figures of the same numbers in float64."""
        single = digits.probabilities.astype(np.float32)
        found = metrics.summary(digits.labels, single)
        expected = metrics.summary(digits.labels, single.astype(np.float64))
        for name in ("brier_score", "ece", "ece_equal_mass", "classwise_ece"):
            assert found[name] == pytest.approx(expected[name], abs=1e-12), name


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: figure.__name__)
class TestBadInput:
    """Every function refuses the same input in the same words, starting with its own name."""

    def check(self, figure, match, *arguments, error=DataError):
        with pytest.raises(error, match=match) as caught:
            figure(*arguments)
        assert str(caught.value).startswith(f"{figure.__name__}: ")

    def test_unknown_label(self, figure):
        """A label that is not a class is named."""
        match = r"1 label is not among the classes: 'c'; the classes are 'a', 'b'"
        self.check(figure, match, ["a", "c"], [[0.5, 0.5]] * 2, ["a", "b"])

    def test_labels_of_another_type(self, figure):
        """Strings against integer classes are named, and the types too."""
        self.check(figure, "labels are str, classes int", ["1"], [[0.5, 0.5]], [0, 1])

    def test_missing_label(self, figure):
        """A missing label is named."""
        self.check(figure, "None", np.array([None, "a"]), [[0.5, 0.5]] * 2, ["a", "b"])
        self.check(figure, "nan", [np.nan, 1.0], [[0.5, 0.5]] * 2, [0, 1])

    def test_columns_that_do_not_exist(self, figure):
        """Without classes, labels are columns: others are named, and strings need classes."""
        self.check(figure, "not among the classes: 2", [0, 2], [[0.5, 0.5]] * 2)
        self.check(figure, "pass classes", ["a"], [[0.5, 0.5]], error=DtypeError)

    def test_rows_that_do_not_sum_to_one(self, figure):
        """The worst row is named with its sum."""
        self.check(figure, "row 1 sums to 0.9", [0, 0], [[0.5, 0.5], [0.5, 0.4]])

    def test_logits(self, figure):
        """Negative numbers are taken for what they are: logits."""
        self.check(figure, "take the softmax first", [0], [[2.0, -1.0]])

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_not_finite(self, figure, value):
        """NaN and Inf are named with their row."""
        self.check(figure, "NaN or Inf, first in row 1", [0, 0], [[0.5, 0.5], [0.5, value]])

    def test_lengths(self, figure):
        """Different numbers of labels and rows are both named."""
        self.check(figure, "3 labels but 1 rows", [0, 0, 0], [[0.5, 0.5]])

    def test_number_of_classes(self, figure):
        """A class list of the wrong length is named."""
        self.check(figure, "there are 2 columns, but classes lists 3", [0], [[0.5, 0.5]], [0, 1, 2])

    def test_repeated_classes(self, figure):
        """A class list with repeats is refused."""
        self.check(figure, "repeat", ["a"], [[0.5, 0.5]], ["a", "a"], error=ArgumentError)

    def test_shapes(self, figure):
        """One column for two classes, labels of two dimensions, and no rows are refused."""
        self.check(figure, "give both columns", [0], [0.5])
        self.check(figure, "labels must be 1-D", [[0]], [[0.5, 0.5]])
        self.check(figure, "no rows", [], np.empty((0, 2)))


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: metrics.top_k_accuracy([0], [[1, 0]], k=0), "top_k_accuracy: k must be 1"),
        (lambda: metrics.reliability_bins([0], [[1, 0]], bins=0), "bins must be 1 or more"),
        (
            lambda: metrics.expected_calibration_error([0], [[1, 0]], binning="even"),
            "binning must be 'equal_width' or 'equal_mass', got 'even'",
        ),
        (lambda: metrics.averaged_scores([0], [[1, 0]], average="mean"), "got 'mean'"),
        (lambda: metrics.wilson_interval(3, 2), "3 of 2"),
        (lambda: metrics.wilson_interval(0, 0), "0 of 0"),
        (lambda: metrics.wilson_interval(1, 2, confidence=95), "confidence must lie between"),
        (lambda: metrics.bootstrap_interval([1.0], resamples=0), "resamples must be 1 or more"),
    ],
)
def test_bad_options(call, match):
    """An option out of range is an ArgumentError that names it."""
    with pytest.raises(ArgumentError, match=match):
        call()


@pytest.mark.parametrize("values", [[], [[1.0]], [np.nan]])
def test_bootstrap_refuses_what_has_no_mean(values):
    """No values, a matrix and NaN are DataErrors."""
    with pytest.raises(DataError, match="finite and at least one"):
        metrics.bootstrap_interval(values)
