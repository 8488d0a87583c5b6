"""A linear head's classes split over processes: the numbers of one process, whoever has which."""

import re
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

import luce
from luce.errors import BackendError
from luce.kernels import shards
from tests.kernels import ranks as tasks
from tests.kernels.ranks import Ranks

EPS = {name: torch.finfo(getattr(torch, name)).eps for name in ("float32", "float64", "bfloat16")}


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    """Three processes; groups of one, of the first two, and of all three."""
    started = Ranks(3, tmp_path_factory.mktemp("ranks"))
    yield started
    started.close()


def problem(N, D, K, *, seed=0, bias=True, soft=False, weight=False, samples=False):
    """Return features, head and labels as float64 arrays; the second example is ignored."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, K, N)
    y[1:2] = -100
    return {
        "x": rng.normal(size=(N, D)),
        "w": rng.normal(size=(K, D)),
        "b": rng.normal(size=K) if bias else None,
        "y": rng.dirichlet(np.ones(K), N) if soft else y,
        "weight": rng.random(K) if weight else None,
        "s": rng.random(N) if samples else None,
    }


def in_one(given, options, dtype="float64"):
    """Return what one process computes of all the classes, by the reference."""
    tensors, options = (given["x"], given["w"], given["b"]), {**options, "backend": "reference"}
    return tasks.computed(tensors, given["y"], given["weight"], given["s"], dtype, options)


def assert_same(found, expected, sizes, tolerance):
    """Each rank has the loss and the features' gradients of one process, and its own of the head's.

    Errors are relative to the largest of each result.
    """
    heads = (len(expected) - 2) // 2
    for rank, mine in enumerate(found[: len(sizes)]):
        for place, (ours, truth) in enumerate(zip(mine, expected, strict=True)):
            of_class = place >= 2 and (place - 2) % heads > 0
            wanted = tasks.part_of(rank, sizes, truth) if of_class else truth
            size = np.abs(truth[np.isfinite(truth)]).max(initial=1e-300)
            np.testing.assert_allclose(ours, wanted, rtol=0, atol=tolerance * size)


OPTIONS = [
    {},
    {"label_smoothing": 0.1},
    {"temperature": 2.0, "z_loss": 0.01, "softcap": 4.0},
    {"label_smoothing": 0.2, "z_loss": 0.02, "temperature": 0.5},
]


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("sizes", [[20], [9, 11], [5, 0, 15], [0, 19, 1]], ids=str)
def test_every_option_gives_one_process_values_and_gradients(ranks, sizes, reduction, backend):
    """Loss, log-sum-exps and gradients, twice of one graph, for equal, unequal and empty shards."""
    for number, more in enumerate(OPTIONS):
        for soft in (False, True):
            about = {"soft": soft, "weight": number > 0, "samples": number != 1}
            case = problem(7, 4, 20, seed=number, bias=number != 2, **about)
            options = {**more, "reduction": reduction}
            expected = in_one(case, options)
            for budget in (200, 1 << 20):
                asked = {**options, "memory_budget": budget, "backend": backend}
                found = ranks(tasks.losses, sizes, case, "float64", asked)
                assert_same(found, expected, sizes, 1e-13)


@given(
    N=st.integers(1, 6),
    D=st.integers(1, 5),
    sizes=st.lists(st.integers(0, 9), min_size=2, max_size=3).filter(sum),
    seed=st.integers(0, 999),
    weight=st.booleans(),
    soft=st.booleans(),
    budget=st.sampled_from([50, 500, 1 << 20]),
    more=st.sampled_from(OPTIONS),
    dtype=st.sampled_from(["float32", "float64"]),
)
@settings(max_examples=40)
def test_any_small_shapes(ranks, N, D, sizes, seed, weight, soft, budget, more, dtype):
    """However few examples, features and classes there are, and wherever the classes are cut."""
    case = problem(N, D, sum(sizes), seed=seed, weight=weight, soft=soft)
    if not soft:
        case["y"][0] = seed % sum(sizes)  # a mean over no example is NaN
    found = ranks(tasks.losses, sizes, case, dtype, {**more, "memory_budget": budget})
    assert_same(found, in_one(case, more), sizes, 100 * EPS[dtype])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("budget", [20_000, 1 << 26])
def test_as_near_to_the_truth_as_pytorch(ranks, dtype, budget):
    """The error against float64 is at most PyTorch's own of all the logits, and one rounding."""
    case = problem(200, 32, 300, bias=False)
    case["y"][1] = 0
    kind = getattr(torch, dtype)
    for name in ("x", "w"):
        case[name] = torch.tensor(case[name]).to(kind).double().numpy() / 2
    leaves = [torch.tensor(case[name]).to(kind).requires_grad_() for name in ("x", "w")]
    peer = F.cross_entropy(F.linear(*leaves), torch.tensor(case["y"]))
    theirs = [peer, *torch.autograd.grad(3 * peer, leaves)]
    truth = in_one(case, {})
    truth = [truth[0], *truth[2:4]]
    options = {"memory_budget": budget, "backend": "cpu"}
    for rank, (loss, _, gx, gw, *_) in enumerate(
        ranks(tasks.losses, [100, 50, 150], case, dtype, options)
    ):
        whole = [np.array(truth[0]), truth[1], tasks.part_of(rank, [100, 50, 150], truth[2])]
        peers = [theirs[0], theirs[1], tasks.part_of(rank, [100, 50, 150], theirs[2])]
        for ours, exact, other in zip((loss, gx, gw), whole, peers, strict=True):
            allowed = np.abs(other.detach().double().numpy() - exact).max()
            assert np.abs(ours - exact).max() <= allowed + EPS[dtype] * np.abs(exact).max()


@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("more", [{}, {"label_smoothing": 0.1}], ids=["plain", "smoothed"])
def test_infinite_logits_and_nan_come_out_as_pytorchs(ranks, backend, more):
    """−Inf rules a class or a whole shard out; +Inf and NaN make NaN of their rows alone."""
    case = problem(6, 3, 9)
    case["y"] = np.array([8, 8, 7, 8, 6, 8])
    case["x"][:, 0] = 1  # what is infinite or NaN in the head's first column is so in every row
    case["b"][:3] = -np.inf  # all that the first rank has
    case["b"][4] = -np.inf
    for bad in (None, np.inf, np.nan):
        if bad is not None:
            case["x"][2, 1] = bad
            case["x"][4, 2] = -bad
        expected = in_one(case, {**more, "reduction": "none"})
        for budget in (60, 1 << 20):
            asked = {**more, "reduction": "none", "memory_budget": budget, "backend": backend}
            found = ranks(tasks.losses, [3, 2, 4], case, "float64", asked)
            for rank, mine in enumerate(found):
                np.testing.assert_allclose(mine[0], expected[0], rtol=1e-12)
                np.testing.assert_allclose(mine[2], expected[2], rtol=1e-9, atol=1e-12)
                gw = tasks.part_of(rank, [3, 2, 4], expected[3])
                np.testing.assert_allclose(mine[3], gw, rtol=1e-9, atol=1e-12)


def test_where_every_example_is_ignored_the_mean_is_nan_and_gradients_are_none(ranks):
    """As in one process: 0/0, and nothing to learn from."""
    case = problem(4, 3, 6)
    case["y"][:] = 5
    options = {"ignore_index": 5, "backend": "cpu"}
    for loss, _, gx, gw, *_ in ranks(tasks.losses, [2, 2, 2], case, "float64", options):
        assert np.isnan(loss)
        assert not gx.any()
        assert not gw.any()


@pytest.mark.parametrize("backend", ["cpu", "reference"])
def test_a_second_derivative_is_one_process(ranks, backend):
    """The gradient of the features' squared gradient, in the features and in each rank's head."""
    case, sizes = problem(5, 3, 8), [3, 4, 1]
    x, w = (torch.tensor(case[name]).requires_grad_() for name in ("x", "w"))
    loss = F.cross_entropy(F.linear(x, w), torch.tensor(case["y"]))
    (g,) = torch.autograd.grad(loss, x, create_graph=True)
    expected = [t.numpy() for t in torch.autograd.grad(g.square().sum(), (x, w))]
    for rank, (gx, gw) in enumerate(ranks(tasks.second_derivatives, sizes, case, backend)):
        np.testing.assert_allclose(gx, expected[0], rtol=1e-10)
        np.testing.assert_allclose(gw, tasks.part_of(rank, sizes, expected[1]), rtol=1e-10)


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        ("other targets", "target must be the same on every rank of process_group"),
        ("other smoothing", "label_smoothing must be the same .* on rank 2 it is another"),
        ("no such class", "target: class 6 at position .* classes are 0 to 5"),
        ("no class at all", "there must be at least one class"),
        ("a head for each position", r"must be of shape \(C, D\), got \(2, 4, 2\)"),
        ("no group", "process_group must be a torch.distributed.ProcessGroup .* got 'world'"),
    ],
)
def test_what_cannot_be_is_one_sentence_on_every_rank(ranks, what, sentence):
    """No rank is left waiting for one that has refused."""
    for name, said in ranks(tasks.refused, what):
        assert name in {"ArgumentError", "ShapeError", "TargetError"}
        assert re.search(sentence, said)


def test_the_module_takes_the_group(ranks):
    """LinearCrossEntropyLoss holds the classes of its rank."""
    case = problem(6, 4, 12, bias=False)
    expected = in_one(case, {})[0]
    np.testing.assert_allclose(ranks(tasks.of_module, case), expected, rtol=1e-12)


@pytest.mark.skipif(sys.platform != "linux", reason="peaks of memory are read from /proc")
def test_logits_are_never_held(ranks):
    """2,000 × 20,000 logits of 160 MB on each rank, in 4 MB of tiles beside the gradients."""
    for taken in ranks(tasks.memory_taken, 2_000, 16, 20_000, 4 << 20):
        assert taken < 40e6


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_forward_mode_is_refused():
    """A tangent cannot follow an exchange between processes."""
    from torch.autograd import forward_ad

    group = torch.distributed.ProcessGroup(0, 1)
    with forward_ad.dual_level():
        x = forward_ad.make_dual(torch.zeros(2, 3), torch.ones(2, 3))
        with pytest.raises(BackendError, match="process_group has no forward-mode derivative"):
            shards.group_name("linear_cross_entropy", group, (x,))


def test_target_indices_as_a_shard_sees_them():
    """−1 for the ignored, even if they name a class; the shard's size for others' classes."""
    target = torch.tensor([0, 4, 5, 6, 7, -100])
    shard = shards.Shard(start=5, all_classes=9, weight_sum=9.0)
    assert shards.owned(target, shard, 2, -100).tolist() == [2, 2, 0, 1, 2, -1]
    assert shards.owned(target, shard, 2, 6).tolist() == [2, 2, 0, -1, 2, 2]


def test_without_a_group_nothing_is_exchanged(monkeypatch):
    """The loss of one process calls nothing of torch.distributed."""
    monkeypatch.setattr(shards, "dist", None)
    x, w = torch.zeros(2, 3, requires_grad=True), torch.zeros(4, 3)
    luce.linear_cross_entropy(x, w, torch.tensor([0, 3]), backend="reference").backward()
