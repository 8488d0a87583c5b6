"""Several labels at once: figures, thresholds, controlled risk and temperature."""

import json

import numpy as np
import pytest
import scipy.sparse
from scipy.optimize import minimize_scalar
from sklearn import metrics as peer

from luce.errors import ArgumentError, DataError, DtypeError, RunError
from luce.evaluation import several
from luce.evaluation.several.thresholds import FEWEST


def drawn(N=200, L=6, seed=0, step=0.05):
    """Return labels and probabilities, with ties, of a model that knows something."""
    rng = np.random.default_rng(seed)
    p = np.clip(np.round(rng.beta(0.6, 1.2, size=(N, L)) / step) * step, 0.01, 0.99)
    return (rng.random((N, L)) < p).astype(int), p


def test_figures_are_scikit_learns():
    """Every figure that scikit-learn has is the same, ties and thresholds included."""
    Y, p = drawn()
    thresholds = np.linspace(0.2, 0.7, Y.shape[1])
    said = (p >= thresholds).astype(int)
    found = several.summary(Y, p, thresholds=thresholds)
    expected = {
        "mean_average_precision": peer.average_precision_score(Y, p, average="macro"),
        "micro_f1": peer.f1_score(Y, said, average="micro"),
        "macro_f1": peer.f1_score(Y, said, average="macro"),
        "micro_precision": peer.precision_score(Y, said, average="micro"),
        "micro_recall": peer.recall_score(Y, said, average="micro"),
        "hamming_loss": peer.hamming_loss(Y, said),
        "subset_accuracy": peer.accuracy_score(Y, said),
        "label_ranking_average_precision": peer.label_ranking_average_precision_score(Y, p),
        "log_loss": np.mean([peer.log_loss(y, q) for y, q in zip(Y.T, p.T, strict=True)]),
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-12), name
    assert several.hamming_loss(Y, p, thresholds=thresholds) == found["hamming_loss"]
    assert several.subset_accuracy(Y, p, thresholds=thresholds) == found["subset_accuracy"]
    assert several.log_loss(Y, p) == pytest.approx(found["log_loss"])
    for k, row in enumerate(found["per_label"]):
        y, s = Y[:, k], said[:, k]
        assert row["precision"] == pytest.approx(peer.precision_score(y, s))
        assert row["recall"] == pytest.approx(peer.recall_score(y, s))
        assert row["f1"] == pytest.approx(peer.f1_score(y, s))
        assert row["average_precision"] == pytest.approx(peer.average_precision_score(y, p[:, k]))
        assert row["log_loss"] == pytest.approx(peer.log_loss(y, p[:, k]))
        assert row["rows"] == y.sum()
    json.dumps(found)


def test_the_calibration_error_is_that_of_a_loop():
    """Over fifteen bins of equal width, right edges in: |frequency − mean probability|, weighed."""
    Y, p = drawn()
    for k, found in enumerate(several.calibration_errors(Y, p)):
        total = 0.0
        for b in range(15):
            at = (p[:, k] > b / 15) & (p[:, k] <= (b + 1) / 15)
            total += abs(Y[at, k].sum() - p[at, k].sum())
        assert found == pytest.approx(total / len(Y))


def test_rows_without_labels_and_labels_without_rows():
    """What divides by zero is 0, or None where nothing can be said; ranking counts 1."""
    Y, p = np.zeros((3, 2), int), np.full((3, 2), 0.4)
    found = several.summary(Y, p)
    assert found["mean_average_precision"] is None
    assert found["micro_f1"] == found["macro_f1"] == 0
    assert found["subset_accuracy"] == found["label_ranking_average_precision"] == 1
    assert several.average_precisions([[1, 0], [1, 0]], p[:2]) == [1.0, None]


def test_every_form_of_labels_is_the_same():
    """Lists of labels, an indicator and a sparse one give one summary."""
    Y, p = drawn(50, 3)
    names = ["a", "b", "c"]
    lists = [[name for name, on in zip(names, row, strict=True) if on] for row in Y]
    expected = several.summary(Y, p, names)
    assert several.summary(lists, p, names) == expected
    assert several.summary(scipy.sparse.csr_array(Y), p, names) == expected
    assert several.summary(Y == 1, p, names) == expected
    assert several.summary(Y.tolist(), p, names) == expected


def test_thresholds_have_the_highest_f1():
    """No other threshold has a higher F1 on these rows, label by label."""
    Y, p = drawn(300, 4)
    chosen = several.choose_thresholds(Y, p)
    for k, t in enumerate(chosen):
        best = max(peer.f1_score(Y[:, k], p[:, k] >= c) for c in np.unique(p[:, k]))
        assert peer.f1_score(Y[:, k], p[:, k] >= t) == pytest.approx(best)


def test_a_rare_label_has_the_threshold_of_all():
    """A label that hardly any row has is cut where all labels together are best."""
    Y, p = drawn(300, 4)
    Y[:, 1] = 0
    Y[: FEWEST - 1, 1] = 1
    chosen = several.choose_thresholds(Y, p)
    best = max(peer.f1_score(Y.ravel(), p.ravel() >= c) for c in np.unique(p))
    assert peer.f1_score(Y.ravel(), p.ravel() >= chosen[1]) == pytest.approx(best)
    assert several.choose_thresholds(np.zeros((4, 1)), np.full((4, 1), 0.3)).tolist() == [0.5]


@pytest.mark.parametrize("risk", [0.05, 0.1, 0.3, 0.6])
def test_the_risk_is_that_of_mapies_formula(risk):
    """Over MAPIE's grid of λ, the largest that its bound allows keeps as many labels as ours."""
    mapie = pytest.importorskip("mapie.risk_control.methods")
    Y, p = drawn(400, 5, step=0.001)
    ours = several.control_misses(Y, p, risk=risk)
    grid = np.unique(np.append(0.0, p[Y == 1]))  # where the risk steps, in place of hundredths
    on = np.maximum(Y.sum(1), 1)
    risks = np.stack([(Y * (p < t)).sum(1) / on for t in grid], axis=1)
    _, bound = mapie.get_r_hat_plus(risks, grid, "crc", None, None, None)
    expected = mapie.find_best_predict_param(grid, bound, np.array([risk]))[0]
    assert ours.threshold == pytest.approx(expected)
    assert ours.rows == 400


def test_the_expected_risk_of_new_rows_is_kept():
    """Over many draws of calibration rows, new rows miss about as much as was asked for."""
    missed = []
    for seed in range(300):
        Y, p = drawn(101, 4, seed, step=1e-9)
        sets = several.control_misses(Y[:100], p[:100], risk=0.2)
        missed.append((Y[100] * ~sets.predict_sets(p[100:])[0]).sum() / max(Y[100].sum(), 1))
    # The standard error of 300 shares is below 0.023.
    assert np.mean(missed) <= 0.2 + 3 * 0.023
    assert np.mean(missed) >= 0.2 - 2 / 101 - 3 * 0.023


def test_few_rows_leave_out_no_label():
    """Where n rows cannot promise the risk, sets hold all labels; without labels, none."""
    Y, p = drawn(8, 3)
    few = several.control_misses(Y, p, risk=0.1)
    assert few.threshold == 0
    assert few.predict_sets(p).all()
    none = several.control_misses(np.zeros((20, 2)), np.full((20, 2), 0.5), risk=0.1)
    assert not none.predict_sets(p[:, :2]).any()
    for sets in (few, none):
        assert several.LabelSets.from_json(json.loads(json.dumps(sets.to_json()))) == sets


@pytest.mark.parametrize("change", [{"risk": 2}, {"threshold": -1}, {"rows": -1}, {"format": 2}])
def test_a_damaged_record_of_sets_is_refused(change):
    """What no sets could have written is a RunError that names the field."""
    record = several.LabelSets(0.1, 0.3, 20).to_json() | change
    with pytest.raises(RunError, match=next(iter(change))):
        several.LabelSets.from_json(record)


def test_figures_of_sets_are_those_of_a_loop():
    """The mean share that was missed, the size of sets, and how much of them is on."""
    Y, p = drawn(60, 4)
    sets = p >= 0.4
    found = several.label_set_figures(Y, sets)
    missed = [(y & ~s).sum() / y.sum() if y.any() else 0 for y, s in zip(Y == 1, sets, strict=True)]
    assert found["missed"] == pytest.approx(np.mean(missed))
    assert found["mean_size"] == pytest.approx(sets.sum(1).mean())
    assert found["precision"] == pytest.approx(peer.precision_score(Y, sets, average="micro"))


@pytest.mark.parametrize("shrinkage", [0.0, 2.0, 40.0])
@pytest.mark.parametrize("factor", [0.4, 1.0, 3.0])
def test_the_temperature_has_the_least_loss(factor, shrinkage):
    """No other temperature has a smaller log-loss, with what holds it at 1."""
    Y, p = drawn(400, 3)
    z = factor * np.log(p / (1 - p))

    def loss(inverse):
        each = np.logaddexp(0, np.where(Y == 1, -z, z) * inverse).sum(1).mean()
        return each + shrinkage / len(z) * abs(inverse - 1)

    best = minimize_scalar(loss, bounds=(0.05, 10), method="bounded", options={"xatol": 1e-10})
    found = several.fit_label_temperature(z, Y, shrinkage=shrinkage)
    assert loss(1 / found) <= best.fun + 1e-12
    if shrinkage == 0:
        assert found == pytest.approx(1 / best.x, rel=1e-5)


def test_labels_that_are_all_right_end_at_the_bound():
    """Without anything that holds it, T falls as far as it may, and a shrinkage holds it."""
    z = [[2.0, -1.0], [-3.0, 1.0]]
    assert several.fit_label_temperature(z, [[1, 0], [0, 1]]) == pytest.approx(np.exp(-10))
    held = several.fit_label_temperature(z, [[1, 0], [0, 1]], shrinkage=2.0)
    assert 0.3 < held <= 1


@pytest.mark.parametrize(
    ("labels", "probabilities", "error", "says"),
    [
        ([["c"], []], [[0.5, 0.5]] * 2, DataError, "row 0 has the label 'c', which is none of"),
        ([[1, 2], [0, 0]], [[0.5, 0.5]] * 2, DataError, "got 2 at row 0, column 1"),
        ([[1, 0]], [[0.5, 0.5]] * 2, DataError, "1 rows and 2 labels, but .* 2 rows"),
        ([[1, 0, 1]] * 2, [[0.5, 0.5]] * 2, DataError, "a column for each of the 2 labels, got 3"),
        ([[1, 0]], [[0.5, 1.5]], DataError, "take the sigmoid first"),
        ([[1, 0]], [[0.5, np.nan]], DataError, "got nan in row 0, column 1"),
        ([[1, 0]], [["x", "y"]], DtypeError, "floating-point"),
        ([], np.empty((0, 2)), DataError, "there are no rows"),
    ],
)
def test_what_cannot_be_used_is_said(labels, probabilities, error, says):
    """Unknown labels, other values, lengths that differ: each says what to do."""
    with pytest.raises(error, match=says):
        several.summary(labels, probabilities, ["a", "b"])


def test_options_out_of_range_are_said():
    """A risk that is no share, thresholds that are too few, a negative shrinkage."""
    Y, p = drawn(20, 3)
    with pytest.raises(ArgumentError, match="risk must lie between 0 and 1"):
        several.control_misses(Y, p, risk=1.0)
    with pytest.raises(DataError, match="one for each of 3 labels"):
        several.summary(Y, p, thresholds=[0.5, 0.5])
    with pytest.raises(ArgumentError, match="shrinkage must be a number of at least 0"):
        several.fit_label_temperature(p, Y, shrinkage=-1)
    with pytest.raises(DataError, match="boolean array"):
        several.label_set_figures(Y, p)
