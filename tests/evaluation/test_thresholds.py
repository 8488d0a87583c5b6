"""One class against the rest: against scikit-learn, and cases small enough for paper."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax
from sklearn import metrics as peer

from luce.errors import ArgumentError, DataError
from luce.evaluation import metrics


@st.composite
def cases(draw, most=5):
    """Draw probabilities with many ties, and labels of which each class has some or none."""
    generator = np.random.default_rng(draw(st.integers(0, 2**31)))
    rows, columns = draw(st.integers(2, 60)), draw(st.integers(2, most))
    logits = generator.normal(size=(rows, columns)).round(draw(st.sampled_from([0, 3])))
    shares = softmax(generator.normal(size=columns) * draw(st.sampled_from([0.0, 3.0])))
    return generator.choice(columns, size=rows, p=shares), softmax(logits, axis=1)


def rare(rows=2_000, members=10, seed=0):
    """Return labels of which ten in two thousand are 1, and probabilities that rank them well."""
    generator = np.random.default_rng(seed)
    codes = np.zeros(rows, int)
    codes[:members] = 1
    logit = generator.normal(size=rows) + 3 * codes - 5
    return codes, np.stack([1 / (1 + np.exp(logit)), 1 / (1 + np.exp(-logit))], axis=1)


class TestAgainstScikitLearn:
    """scikit-learn's figures, wherever it gives one."""

    @given(cases())
    def test_balanced_accuracy(self, case):
        """Balanced accuracy is scikit-learn's, classes without rows left out."""
        codes, probabilities = case
        predicted = probabilities.argmax(axis=1)
        expected = peer.recall_score(
            codes, predicted, labels=np.unique(codes), average="macro", zero_division=0
        )
        assert metrics.balanced_accuracy(codes, probabilities) == pytest.approx(expected)
        # scikit-learn warns where there is a single class, or one without rows is predicted.
        if np.isin(predicted, codes).all() and len(set(codes)) > 1:
            expected = peer.balanced_accuracy_score(codes, predicted)
            assert metrics.balanced_accuracy(codes, probabilities) == pytest.approx(expected)

    @given(cases())
    def test_roc_auc(self, case):
        """The area is scikit-learn's, of two classes and as the mean of each against the rest."""
        codes, probabilities = case
        columns = probabilities.shape[1]
        areas = [
            peer.roc_auc_score(codes == k, probabilities[:, k])
            for k in range(columns)
            if 0 < (codes == k).sum() < len(codes)
        ]
        found = metrics.roc_auc(codes, probabilities)
        if not areas:
            assert found is None
            return
        assert found == pytest.approx(np.mean(areas), abs=1e-12)
        if len(areas) == columns > 2:
            expected = peer.roc_auc_score(codes, probabilities, multi_class="ovr")
            assert found == pytest.approx(expected, abs=1e-12)

    @given(cases(), st.sampled_from([0, 1]))
    def test_average_precision(self, case, positive):
        """Average precision of any class is scikit-learn's."""
        codes, probabilities = case
        if not (codes == positive).any():
            with pytest.raises(DataError, match="no row is of class"):
                metrics.average_precision(codes, probabilities, positive=positive)
            return
        expected = peer.average_precision_score(codes == positive, probabilities[:, positive])
        found = metrics.average_precision(codes, probabilities, positive=positive)
        assert found == pytest.approx(expected, abs=1e-12)

    @given(cases(most=2))
    def test_every_threshold(self, case):
        """At every threshold precision, recall, F1 and false positives are scikit-learn's."""
        codes, probabilities = case
        codes[0] = 1
        own, scores = codes == 1, probabilities[:, 1]
        curve = metrics.threshold_curve(codes, probabilities, positive=1)
        for place, threshold in enumerate(curve["threshold"]):
            flagged = scores >= threshold
            assert curve["flagged"][place] == flagged.sum()
            for key, figure in [
                ("precision", peer.precision_score), ("recall", peer.recall_score),
                ("f1", peer.f1_score),
            ]:  # fmt: skip
                expected = figure(own, flagged, zero_division=0)
                assert curve[key][place] == pytest.approx(expected, abs=1e-12), key
        if not own.all():
            fpr, tpr, thresholds = peer.roc_curve(own, scores, drop_intermediate=False)
            np.testing.assert_allclose(curve["false_positive_rate"], fpr)
            np.testing.assert_allclose(curve["recall"], tpr)
            np.testing.assert_array_equal(curve["threshold"], thresholds)


def test_costs_by_hand():
    """Two misses at 10 and one false alarm at 1 cost 21 in four rows; by default none costs all."""
    probabilities = [[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4]]
    curve = metrics.threshold_curve([1, 1, 0, 0], probabilities, positive=1, miss_cost=10)
    at = dict(zip(curve["threshold"].tolist(), curve["cost"].tolist(), strict=True))
    assert at == {np.inf: 20 / 4, 0.7: 21 / 4, 0.4: 22 / 4, 0.2: 12 / 4, 0.1: 2 / 4}
    codes, probabilities = rare()
    cost = metrics.threshold_curve(codes, probabilities)["cost"]
    assert cost[0] == pytest.approx(cost[-1])
    best = metrics.threshold_curve(codes, probabilities)
    balanced = (best["recall"] + 1 - best["false_positive_rate"]) / 2
    assert cost.argmin() == balanced.argmax()


def test_the_table_is_of_the_curve():
    """Each line holds at its threshold, recalls rise to 1, and the best are marked."""
    codes, probabilities = rare()
    curve = metrics.threshold_curve(codes, probabilities)
    table = metrics.threshold_table(curve)
    for row in table:
        flagged = probabilities[:, 1] >= row["threshold"]
        assert row["flagged"] == flagged.sum()
        assert row["recall"] == pytest.approx((flagged & (codes == 1)).sum() / 10)
    recalls = [row["recall"] for row in table]
    assert recalls == sorted(recalls)
    assert recalls[-1] == 1
    marked = {note: row for row in table for note in row["notes"]}
    assert marked["default"]["threshold"] == 0.5
    assert marked["best F1"]["f1"] == curve["f1"].max()
    assert marked["lowest cost"]["cost"] == curve["cost"].min()


def test_nothing_is_flagged_at_a_half():
    """Where all probabilities of the class are below a half, the table says that 0.5 finds none."""
    codes, probabilities = [0, 0, 0, 1], [[0.9, 0.1], [0.8, 0.2], [0.9, 0.1], [0.7, 0.3]]
    row = metrics.watched_class(codes, probabilities)["thresholds"][0]
    assert (row["threshold"], row["flagged"], row["recall"], row["notes"]) == (
        0.5, 0, 0.0, ["default"],
    )  # fmt: skip


class TestWhichClass:
    """Of two classes the rarer is looked at; of more, only a rare one."""

    @pytest.mark.parametrize(
        ("counts", "watched", "rare"),
        [
            ([90, 10], 1, []),
            ([91, 9], 1, [1]),
            ([9, 91], 0, [0]),
            ([50, 50], 1, []),
            ([100, 0], None, []),
            ([30, 40, 30], None, []),
            ([47, 47, 6], 2, [2]),
            ([60, 0, 37, 3], 3, [3]),
            ([90, 4, 6], 1, [1, 2]),
        ],
    )
    def test_by_counts(self, counts, watched, rare):
        """A class is rare below a fifth of an equal share; a class without rows is not."""
        codes = np.repeat(np.arange(len(counts)), counts)
        probabilities = np.full((len(codes), len(counts)), 1 / len(counts))
        names = [f"class {k}" for k in range(len(counts))]
        labels = np.array(names)[codes]
        assert metrics.rare_classes(labels, probabilities, names) == [names[k] for k in rare]
        found = metrics.watched_class(labels, probabilities, names)
        assert found is None if watched is None else found["class"] == names[watched]

    @given(cases())
    def test_a_class_of_nine_tenths_leaves_a_rare_one(self, case):
        """Whenever always saying one class is right in over 90%, and others occur, one is rare."""
        codes, probabilities = case
        share = np.bincount(codes).max() / len(codes)
        if 0.9 < share < 1:
            assert metrics.rare_classes(codes, probabilities)


def test_summary_of_a_rare_class_is_plain_json():
    """The summary names the class with its own name, and JSON can hold the table."""
    codes, probabilities = rare()
    names = ["fine", "fraud"]
    figures = metrics.summary(np.array(names)[codes], probabilities, names)
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures
    assert figures["rare_classes"] == ["fraud"]
    assert figures["watched"]["class"] == "fraud"
    assert figures["watched"]["share"] == 10 / 2_000
    expected = peer.average_precision_score(codes, probabilities[:, 1])
    assert figures["watched"]["average_precision"] == pytest.approx(expected)
    assert figures["watched"]["roc_auc"] == figures["roc_auc"]


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"positive": "x"}, "positive must be one of the classes 0, 1, 2, got 'x'"),
        ({}, "it can be left out where there are two classes, or a rare one"),
        ({"positive": 0, "miss_cost": 0}, "miss_cost must be a number above 0, got 0"),
        ({"positive": 0, "miss_cost": np.nan}, "miss_cost must be a number above 0, got nan"),
    ],
)
def test_bad_options(options, match):
    """What cannot be used is refused in words."""
    with pytest.raises(ArgumentError, match=match):
        metrics.threshold_curve([0, 1, 2], np.full((3, 3), 1 / 3), **options)
