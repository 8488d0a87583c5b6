"""The rows to look at: by hand, against a plain loop, and label errors against cleanlab."""

import json

import numpy as np
import pytest
from cleanlab.count import compute_confident_joint
from cleanlab.filter import find_label_issues
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict

from luce.errors import ArgumentError, DataError
from luce.evaluation.mistakes import label_issues, least_certain, most_confused, most_wrong


def noisy(rows=600, columns=4, seed=0):
    """Draw probabilities, and labels of which one in twelve is wrong."""
    generator = np.random.default_rng(seed)
    probabilities = generator.dirichlet(np.full(columns, 0.2), size=rows)
    labels = (probabilities.cumsum(axis=1) > generator.random((rows, 1))).argmax(axis=1)
    flipped = generator.random(rows) < 1 / 12
    labels[flipped] = generator.integers(columns, size=flipped.sum())
    return labels, probabilities


class TestMostWrong:
    """The most confident mistakes."""

    def test_by_hand(self):
        """Wrong rows by falling probability of the prediction; right rows are not listed."""
        found = most_wrong(
            ["a", "b", "b", "a"],
            [[0.3, 0.7], [0.9, 0.1], [0.2, 0.8], [0.4, 0.6]],
            ["a", "b"],
        )
        assert [mistake["row"] for mistake in found] == [1, 0, 3]
        assert found[0] == {
            "row": 1,
            "true": "b",
            "predicted": "a",
            "probability": 0.9,
            "true_probability": 0.1,
        }

    def test_ties(self):
        """Equal probabilities go by the lower true one, then by the row."""
        rows = [[0.5, 0.3, 0.2], [0.5, 0.2, 0.3], [0.5, 0.2, 0.3]]
        assert [m["row"] for m in most_wrong([1, 1, 1], rows)] == [1, 2, 0]

    def test_none(self):
        """Without a mistake the list is empty."""
        assert most_wrong([0], [[1.0, 0.0]]) == []


class TestLeastCertain:
    """The rows between two classes."""

    def test_by_hand(self):
        """Rows by rising difference of the two largest probabilities."""
        found = least_certain([[0.6, 0.3, 0.1], [0.4, 0.4, 0.2], [0.45, 0.1, 0.45]], "xyz")
        assert [row["row"] for row in found] == [1, 2, 0]
        assert (found[0]["predicted"], found[0]["second"]) == ("x", "y")
        assert (found[1]["predicted"], found[1]["second"]) == ("x", "z")
        assert found[2]["margin"] == pytest.approx(0.3)

    @given(st.integers(1, 30), st.integers(2, 6), st.integers(0, 99))
    def test_against_a_sort(self, rows, columns, seed):
        """The margins are those of sorting every row, and rise."""
        _, probabilities = noisy(rows, columns, seed)
        found = least_certain(probabilities, limit=rows)
        ordered = np.sort(probabilities, axis=1)
        expected = np.sort(ordered[:, -1] - ordered[:, -2])
        assert [row["margin"] for row in found] == pytest.approx(expected, abs=1e-15)


class TestMostConfused:
    """The pairs of classes taken for one another."""

    def test_by_hand(self):
        """Pairs by falling count, equal counts by falling share of the true class."""
        labels = list("aaaabbcc")
        predicted = ["b", "b", "a", "c", "b", "a", "c", "c"]
        probabilities = [[0.8 if p == k else 0.1 for k in "abc"] for p in predicted]
        assert most_confused(labels, probabilities, list("abc")) == [
            {"true": "a", "predicted": "b", "count": 2, "share": 0.5},
            {"true": "b", "predicted": "a", "count": 1, "share": 0.5},
            {"true": "a", "predicted": "c", "count": 1, "share": 0.25},
        ]

    def test_against_a_loop(self):
        """All pairs together are the mistakes, each counted once."""
        labels, probabilities = noisy()
        predicted = probabilities.argmax(axis=1)
        found = most_confused(labels, probabilities, limit=100)
        for pair in found:
            rows = (labels == pair["true"]) & (predicted == pair["predicted"])
            assert pair["count"] == rows.sum()
            assert pair["share"] == rows.sum() / (labels == pair["true"]).sum()
        assert sum(pair["count"] for pair in found) == (labels != predicted).sum()


@pytest.fixture(scope="module")
def flipped_digits():
    """Return digits with 3% of labels flipped by a fixed seed, and out-of-fold probabilities."""
    X, true = load_digits(return_X_y=True)
    generator = np.random.default_rng(0)
    flipped = generator.choice(len(true), size=round(0.03 * len(true)), replace=False)
    labels = true.copy()
    labels[flipped] = (true[flipped] + generator.integers(1, 10, size=len(flipped))) % 10
    model = LogisticRegression(max_iter=1000)
    probabilities = cross_val_predict(model, X / 16, labels, cv=5, method="predict_proba")
    return labels, probabilities, set(flipped.tolist())


class TestLabelIssues:
    """Confident learning, with cleanlab beside it."""

    def test_found_as_often_as_cleanlab(self, flipped_digits):
        """On flipped digits, precision and recall are not below cleanlab's."""
        labels, probabilities, flipped = flipped_digits
        ours = {issue["row"] for issue in label_issues(labels, probabilities)}
        theirs = set(np.flatnonzero(find_label_issues(labels, probabilities, n_jobs=1)).tolist())
        figures = {
            name: (len(rows & flipped) / len(rows), len(rows & flipped) / len(flipped))
            for name, rows in [("luce", ours), ("cleanlab", theirs)]
        }
        assert figures["luce"][0] >= figures["cleanlab"][0]
        assert figures["luce"][1] >= figures["cleanlab"][1]

    @pytest.mark.parametrize("seed", range(20))
    def test_cleanlabs_list_up_to_rounding(self, seed):
        """The list is cleanlab's; where remainders tie, it may differ by the rows so rounded."""
        labels, probabilities = noisy(seed=seed)
        ours = {issue["row"] for issue in label_issues(labels, probabilities)}
        theirs = set(np.flatnonzero(find_label_issues(labels, probabilities, n_jobs=1)).tolist())
        joint = compute_confident_joint(labels, probabilities, calibrate=False)
        scaled = joint * np.bincount(labels)[:, None] / joint.sum(axis=1, keepdims=True)
        remainders = (scaled % 1).round(9)
        ties = sum(len(row[row > 0]) - len(np.unique(row[row > 0])) for row in remainders)
        assert len(ours ^ theirs) <= 2 * ties

    def test_by_hand(self):
        """Of ten rows, the one labelled 0 that looks like every 1 is listed, and what it seems."""
        probabilities = [[0.9, 0.1]] * 5 + [[0.2, 0.8]] * 5
        labels = ["no"] * 5 + ["yes"] * 4 + ["no"]
        assert label_issues(labels, probabilities, ["no", "yes"]) == [
            {
                "row": 9,
                "given": "no",
                "suggested": "yes",
                "given_probability": 0.2,
                "suggested_probability": 0.8,
            }
        ]

    def test_most_suspicious_first(self, flipped_digits):
        """Issues go by how much the prediction outweighs the given label; limit cuts the tail."""
        labels, probabilities, _ = flipped_digits
        issues = label_issues(labels, probabilities)
        excess = [i["suggested_probability"] - i["given_probability"] for i in issues]
        assert excess == sorted(excess, reverse=True)
        assert min(excess) > 0
        assert label_issues(labels, probabilities, limit=5) == issues[:5]
        json.dumps(issues)

    def test_clean_labels(self):
        """Labels that the probabilities do not contradict are not listed."""
        labels = np.arange(30) % 3
        assert label_issues(labels, np.eye(3)[labels]) == []

    def test_absent_class_and_one_row(self):
        """A class without rows cannot be suggested by the joint; one row is no obstacle."""
        rows = [[0.1, 0.2, 0.7]] * 3 + [[0.2, 0.7, 0.1]] * 3
        assert label_issues([0, 0, 0, 1, 1, 1], rows) == []
        assert label_issues([0], [[0.3, 0.7]]) == []

    def test_uninformative_rows(self):
        """Where no row of a label is confident of any class, that label's rows are let be."""
        rows = [[0.9, 0.1, 0.0]] * 3 + [[0.1, 0.9, 0.0]] * 3 + [[0.34, 0.33, 0.33]] * 1
        assert label_issues([0, 0, 0, 1, 1, 1, 2], rows) == []


@pytest.mark.parametrize("function", [label_issues, most_confused, most_wrong])
def test_bad_input(function):
    """Limits below 1, logits and unknown labels are refused in the function's name."""
    with pytest.raises(ArgumentError, match=f"{function.__name__}: limit must be 1 or more, got 0"):
        function([0], [[0.5, 0.5]], limit=0)
    with pytest.raises(DataError, match=f"{function.__name__}: .* take the softmax first"):
        function([0], [[5.0, 2.0]])
    with pytest.raises(DataError, match=f"{function.__name__}: .*not among the classes: 'c'"):
        function(["c"], [[0.5, 0.5]], ["a", "b"])


def test_least_certain_needs_two_classes():
    """One class, or as many names as there are not columns, is refused."""
    with pytest.raises(DataError, match="at least two classes"):
        least_certain([[1.0]])
    with pytest.raises(DataError, match="2 columns, but classes lists 1"):
        least_certain([[0.5, 0.5]], ["a"])
    with pytest.raises(ArgumentError, match="limit must be 1 or more"):
        least_certain([[0.5, 0.5]], limit=0)
