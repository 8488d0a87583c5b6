"""SoftmaxRegression against scikit-learn's newton-cholesky at a tight tolerance in float64."""

import io
import math
import os
import re
import sys
import threading
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse
import sklearn
import torch
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from luce import SoftmaxRegression, SoftmaxRegressionCV
from luce.errors import ArgumentError, BackendError, DataError
from luce.linear import large, precondition
from luce.linear.display import GapDisplay
from luce.linear.inputs import _classes_and_codes
from luce.linear.objective import Objective
from luce.linear.rows import as_rows
from luce.linear.solve import minimize

TOYS = {"digits": load_digits, "iris": load_iris, "wine": load_wine, "cancer": load_breast_cancer}


def toy(name, data_dir=None):
    if name == "penguins":
        frame = pl.read_csv(data_dir / "penguins.csv", null_values=["NA", ""])
        numbers = [c for c, t in frame.schema.items() if t.is_numeric() and c != "rowid"]
        frame = frame.select([*numbers, "species"]).drop_nulls()
        return frame.select(numbers).to_numpy(), frame["species"].to_numpy().astype(str)
    return TOYS[name](return_X_y=True)


@pytest.mark.parametrize("name", [*TOYS, "penguins"])
@pytest.mark.parametrize("C", [0.01, 1.0, 100.0])
@pytest.mark.parametrize("solver", ["lbfgs", "newton-cg"])
def test_same_answer_as_scikit_learn(name, C, solver, truth, objective_of, request):
    """Objective within 1e-9 (float64) or 1e-6 (float32 products), probabilities within 1e-5."""
    folder = request.getfixturevalue("data_dir") if name == "penguins" else None
    X, y = toy(name, folder)
    X = StandardScaler().fit_transform(X)
    reference = truth(X, y, C)
    best = objective_of(reference, X, y, C)
    ours = SoftmaxRegression(C, solver=solver, precision="float64", tol=1e-11, max_iter=1000)
    ours.fit(X, y)
    assert objective_of(ours, X, y, C) == pytest.approx(best, rel=1e-9)
    np.testing.assert_allclose(ours.predict_proba(X), reference.predict_proba(X), atol=1e-5)
    np.testing.assert_array_equal(ours.classes_, reference.classes_)
    assert ours.coef_.shape == reference.coef_.shape
    assert ours.intercept_.shape == reference.intercept_.shape
    narrow = SoftmaxRegression(C, solver=solver, precision="float32").fit(X, y)
    assert objective_of(narrow, X, y, C) == pytest.approx(best, rel=1e-6)
    assert narrow.duality_gap_ <= 1e-6


@pytest.mark.parametrize("K", [2, 5])
@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("shape", [(300, 8), (30, 60)])
def test_coefficients_are_scikit_learns(problem, truth, K, intercept, shape):
    """Weighted, with class weights, with more features than rows: the same coefficients."""
    X, y = problem(*shape, K)
    weight = np.random.default_rng(1).uniform(0.2, 3, len(y))
    options = {"fit_intercept": intercept, "class_weight": "balanced"}
    reference = truth(X, y, 0.7, weight, **options)
    ours = SoftmaxRegression(0.7, tol=1e-13, max_iter=1000, **options).fit(X, y, weight)
    np.testing.assert_allclose(ours.coef_, reference.coef_, atol=2e-6)
    np.testing.assert_allclose(ours.intercept_, reference.intercept_, atol=2e-6)


def test_one_vs_rest_is_scikit_learns(problem, truth):
    """link="ovr" has the coefficients and probabilities of OneVsRestClassifier."""
    X, y = problem(K=4)
    ours = SoftmaxRegression(link="ovr", tol=1e-13, max_iter=1000).fit(X, y)
    reference = OneVsRestClassifier(truth(X, y == 0)).fit(X, y)
    rows = np.vstack([e.coef_ for e in reference.estimators_])
    np.testing.assert_allclose(ours.coef_, rows, atol=1e-5)
    np.testing.assert_allclose(ours.predict_proba(X), reference.predict_proba(X), atol=1e-6)


def test_binary_is_the_two_row_softmax_at_half_the_c(problem):
    """One sigmoid row w at C is the two-row softmax (-w/2, w/2) at C/2, as the docs derive."""
    X, y = problem(K=2)
    one = SoftmaxRegression(3.0, tol=1e-13, max_iter=500).fit(X, y)
    o = Objective(
        as_rows(X), torch.from_numpy(y), torch.ones(len(y), dtype=torch.float64), n_logits=2,
        link="softmax", C=1.5, fit_intercept=True, dtype=torch.float64,
    )  # fmt: skip
    two = minimize(o, o.start(), tol=1e-13, max_iter=500)
    assert two.certificate.value * o.total == pytest.approx(one.objective_, rel=1e-12)
    W = two.theta[:, :-1].numpy()
    np.testing.assert_allclose(W[1] - W[0], one.coef_[0], atol=1e-5)


@pytest.mark.parametrize(
    "labels",
    [
        np.array([3, -7, 0, 3, 0, -7], np.int8),
        np.array([-128, 127, 127, -128, 5], np.int8),  # their difference is beyond the dtype
        np.array([0, 200, 200], np.uint8),
        np.arange(300, dtype=np.int16) % 7 * 40,
        np.array([2**63, 2**64 - 1, 2**63], np.uint64),
        np.array([2**40, 5, 2**40]),
        np.array(["b", "a", "b"], dtype=object),
        np.array([True, False]),
    ],
    ids=lambda y: f"{y.dtype}",
)
def test_labels_are_coded_as_numpys_unique_has_them(labels):
    """Classes keep their dtype and order, whatever the numbers."""
    for y in (labels, np.repeat(labels, 300)):
        classes, codes = _classes_and_codes(y)
        wanted, inverse = np.unique(y, return_inverse=True)
        assert classes.dtype == wanted.dtype
        np.testing.assert_array_equal(classes, wanted)
        np.testing.assert_array_equal(codes, inverse)


@pytest.mark.parametrize("K", [2, 3])
def test_without_a_penalty(problem, truth, K):
    """penalty=None finds the maximum of the likelihood, in sum-to-zero form, and claims no gap."""
    X, y = problem(N=500, D=3, K=K)
    ours = SoftmaxRegression(penalty=None, tol=1e-10).fit(X, y)
    reference = truth(X, y, np.inf)
    np.testing.assert_allclose(ours.predict_proba(X), reference.predict_proba(X), atol=1e-6)
    np.testing.assert_allclose(ours.coef_, reference.coef_, atol=1e-4)
    assert ours.converged_
    assert ours.gradient_norm_ <= 1e-10
    assert math.isinf(ours.duality_gap_)


@pytest.mark.parametrize("K", [2, 3])
def test_separable_data_without_a_penalty_say_so(K):
    """Separable classes without a penalty end with a warning and finite coefficients."""
    y = np.repeat(np.arange(K), 20)
    X = np.column_stack([3.0 * y, np.random.default_rng(0).normal(size=len(y))])
    with pytest.warns(ConvergenceWarning, match=r"separable.*penalty='l2'"):
        model = SoftmaxRegression(penalty=None).fit(X, y)
    assert np.isfinite(model.coef_).all()
    assert model.score(X, y) == 1


def test_early_stop_warns_with_the_figure(problem):
    """A fit that stops early names the gap it reached, tol and two things that would help."""
    X, y = problem()
    wanted = r"after 1 iterations.*gap of [\d.e-]+, above tol=1e-09.*max_iter.*scale"
    with pytest.warns(ConvergenceWarning, match=wanted):
        model = SoftmaxRegression(tol=1e-9, max_iter=1).fit(X, y)
    assert not model.converged_
    assert model.duality_gap_ > 1e-9


def test_history_ends_where_the_fit_does(problem):
    """history_ has the start and every iteration, its last entry what is reported."""
    X, y = problem()
    model = SoftmaxRegression().fit(X, y)
    assert len(model.history_) == model.n_iter_[0] + 1
    assert set(model.history_[0]) == {"objective", "gap", "seconds"}
    assert model.history_[-1]["gap"] == pytest.approx(model.duality_gap_)
    assert model.history_[-1]["objective"] == pytest.approx(model.objective_)
    seconds = [entry["seconds"] for entry in model.history_]
    assert seconds == sorted(seconds)


def test_same_bits_twice(problem):
    """The same data and thread count give the same bits."""
    X, y = problem(N=3000, D=30, K=9)
    one, two = (SoftmaxRegression(precision="float32").fit(X, y) for _ in range(2))
    assert np.array_equal(one.coef_, two.coef_)
    assert np.array_equal(one.intercept_, two.intercept_)


def test_warm_start_needs_no_iteration(problem):
    """Fitted again with warm_start, a converged model is already there."""
    X, y = problem()
    model = SoftmaxRegression(warm_start=True).fit(X, y)
    assert model.fit(X, y).n_iter_[0] == 0


def test_sparse_and_wide(truth, objective_of):
    """CSR and CSC wider than an eigenbasis affords go by Newton-CG, to the same answer."""
    rng = np.random.default_rng(0)
    X = scipy.sparse.random(300, 3000, density=0.01, format="csr", random_state=0)
    y = np.asarray(X[:, :40].sum(1) * 30 + rng.normal(size=(300, 1))).ravel()
    y = np.digitize(y, np.quantile(y, [0.3, 0.6]))
    best = objective_of(truth(X[:, :400], y, 10.0), X[:, :400], y, 10.0)
    for container in (scipy.sparse.csr_matrix, scipy.sparse.csc_matrix, scipy.sparse.csc_array):
        narrow = SoftmaxRegression(10.0, tol=1e-10).fit(container(X[:, :400]), y)
        assert objective_of(narrow, X[:, :400], y, 10.0) == pytest.approx(best, rel=1e-9)
    wide = scipy.sparse.hstack([X] * 8, format="csr")
    wide = scipy.sparse.vstack([wide] * 8, format="csr")
    assert min(wide.shape) > precondition._WIDEST_BASIS
    model = SoftmaxRegression(10.0).fit(wide, np.tile(y, 8))
    assert model.solver_ == "newton-cg"
    assert model.duality_gap_ <= 1e-6


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32, np.int16])
def test_narrow_dtypes_are_not_widened_as_a_whole(dtype):
    """A fit to a narrow matrix takes less memory than the matrix in float64 would."""
    rng = np.random.default_rng(0)
    X = rng.integers(0, 50, size=(20_000, 256)).astype(dtype)
    y = (X[:, 0] > 25).astype(int) + (X[:, 1] > 25)
    SoftmaxRegression(1e-3).fit(X, y)  # compiles what it needs
    tracemalloc.start()
    SoftmaxRegression(1e-3).fit(X, y)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < X.size * 8 / 4


def test_memory_map_is_the_array(tmp_path):
    """A memory-mapped file, read in blocks whose pages are handed back, gives the array's bits."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40_000, 60)).astype(np.float32)
    y = rng.integers(0, 3, 40_000)
    np.save(tmp_path / "X.npy", X)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    one, two = (SoftmaxRegression(0.1).fit(source, y) for source in (X, mapped))
    assert np.array_equal(one.coef_, two.coef_)
    assert np.array_equal(one.predict_proba(X), two.predict_proba(mapped))


def test_what_was_written_to_a_copy_on_write_map_stays(tmp_path):
    """Handing pages back spares a map of mode "c", whose changes live nowhere else."""
    rng = np.random.default_rng(0)
    np.save(tmp_path / "X.npy", np.zeros((30_000, 20)))
    mapped = np.load(tmp_path / "X.npy", mmap_mode="c")
    mapped[:] = rng.normal(size=mapped.shape)
    before = np.array(mapped)
    SoftmaxRegression(0.1).fit(mapped, rng.integers(0, 2, 30_000))
    assert np.array_equal(mapped, before)


def test_pages_of_a_map_are_handed_back(tmp_path):
    """A pass over a map of 150 MB leaves only a few of its pages in memory."""
    if not os.path.exists("/proc/self/smaps"):  # noqa: PTH110
        pytest.skip("needs /proc")
    np.save(tmp_path / "X.npy", np.ones((200_000, 100)))
    rows = as_rows(np.asarray(np.load(tmp_path / "X.npy", mmap_mode="r")))
    rows.column_sums(torch.ones(200_000, dtype=torch.float64), np.arange(0))
    with open("/proc/self/smaps") as smaps:  # noqa: PTH123
        lines = smaps.read().split("X.npy")[1].splitlines()
    resident = next(int(line.split()[1]) for line in lines if line.startswith("Rss"))
    assert resident < 16_000


def mostly_zeros(N, D, K=4):
    """Return rows of which one in fifty is not zero, and labels drawn from a softmax of them."""
    rng = np.random.default_rng(0)
    X = np.zeros((N, D), np.float32)
    X[::50] = rng.normal(size=(N // 50, D))
    logits = X @ rng.normal(size=(D, K)) / np.sqrt(D)
    return X, (logits + rng.gumbel(size=logits.shape)).argmax(1)


def test_a_fit_holds_little_of_a_map(tmp_path):
    """A whole fit to a map of 200 MB never holds 100 MB more than there was before it."""
    clear = Path("/proc/self/clear_refs")
    if not clear.exists():
        pytest.skip("needs /proc")

    def high_water():
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))

    X, y = mostly_zeros(200_000, 256)
    np.save(tmp_path / "X.npy", X)
    del X
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    SoftmaxRegression().fit(mapped[:20_000], y[:20_000])  # compiles what it needs
    clear.write_text("5")
    before = high_water()
    model = SoftmaxRegression().fit(mapped, y)
    assert model.converged_
    assert high_water() - before < 100_000


def test_few_rows_may_carry_all_features():
    """Rows that a plain sample would hardly see shape the preconditioner: the fit is quick."""
    X, y = mostly_zeros(400_000, 20)
    X[5_000:] = 0  # a hundred rows remain, of which an even sample has two
    model = SoftmaxRegression(link="ovr", solver="lbfgs").fit(np.tile(X, 5), y)
    assert model.n_iter_[0] < 40


def test_frames_bring_their_names(problem):
    """pandas and polars frames give the same model, and names are checked at predict."""
    X, y = problem(D=3)
    labels = np.array(["ape", "bee", "cat", "dog"])[y]
    names = ["a", "b", "c"]
    plain = SoftmaxRegression().fit(X, labels)
    for frame in (pd.DataFrame(X, columns=names), pl.DataFrame(X, schema=names)):
        model = SoftmaxRegression().fit(frame, labels)
        np.testing.assert_array_equal(model.feature_names_in_, names)
        np.testing.assert_allclose(model.coef_, plain.coef_, rtol=1e-9)
        np.testing.assert_array_equal(model.predict(frame), plain.predict(X))
    with pytest.raises(ValueError, match="feature names should match those that were passed"):
        model.predict(pd.DataFrame(X, columns=["a", "b", "z"]))
    assert set(model.predict(frame)) <= set(labels)


def test_tensors_give_tensors(problem):
    """A tensor is fitted as its array, and its logits and probabilities come back as tensors."""
    X, y = problem()
    plain = SoftmaxRegression().fit(X, y)
    model = SoftmaxRegression().fit(torch.from_numpy(X), torch.from_numpy(y))
    np.testing.assert_allclose(model.coef_, plain.coef_, atol=1e-9)
    proba = model.predict_proba(torch.from_numpy(X))
    assert isinstance(proba, torch.Tensor)
    np.testing.assert_allclose(proba.numpy(), plain.predict_proba(X), atol=1e-9)
    assert isinstance(model.predict(torch.from_numpy(X)), np.ndarray)
    with pytest.raises(DataError, match="expecting 6 features"):
        model.predict(torch.zeros(3, 2))
    with pytest.raises(DataError, match=r"real tensor of shape \(rows, features\)"):
        model.fit(torch.zeros(3), y)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_tensors_stay_there(problem):
    """On CUDA the fit is that of the CPU, and probabilities are on the device."""
    X, y = problem()
    plain = SoftmaxRegression().fit(X, y)
    model = SoftmaxRegression(device="cuda").fit(X, y)
    np.testing.assert_allclose(model.coef_, plain.coef_, atol=1e-6)
    assert model.predict_proba(torch.from_numpy(X).cuda()).device.type == "cuda"


def test_restored_attributes_predict(problem):
    """Given coef_, intercept_, classes_ and n_features_in_, an estimator predicts."""
    X, y = problem()
    model = SoftmaxRegression().fit(X, y)
    restored = SoftmaxRegression(**model.get_params())
    for name in ("coef_", "intercept_", "classes_", "n_features_in_"):
        setattr(restored, name, getattr(model, name))
    np.testing.assert_array_equal(restored.predict_proba(X), model.predict_proba(X))
    np.testing.assert_array_equal(restored.predict(X), model.predict(X))


def test_log_probabilities_stay_finite(problem):
    """Where a probability rounds to 0 its logarithm is still a number."""
    X, y = problem()
    model = SoftmaxRegression().fit(X, y)
    log_p = model.predict_log_proba(1e4 * X)
    assert (model.predict_proba(1e4 * X) == 0).any()
    assert np.isfinite(log_p).all()


def test_lives_in_scikit_learns_world(problem):
    """Pipelines, clones, searches over C and routed sample weights work."""
    X, y = problem()
    search = GridSearchCV(SoftmaxRegression(), {"C": [0.1, 10.0]}, cv=3).fit(X, y)
    assert search.best_params_["C"] in {0.1, 10.0}
    assert clone(SoftmaxRegression(3.0, link="ovr")).get_params()["link"] == "ovr"
    with sklearn.config_context(enable_metadata_routing=True):
        model = make_pipeline(
            StandardScaler().set_fit_request(sample_weight=False),
            SoftmaxRegression()
            .set_fit_request(sample_weight=True)
            .set_score_request(sample_weight=True),
        )
        scores = cross_validate(model, X, y, params={"sample_weight": np.ones(len(y))}, cv=3)
    assert scores["test_score"].mean() > 0.4


def test_auto_goes_on_in_float64_where_float32_stalls():
    """An offset that float32 cannot carry is solved in float64 by "auto", to the same tol."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(4000, 400)).astype(np.float64) + 3000
    y = (X[:, :4] - 3000 + rng.gumbel(size=(4000, 4))).argmax(1)
    model = SoftmaxRegression().fit(X, y)
    assert model.converged_
    assert model.duality_gap_ <= 1e-6


@pytest.mark.parametrize(
    ("solver", "runs"),
    [("lbfgs", "lbfgs, exact preconditioner, float64"), ("auto", "newton-cg, in NumPy")],
)
def test_verbose_says_what_runs_on_stderr(problem, capsys, solver, runs):
    """verbose=1 names the solver, then gap and tol for each iteration, on stderr only."""
    X, y = problem()
    model = SoftmaxRegression(solver=solver, verbose=1).fit(X, y)
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == ""
    assert re.search(f"{runs}: 200 rows × 6 features", lines[0])
    assert len(lines) == 2 + model.n_iter_[0]
    assert all("gap" in line and "tol 1e-06" in line for line in lines[1:])


def test_bar_on_a_terminal(monkeypatch):
    """On a terminal a bar shows the gap against tol."""
    screen = io.StringIO()
    screen.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", screen)
    with GapDisplay(1e-6, 100, shown=True) as bar:
        for gap in (1.0, 1e-3, 1e-6):
            bar.report({"objective": 1.0, "gap": gap, "seconds": 0.1})
            bar._bar.refresh()
        assert bar._bar.tasks[0].completed == 1
    assert "gap" in screen.getvalue()


def test_fits_in_threads_agree(problem):
    """Fits that run at the same time do not disturb each other."""
    X, y = problem(N=2000, D=20, K=5)
    alone = SoftmaxRegression().fit(X, y).coef_
    found = []
    work = [
        threading.Thread(target=lambda: found.append(SoftmaxRegression().fit(X, y).coef_))
        for _ in range(4)
    ]
    for thread in work:
        thread.start()
    for thread in work:
        thread.join()
    assert len(found) == 4
    assert all(np.array_equal(coef, alone) for coef in found)


BAD = {
    "C": ({"C": 0}, "C must be a number above 0, or 'auto', got 0."),
    "C negative": ({"C": -1.0}, "C must be a number above 0, or 'auto', got -1.0."),
    "C subnormal": ({"C": 1e-320}, "C must be a number above 0, or 'auto', got 1e-320."),
    "C of many digits": ({"C": 10**400}, "C must be a number above 0, or 'auto', got 1000"),
    "C nan": ({"C": math.nan}, "C must be a number above 0, or 'auto', got nan."),
    "C string": ({"C": "a"}, "C must be a number above 0, or 'auto', got 'a'."),
    "penalty": ({"penalty": "l1"}, "penalty must be one of l2, group, None, got 'l1': L1 is"),
    "tol": ({"tol": -1}, "tol must be a number of at least 0, got -1."),
    "max_iter": ({"max_iter": 1.5}, "max_iter must be a whole number of at least 0, got 1.5."),
    "solver": ({"solver": "saga"}, "solver must be one of auto, lbfgs, newton-cg, got 'saga'."),
    "link": ({"link": "probit"}, "link must be one of softmax, ovr, ovo, ecoc, got 'probit'."),
    "precision": ({"precision": "half"}, "precision must be one of"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_parameters_are_named(case, problem):
    """A parameter that is not allowed is named, with what was received and what is allowed."""
    options, message = BAD[case]
    with pytest.raises(ArgumentError, match=re.escape(f"SoftmaxRegression: {message}")):
        SoftmaxRegression(**options).fit(*problem())


def spoiled(X, at, value):
    X = X.copy()
    X[at] = value
    return X


@pytest.mark.parametrize("container", [np.asarray, scipy.sparse.csr_array, torch.from_numpy])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_the_first_bad_value_is_located(container, value, problem):
    """NaN or infinity in X names its first row and column, at fit and at predict."""
    X, y = problem()
    bad = container(spoiled(spoiled(X, (150, 1), value), (42, 3), value))
    kind = "NaN" if np.isnan(value) else "infinity"
    with pytest.raises(DataError, match=f"contains {kind}.*row 42, column 3"):
        SoftmaxRegression().fit(bad, y)
    with pytest.raises(DataError, match=f"contains {kind}.*row 42, column 3"):
        SoftmaxRegression().fit(X, y).predict(bad)


def test_bad_data_is_named(problem, monkeypatch):
    """One class, bad weights, continuous y, lengths and lack of memory are each said plainly."""
    X, y = problem()
    model = SoftmaxRegression()
    with pytest.raises(DataError, match="only one class: 7"):
        model.fit(X, np.full(len(y), 7))
    with pytest.raises(DataError, match=r"sample_weight must not be negative, got -2 at row 5"):
        model.fit(X, y, spoiled(np.ones(len(y)), 5, -2))
    with pytest.raises(DataError, match="all weights of class 2 are zero"):
        model.fit(X, y, (y != 2).astype(float))
    for weight in (1e307, 1e-320):
        with pytest.raises(DataError, match=r"add up to .*: scale sample_weight and class_weight"):
            model.fit(X, y, np.full(len(y), weight))
    with pytest.raises(ValueError, match="Unknown label type: continuous"):
        model.fit(X, X[:, 0])
    with pytest.warns(UserWarning, match="y has 200 classes in 200 rows. If it is a quantity"):
        model.fit(X, np.arange(200))
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        model.fit(X, y[:-1])
    with pytest.raises(DataError, match="squares of X overflow"):
        model.fit(spoiled(X, (0, 0), 1e200), y)
    for device in ("nowhere", "meta"):
        with pytest.raises(BackendError, match=f"device='{device}' cannot be used here"):
            SoftmaxRegression(device=device).fit(X, y)
    monkeypatch.setattr(large, "free_memory", lambda: 2048)
    with pytest.raises(DataError, match=r"need about .* GB.*set solver='newton-cg'"):
        SoftmaxRegression(solver="lbfgs").fit(X, y)


def test_squares_beyond_float32_are_taken_in_float64(problem):
    """A float32 column of 1e25 overflows when squared in float32, and is fitted all the same."""
    X, y = problem(K=2)
    X = X.astype(np.float32)
    X[:, 0] *= 1e25
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = SoftmaxRegression().fit(X, y)
    assert np.isfinite(model.coef_).all()


@pytest.mark.parametrize("estimator", [SoftmaxRegression(), SoftmaxRegressionCV([0.1, 1.0], cv=2)])
@pytest.mark.parametrize("fault", ["nan", "labels", "weight", "parameter"])
def test_a_failed_fit_leaves_no_fit(problem, estimator, fault):
    """Whatever stops a second fit, nothing of the first is left that could mix with it."""
    X, y = problem()
    model = clone(estimator).fit(X, y)
    letters = np.array(list("abcdef"))[y]
    weight = np.ones(len(y))
    if fault == "nan":
        X = spoiled(X, (3, 1), np.nan)
    elif fault == "labels":
        letters[:] = "a"
    elif fault == "weight":
        weight[letters == "a"] = 0
    else:
        model.set_params(tol=-1.0)
    with pytest.raises((ArgumentError, DataError)):
        model.fit(X, letters, weight)
    assert [name for name in vars(model) if name.endswith("_")] == []
    with pytest.raises(NotFittedError):
        model.predict(problem()[0])


def test_a_search_that_fails_leaves_no_strength(problem, monkeypatch):
    """An error in the midst of C="auto" leaves none of the Cs that were tried."""
    X, y = problem(N=200)

    def failing(self, Z):
        raise RuntimeError("planned")

    model = SoftmaxRegression("auto")
    with monkeypatch.context() as patched:
        patched.setattr(SoftmaxRegression, "_log_proba", failing)
        with pytest.raises(RuntimeError, match="planned"):
            model.fit(scipy.sparse.csr_array(X), y)
    assert not hasattr(model, "C_")


def test_a_warm_start_fits_other_data_after_a_failure(problem):
    """With warm_start a failed fit is forgotten too: the next one starts at zero."""
    X, y = problem()
    model = SoftmaxRegression(warm_start=True).fit(X, y)
    with pytest.raises(DataError):
        model.fit(spoiled(X, (0, 0), np.nan), y)
    fresh = SoftmaxRegression().fit(X, y)
    np.testing.assert_array_equal(model.fit(X, y).coef_, fresh.coef_)


def test_a_tie_stops_the_search_for_the_penalty():
    """Rows that say nothing do equally well with every C: the strongest penalty is kept."""
    X, y = scipy.sparse.csr_array((60, 3)), np.arange(60) % 2
    model = SoftmaxRegression("auto").fit(X, y)
    assert model.C_ == 0.25
    assert len(model.scores_) == 2


def test_losses_that_are_no_numbers_stop_the_search(problem, monkeypatch):
    """From the first held-out loss that is NaN on, no weaker penalty is tried."""
    X, y = problem(N=200)
    true, calls = SoftmaxRegression._log_proba, []

    def log_proba(self, Z):
        calls.append(1)
        return true(self, Z) * (np.nan if len(calls) > 5 else 1)

    monkeypatch.setattr(SoftmaxRegression, "_log_proba", log_proba)
    assert SoftmaxRegression("auto").fit(scipy.sparse.csr_array(X), y).C_ == 0.25


def test_rows_of_a_group_are_held_out_together(problem):
    """Rows given twice, at half the weight, in any order, choose the C that they choose once."""
    X, y = problem(N=300)
    X = scipy.sparse.csr_array(X)
    once = SoftmaxRegression("auto").fit(X, y)
    twice = np.random.default_rng(0).permutation(np.tile(np.arange(300), 2))
    model = SoftmaxRegression("auto").fit(X[twice], y[twice], np.full(600, 0.5), groups=twice)
    assert model.C_ == once.C_
    np.testing.assert_allclose(model.scores_, once.scores_, rtol=1e-3)
    with pytest.raises(
        DataError, match=r"one for each of 300 rows, got an array of shape \(600,\)"
    ):
        model.fit(X, y, groups=twice)
    some = np.where(np.arange(300) == 7, None, "a")
    with pytest.raises(DataError, match=r"no value for 1 of 300 rows, the first is row 7"):
        model.fit(X, y, groups=some)


def test_the_order_of_rows_does_not_say_whether_c_is_chosen(problem):
    """A group is of the class that most of its weight is of, whichever of its rows comes first."""
    X, y = problem(N=300)
    X, groups = scipy.sparse.csr_array(X), np.arange(300) // 3
    found = [
        SoftmaxRegression("auto").fit(X[order], y[order], groups=groups[order])
        for order in (np.arange(300), np.random.default_rng(1).permutation(300))
    ]
    assert found[0].C_ == found[1].C_
    np.testing.assert_allclose(found[0].scores_, found[1].scores_, rtol=1e-3)


def test_a_class_of_one_group_is_not_held_out(problem):
    """Where all rows of a class are of one group, nothing is held out: C is 1, without scores."""
    X, y = problem(N=300)
    groups = np.where(y == 0, 0, np.arange(300))
    model = SoftmaxRegression("auto").fit(scipy.sparse.csr_array(X), y, groups=groups)
    assert model.C_ == 1
    assert not hasattr(model, "scores_")


@pytest.mark.parametrize("dtype", [str, object])
def test_many_classes_of_labels_that_are_none_but_classes_are_no_warning(dtype):
    """Texts are classes, however many: nothing says that they may be continuous."""
    y = np.arange(60) % 40
    y = y.astype(str).astype(dtype)
    X = np.random.default_rng(0).normal(size=(60, 3))
    assert len(SoftmaxRegression().fit(X, y).classes_) == 40
