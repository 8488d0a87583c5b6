"""Small problems in NumPy: derivatives against autograd, answers against scikit-learn's."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import scipy.sparse
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.exceptions import ConvergenceWarning

from luce import SoftmaxRegression, SoftmaxRegressionCV
from luce.linear import small
from luce.linear.rounding import keep


def make(N=40, D=5, K=3, link="softmax", C=0.7, intercept=True, sparse=False, seed=0):
    """Return a problem with weights, a Θ of it, and its rows as a dense array."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(N, D)) * (rng.random((N, D)) < (0.4 if sparse else 1)) + (not sparse)
    codes = rng.integers(0, max(K, 2), N)
    codes[: max(K, 2)] = np.arange(max(K, 2))
    rows = scipy.sparse.csr_array(X) if sparse else X
    weight = rng.uniform(0.1, 3, N)
    problem = small.Problem(
        rows, codes, weight, small.column_moments(rows, weight, fit_intercept=intercept),
        n_logits=K, link=link, C=C, fit_intercept=intercept,
    )  # fmt: skip
    theta = rng.normal(size=(K, D + 1))
    if link == "softmax":
        theta -= theta.mean(0)  # as all that the solver goes through
    if not intercept:
        theta[:, -1] = 0
    return problem, theta, X


def by_formula(problem, X, theta):
    """Return F by PyTorch, for a Θ that may need a gradient."""
    Z = (torch.from_numpy(X) - torch.from_numpy(problem.mean)) @ theta[:, :-1].T + theta[:, -1]
    y, w = torch.from_numpy(problem.codes), torch.from_numpy(problem.weight)
    if problem.link == "softmax":
        losses = torch.nn.functional.cross_entropy(Z, y, reduction="none")
    else:
        own = y[:, None] == (torch.ones(1) if problem.K == 1 else torch.arange(problem.K))
        losses = torch.nn.functional.binary_cross_entropy_with_logits(
            Z, own.double(), reduction="none"
        ).sum(1)
    return w @ losses + problem.penalty.strength / 2 * theta[:, :-1].square().sum()


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.parametrize(("link", "K"), [("softmax", 4), ("sigmoid", 1), ("sigmoid", 3)])
def test_derivatives_are_autograds(link, K, intercept, sparse):
    """Value, gradient and Hessian product are those that autograd finds by the formula."""
    problem, start, X = make(link=link, K=K, intercept=intercept, sparse=sparse)
    V = np.random.default_rng(1).normal(size=start.shape)
    V -= V.mean(0) if link == "softmax" else 0
    V[:, -1] *= intercept
    theta = torch.from_numpy(start).requires_grad_()
    value = by_formula(problem, X, theta)
    (gradient,) = torch.autograd.grad(value, theta, create_graph=True)
    (product,) = torch.autograd.grad((gradient * torch.from_numpy(V)).sum(), theta)
    wanted, curved = gradient.detach().numpy().copy(), product.numpy().copy()
    wanted[:, -1] *= intercept
    curved[:, -1] *= intercept
    at = problem.at(start, problem.logits(start))
    assert at.value == pytest.approx(value.item(), rel=1e-12)
    assert problem.value(start[:, :-1], at.Z) == pytest.approx(at.value, rel=1e-12)
    np.testing.assert_allclose(at.gradient, wanted, atol=1e-12)
    np.testing.assert_allclose(problem.hessian_product(at.P, V), curved, atol=1e-12)


@pytest.mark.parametrize("intercept", [False, True])
@pytest.mark.parametrize("K", [1, 3])
def test_blocks_of_sigmoids_are_the_whole_hessian(K, intercept):
    """Sigmoids are not coupled, so what is solved for by class undoes a Hessian product."""
    problem, theta, _ = make(link="sigmoid", K=K, intercept=intercept)
    P = problem.at(theta, problem.logits(theta)).P
    V = np.random.default_rng(1).normal(size=theta.shape)
    V[:, -1] *= intercept
    back = problem.inverse(problem.blocks(P))(problem.hessian_product(P, V))
    back[:, -1] *= intercept
    np.testing.assert_allclose(back, V, atol=1e-8)


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**31),
    N=st.integers(6, 80),
    D=st.sampled_from([1, 3, 12, 200]),
    K=st.integers(2, 5),
    C=st.sampled_from([1e-3, 1.0, 1e3]),
    link=st.sampled_from(["softmax", "ovr"]),
    intercept=st.booleans(),
    sparse=st.booleans(),
)
def test_drawn_problems_are_solved_to_their_optimum(seed, N, D, K, C, link, intercept, sparse):
    """Converged, and within the proven gap of the objective that a far stricter fit reaches."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(N, D)) * 10 ** rng.uniform(-2, 2, D)
    if sparse:
        X = scipy.sparse.csr_array(X * (rng.random((N, D)) < 0.3))
    y = rng.integers(0, K, N)
    y[:K] = np.arange(K)
    weight = rng.uniform(0.1, 10, N)
    options = {"C": C, "link": link, "fit_intercept": intercept}
    ours = SoftmaxRegression(**options).fit(X, y, weight)
    # PyTorch's path: another method, another arithmetic.
    best = SoftmaxRegression(
        **options, solver="newton-cg", precision="float64", tol=1e-11, max_iter=1000
    ).fit(X, y, weight)
    assert ours.converged_
    assert ours.duality_gap_ <= 1e-6
    assert ours.objective_ <= best.objective_ * (1 + ours.duality_gap_ + 1e-10)
    assert ours.objective_ >= best.objective_ * (1 - best.duality_gap_ - 1e-10)


def test_what_is_small():
    """Small are the digits; not MNIST, wide text with many classes, or a million rows."""
    assert small.suits(np.empty((1797, 64)), 10)
    assert small.suits(np.empty((10_000, 50)), 5)
    assert not small.suits(np.empty((60_000, 784), dtype=bool), 10)
    assert not small.suits(np.empty((1_000_001, 1), dtype=bool), 2)
    assert not small.suits(scipy.sparse.csr_array((20, 100_000)), 2)


def test_one_thread_is_enough():
    """The BLAS library has one thread during a small fit, and its own number again after it."""
    from threadpoolctl import threadpool_info

    def threads():
        return [each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"]

    before = threads()
    with small.one_thread():
        assert set(threads()) == {1}
    assert threads() == before


def test_fits_in_threads_leave_the_threads_as_they_were():
    """Of fits at the same time, the last to end puts the BLAS library's threads back."""
    from threadpoolctl import threadpool_info

    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(200, 5)), rng.integers(0, 3, 200)
    before = [each["num_threads"] for each in threadpool_info()]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: SoftmaxRegression().fit(X, y), range(60)))
    assert [each["num_threads"] for each in threadpool_info()] == before


def test_a_problem_that_takes_too_many_products_is_handed_over(monkeypatch):
    """The other methods go on from where Newton's has got to, and prove the rest."""
    monkeypatch.setattr(small, "_MOST_PRODUCTS", 3)
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(300, 6)), rng.integers(0, 4, 300)
    model = SoftmaxRegression().fit(X, y)
    assert model.converged_
    assert model.solver_ == "lbfgs"
    path = SoftmaxRegressionCV([0.1, 1.0], cv=3).fit(X, y)
    assert path.converged_


def test_columns_beyond_a_block_are_not_for_it():
    """Badly scaled columns without blocks to precondition with would take very many products."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(300, 3)) @ rng.normal(size=(3, 300)) + 1e-4 * rng.normal(size=(300, 300))
    X *= 10 ** rng.uniform(-3, 3, 300)
    assert not small.suits(X, 3)
    model = SoftmaxRegression().fit(X, rng.integers(0, 3, 300))
    assert model.converged_


@pytest.mark.parametrize("C", [np.float16(3), np.float16(1e-3), np.float32(0.1), np.int8(2)])
def test_a_numpy_scalar_is_a_number(C):
    """The precision of C is not that of the objective: the fit is that of the same Python float."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(30_000, 3))
    y = X[:, 0] + rng.normal(size=30_000) > 0
    ours, wanted = SoftmaxRegression(C).fit(X, y), SoftmaxRegression(float(C)).fit(X, y)
    np.testing.assert_array_equal(ours.coef_, wanted.coef_)
    assert 0 < ours.duality_gap_ == wanted.duality_gap_ <= 1e-6
    assert type(ours.converged_) is bool
    assert type(ours.objective_) is float


def test_no_gap_at_all_ends_at_rounding():
    """tol=0 can not be reached: the fit ends when nothing falls, and does not advise iterations."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(100, 4)), rng.integers(0, 3, 100)
    with pytest.warns(ConvergenceWarning, match="raise tol: rounding hides any further descent"):
        model = SoftmaxRegression(tol=0).fit(X, y)
    assert model.n_iter_[0] < 50
    assert model.duality_gap_ < 1e-12


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e300])
def test_a_start_that_is_no_start_is_dropped(bad):
    """Coefficients that are not finite, or whose objective is not, are not started from."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(100, 4)), rng.integers(0, 3, 100)
    model = SoftmaxRegression(warm_start=True).fit(X, y)
    wanted = model.objective_
    model.coef_ = bad * np.arange(1.0, 13.0).reshape(3, 4) ** 2
    assert model.fit(X, y).objective_ == pytest.approx(wanted, rel=1e-6)
    assert model.converged_


def test_a_first_fit_loads_no_pytorch():
    """Fitting, predicting and scoring a small problem load neither PyTorch nor Numba."""
    code = (
        "import sys, numpy as np, luce;"
        "X = np.random.default_rng(0).normal(size=(60, 3)); y = X[:, 0] > 0;"
        "model = luce.SoftmaxRegression().fit(X, y);"
        "model.predict_proba(X), model.score(X, y);"
        "print(sorted({'torch', 'numba'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_a_path_makes_the_blocks_of_the_hessian_seldom(monkeypatch):
    """Fits for ten strengths go on from each other's blocks, which are most of what a fit costs."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(600, 12))
    y = (X @ rng.normal(size=(12, 4)) + rng.gumbel(size=(600, 4))).argmax(axis=1)
    made, real = [], small.Problem.blocks
    monkeypatch.setattr(
        small.Problem, "blocks", lambda self, P: made.append(self.penalty) or real(self, P)
    )
    chosen = SoftmaxRegressionCV(Cs=np.logspace(-3, 3, 10), cv=3).fit(X, y)
    assert chosen.solver_ == "newton-cg"
    assert len(made) <= 3 * 4  # of 31 fits
    alone = SoftmaxRegression(C=chosen.C_, tol=1e-9).fit(X, y)
    np.testing.assert_allclose(chosen.objective_, alone.objective_, rtol=1e-6)


@pytest.mark.parametrize("link", ["softmax", "sigmoid"])
def test_what_is_kept_has_the_objective_that_is_said(link):
    """Also where the classes have a mean: F is that of the coefficients without it, as rounded."""
    problem, theta, _ = make(link=link, K=3, intercept=True)
    theta = theta + (1.0 if link == "softmax" else 0.0)
    at = problem.at(theta, problem.logits(theta))
    coef, intercept, value, _ = keep(
        theta,
        at.value,
        at.gradient,
        1.0,
        moments=(problem.mean, problem.variance),
        penalty=problem.penalty,
        link=link,
        single=False,
        enough=1.0,
        evaluate=lambda _: pytest.fail("nothing is rounded in float64"),
    )
    kept = np.column_stack([coef, intercept + coef @ problem.mean])
    assert value == pytest.approx(problem.at(kept, problem.logits(kept)).value, rel=1e-12)
    if link == "softmax":
        np.testing.assert_allclose(coef.mean(axis=0), 0, atol=1e-15)
        assert value < at.value
