"""One against the rest, pairs and codes: beside scikit-learn's, by formula, and what is proven."""

import warnings

import numpy as np
import pytest
import scipy.sparse
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.special import expit, log_softmax
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier, OutputCodeClassifier

from luce import SoftmaxRegression, SoftmaxRegressionCV
from luce.errors import ArgumentError
from luce.linear import coupling, small
from luce.linear.codes import as_code, output_code, pairs
from luce.linear.coupling import Coupling, pairwise
from luce.linear.links import probabilities, residual, seen
from luce.linear.many_pairs import couple
from luce.linear.objective import Objective
from luce.linear.rows import as_rows

TERNARY = np.array([[1, 0, -1, 1], [-1, 1, 0, 1], [0, -1, 1, -1], [1, -1, 1, 0]])
CODES = {"ovr": None, "ovo": None, "ecoc": None, "ternary": TERNARY}


def link_of(name):
    return {"link": "ecoc", "code": CODES[name]} if name == "ternary" else {"link": name}


def signs_of(name, K):
    if name == "ovr":
        return 2 * np.eye(K, dtype=int) - 1
    return {"ovo": pairs(K), "ecoc": output_code(K), "ternary": TERNARY}[name].astype(int)


def loss_of(model, signs, X, y, weight):
    """f without its penalty, by the formula, in float64."""
    X = X.toarray() if hasattr(X, "toarray") else np.asarray(X, np.float64)
    Z = X @ model.coef_.astype(np.float64).T + model.intercept_
    side = signs[np.searchsorted(model.classes_, y)]
    return float((weight[:, None] * (side != 0) * np.logaddexp(0, -side * Z)).sum())


def exact(C=1.0):
    return LogisticRegression(C=C, solver="newton-cholesky", tol=1e-13, max_iter=1000)


def close(ours, peers):
    """Compare rows of coefficients with binary fits, column by column."""
    np.testing.assert_allclose(ours.coef_, np.concatenate([p.coef_ for p in peers]), atol=1e-6)
    np.testing.assert_allclose(
        ours.intercept_, np.concatenate([p.intercept_ for p in peers]), atol=1e-6
    )


# "small" is NumPy's, the others PyTorch's passes; sparse rows have columns that are mostly zero.
WAYS = ["small", "lbfgs", "newton-cg", "sparse", "tensor"]


def fitted(way, X, y, weight=None, **options):
    options = {"tol": 1e-13, "max_iter": 2000, **options}
    if way in {"lbfgs", "newton-cg"}:
        options |= {"solver": way, "precision": "float64"}
    if way == "sparse":
        X = scipy.sparse.csr_array(X)
    if way == "tensor":
        X, options = torch.from_numpy(X), options | {"precision": "float64", "solver": "lbfgs"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # 1e-13 is about what rounding leaves
        return SoftmaxRegression(**options).fit(X, y, weight)


@pytest.mark.parametrize("way", WAYS)
def test_pairs_are_those_of_scikit_learn(problem, way):
    """link="ovo" has the coefficients of OneVsOneClassifier, column by column."""
    X, y = problem(N=150, D=5, K=4)
    peer = OneVsOneClassifier(exact()).fit(X, y)
    close(fitted(way, X, y, link="ovo"), peer.estimators_)


@pytest.mark.parametrize("way", WAYS)
def test_columns_of_a_code_are_those_of_scikit_learn(problem, way):
    """link="ecoc" has the coefficients of OutputCodeClassifier with the same code."""
    X, y = problem(N=150, D=5, K=5)
    peer = OutputCodeClassifier(exact(), code_size=2, random_state=3).fit(X, y)
    code = peer.code_book_
    kept = [b for b in range(code.shape[1]) if len(set(code[:, b])) == 2]
    first = [b for b in kept if not any(abs(code[:, b] @ code[:, a]) == 5 for a in kept if a < b)]
    ours = fitted(way, X, y, link="ecoc", code=code[:, first])
    close(ours, [peer.estimators_[b] for b in first])


@pytest.mark.parametrize("way", WAYS)
def test_weights_and_zeros_of_a_code(problem, way):
    """A column with zeros is the fit of the rows that have a side, with their weights."""
    X, y = problem(N=150, D=5, K=4)
    weight = np.random.default_rng(0).exponential(size=len(y))
    balanced = {k: len(y) / (4 * n) for k, n in enumerate(np.bincount(y))}
    options = {"link": "ecoc", "code": TERNARY, "class_weight": balanced}
    ours = fitted(way, X, y, weight, **options)
    whole = weight * np.array([balanced[k] for k in y])
    peers = []
    for column in TERNARY.T:
        on = column[y] != 0
        peers.append(exact().fit(X[on], column[y][on], whole[on]))
    close(ours, peers)


@pytest.mark.parametrize("name", ["small", "lbfgs"])
def test_the_identity_is_one_against_the_rest(problem, name):
    """Its coefficients and probabilities are those of link="ovr", to the last bit."""
    X, y = problem(N=200, D=5, K=4)
    options = {} if name == "small" else {"solver": name}
    ovr = SoftmaxRegression(link="ovr", **options).fit(X, y)
    code = SoftmaxRegression(link="ecoc", code=np.eye(4), **options).fit(X, y)
    np.testing.assert_array_equal(code.coef_, ovr.coef_)
    np.testing.assert_array_equal(code.predict_proba(X), ovr.predict_proba(X))
    np.testing.assert_array_equal(code.decision_function(X), ovr.decision_function(X))
    peer = OneVsRestClassifier(exact()).fit(X, y)
    np.testing.assert_allclose(code.predict_proba(X), peer.predict_proba(X), atol=1e-3)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_table_of_sides_says_what_classes_say(dtype):
    """Residuals, losses and sums of log p are the same with the identity's table as without one."""
    rng = np.random.default_rng(0)
    Z = torch.from_numpy((4 * rng.normal(size=(90, 5))).astype(dtype))
    y, w = torch.from_numpy(rng.integers(0, 5, 90)), torch.from_numpy(rng.exponential(size=90))
    table = (2 * torch.eye(5) - 1).to(torch.int8)
    out = []
    for signs in (None, table):
        R, logs = Z.clone(), torch.zeros(2, 5, dtype=torch.float64)
        out.append((float(residual(R, y, w, "sigmoid", logs, signs)), R, logs))
    assert out[0][0] == pytest.approx(out[1][0], rel=1e-15)
    assert torch.equal(out[0][1], out[1][1])
    torch.testing.assert_close(out[0][2], out[1][2], rtol=1e-14, atol=0)


@pytest.mark.parametrize("name", CODES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_fused_pass_is_that_by_blocks(name, dtype):
    """The kernel and PyTorch agree on value, gradient, sums of log p and probabilities."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(700, 9)), rng.integers(0, 4, 700)
    signs = torch.from_numpy(signs_of(name, 4).astype(np.int8))
    B = signs.shape[1]
    options = {"n_logits": B, "link": "sigmoid", "C": 1.0, "fit_intercept": True}
    weight = torch.from_numpy(rng.exponential(size=700))
    made = [
        Objective(
            as_rows(X), torch.from_numpy(y), weight,
            **options, dtype=dtype, fits=fits, signs=signs,
        )
        for fits in (1, 1000)
    ]  # fmt: skip
    assert not made[0].compiles
    assert made[1].compiles
    theta = torch.from_numpy(rng.normal(size=(B, 10)))
    ours, peer = (o.evaluate(theta, logs=True) for o in reversed(made))
    close = {"rtol": 1e-5, "atol": 1e-6} if dtype is torch.float32 else {"rtol": 1e-10}
    assert ours.value == pytest.approx(peer.value, rel=1e-6 if dtype is torch.float32 else 1e-12)
    np.testing.assert_allclose(ours.gradient, peer.gradient, **close)
    np.testing.assert_allclose(ours.logs, peer.logs, **close)
    P = [torch.cat([p for _, p in o.probability_blocks(theta, dtype)]) for o in made]
    np.testing.assert_allclose(P[0], P[1], **close)
    absent = (signs == 0)[torch.from_numpy(y)]
    assert not P[1][absent].any()
    np.testing.assert_allclose(
        made[0].curvature(theta, None).S, made[1].curvature(theta, None).S, **close
    )


@pytest.mark.parametrize("name", CODES)
def test_the_hessian_is_the_slope_of_the_gradient(name):
    """∇²F V is what differences of ∇F say, with rows that have no part in some columns."""
    rng = np.random.default_rng(1)
    X, y = rng.normal(size=(80, 3)), rng.integers(0, 4, 80)
    signs = torch.from_numpy(signs_of(name, 4).astype(np.int8))
    o = Objective(
        as_rows(X), torch.from_numpy(y), torch.ones(80).double(), n_logits=signs.shape[1],
        link="sigmoid", C=0.1, fit_intercept=True, dtype=torch.float64, signs=signs,
    )  # fmt: skip
    theta, V = (torch.from_numpy(rng.normal(size=(signs.shape[1], 4))) for _ in range(2))
    up, down = (o.evaluate(theta + h * V).gradient for h in (1e-5, -1e-5))
    np.testing.assert_allclose(o.hessian_product(theta)(V), (up - down) / 2e-5, atol=1e-8)
    phi = o.along(theta, V)
    assert phi(0.3)[0] == pytest.approx(o.evaluate(theta + 0.3 * V).value, rel=1e-12)
    P = probabilities(torch.zeros(80, signs.shape[1]), "sigmoid")
    kept = seen(P.clone(), torch.from_numpy(y), signs)
    np.testing.assert_array_equal(kept != 0, (signs != 0)[y])


@settings(max_examples=100)
@given(
    seed=st.integers(0, 2**31),
    name=st.sampled_from(list(CODES)),
    trait=st.sampled_from(["plain", "weighted", "separable", "rare", "constant", "offset"]),
    C=st.sampled_from([1e-2, 1.0, 100.0]),
    penalty=st.sampled_from(["l2", "elastic net", "l1", "group"]),
    intercept=st.booleans(),
    stop=st.integers(0, 8),
)
@example(3, "ovo", "weighted", 1.0, "l1", True, 0)
def test_the_gap_bounds_the_truth(seed, name, trait, C, penalty, intercept, stop):
    """Wherever a fit stops, f is above the optimum by no more than its gap; f is the formula's."""
    rng = np.random.default_rng(seed)
    K, N, D = 4, 60, 4
    X = rng.normal(size=(N, D))
    y = (X[:, :2] @ rng.normal(size=(2, K)) + rng.gumbel(size=(N, K))).argmax(1)
    weight = np.ones(N)
    if trait == "weighted":
        weight = rng.exponential(size=N) * rng.choice([0.01, 1, 30], size=N) + 1e-3
    if trait == "separable":
        X[:, 0] = 10.0 * y
    if trait == "rare":
        y = rng.integers(0, 2, N)
    if trait == "constant":
        X[:, 0] = 3.7
    if trait == "offset":
        X += 100
    y[:K] = np.arange(K)
    share = {"l2": 0.0, "elastic net": 0.5, "l1": 1.0, "group": 0.0}[penalty]
    options = {"C": C, "fit_intercept": intercept, "l1_ratio": share, **link_of(name)}
    options["penalty"] = "group" if penalty == "group" else "l2"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        stopped = SoftmaxRegression(**options, max_iter=stop, tol=1e-9).fit(X, y, weight)
        best = SoftmaxRegression(**options, tol=1e-12, max_iter=2000).fit(X, y, weight)
    W = stopped.coef_
    size = np.linalg.norm(W, axis=0).sum() if penalty == "group" else (
        share * np.abs(W).sum() + (1 - share) * np.square(W).sum() / 2
    )  # fmt: skip
    f = loss_of(stopped, signs_of(name, K), X, y, weight) + size / C
    assert stopped.objective_ == pytest.approx(f, rel=1e-9)
    assert f - best.objective_ <= stopped.duality_gap_ * f + 1e-10 * f
    assert best.duality_gap_ < 1e-6


@pytest.mark.parametrize("name", CODES)
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_the_gap_of_large_problems_bounds_the_truth(problem, name, precision):
    """PyTorch's passes prove what they say too, wherever they stop."""
    X, y = problem(N=300, D=6, K=4, seed=2)
    weight = np.random.default_rng(0).exponential(size=len(y))
    best = fitted("small", X, y, weight, **link_of(name))
    for stop in (0, 1, 3, 30):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = SoftmaxRegression(
                **link_of(name), solver="lbfgs", precision=precision, max_iter=stop
            ).fit(X, y, weight)
        f = loss_of(model, signs_of(name, 4), X, y, weight) + np.square(model.coef_).sum() / 2
        assert model.objective_ == pytest.approx(f, rel=1e-9)
        assert 0 <= f - best.objective_ + 1e-9 * f <= model.duality_gap_ * f + 2e-9 * f
    assert model.converged_


def system(r):
    """p of Wu, Lin and Weng's second method, by their equation (21), in float64."""
    K = len(r)
    Q = -r.T * r
    Q[np.diag_indices(K)] = [sum(r[s, k] ** 2 for s in range(K) if s != k) for k in range(K)]
    whole = np.block([[Q, np.ones((K, 1))], [np.ones((1, K)), np.zeros((1, 1))]])
    return np.linalg.solve(whole, np.append(np.zeros(K), 1))[:K]


@pytest.mark.parametrize("K", [3, 4, 8, 15])
def test_pairs_are_coupled_by_the_linear_system(K):
    """Probabilities of pairs are the solution of Wu, Lin and Weng's system, solved directly."""
    Z = 2 * np.random.default_rng(K).normal(size=(40, K * (K - 1) // 2))
    i, j = np.triu_indices(K, 1)
    for z, log_p in zip(Z, pairwise(Z, K), strict=True):
        r = np.zeros((K, K))
        r[i, j], r[j, i] = expit(-z), expit(z)
        np.testing.assert_allclose(np.exp(log_p), system(r), rtol=1e-11)


@pytest.mark.parametrize("spread", [0.0, 3.0, 40.0])
def test_many_pairs_are_coupled_by_the_same_steps(spread):
    """The kernel for many gives NumPy's log p, also where rows do not fill up its vectors."""
    Z = spread * np.random.default_rng(0).normal(size=(300, 15))
    np.testing.assert_allclose(couple(Z, 6), pairwise(Z, 6), rtol=1e-12, atol=1e-13)
    Z = Z[:, :1] * np.ones(66)
    assert coupling._WORTH_COMPILING > 300 * 12**3
    many = pairwise(np.tile(Z, (200, 1)).astype(np.float32), 12)
    assert many.dtype == np.float32
    np.testing.assert_allclose(many[:300], pairwise(Z, 12), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("spread", [0.0, 1.0, 8.0])
def test_pairs_that_agree_are_a_softmax_however_small_it_is(spread):
    """Where all log-odds are differences of K numbers, log p is exact though the system is not."""
    rng = np.random.default_rng(0)
    scores = spread * rng.normal(size=(200, 7))
    i, j = np.triu_indices(7, 1)
    found = pairwise(scores[:, j] - scores[:, i], 7)
    np.testing.assert_allclose(found, log_softmax(scores, axis=1), atol=1e-12)


def test_pairs_beyond_all_numbers_have_finite_logarithms():
    """However sure the pairs are, also in a circle, log p is finite and probabilities sum to 1."""
    Z = np.array([[1e5, 1e5, 1e5], [1e5, -1e5, 1e5], [-1e5, -1e5, -1e5]])
    found = pairwise(Z, 3)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(np.exp(found).sum(1), 1, rtol=1e-12)
    np.testing.assert_allclose(np.exp(found[1]), 1 / 3, rtol=1e-12)
    assert found.argmax(1).tolist()[::2] == [2, 0]


@pytest.mark.parametrize("name", ["ecoc", "ternary"])
def test_codes_are_decoded_by_the_likelihood_of_their_rows(name):
    """log p_k is Σ_b log σ(m_kb z_b) of the class's row but for a constant; 0 is a fair coin."""
    signs = signs_of(name, 4)
    Z = 3 * np.random.default_rng(0).normal(size=(30, signs.shape[1]))
    likelihood = np.log(expit(Z[:, None, :] * signs)).sum(axis=2)
    found = Coupling("ecoc", 4, signs.astype(np.int8)).log_probabilities(Z)
    np.testing.assert_allclose(found, log_softmax(likelihood, axis=1), atol=1e-12)


@pytest.mark.parametrize("name", CODES)
def test_predictions_agree_with_each_other(problem, name):
    """Arrays, tensors and many rows give the same probabilities; decisions choose the likeliest."""
    X, y = problem(N=300, D=5, K=4)
    model = SoftmaxRegression(**link_of(name)).fit(X, y)
    P = model.predict_proba(X)
    np.testing.assert_allclose(P.sum(1), 1, rtol=1e-12)
    np.testing.assert_allclose(np.log(P), model.predict_log_proba(X), rtol=1e-9, atol=1e-12)
    np.testing.assert_array_equal(model.predict(X), model.classes_[P.argmax(1)])
    assert model.decision_function(X).shape == (300, 4)
    of_tensor = model.predict_proba(torch.from_numpy(X))
    assert isinstance(of_tensor, torch.Tensor)
    np.testing.assert_allclose(of_tensor.numpy(), P, rtol=1e-9)
    assert P.argmax(1).tolist() != [0] * 300
    assert model.score(X, y) > 0.5


@pytest.mark.parametrize("link", ["ovr", "ovo", "ecoc"])
def test_two_classes_are_one_sigmoid_whatever_the_link(problem, link):
    """A pair has one way to be told apart: coefficients and probabilities are the softmax's."""
    X, y = problem(K=2)
    model, plain = SoftmaxRegression(link=link).fit(X, y), SoftmaxRegression().fit(X, y)
    np.testing.assert_array_equal(model.coef_, plain.coef_)
    np.testing.assert_array_equal(model.predict_proba(X), plain.predict_proba(X))
    turned = SoftmaxRegression(link="ecoc", code=[[1], [-1]]).fit(X, y)
    np.testing.assert_array_equal(turned.coef_, plain.coef_)
    assert turned.code_.tolist() == [[-1], [1]]


def test_a_warm_start_takes_no_step(problem):
    """A second fit begins at the coefficients of the first, whose number is that of columns."""
    X, y = problem(K=5)
    model = SoftmaxRegression(link="ovo", warm_start=True).fit(X, y)
    assert model.n_iter_[0] > 0
    assert model.fit(X, y).n_iter_[0] == 0


@pytest.mark.parametrize("name", ["ovo", "ecoc", "ternary"])
def test_cross_validation_compares_the_same_link(problem, name):
    """Of C and its scores are those of the estimator fitted fold by fold."""
    X, y = problem(N=160, D=4, K=4)
    fold = np.arange(160) % 2 == 0
    cv = [(np.flatnonzero(fold), np.flatnonzero(~fold))]
    model = SoftmaxRegressionCV(Cs=[0.01, 1.0], cv=cv, **link_of(name)).fit(X, y)
    for c, C in enumerate((0.01, 1.0)):
        single = SoftmaxRegression(C, **link_of(name)).fit(X[fold], y[fold])
        log_p = single.predict_log_proba(X[~fold])[np.arange((~fold).sum()), y[~fold]]
        assert model.scores_[0, c] == pytest.approx(log_p.mean(), abs=1e-3)
    np.testing.assert_array_equal(model.code_, signs_of(name, 4))
    by_accuracy = SoftmaxRegressionCV([0.01, 1.0], cv=cv, scoring="accuracy", **link_of(name))
    accuracy = by_accuracy.fit(X, y).scores_[0]
    held = SoftmaxRegression(1.0, **link_of(name)).fit(X[fold], y[fold])
    assert accuracy[1] == pytest.approx(held.score(X[~fold], y[~fold]))


def test_a_clone_has_the_code_and_not_the_fit(problem):
    """clone copies the code that was given, and leaves ``code_`` behind."""
    X, y = problem(K=4)
    model = SoftmaxRegression(link="ecoc", code=TERNARY).fit(X, y)
    other = clone(model)
    assert not hasattr(other, "code_")
    np.testing.assert_array_equal(other.fit(X, y).coef_, model.coef_)
    plain = clone(model).set_params(link="softmax", code=None).fit(X, y)
    assert not hasattr(plain, "code_")


def test_what_is_large_is_left_to_pytorch(problem):
    """Whether a problem is small is asked of its columns, not of its classes."""
    X, _ = problem(N=600, D=8, K=3)
    y = np.arange(600) % 40
    assert small.suits(X, 40)
    assert not small.suits(np.empty((20_000, 8)), 780)
    model = SoftmaxRegression(link="ovo", tol=1e-3).fit(X, y)
    assert model.coef_.shape == (780, 8)
    assert model.converged_


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"link": "pairs"}, "link must be one of softmax, ovr, ovo, ecoc, got 'pairs'"),
        ({"code": np.eye(3)}, "code belongs to link='ecoc', got it with link='softmax'"),
        ({"link": "ovo", "code": np.eye(3)}, "code belongs to link='ecoc'"),
        ({"link": "ecoc", "code": np.eye(4)}, "must have 3 rows"),
    ],
)
def test_what_does_not_go_together_is_refused(problem, options, words):
    """A link that there is not, and a code that is not the link's or not the classes'."""
    X, y = problem(K=3)
    for estimator in (SoftmaxRegression, SoftmaxRegressionCV):
        with pytest.raises(ArgumentError, match=words):
            estimator(**options).fit(X, y)


def test_questions_of_classes_with_a_column_each(problem):
    """Pairs and codes are refused, but the code that is one against the rest answers as that."""
    X, y = problem(N=90, D=3, K=3)
    for link in ("ovo", "ecoc"):
        model = SoftmaxRegression(link=link).fit(X, y)
        with pytest.raises(ArgumentError, match=f"a column each, .* got link='{link}'"):
            model.leave_one_out(X, y)
    rest = SoftmaxRegression(link="ovr", tol=1e-10).fit(X, y)
    code = SoftmaxRegression(link="ecoc", code=np.eye(3), tol=1e-10).fit(X, y)
    np.testing.assert_array_equal(
        code.leave_one_out(X, y).log_probabilities, rest.leave_one_out(X, y).log_probabilities
    )
    np.testing.assert_array_equal(code.probability_bound(X, X, y), rest.probability_bound(X, X, y))


def test_standard_errors_are_those_of_binary_fits(problem):
    """Errors of a column are those of its own problem; pairs need y, which says whose rows."""
    X, y = problem(N=200, D=3, K=3)
    model = SoftmaxRegression(link="ovo", tol=1e-12, penalty=None).fit(X, y)
    with pytest.raises(ArgumentError, match=r"link='ovo'.*pass it"):
        model.standard_errors(X)
    coef, intercept = model.standard_errors(X, y)
    for b, (i, j) in enumerate([(0, 1), (0, 2), (1, 2)]):
        on = (y == i) | (y == j)
        single = SoftmaxRegression(tol=1e-12, penalty=None).fit(X[on], y[on])
        wanted = single.standard_errors(X[on])
        np.testing.assert_allclose(coef[b], wanted[0][0], rtol=1e-5)
        np.testing.assert_allclose(intercept[b], wanted[1][0], rtol=1e-5)
    names = {row["class"] for row in model.summary(X, y).rows}
    assert names == {"1 against 0", "2 against 0", "2 against 1"}
    code = as_code("x", output_code(3), "abc")
    dense = SoftmaxRegression(link="ecoc", code=code).fit(X, y)
    assert {row["class"] for row in dense.summary(X).rows} == {"column 0", "column 1", "column 2"}
