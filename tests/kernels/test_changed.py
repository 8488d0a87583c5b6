"""Tensors that change behind autograd's back between forward and backward pass."""

import pytest
import torch

import luce
from luce.errors import ShapeError, TargetError

N, K, D = 600, 80, 8
FEW = 20_000  # bytes: tiles of rows × classes


def losses(y, backend):
    """Yield each loss with a target, and the leaf that its gradient goes to."""
    random = torch.Generator().manual_seed(0)

    def leaf(*shape):
        return torch.randn(shape, generator=random).requires_grad_()

    def gone_back(loss):
        loss.backward(retain_graph=True)
        return loss

    o = {"backend": backend}
    for reduction in ("none", "sum", "mean"):
        z = leaf(N, K)
        yield z, luce.nll_loss(z, y, reduction=reduction, **o)
    for classes in (K, 10):
        z = leaf(N, classes)
        t = y % classes if classes < K else y
        yield z, luce.cross_entropy(z, t, reduction="none", **o)
        z = leaf(N, classes)
        rows, lse = luce.cross_entropy(z, t, reduction="sum", return_lse=True, **o)
        yield z, rows + lse.sum()
        z = leaf(N, classes)
        yield z, gone_back(luce.cross_entropy(z, t, **o))
    z = leaf(N, K)
    yield z, luce.distillation_loss(z, z.detach() + 1, y, reduction="none", **o)
    z = leaf(N, K)
    yield z, gone_back(luce.distillation_loss(z, z.detach() + 1, y, **o))
    W = leaf(K, D)
    for budget in (64 << 20, FEW):
        o["memory_budget"] = budget
        x = leaf(N, D)
        yield x, luce.linear_cross_entropy(x, W, y, reduction="none", **o)
        x = leaf(N, D)
        yield x, gone_back(luce.linear_cross_entropy(x, W, y, **o))
        x = leaf(N, D)
        yield x, luce.linear_distillation_loss(x, W, x.detach(), W.detach(), y, **o)


def refusal(loss):
    """Go backward; return the error that it raised, or None."""
    try:
        loss.sum().backward()
    except (IndexError, RuntimeError) as error:
        return error
    return None


CASES = range(sum(1 for _ in losses(torch.zeros(N, dtype=torch.int64), "reference")))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("value", [2**40, -(2**40), K])
def test_a_target_that_left_the_classes_is_never_an_index(case, backend, value):
    """The backward pass gives the forward's gradient, or an error; it reads nothing outside."""
    y = torch.arange(N) % K
    leaf, loss = list(losses(y, backend))[case]
    leaf.grad = None
    y.numpy()[::3] = value
    error = refusal(loss)
    if error is not None:
        assert f"class {value}" in str(error) or "out of bounds" in str(error)
        return
    same, loss = list(losses(torch.arange(N) % K, backend))[case]
    same.grad = None
    loss.sum().backward()
    torch.testing.assert_close(leaf.grad, same.grad)


@pytest.mark.parametrize("case", CASES)
def test_a_target_of_another_shape_is_refused(case):
    """A target that was replaced by a shorter one is an error, or of no consequence."""
    y = torch.arange(N) % K
    leaf, loss = list(losses(y, "cpu"))[case]
    leaf.grad = None
    y.data = torch.zeros(1, dtype=torch.int64)
    error = refusal(loss)
    assert error is None or "must be of shape (600,), got (1,)" in str(error)
    assert isinstance(error, ShapeError) or leaf.grad.isfinite().all()


def test_a_changed_target_names_its_class():
    """The message is that of the forward pass: which class, and where."""
    z, y = torch.randn(N, K, requires_grad=True), torch.zeros(N, dtype=torch.int64)
    loss = luce.cross_entropy(z, y, reduction="none", backend="cpu").sum()
    y.numpy()[7] = K
    with pytest.raises(TargetError, match=rf"class {K} at position \[7\]"):
        loss.backward()


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_a_target_that_becomes_ignored_or_another_class_is_taken_or_refused(backend):
    """Changes within the classes are harmless; what autograd sees of them, it refuses."""
    z, y = torch.randn(N, K, requires_grad=True), torch.zeros(N, dtype=torch.int64)
    loss = luce.cross_entropy(z, y, reduction="none", backend=backend).sum()
    y.numpy()[7] = -100
    loss.backward()
    assert z.grad.isfinite().all()
    if backend == "cpu":
        loss = luce.cross_entropy(z, y, reduction="none", backend=backend).sum()
        y[8] = 1
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()


@pytest.mark.parametrize("name", ["weight", "sample_weight", "teacher"])
def test_other_tensors_of_another_shape_are_refused(name):
    """Class weights, sample weights and a teacher that were replaced are errors, not reads."""
    z, y = torch.randn(N, K, requires_grad=True), torch.arange(N) % K
    other = torch.rand({"weight": (K,), "sample_weight": (N,), "teacher": (N, K)}[name])
    o = {"reduction": "none", "backend": "cpu"}
    if name == "teacher":
        # A vector's logits are the given tensor itself; of a matrix, a view is kept.
        loss = luce.linear_distillation_loss(z, torch.eye(K), other, torch.eye(K), **o)
    else:
        loss = luce.cross_entropy(z, y, **{name: other}, **o)
    other.data = torch.rand(3) if other.ndim == 1 else torch.rand(3, 3)
    with pytest.raises(ShapeError, match=name):
        loss.sum().backward()
