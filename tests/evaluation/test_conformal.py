"""Conformal sets: the guarantee over random splits, MAPIE's numbers, and cases by hand."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mapie.classification import SplitConformalClassifier
from scipy.stats import betabinom, norm
from sklearn.base import BaseEstimator, ClassifierMixin

from luce.errors import ArgumentError, DataError, RunError
from luce.evaluation import conformal
from luce.evaluation.conformal import PredictionSets, calibrate, set_figures

SPLITS = 200


class Given(ClassifierMixin, BaseEstimator):
    """A classifier whose input is its own probabilities, so that a peer can be fed any."""

    def __init__(self, columns):
        self.columns = columns

    def __sklearn_is_fitted__(self):
        return True

    @property
    def classes_(self):
        return np.arange(self.columns)

    def predict_proba(self, X):
        return np.asarray(X)

    def predict(self, X):
        return np.argmax(X, axis=1)


class AlwaysHalf(np.random.RandomState):
    """Random numbers of which every uniform one is ½, so that the order of rows cannot matter."""

    def uniform(self, size):
        return np.full(size, 0.5)


def noisy(rows=2000, columns=6, sharpness=2.0, seed=0):
    """Draw labels from Dirichlet probabilities; what is handed out is sharper than the truth."""
    generator = np.random.default_rng(seed)
    true = generator.dirichlet(np.full(columns, 0.5), size=rows)
    labels = (true.cumsum(axis=1) > generator.random((rows, 1))).argmax(axis=1)
    sharp = (true + 1e-9) ** sharpness
    return labels, sharp / sharp.sum(axis=1, keepdims=True)


@pytest.fixture(scope="module", params=["digits", "noisy"])
def pool(request, digits):
    """Return labels and probabilities: of digits, and of a noisy problem that is miscalibrated."""
    return (digits.labels, digits.probabilities) if request.param == "digits" else noisy()


def cover(pool, **options):
    """Calibrate on one half and count in the other, over 200 random splits."""
    labels, probabilities = pool
    n, covered = len(labels) // 2, []
    for seed in range(SPLITS):
        order = np.random.default_rng(seed).permutation(len(labels))
        first, second = order[:n], order[n:]
        sets = calibrate(probabilities[first], labels[first], seed=seed, **options)
        held = sets.predict_sets(probabilities[second])[np.arange(len(second)), labels[second]]
        covered.append(held.sum())
    return n, len(labels) - n, np.array(covered)


class TestGuarantee:
    """The sets hold the true class as often as was promised."""

    @pytest.mark.parametrize("coverage", [0.9, 0.95])
    @pytest.mark.parametrize(
        "options",
        [
            {"method": "lac"},
            {"method": "aps", "randomized": True},
            {"method": "raps", "randomized": True, "k_reg": 2, "lam": 0.01},
        ],
        ids=lambda options: options["method"],
    )
    def test_two_sided(self, pool, options, coverage):
        """Over 200 splits, coverage lies in the band of the exact beta-binomial law."""
        n, m, covered = cover(pool, coverage=coverage, **options)
        rank = math.ceil((n + 1) * coverage)
        law = betabinom(m, rank, n + 1 - rank)  # of the rows covered in one split, if nothing ties
        # Bands of probability 1 − 1e-4 for the mean of the splits, and for splits in the 95% band.
        half = norm.ppf(1 - 0.5e-4) * law.std() / np.sqrt(SPLITS)
        assert abs(covered.mean() - law.mean()) < half
        low, high = law.ppf([0.025, 0.975])
        assert ((covered < low) | (covered > high)).sum() <= 25

    @pytest.mark.parametrize("coverage", [0.9, 0.95])
    @pytest.mark.parametrize("method", ["aps", "raps"])
    def test_one_sided_without_chance(self, pool, method, coverage):
        """Without randomization coverage is no lower than asked for, and no set is empty."""
        n, m, covered = cover(pool, coverage=coverage, method=method)
        rank = math.ceil((n + 1) * coverage)
        law = betabinom(m, rank, n + 1 - rank)
        assert covered.mean() > law.mean() - norm.ppf(1 - 1e-4) * law.std() / np.sqrt(SPLITS)
        labels, probabilities = pool
        sets = calibrate(probabilities, labels, method=method, coverage=coverage)
        assert sets.predict_sets(probabilities).any(axis=1).all()

    def test_per_class(self):
        """With per_class each class reaches 90%, which the marginal sets do not give the worst."""
        labels, probabilities = noisy()
        probabilities = probabilities * np.array([3, 1, 1, 1, 1, 0.3])  # the last is played down
        probabilities /= probabilities.sum(axis=1, keepdims=True)
        share = {}
        for per_class in (False, True):
            held = np.zeros((2, 6))
            for seed in range(50):
                order = np.random.default_rng(seed).permutation(len(labels))
                first, second = order[:1000], order[1000:]
                sets = calibrate(probabilities[first], labels[first], per_class=per_class)
                inside = sets.predict_sets(probabilities[second])
                hit = inside[np.arange(1000), labels[second]]
                held[0] += np.bincount(labels[second], weights=hit, minlength=6)
                held[1] += np.bincount(labels[second], minlength=6)
            share[per_class] = held[0] / held[1]
        assert share[False].min() < 0.8
        # 50 splits of one pool of some 330 rows of each class: 3 standard errors are under 0.02.
        np.testing.assert_allclose(share[True], 0.9, atol=0.02)


class TestAgainstMapie:
    """MAPIE 1 gives the same thresholds and sets from the same probabilities."""

    def halves(self, pool):
        labels, probabilities = pool
        n = len(labels) // 2
        return labels[:n], probabilities[:n], probabilities[n:]

    def peer(self, labels, probabilities, method, coverage, random_state=0):
        return SplitConformalClassifier(
            Given(probabilities.shape[1]),
            confidence_level=coverage,
            conformity_score=method,
            random_state=random_state,
        ).conformalize(probabilities, labels)

    def threshold(self, peer):
        return peer._mapie_classifier.conformity_score_function_.quantiles_.item()

    @pytest.mark.parametrize("coverage", [0.8, 0.9, 0.95])
    def test_lac(self, pool, coverage):
        """LAC's threshold and sets are MAPIE's."""
        labels, first, second = self.halves(pool)
        peer = self.peer(labels, first, "lac", coverage)
        expected = peer.predict_set(second)[1][:, :, 0]
        sets = calibrate(first, labels, coverage=coverage)
        assert sets.thresholds[0] == pytest.approx(self.threshold(peer), rel=1e-12)
        np.testing.assert_array_equal(sets.predict_sets(second), expected)

    @pytest.mark.parametrize("coverage", [0.8, 0.9, 0.95])
    def test_aps(self, pool, coverage, monkeypatch):
        """Randomized APS's threshold and sets are MAPIE's, given the same random numbers."""
        labels, first, second = self.halves(pool)
        peer = self.peer(labels, first, "aps", coverage)
        options = {"include_last_label": "randomized"}
        expected = peer.predict_set(second, conformity_score_params=options)[1][:, :, 0]
        self.draw_as_mapie(monkeypatch)
        sets = calibrate(first, labels, method="aps", randomized=True, coverage=coverage)
        assert sets.thresholds[0] == pytest.approx(self.threshold(peer), rel=1e-12)
        np.testing.assert_array_equal(sets.predict_sets(second), expected)

    @pytest.mark.parametrize("coverage", [0.8, 0.9, 0.95])
    def test_raps(self, pool, coverage, monkeypatch):
        """RAPS's threshold is MAPIE's on the rows it calibrates with; so are sets but for the last.

        MAPIE always takes in the class that crosses the threshold (and those within 1e-8 of it);
        inverting the score, as here, leaves that to u.
        """
        labels, first, second = self.halves(pool)
        peer = self.peer(labels, first, "raps", coverage, random_state=AlwaysHalf(0))
        expected = peer.predict_set(second)[1][:, :, 0]
        score = peer._mapie_classifier.conformity_score_function_
        tuning = {row.tobytes() for row in score.X_raps}
        rest = np.array([row.tobytes() not in tuning for row in first])
        assert rest.sum() == len(first) - len(score.X_raps)
        monkeypatch.setattr(conformal, "_draws", lambda _, rows, **__: np.full(rows, 0.5))
        sets = calibrate(
            first[rest],
            labels[rest],
            method="raps",
            randomized=True,
            coverage=coverage,
            k_reg=int(score.k_star[0]),
            lam=float(score.lambda_star),
        )
        assert sets.thresholds[0] == pytest.approx(self.threshold(peer), rel=1e-12)
        found = sets.predict_sets(second)
        assert not (found & ~expected).any()
        last = np.where(expected, second, 1).min(axis=1, keepdims=True)
        assert not (expected & ~found & (second > last + 1e-7)).any()

    def test_sizes(self, pool):
        """Our APS without chance makes no larger sets than MAPIE's, at the coverage asked for."""
        labels, first, second = self.halves(pool)
        held_out = pool[0][len(labels) :]
        theirs = self.peer(labels, first, "aps", 0.9).predict_set(second)[1][:, :, 0]
        ours = calibrate(first, labels, method="aps").predict_sets(second)
        assert ours.sum() <= theirs.sum()
        assert set_figures(held_out, ours)["coverage_interval"][1] > 0.9

    def draw_as_mapie(self, monkeypatch):
        """Draw u as MAPIE does: NumPy's older generator, begun anew at each call."""

        def draws(seed, rows, *, randomized):
            return np.random.RandomState(0).uniform(size=rows)

        monkeypatch.setattr(conformal, "_draws", draws)


class TestByHand:
    """Cases small enough to compute on paper."""

    def test_lac(self):
        """Scores 0.1 … 0.9 at 80%: the ⌈10 · 0.8⌉ = 8th is 0.8, so classes of p ≥ 0.2 are in."""
        p = np.arange(0.9, 0.05, -0.1)
        sets = calibrate(np.stack([p, 1 - p], axis=1), np.zeros(9, dtype=int), coverage=0.8)
        assert sets.thresholds == pytest.approx((0.8, 0.8))
        assert sets.predict_sets([[0.25, 0.75], [0.1, 0.9]]).tolist() == [
            [True, True],
            [False, True],
        ]

    def test_aps(self):
        """The score is the mass ranked before the class: 0, 0.5 and 0.8 for 0.5, 0.3, 0.2."""
        rows = [[0.5, 0.3, 0.2]] * 4
        sets = calibrate(rows, [0, 0, 1, 2], method="aps", coverage=0.6)
        assert sets.thresholds[0] == pytest.approx(0.5)  # third of 0, 0, 0.5, 0.8
        assert sets.predict_sets([[0.3, 0.2, 0.5], [0.45, 0.1, 0.45]]).tolist() == [
            [True, False, True],
            [True, False, True],
        ]

    def test_raps(self):
        """With k_reg 1 and lam 0.1 the same scores are 0, 0.5 + 0.1 and 0.8 + 0.2."""
        rows = [[0.5, 0.3, 0.2]] * 4
        options = {"method": "raps", "k_reg": 1, "lam": 0.1}
        for coverage, expected in [(0.4, 0.0), (0.6, 0.6), (0.8, 1.0)]:
            sets = calibrate(rows, [0, 0, 1, 2], coverage=coverage, **options)
            assert sets.thresholds[0] == pytest.approx(expected)

    def test_raps_chooses_its_penalty(self):
        """k_reg is the rank that covers the rows set apart; lam is one of the paper's."""
        labels, probabilities = noisy()
        sets = calibrate(probabilities, labels, method="raps", coverage=0.9)
        ranks = (probabilities > probabilities[np.arange(len(labels)), labels][:, None]).sum(axis=1)
        assert sets.k_reg == np.quantile(ranks + 1, 0.9, method="higher")
        assert sets.lam in (0.001, 0.01, 0.1, 0.2, 0.5)
        assert sets.rows == 1600

    @pytest.mark.parametrize(("rows", "finite"), [(8, False), (9, True)])
    def test_few_rows(self, rows, finite):
        """90% needs nine rows: with eight every class is in every set."""
        sets = calibrate([[0.9, 0.1]] * rows, [0] * rows, coverage=0.9)
        assert math.isfinite(sets.thresholds[0]) == finite
        assert sets.predict_sets([[1.0, 0.0]]).all() == (not finite)

    def test_absent_class(self):
        """Per class, a class without calibration rows is in every set; the others are not."""
        sets = calibrate([[0.9, 0.05, 0.05]] * 20, [0] * 20, per_class=True)
        assert sets.thresholds == (pytest.approx(0.1), math.inf, math.inf)
        assert sets.predict_sets([[0.2, 0.8, 0.0]]).tolist() == [[False, True, True]]

    def test_per_class_is_one_calibration_each(self):
        """A class's threshold is the marginal one of its own rows."""
        labels, probabilities = noisy()
        sets = calibrate(probabilities, labels, per_class=True)
        for k in range(6):
            own = labels == k
            assert sets.thresholds[k] == calibrate(probabilities[own], labels[own]).thresholds[0]

    def test_exact_zeros_and_ones(self):
        """Probabilities of exactly 0 and 1 keep the guarantee on their own rows."""
        probabilities = np.eye(3)[[0, 1, 2] * 10]
        labels = np.array([0, 1, 2] * 10)
        labels[0] = 1
        for method in ("lac", "aps", "raps"):
            sets = calibrate(probabilities, labels, method=method, coverage=0.9)
            held = sets.predict_sets(probabilities)[np.arange(30), labels]
            assert held.mean() >= 0.9

    def test_figures(self):
        """Coverage 2 of 3, mean size 4/3, one empty set, one single, and class b covered worst."""
        sets = np.array([[True, False, True], [False, False, False], [True, True, False]])
        figures = set_figures(["a", "b", "b"], sets, ["a", "b", "c"])
        assert figures["coverage"] == pytest.approx(2 / 3)
        assert figures["mean_size"] == pytest.approx(4 / 3)
        assert figures["empty"] == pytest.approx(1 / 3)
        assert figures["single"] == 0
        assert figures["worst_class"] == {"class": "b", "coverage": 0.5, "rows": 2}
        json.dumps(figures, allow_nan=False)


class TestPlainData:
    """What is calibrated is data: it goes through JSON, and bad records are refused."""

    @given(
        st.sampled_from(["lac", "aps", "raps"]),
        st.booleans(),
        st.integers(1, 40),
        st.floats(0.05, 0.99),
    )
    def test_round_trip(self, method, per_class, rows, coverage):
        """Sets survive JSON whole, infinite thresholds included, for any number of rows."""
        labels, probabilities = noisy(rows, columns=3)
        sets = calibrate(
            probabilities, labels, method=method, per_class=per_class, coverage=coverage
        )
        back = PredictionSets.from_json(json.loads(json.dumps(sets.to_json(), allow_nan=False)))
        assert back == sets
        held = sets.predict_sets(probabilities)
        np.testing.assert_array_equal(back.predict_sets(probabilities), held)
        if method != "raps":  # whose thresholds come from some of the rows only
            assert held[np.arange(rows), labels].mean() >= coverage

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("format", 2),
            ("method", "naive"),
            ("coverage", 1.0),
            ("coverage", "0.9"),
            ("per_class", 1),
            ("randomized", None),
            ("k_reg", -1),
            ("lam", float("nan")),
            ("seed", 0.5),
            ("rows", "many"),
            ("thresholds", []),
            ("thresholds", [0.5, "0.5"]),
            ("thresholds", [0.5, float("inf")]),
            ("thresholds", 0.5),
        ],
    )
    def test_records_that_cannot_be_trusted(self, field, value):
        """A record with a field missing or wrong is refused, and the field named."""
        record = calibrate([[0.9, 0.1]], [0]).to_json()
        with pytest.raises(RunError, match=f"conformal sets: {field} must be"):
            PredictionSets.from_json({**record, field: value})
        with pytest.raises(RunError, match=f"conformal sets: {field} must be"):
            PredictionSets.from_json({key: record[key] for key in record if key != field})
        with pytest.raises(RunError, match="must be an object"):
            PredictionSets.from_json(None)

    def test_labels_by_name(self):
        """Labels may be class values, with the classes in column order."""
        labels, probabilities = noisy()
        names = np.array(list("abcdef"))
        assert calibrate(probabilities, names[labels], names) == calibrate(probabilities, labels)

    def test_float32_and_order(self):
        """Sets do not depend on the other rows of the call, without randomization."""
        labels, probabilities = noisy(300)
        probabilities = probabilities.astype(np.float32)
        for method in ("lac", "aps", "raps"):
            sets = calibrate(probabilities, labels, method=method)
            whole = sets.predict_sets(probabilities)
            np.testing.assert_array_equal(sets.predict_sets(probabilities[::-1])[::-1], whole)
            np.testing.assert_array_equal(sets.predict_sets(probabilities[7:8]), whole[7:8])


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"method": "naive"}, "method must be 'lac', 'aps' or 'raps', got 'naive'"),
        ({"coverage": 90}, "coverage must lie between 0 and 1.* got 90; for 90% give 0.9"),
        ({"coverage": float("nan")}, "coverage must lie between"),
        ({"randomized": True}, "'lac' draws nothing"),
        ({"k_reg": 1}, "are for 'raps', not for 'lac'"),
        ({"method": "raps", "k_reg": -1}, "k_reg must be 0 or more, got -1"),
        ({"method": "raps", "lam": float("nan")}, "lam must be 0 or more, got nan"),
        ({"seed": -1}, "seed must be 0 or more"),
    ],
)
def test_bad_options(options, match):
    """An option out of range is an ArgumentError that names it."""
    with pytest.raises(ArgumentError, match=match):
        calibrate([[0.9, 0.1]], [0], **options)


def test_bad_input():
    """Logits, other widths, unknown labels and sets that are not sets are named."""
    with pytest.raises(DataError, match="take the softmax first"):
        calibrate([[3.0, 1.0]], [0])
    with pytest.raises(DataError, match="2 labels but 1 rows"):
        calibrate([[0.5, 0.5]], [0, 1])
    with pytest.raises(DataError, match="3 columns, but the sets were calibrated with 2"):
        calibrate([[0.5, 0.5]], [0]).predict_sets([[0.2, 0.3, 0.5]])
    with pytest.raises(DataError, match="must be a boolean array"):
        set_figures([0], [[0.5, 0.5]])
    with pytest.raises(DataError, match="2 labels but 1 sets"):
        set_figures([0, 1], [[True, False]])
    with pytest.raises(DataError, match="not among the classes: 'c'"):
        set_figures(["c"], [[True, False]], ["a", "b"])
