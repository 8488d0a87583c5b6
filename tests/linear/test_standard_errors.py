"""Standard errors against automatic differentiation and against simulation."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.exceptions import NotFittedError

from luce import SoftmaxRegression, SoftmaxRegressionCV
from luce.errors import ArgumentError, DataError


def information(model, X, C, weight=None):
    """The Hessian of scikit-learn's objective in (W, b), by automatic differentiation."""
    X = torch.from_numpy(np.asarray(X, dtype=np.float64))
    K, D = model.coef_.shape
    w = torch.ones(len(X)) if weight is None else torch.from_numpy(weight)

    def loss(flat):
        theta = flat.view(K, D + 1)
        Z = X @ theta[:, :-1].T + theta[:, -1]
        log_sum = torch.nn.functional.softplus(Z[:, 0]) if K == 1 else torch.logsumexp(Z, 1)
        return w.double() @ log_sum + theta[:, :-1].square().sum() / (2 * C)

    flat = torch.from_numpy(np.column_stack([model.coef_, model.intercept_]).ravel())
    return torch.autograd.functional.hessian(loss, flat).numpy()


@pytest.mark.parametrize("K", [2, 4])
def test_errors_are_the_inverse_information(problem, K):
    """Without a penalty the errors are those of the pseudo-inverse of the information."""
    X, y = problem(N=300, D=3, K=K)
    X = X + np.array([0, 2, -1])
    model = SoftmaxRegression(penalty=None, tol=1e-9).fit(X, y)
    coef, intercept = model.standard_errors(X)
    covariance = np.linalg.pinv(information(model, X, np.inf), hermitian=True)
    wanted = np.sqrt(np.diag(covariance)).reshape(len(model.coef_), 4)
    np.testing.assert_allclose(coef, wanted[:, :-1], rtol=1e-6)
    np.testing.assert_allclose(intercept, wanted[:, -1], rtol=1e-6)


def test_errors_with_a_penalty_are_the_posteriors(problem):
    """With L2 the errors are those of the penalised Hessian; weights count."""
    X, y = problem(N=300, D=3, K=2)
    weight = np.random.default_rng(0).uniform(0.5, 2, 300)
    model = SoftmaxRegression(0.3, tol=1e-12).fit(X, y, weight)
    coef, intercept = model.standard_errors(X, sample_weight=weight)
    wanted = np.sqrt(np.diag(np.linalg.inv(information(model, X, 0.3, weight))))
    np.testing.assert_allclose(np.append(coef, intercept), wanted, rtol=1e-6)


def test_errors_of_a_fit_in_float32_are_in_float64(problem):
    """Nearly collinear features: in float32 their information would have lost its digits."""
    X, y = problem(N=300, D=3, K=2)
    X[:, 2] = X[:, 1] + 1e-3 * X[:, 2]
    X = X.astype(np.float32)
    model = SoftmaxRegression(1e4, precision="float32").fit(X, y)
    coef, _ = model.standard_errors(X)
    model.coef_, model.intercept_ = map(np.float64, (model.coef_, model.intercept_))
    wanted = np.sqrt(np.diag(np.linalg.inv(information(model, X, 1e4))))[:3]
    np.testing.assert_allclose(coef[0], wanted, rtol=1e-5)


def test_errors_of_dense_rows_whose_penalty_is_automatic(problem):
    """C="auto" is 1 for dense rows, in the errors too."""
    X, y = problem(N=300, D=3, K=2)
    ours, one = (SoftmaxRegression(C).fit(X, y).standard_errors(X) for C in ("auto", 1.0))
    np.testing.assert_array_equal(ours[0], one[0])


def test_class_weights_need_y(problem):
    """With class_weight the rows' weights follow from y: so do the errors."""
    X, y = problem(N=300, D=3, K=2)
    y = (y > 0) & (X[:, 0] > 0)
    model = SoftmaxRegression(class_weight="balanced", tol=1e-12).fit(X, y)
    with pytest.raises(ArgumentError, match="with class_weight, standard_errors needs y"):
        model.standard_errors(X)
    weight = np.where(y, 150 / y.sum(), 150 / (~y).sum())
    plain = SoftmaxRegression(tol=1e-12).fit(X, y, weight)
    np.testing.assert_allclose(
        model.standard_errors(X, y)[0], plain.standard_errors(X, sample_weight=weight)[0], rtol=1e-5
    )


def test_errors_cover():
    """Over 200 simulated samples, z against the true coefficients has a spread of about 1."""
    rng = np.random.default_rng(0)
    W = np.array([[1.0, -0.5], [0.0, 0.5], [-1.0, 0.0]])
    z = []
    for _ in range(200):
        X = rng.normal(size=(400, 2))
        y = (X @ W.T + rng.gumbel(size=(400, 3))).argmax(1)
        model = SoftmaxRegression(penalty=None).fit(X, y)
        z.append((model.coef_ - W) / model.standard_errors(X)[0])
    # 200 draws of three rows: the standard deviation's own error is below 0.05.
    assert np.std(z) == pytest.approx(1, abs=0.12)


def test_summary_reads(problem):
    """The table has a row for each coefficient and intercept, by name, and its caveat with L2."""
    X, y = problem(N=300, D=2, K=3)
    frame = pd.DataFrame(X, columns=["length", "width"])
    labels = np.array(["ape", "bee", "cat"])[y]
    table = SoftmaxRegression(penalty=None).fit(frame, labels).summary(frame)
    assert [(r["class"], r["feature"]) for r in table.rows[:4]] == [
        ("ape", "(intercept)"), ("ape", "length"), ("ape", "width"), ("bee", "(intercept)"),
    ]  # fmt: skip
    lines = str(table).splitlines()
    assert lines[0].split() == ["class", "feature", "coefficient", "error", "z", "p"]
    assert len(lines) == 10
    row = table.rows[1]
    assert row["z"] == pytest.approx(row["coefficient"] / row["error"])
    assert 0 <= row["p"] <= 1
    penalised = SoftmaxRegression().fit(frame, labels).summary(frame)
    assert "shrinkage" in str(penalised).splitlines()[-1]


def test_too_many_coefficients_are_refused():
    """More coefficients than a Hessian is formed for are refused with what it would take."""
    X = np.random.default_rng(0).normal(size=(30, 9000))
    model = SoftmaxRegression().fit(X, np.arange(30) % 2)
    with pytest.raises(DataError, match=r"need a matrix of 0\.6 GB"):
        model.standard_errors(X)


@pytest.mark.parametrize("estimator", [SoftmaxRegression(), SoftmaxRegressionCV()])
def test_errors_need_a_fit(estimator):
    """A model that is not fitted says so, also where a failed fit has seen the features."""
    X, y = np.ones((30, 2)), np.arange(30) % 2
    with pytest.raises(NotFittedError):
        estimator.standard_errors(X)
    estimator.n_features_in_ = 2
    with pytest.raises(NotFittedError):
        estimator.standard_errors(X, y)


def test_the_strength_of_a_fit_is_that_of_its_errors(problem):
    """What is set on the estimator after the fit changes no error: C_ is what was fitted with."""
    X, y = problem(N=300, D=3, K=2)
    model = SoftmaxRegression(0.3).fit(X, y)
    wanted = model.standard_errors(X)[0]
    np.testing.assert_array_equal(model.set_params(C=100.0).standard_errors(X)[0], wanted)
    assert np.isposinf(SoftmaxRegression(penalty=None).fit(X, y).C_)
