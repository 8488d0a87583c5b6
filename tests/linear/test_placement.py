"""Rows on a device: the same fits, made there, and hardly a wait for it."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

import luce.graphs
from luce import SoftmaxRegression
from luce.errors import BackendError
from luce.linear import dense_rows, fed_rows, model, solve
from luce.linear.fed_rows import Fed, FedRows, fed_if_large
from luce.linear.objective import Objective
from luce.linear.placement import float32_products
from luce.linear.precondition import Blocks, Exact
from luce.linear.rows import as_rows
from tests.gpu import without_waits
from tests.pretend import DEVICE, Pretend, Recording


@pytest.fixture
def device():
    """Return a device that is not there."""
    with Pretend() as device:
        yield device


@pytest.fixture
def small_blocks(monkeypatch):
    """Cut rows into several blocks on a device, and sums over blocks into several."""
    monkeypatch.setattr(dense_rows, "_DEVICE_BYTES", 48 << 10)
    monkeypatch.setattr(dense_rows, "_ROWS_OF_A_SUM", 64)


def fitted(X, y, **options):
    return SoftmaxRegression(tol=1e-7, **options).fit(X, y)


CASES = {
    "softmax": {},
    "one against the rest": {"link": "ovr"},
    "float64": {"precision": "float64"},
    "float32": {"precision": "float32"},
    "no intercept": {"fit_intercept": False},
    "newton": {"solver": "newton-cg"},
    "lbfgs": {"solver": "lbfgs"},
    "class weights": {"class_weight": "balanced"},
    "a penalty of its own for each feature": {"penalty": "scale_free"},
}


@pytest.mark.parametrize("case", CASES)
def test_a_fit_on_a_device_is_the_kernels(case, device, small_blocks, monkeypatch, problem):
    """Coefficients are those of the compiled passes on the CPU, and the certificate proves tol."""
    X, y = problem(1500, 8, 4)
    X = (2 * X).astype(np.float32)
    if "penalty" in CASES[case]:
        from luce.linear.penalties import PENALTIES

        monkeypatch.setitem(PENALTIES, "scale_free", lambda X, _: 1 + np.arange(X.shape[1]))
    monkeypatch.setattr(dense_rows, "_WORTH_COMPILING", 0)
    monkeypatch.setattr(model.small, "suits", lambda *_: False)
    wanted = fitted(X, y, **CASES[case])
    found = fitted(device.put(torch.from_numpy(X)), y, **CASES[case])
    assert found.converged_
    assert found.duality_gap_ <= 1e-7
    assert found.objective_ == pytest.approx(wanted.objective_, rel=3e-7)
    # f is (λ / 2)-strongly convex: a gap bounds how far apart two solutions are.
    far = 2 * np.sqrt(2 * 2e-7 * wanted.objective_)
    assert np.linalg.norm(found.coef_.astype(float) - wanted.coef_) <= far
    np.testing.assert_allclose(found.coef_, wanted.coef_, atol=2e-3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64, torch.uint8])
def test_two_classes_of_any_dtype(dtype, device, small_blocks, problem, truth):
    """Rows are cast on the device, block by block; scikit-learn agrees on the coefficients."""
    X, y = problem(900, 5, 2)
    X = torch.from_numpy(40 * X + 100).clamp(0, 255).to(dtype)
    model = fitted(device.put(X), y, precision="float64")
    known = truth(X.double().numpy(), y)
    np.testing.assert_allclose(model.coef_, known.coef_, rtol=1e-3, atol=1e-5)


def test_without_a_penalty(device, problem):
    """The scaled gradient ends the fit, as on the CPU."""
    X, y = problem(900, 5, 3)
    model = fitted(device.put(torch.from_numpy(X)), y, penalty=None)
    assert model.converged_
    np.testing.assert_allclose(model.coef_, fitted(X, y, penalty=None).coef_, rtol=1e-4, atol=1e-5)


def test_probabilities_stay_on_the_device(device, problem):
    """A tensor gives a tensor where it was, and labels are NumPy's."""
    X, y = problem()
    far = device.put(torch.from_numpy(X))
    model = fitted(far, y)
    P = model.predict_proba(far)
    assert P.device == DEVICE
    np.testing.assert_allclose(device.take(P).numpy(), model.predict_proba(X), rtol=1e-6)
    assert (model.predict(far) == model.predict(X)).all()


@pytest.mark.parametrize("form", [Exact, Blocks])
def test_an_iteration_waits_once(form, device, monkeypatch, problem):
    """All that decides where it goes on is read in one; a refresh of the preconditioner is extra.

    Where a first step is too long there is another pass over the rows, and another wait.
    """
    X, y = problem(2500, *((9, 4) if form is Exact else (40, 12)))
    monkeypatch.setattr(form, "refresh_at", ())
    waits, passes = [], []
    step, unread = solve._Loop.step, Objective.unread

    def counted(loop):
        before = device.waits
        passes.append(0)
        found = step(loop)
        waits.append(device.waits - before)
        assert isinstance(loop.descent.precondition, form)
        return found

    def passed(*arguments, **options):
        if passes:
            passes[-1] += 1
        return unread(*arguments, **options)

    monkeypatch.setattr(solve._Loop, "step", counted)
    monkeypatch.setattr(Objective, "unread", passed)
    monkeypatch.setattr(solve._Loop, "terminate", uncounted(solve._Loop.terminate, passes))
    fitted(device.put(torch.from_numpy(X)), y, solver="lbfgs")
    assert len(waits) > 6
    assert waits == passes
    assert waits.count(1) > 0.8 * len(waits)


def uncounted(method, passes):
    """Return a method whose passes are not those of a step."""

    def call(loop):
        before = passes[-1:]
        found = method(loop)
        passes[-1:] = before
        return found

    return call


def test_looking_for_a_flat_point_waits_for_nothing(device, monkeypatch, problem):
    """What `terminate` needs was read with the step, until a proof is tried."""
    X, y = problem(2500, 9, 4)
    waits, terminate, certify = [], solve._Loop.terminate, solve.certify
    tried = []

    def counted(loop):
        before, proofs = device.waits, len(tried)
        ended = terminate(loop)
        if len(tried) == proofs:
            waits.append(device.waits - before)
        return ended

    monkeypatch.setattr(solve, "certify", lambda *a: tried.append(1) or certify(*a))
    monkeypatch.setattr(solve._Loop, "terminate", counted)
    fitted(device.put(torch.from_numpy(X)), y, solver="lbfgs")
    assert len(waits) > 4
    assert set(waits) == {0}


def test_newtons_products_wait_once_each(device, problem):
    """An inexact Newton step reads curvature and residual of each product together."""
    from luce.linear.steps import NewtonCG

    X, y = problem(600, 9, 4)
    rows = as_rows(device.put(torch.from_numpy(X)))
    target, ones = (device.put(t) for t in (torch.from_numpy(y), torch.ones(600).double()))
    o = Objective(
        rows, target, ones, n_logits=4, link="softmax", C=1.0, fit_intercept=True,
        dtype=torch.float64,
    )  # fmt: skip
    theta = o.start()
    products, product_of = [], o.hessian_product

    def counted(theta):
        product = product_of(theta)
        return lambda V: products.append(1) or product(V)

    o.hessian_product = counted
    newton, gradient = NewtonCG(o, torch.clone), o.evaluate(theta).gradient
    before = device.waits
    newton.direction(theta, gradient, 1.0, 1e-9)
    assert len(products) > 1
    assert device.waits - before == len(products) + 1


@pytest.fixture
def graphs(monkeypatch):
    """Return the graphs that were captured, on a device that captures."""
    made = []

    def recording(device):
        made.append(Recording(device))
        return made[-1]

    monkeypatch.setattr(luce.graphs, "captures", lambda device: device == DEVICE)
    monkeypatch.setattr(luce.graphs, "Recording", recording)
    monkeypatch.setattr(dense_rows, "captures", lambda device: device == DEVICE)
    return made


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.uint8])
@pytest.mark.parametrize("case", ["softmax", "one against the rest", "newton", "no intercept"])
def test_small_passes_are_graphs(case, dtype, device, graphs, problem, monkeypatch):
    """All but the first two of a problem are replayed; not a bit of the fit is another."""
    X, y = problem(1500, 8, 4)
    X = device.put(torch.from_numpy(20 * X + 100).clamp(0, 255).to(dtype))
    found = fitted(X, y, **CASES[case])
    assert sum(graph.replayed for graph in graphs) > 3
    monkeypatch.setattr(dense_rows, "captures", lambda _: False)
    wanted = fitted(X, y, **CASES[case])
    np.testing.assert_array_equal(found.coef_, wanted.coef_)
    assert found.n_iter_ == wanted.n_iter_
    assert found.duality_gap_ == wanted.duality_gap_


def test_large_passes_and_rows_that_are_fed_are_no_graphs(device, graphs, small_blocks, problem):
    """Of several blocks each, kernels take longer than starting them."""
    X, y = problem(1500, 8, 4)
    fitted(device.put(torch.from_numpy(X)), y)
    fitted(Fed(X, DEVICE), y)
    assert not graphs


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8, np.int16])
def test_rows_are_fed_in_order_each_once_and_ahead(dtype, monkeypatch):
    """When a block is handed out the next is on its way, and all are the rows that they should be.

    A buffer is written again while the block that was in it two turns ago is used no more.
    """
    X = np.random.default_rng(0).integers(0, 200, (1000, 7)).astype(dtype)
    rows = FedRows(Fed(X, torch.device("cpu")))
    sent, send = [], FedRows._send
    monkeypatch.setattr(
        FedRows, "_send", lambda self, i, j: sent.append((i, j)) or send(self, i, j)
    )
    blocks = [(i, min(i + 96, 1000)) for i in range(0, 1000, 96)]
    for _ in range(2):
        sent.clear()
        for k, (i, j) in enumerate(blocks):
            np.testing.assert_array_equal(rows.block(i, j, torch.float64), X[i:j])
            assert sent == blocks[: k + 2]
        rows.release()


def test_rows_that_are_fed_are_never_copied_twice(monkeypatch):
    """All blocks go through two buffers, each as large as the largest of them."""
    X = np.zeros((1000, 8), np.float32)
    rows = FedRows(Fed(X, torch.device("cpu")))
    made, empty = [], torch.empty
    monkeypatch.setattr(torch, "empty", lambda *a, **k: made.append(a) or empty(*a, **k))
    for _ in range(2):
        for i in range(0, 1000, 250):
            rows.block(i, i + 250, torch.float32)
        rows.release()
    assert made == [(2000,), (2000,)]


@pytest.mark.parametrize("kind", ["array", "map", "backwards"])
def test_a_fit_of_rows_that_are_fed_is_that_of_rows_that_are_there(
    kind, device, small_blocks, problem, tmp_path
):
    """To the last bit: the device computes the same on the same blocks."""
    X, y = problem(1500, 8, 4)
    X = X.astype(np.float32)
    wanted = fitted(device.put(torch.from_numpy(X)), y)
    if kind == "map":
        np.save(tmp_path / "X.npy", X)
        X = np.load(tmp_path / "X.npy", mmap_mode="r")
    if kind == "backwards":
        X = X[::-1].copy()[::-1]
    found = fitted(Fed(X, DEVICE), y)
    np.testing.assert_array_equal(found.coef_, wanted.coef_)
    assert found.duality_gap_ == wanted.duality_gap_


def test_rows_larger_than_the_devices_memory_are_fed(monkeypatch):
    """By their bytes, beside those that are free; of a device without a limit never."""
    X, gpu = np.zeros((100, 10)), torch.device("cuda")
    monkeypatch.setattr(fed_rows.torch.cuda, "mem_get_info", lambda _: (12_000, 50_000))
    assert fed_if_large(X, gpu).X is X
    assert fed_if_large(X[:80], gpu) is None
    assert fed_if_large(X, torch.device("cpu")) is None


def test_sparse_rows_too_wide_for_a_device_are_refused(monkeypatch):
    """Before they are made dense: that could end the process."""
    import scipy.sparse

    monkeypatch.setattr(fed_rows, "free_bytes", lambda _: 1e9)
    wide = scipy.sparse.csr_array((10_000, 100_000))
    with pytest.raises(BackendError, match=r"8\.0 GB, of which 0\.6 GB.*Set device='auto'"):
        fed_rows.dense(wide, torch.device("cuda"))
    assert fed_rows.dense(wide[:3, :5], torch.device("cuda")).shape == (3, 5)


def test_what_fed_rows_lack_is_said(device):
    """A number that is missing is found on the device, and named as on the CPU."""
    X = np.ones((40, 3))
    X[7, 2] = np.nan
    with pytest.raises(Exception, match=r"row 7.*column 2|\[7, 2\]"):
        fitted(Fed(X, DEVICE), np.arange(40) % 2)


def test_a_gpu_that_is_not_there(problem):
    """Is said, and what to do."""
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(BackendError, match=r"device='cuda'.*Set device='auto'"):
        SoftmaxRegression(device="cuda").fit(*problem())


@pytest.mark.parametrize("coarse", [False, True])
def test_float32_is_what_a_pass_asks_for_on_a_gpu(coarse):
    """TF32 for coarse passes and no others, whatever is set; that is put back."""
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    try:
        for mine in ("ieee", "tf32"):
            matmul.fp32_precision = mine
            with float32_products(torch.device("cuda"), coarse=coarse):
                assert matmul.fp32_precision == ("tf32" if coarse else "ieee")
            assert matmul.fp32_precision == mine
    finally:
        matmul.fp32_precision = before


@pytest.fixture
def precision():
    """Return PyTorch's setting for matrix products, which is put back."""
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    yield matmul
    matmul.fp32_precision = before


def products(coarse):
    return float32_products(torch.device("cuda"), coarse=coarse)


def test_passes_on_threads_leave_what_was_set(precision):
    """One in float32 waits until one in TF32 is through, and nothing of either stays."""
    precision.fp32_precision = "ieee"
    coarse, fine = threading.Event(), threading.Event()
    seen = []

    def other():
        coarse.wait(10)
        with products(False):
            fine.set()
            seen.append(precision.fp32_precision)

    thread = threading.Thread(target=other)
    thread.start()
    with products(True):
        coarse.set()
        assert not fine.wait(0.2)
        assert precision.fp32_precision == "tf32"
    thread.join(10)
    assert seen == ["ieee"]
    assert precision.fp32_precision == "ieee"


@pytest.mark.parametrize("coarse", [False, True])
def test_passes_that_want_the_same_overlap(coarse, precision):
    """Fits on several threads need not wait for each other."""
    both = threading.Barrier(2, timeout=10)

    def one(_):
        with products(coarse):
            both.wait()
            return precision.fp32_precision

    before = precision.fp32_precision
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(one, range(2)))
    assert found == (["tf32"] * 2 if coarse else [before] * 2)
    assert precision.fp32_precision == before


def test_nothing_is_set_where_products_are_what_is_wanted(precision):
    """So the older name for it can be read meanwhile; PyTorch refuses that where the two differ."""
    precision.fp32_precision = "none"
    with products(False):
        assert precision.fp32_precision == "none"
        assert not precision.allow_tf32


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: make gpu")
@pytest.mark.parametrize("how", ["tensor", "moved", "fed"])
def test_cuda_fits_are_the_cpus(how, monkeypatch, problem):
    """Of a tensor there, of an array that is moved there, and of one that is fed."""
    X, y = problem(200_000, 24, 6)
    X = X.astype(np.float32)
    if how == "fed":
        monkeypatch.setattr(fed_rows, "free_bytes", lambda _: 0)
    given = torch.from_numpy(X).cuda() if how == "tensor" else X
    found, wanted = fitted(given, y, device="cuda"), fitted(X, y)
    assert found.duality_gap_ <= 1e-7
    np.testing.assert_allclose(found.coef_, wanted.coef_, atol=1e-3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: make gpu")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_small_passes_on_cuda_are_graphs(dtype, problem):
    """Value and gradient of each point are those of a plain pass, to the bit; none waits."""
    X, y = problem(20_000, 24, 6)
    rows = as_rows(torch.from_numpy(X).cuda())
    target, ones = torch.from_numpy(y).cuda(), torch.ones(len(y), device="cuda").double()
    o = Objective(
        rows, target, ones, n_logits=6, link="softmax", C=1.0, fit_intercept=True, dtype=dtype
    )
    points = [torch.rand_like(o.start()) for _ in range(5)]
    for _ in range(3):
        o.unread(points[0])
    with without_waits():
        found = [o.unread(theta) for theta in points]
    assert len(o._captured._of_shape) == 1
    for theta, (value, gradient, _) in zip(points, found, strict=True):
        wanted = o._pass(theta, False)
        assert torch.equal(value, wanted[0])
        assert torch.equal(gradient, wanted[1])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: make gpu")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_pass_on_cuda_waits_for_nothing(dtype, problem):
    """PyTorch's own watch over what synchronises says so."""
    X, y = problem(20_000, 24, 6)
    rows = as_rows(torch.from_numpy(X).cuda())
    target, ones = torch.from_numpy(y).cuda(), torch.ones(len(y), device="cuda").double()
    o = Objective(
        rows, target, ones, n_logits=6, link="softmax", C=1.0, fit_intercept=True, dtype=dtype
    )
    theta = o.start()
    with without_waits():
        value, gradient, _ = o.unread(theta, logs=True)
    assert float(value) > 0
    assert bool(gradient.isfinite().all())
